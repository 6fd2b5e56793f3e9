"""`transform_param` of data layers -> what the data pipeline does to an image."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from wootz.frontend.caffe.caffemodel import read_mean
from wootz.frontend.caffe.network import Layer, NetState, Phase
from wootz.frontend.caffe.schema import Unsigned, decode, field_types
from wootz.passes.plan.transform import InputTransform


@dataclass(frozen=True)
class TransformationParameter:
    """TransformationParameter of caffe.proto. The augmentations that forks add are noted, and not applied."""

    scale: float = 1.0
    mirror: bool = False
    crop_size: Unsigned = 0
    mean_file: str = ""
    mean_value: tuple[float, ...] = ()
    force_color: bool = False
    force_gray: bool = False


def read_transform(layers: Iterable[Layer], state: NetState, notes: list[str]) -> InputTransform:
    """The transform of the first data layer of `state` that has one; no transform without one.

    Adds to `notes` what the file asks for and the data pipeline does not do.
    """
    for layer in layers:
        if layer.bottoms or not layer.is_in(state):
            continue
        for message in layer.message.messages("transform_param"):
            known = field_types(TransformationParameter)
            notes += [
                f"{layer.place}: layer {layer.name!r} ({layer.type}): transform_param.{f.name} is not applied"
                for f in message.fields
                if f.name not in known
            ]
            understood = replace(message, fields=tuple(f for f in message.fields if f.name in known))
            parameter = decode(understood, TransformationParameter, f"layer {layer.name!r}: transform_param")
            return _transform(layer, parameter, state.phase, notes)
    return InputTransform()


def says_pixels(transform: InputTransform) -> bool:
    """Whether a file has a mean or a scale: deploy networks have neither, and were trained with one."""
    return transform.mean != (0.0,) or transform.scale != (1.0,)


def _transform(layer: Layer, p: TransformationParameter, phase: Phase, notes: list[str]) -> InputTransform:
    if p.mean_file and p.mean_value:
        raise layer.error("mean_file and mean_value exclude each other", "transform_param")
    mean = p.mean_value
    if p.mean_file:
        mean = _mean_of_channels(layer, p.mean_file, notes)
    return InputTransform(
        mean=mean or (0.0,),
        scale=(p.scale,),
        crop_size=int(p.crop_size),
        mirror=p.mirror and phase is Phase.TRAIN,
    )


def _mean_of_channels(layer: Layer, name: str, notes: list[str]) -> tuple[float, ...]:
    """The mean of each channel of a mean image, which is looked for beside the network, then as it is written."""
    where = f"{layer.place}: layer {layer.name!r} ({layer.type})"
    for file in (Path(layer.message.source.file).parent / name, Path(name)):
        if file.is_file():
            notes.append(f"{where}: the mean image {name!r} became one mean a channel")
            return tuple(float(m) for m in read_mean(file).mean(axis=(1, 2)))
    notes.append(f"{where}: the mean image {name!r} is not there: no mean is subtracted")
    return ()
