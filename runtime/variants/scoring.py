"""Scores of many variants of a network, in one pass over the data."""

from __future__ import annotations

import math
from collections.abc import Collection, Hashable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

import numpy as np

from wootz.passes.ir.model import Model
from wootz.passes.ir.text import parse_text
from wootz.passes.plan.transform import InputTransform
from wootz.runtime.batches import Batch, ordered_batches
from wootz.runtime.data.dataset import Split, Targets
from wootz.runtime.evaluation import EVALUATION_BATCH
from wootz.runtime.inputs import feeds
from wootz.runtime.quality.quality import ACCURACY, Outputs, Quality, Tally
from wootz.runtime.session import CPU, Device, TensorSession, on_device, on_host
from wootz.runtime.variants.divergence import Divergence, divergences_for, relative
from wootz.runtime.variants.plan import Group, Part, VariantPlan

K = TypeVar("K", bound=Hashable)

SUMS = parse_text("""<ir_version: 8, opset_import: ["" : 18]>
    sums (float[] x) => (float[n] sum, float[n] square) <int64[1] axis = {1}> {
        image = Flatten <axis = 1> (x)
        sum = ReduceSum <keepdims = 0> (image, axis)
        square = ReduceSumSquare <keepdims = 0> (image, axis)
    }""")
SQUARED_DIFFERENCE = parse_text("""<ir_version: 8, opset_import: ["" : 18]>
    squared_difference (float[] x, float[] y) => (float[n] square) <int64[1] axis = {1}> {
        difference = Sub(x, y)
        image = Flatten <axis = 1> (difference)
        square = ReduceSumSquare <keepdims = 0> (image, axis)
    }""")


@dataclass(frozen=True)
class Score:
    """What a variant is worth beside the full network.

    `quality` is that of its outputs. `divergence` is that of the outputs: for scores of classes KL(full || variant) in
    nats, averaged over images, else the squared error over the square of the full network's output; of several outputs
    the mean. `error` is how far the variant is off where the changed part ends: the mean squared difference of a tensor
    there over its variance in the full network, over all elements and images; of several, the mean. As bad as a
    constant is 1. What is not a number is infinitely far off.
    """

    quality: float
    divergence: float
    error: float


def score_variants(
    full: Model,
    variants: Mapping[K, Model],
    split: Split,
    transform: InputTransform,
    device: Device = CPU,
    quality: Quality = ACCURACY,
) -> dict[K, Score]:
    """The score of each variant on all images of `split`, as if each was run whole.

    A variant is a network with the names of `full` that computes something else in between. Raises WootzError where its
    outputs have other names or shapes, and for what ONNX Runtime can't run.
    """
    return score_by_plan(VariantPlan.of(full, variants), split, transform, device, quality)


def score_by_plan(
    plan: VariantPlan[K], split: Split, transform: InputTransform, device: Device = CPU, quality: Quality = ACCURACY
) -> dict[K, Score]:
    """The same for a plan, which says before what it takes (`plan.passes`)."""
    scoring = Scoring(plan, device, quality)
    for batch in ordered_batches(split, transform, EVALUATION_BATCH):
        scoring.add(batch)
    return scoring.scores()


@dataclass
class _Exit:
    """What is summed up of a tensor of the full network: its values, their squares, and how many they are."""

    total: float = 0.0
    square: float = 0.0
    count: int = 0

    @property
    def variation(self) -> float:
        """The sum of the squared differences from the mean."""
        return self.square - self.total**2 / self.count


@dataclass
class _Tally:
    """What is summed up of a variant; of its exits, the squared differences from the full network's."""

    divergences: Mapping[str, Divergence]
    quality: Tally
    differences: dict[str, float] = field(default_factory=dict)

    def add(self, full: Outputs, outputs: Outputs, labels: Targets | None) -> None:
        for name, divergence in self.divergences.items():
            divergence.add(full[name], outputs[name])
        self.quality.add(outputs, full, labels)

    def score(self, exits: Mapping[str, _Exit]) -> Score:
        errors = [relative(difference, exits[name].variation) for name, difference in self.differences.items()]
        error = float(np.mean(errors)) if errors else 0.0
        divergence = float(np.mean([divergence.value for divergence in self.divergences.values()]))
        return Score(self.quality.value, divergence, error if np.isfinite(error) else float("inf"))


