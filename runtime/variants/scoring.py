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
from wootz.runtime.data.dataset import Split
from wootz.runtime.evaluation import EVALUATION_BATCH
from wootz.runtime.quality.quality import ACCURACY, Quality, Tally
from wootz.runtime.session import CPU, Device, TensorSession, on_device, on_host
from wootz.runtime.variants.divergence import Divergence, divergence_for, relative
from wootz.runtime.variants.plan import Group, Part, VariantPlan

K = TypeVar("K", bound=Hashable)

OUTPUT = "output"
"""What the one output of a variant is called where its quality is measured."""
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

    `quality` is that of its outputs. `divergence` is that of the outputs: for
    scores of classes KL(full || variant) in nats, averaged over images, else the squared error over the square of the
    full network's output. `error` is how far the variant is off where the changed part ends: the mean squared
    difference of a tensor there over its variance in the full network, over all elements and images; of several, the
    mean. As bad as a constant is 1. What is not a number is infinitely far off.
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
    output has another name or shape, and for what ONNX Runtime can't run.
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

    divergence: Divergence
    quality: Tally
    differences: dict[str, float] = field(default_factory=dict)

    def add(self, full: np.ndarray, outputs: np.ndarray, labels: np.ndarray | None) -> None:
        self.divergence.add(full, outputs)
        self.quality.add({OUTPUT: outputs}, {OUTPUT: full}, labels)

    def score(self, exits: Mapping[str, _Exit]) -> Score:
        errors = [relative(difference, exits[name].variation) for name, difference in self.differences.items()]
        error = float(np.mean(errors)) if errors else 0.0
        return Score(self.quality.value, self.divergence.value, error if np.isfinite(error) else float("inf"))


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
        divergence = divergence_for(self._network.model)
        self._tallies = {key: _Tally(divergence(), quality.begin()) for key in (*plan.same, *regions)}
        self._exits = {name: _Exit() for group in plan.groups for name in group.exits if self._network.is_float(name)}

    def add(self, batch: Batch) -> None:
        """Measures the images of a batch."""
        tensors = {self._network.input: on_device(batch.data, self._device)}
        outputs: dict[K, np.ndarray] = {}
        measured: set[str] = set()
        for stage in self._plan.stages:
            tensors |= self._run(stage.part, tensors)
            for group in stage.groups:
                self._measure_exits(set(group.exits) - measured, tensors)
                measured.update(group.exits)
                for key in group.regions:
                    outputs[key] = on_host(self._output(group, key, tensors))
            if stage is not self._plan.stages[-1]:
                tensors = _those_of(tensors, stage.part.kept)
        full = on_host(tensors[self._network.output])
        for key, tally in self._tallies.items():
            tally.add(full, outputs.get(key, full), batch.labels)

    def scores(self) -> dict[K, Score]:
        return {key: tally.score(self._exits) for key, tally in self._tallies.items()}

    def _run(self, part: Part, tensors: Mapping[str, Any]) -> dict[str, Any]:
        return self._programs[_program(part)].run(tensors)

    def _output(self, group: Group[K], key: K, tensors: Mapping[str, Any]) -> Any:
        """The output of a variant, whose exits are compared with the full network's on the way."""
        changed = self._branches[key].run(tensors)
        differences = self._tallies[key].differences
        for name in group.exits:
            if name in self._exits:
                found = self._squared_difference.run({"x": tensors[name], "y": changed[name]})
                differences[name] = differences.get(name, 0.0) + _sum(found["square"])
        tensors = {**tensors, **changed}
        del changed
        for part in group.suffix:
            tensors = _those_of(tensors | self._run(part, tensors), {*part.kept, self._network.output})
        return tensors[self._network.output]

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
