"""`transform_param` of data layers -> what the data pipeline does to an image."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from wootz.frontend.caffe.caffemodel import read_mean
from wootz.frontend.caffe.network import Layer, NetState, Phase
from wootz.frontend.caffe.schema import NoEffect, Unsigned, decode, field_types
from wootz.passes.plan.transform import InputTransform


@dataclass(frozen=True)
class TransformationParameter:
    """TransformationParameter of caffe.proto; the fields that have no effect are of the SSD and YOLO forks."""

    scale: float = 1.0
    mirror: bool = False
    crop_size: Unsigned = 0
    mean_file: str = ""
    mean_value: tuple[float, ...] = ()
    force_color: bool = False
    force_gray: bool = False
    resize_param: NoEffect | None = None
    noise_param: NoEffect | None = None
    distort_param: NoEffect | None = None
    expand_param: NoEffect | None = None
    emit_constraint: NoEffect | None = None
    random_resize_param: NoEffect | None = None
    random_aspect_ratio_param: NoEffect | None = None


NOT_APPLIED = tuple(name for name, kind in field_types(TransformationParameter).items() if "NoEffect" in str(kind))
"""Fields of forks: augmentations that the data pipeline does not have."""


def read_transform(layers: Iterable[Layer], state: NetState, notes: list[str]) -> InputTransform:
    """The transform of the first data layer of `state` that has one; no transform without one.

    Adds to `notes` what the file asks for and the data pipeline does not do.
    """
    for layer in layers:
        if layer.bottoms or not layer.is_in(state):
            continue
        for message in layer.message.messages("transform_param"):
            parameter = decode(message, TransformationParameter, f"layer {layer.name!r}: transform_param")
            notes += [
                f"{layer.place}: layer {layer.name!r} ({layer.type}): transform_param.{f.name} is not applied"
                for f in message.fields
                if f.name in NOT_APPLIED
            ]
            return _transform(layer, parameter, state.phase, notes)
    return InputTransform()


def _transform(layer: Layer, p: TransformationParameter, phase: Phase, notes: list[str]) -> InputTransform:
    if p.mean_file and p.mean_value:
        raise layer.error("mean_file and mean_value exclude each other", "transform_param")
    mean = p.mean_value
    if p.mean_file:
        beside = Path(layer.message.source.file).parent / p.mean_file
        image = read_mean(beside if beside.is_file() else Path(p.mean_file))
        mean = tuple(float(m) for m in image.mean(axis=(1, 2)))
        notes.append(f"{layer.place}: layer {layer.name!r} ({layer.type}): the mean image became one mean a channel")
    return InputTransform(
        mean=mean or (0.0,),
        scale=(p.scale,),
        crop_size=int(p.crop_size),
        mirror=p.mirror and phase is Phase.TRAIN,
    )
