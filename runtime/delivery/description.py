"""`best.json`: what a program needs that runs `best.onnx`, and how the network came about.

The types are the file, as those of `runtime.result` are; docs/result.md says what each field is.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any, Literal, cast

import msgspec
import numpy as np
from msgspec import Struct

from wootz.passes.analysis.class_scores import ScoreKind
from wootz.passes.errors import reading
from wootz.passes.ir.files import write_atomically
from wootz.passes.ir.model import Model, Tensor
from wootz.passes.plan.subspace import Rate
from wootz.passes.plan.transform import TRANSFORM_KEY, InputTransform
from wootz.runtime.delivery.delivered import SCORES_KEY, Written, classes_of, pixels_of
from wootz.runtime.inputs import inputs_of_network
from wootz.runtime.job import Job
from wootz.runtime.result import (
    BestNetwork,
    FinishedNetwork,
    FullNetworkResult,
    GivenInput,
    ImageInput,
    LatencyResult,
    Speed,
    Value,
)

SCHEMA = 2


class Output(Value, frozen=True, kw_only=True):
    """An output. That of a classifier has one number a class; what others mean the network alone knows."""

    gives: ScoreKind | Literal["numbers"]


class NetworkFacts(Struct, frozen=True, kw_only=True):
    """A network as a file: `validation_quality` is that of the file itself, in ONNX Runtime."""

    file: str
    bytes: int
    opset: int
    parameters: int
    flops: int
    validation_quality: float
    test_quality: float | None
    latency_ms: float


class BestFacts(NetworkFacts, frozen=True, kw_only=True):
    """`meets_objective`, with the latency of the file; `whole` is the file with postprocessing, if there is one."""

    meets_objective: bool
    whole: str | None = None


class Origin(Struct, frozen=True, kw_only=True):
    """How the network came about. `rates` are the shares of filters removed, by module; 1: left out. `learned_from`
    says what it has learned from beside its tuning blocks."""

    wootz: str
    network: str
    data: str
    objective: str
    seed: int
    rates: Mapping[str, Rate]
    new_layers: tuple[str, ...]
    keeps_batchnorm: bool
    learned_from: str = ""


class FinishedFacts(Struct, frozen=True, kw_only=True):
    """A further file of the best network, made by the passes of `pipeline`; its output is that of `best.onnx`."""

    file: str
    pipeline: str
    bytes: int
    opset: int
    input: ImageInput | None
    inputs: tuple[GivenInput, ...] = ()
    validation_quality: float
    test_quality: float | None
    latency_ms: float
    meets_objective: bool


class Description(Struct, frozen=True, kw_only=True):
    """The file. `input` is that of images or, of several inputs, the first that takes pixels; `inputs` are all.

    `full` is the network before it was pruned, as `teacher.onnx` has it; all that is called quality is of the metric
    `quality`."""

    schema: int
    quality: str
    classes: tuple[str, ...]
    input: ImageInput | None
    inputs: tuple[GivenInput, ...] = ()
    outputs: tuple[Output, ...]
    best: BestFacts
    full: NetworkFacts
    finished: tuple[FinishedFacts, ...] = ()
    origin: Origin


@dataclass(frozen=True)
class Delivered:
    """The two networks that a run writes, and what it knows of them; the best one `meets` the objective or doesn't."""

    best: BestNetwork
    best_file: Written
    full: FullNetworkResult
    full_file: Written
    speed: Speed
    meets: bool