class Scoring(Generic[K]):
    """The sessions of a plan, and what they have measured so far."""

    def __init__(self, plan: VariantPlan[K], device: Device, quality: Quality = ACCURACY):
        self._plan, self._network, self._device = plan, plan.network, device
        suffixes = (part for group in plan.groups for part in group.suffix)
        self._programs: dict[_Program, TensorSession] = {}
        for part in (*(stage.part for stage in plan.stages), *suffixes):
            if _program(part) not in self._programs:
                piece = self._network.piece(part.nodes, part.outputs)
                self._programs[_program(part)] = TensorSession(piece, device)
        regions = {key: region for group in plan.groups for key, region in group.regions.items()}
        self._branches = {key: TensorSession(region.branch, device) for key, region in regions.items()}
        self._sums, self._squared_difference = (TensorSession(model, device) for model in (SUMS, SQUARED_DIFFERENCE))
        divergences = divergences_for(self._network.model)
        self._tallies = {
            key: _Tally({name: begin() for name, begin in divergences.items()}, quality.begin())
            for key in (*plan.same, *regions)
        }
        self._exits = {name: _Exit() for group in plan.groups for name in group.exits if self._network.is_float(name)}

    def add(self, batch: Batch) -> None:
        """Measures the images of a batch."""
        given = feeds(batch.data, self._network.input)
        tensors = {name: on_device(values, self._device) for name, values in given.items()}
        outputs: dict[K, Outputs] = {}
        measured: set[str] = set()
        for stage in self._plan.stages:
            tensors |= self._run(stage.part, tensors)
            for group in stage.groups:
                self._measure_exits(set(group.exits) - measured, tensors)
                measured.update(group.exits)
                for key in group.regions:
                    outputs[key] = self._outputs(group, key, tensors)
            if stage is not self._plan.stages[-1]:
                tensors = _those_of(tensors, stage.part.kept)
        full = {name: on_host(tensors[name]) for name in self._network.outputs}
        for key, tally in self._tallies.items():
            tally.add(full, {**full, **outputs.get(key, {})}, batch.labels)

    def scores(self) -> dict[K, Score]:
        return {key: tally.score(self._exits) for key, tally in self._tallies.items()}

    def _run(self, part: Part, tensors: Mapping[str, Any]) -> dict[str, Any]:
        return self._programs[_program(part)].run(tensors)

    def _outputs(self, group: Group[K], key: K, tensors: Mapping[str, Any]) -> dict[str, np.ndarray]:
        """The outputs that a variant changes; its exits are compared with the full network's on the way."""
        changed = self._branches[key].run(tensors)
        differences = self._tallies[key].differences
        for name in group.exits:
            if name in self._exits:
                found = self._squared_difference.run({"x": tensors[name], "y": changed[name]})
                differences[name] = differences.get(name, 0.0) + _sum(found["square"])
        found_outputs = self._outputs_among(changed)
        tensors = {**tensors, **changed}
        del changed
        for part in group.suffix:
            made = self._run(part, tensors)
            found_outputs |= self._outputs_among(made)
            tensors = _those_of(tensors | made, part.kept)
        return {name: on_host(tensor) for name, tensor in found_outputs.items()}

    def _outputs_among(self, tensors: Mapping[str, Any]) -> dict[str, Any]:
        return _those_of(tensors, self._network.outputs)

    def _measure_exits(self, names: Iterable[str], tensors: Mapping[str, Any]) -> None:
        for name in names:
            if (exit_ := self._exits.get(name)) is not None:
                found = self._sums.run({"x": tensors[name]})
                exit_.total += _sum(found["sum"])
                exit_.square += _sum(found["square"])
                exit_.count += math.prod(tensors[name].shape())


_Program = tuple[frozenset[str], tuple[str, ...]]


def _program(part: Part) -> _Program:
    """What has one session, wherever it is run."""
    return part.nodes, part.outputs


def _those_of(tensors: Mapping[str, Any], names: Collection[str]) -> dict[str, Any]:
    return {name: tensor for name, tensor in tensors.items() if name in names}


def _sum(tensor: Any) -> float:
    return float(np.sum(on_host(tensor), dtype=np.float64))