def describe(job: Job, delivered: Delivered) -> Description:
    model = delivered.best_file.model
    described = model.metadata
    return Description(
        schema=SCHEMA,
        quality=job.quality.metric.name,
        classes=classes_of(described),
        input=image_input(job, model),
        inputs=given_inputs(job, model),
        outputs=tuple(Output(**_value(output), gives=_gives(described)) for output in model.graph.outputs),
        best=BestFacts(
            **_facts(delivered.best, delivered.best_file, delivered.speed.best),
            meets_objective=delivered.meets,
            whole=delivered.best.whole,
        ),
        full=NetworkFacts(**_facts(delivered.full, delivered.full_file, delivered.speed.full)),
        origin=Origin(
            wootz=metadata.version("wootz"),
            network=job.title,
            data=job.data_title,
            objective=str(job.objective),
            seed=job.seed,
            rates=dict(zip(job.subspace.modules, delivered.best.configuration, strict=True)),
            new_layers=delivered.full.new_layers,
            keeps_batchnorm=job.keeps_batchnorm,
            learned_from=job.lesson.text,
        ),
    )


def _gives(described: Mapping[str, str]) -> ScoreKind | Literal["numbers"]:
    return cast(ScoreKind, described[SCORES_KEY]) if SCORES_KEY in described else "numbers"


def image_input(job: Job, model: Model) -> ImageInput | None:
    """The images that a network in its delivered form takes; None where no input is given pixels."""
    pixels = pixels_of(job)
    if not pixels:
        return None
    source = next(t for t in model.graph.inputs if t.name == pixels[0])
    transform = InputTransform.from_json(model.metadata[TRANSFORM_KEY])
    channels, height, width = next(each.shape for each in inputs_of_network(job.network) if each.name == pixels[0])
    return ImageInput(
        **_value(source),
        layout=job.interface.layout,
        height=height,
        width=width,
        channel_order="grey" if channels == 1 else transform.channel_order,
        mean=transform.mean,
        scale=transform.scale,
        resize=transform.resize,
        resize_to=transform.resize_to,
        crop_size=transform.crop_size,
        units=transform.units,
    )


def given_inputs(job: Job, model: Model) -> tuple[GivenInput, ...]:
    """All that a network in its delivered form takes."""
    pixels = pixels_of(job)
    return tuple(GivenInput(**_value(t), takes="pixels" if t.name in pixels else "values") for t in model.graph.inputs)


def finished_facts(job: Job, network: FinishedNetwork, model: Model) -> FinishedFacts:
    return FinishedFacts(
        file=network.model,
        pipeline=network.pipeline,
        bytes=network.bytes,
        opset=network.opset,
        input=image_input(job, model),
        inputs=given_inputs(job, model),
        validation_quality=network.quality,
        test_quality=network.test_quality,
        latency_ms=network.latency.median_ms,
        meets_objective=not network.misses,
    )


def with_finished(
    description: Description, speed: Speed, meets: bool, finished: tuple[FinishedFacts, ...]
) -> Description:
    """The description with the further files, the times of the two networks that were measured beside them, and whether
    the best one `meets` the objective by its."""
    best = msgspec.structs.replace(description.best, latency_ms=speed.best.median_ms, meets_objective=meets)
    full = msgspec.structs.replace(description.full, latency_ms=speed.full.median_ms)
    return msgspec.structs.replace(description, best=best, full=full, finished=finished)


def read_description(file: Path) -> Description:
    """Raises InputError for a file that is none."""
    with reading(file, "a best.json"):
        return msgspec.json.decode(file.read_bytes(), type=Description)


def write_description(description: Description, file: Path) -> None:
    write_atomically(file, msgspec.json.format(msgspec.json.encode(description), indent=1) + b"\n")


def _value(tensor: Tensor) -> dict[str, Any]:
    return {"name": tensor.name, "type": np.dtype(tensor.dtype).name, "shape": tuple(tensor.shape)}


def _facts(network: BestNetwork | FullNetworkResult, written: Written, latency: LatencyResult) -> dict[str, Any]:
    return {
        "file": written.file.name,
        "bytes": written.bytes,
        "opset": written.opset,
        "parameters": network.model_size,
        "flops": network.flops,
        "validation_quality": written.quality,
        "test_quality": network.test_quality,
        "latency_ms": latency.median_ms,
    }
