"""What a program needs to know to run a training graph: which tensor is what.

A training graph is a pure function. Each slot is a pair of a graph input and the graph output that is its value
after the step; the input carries its initial value as an initializer of the same name (in binary models it lies in a
file beside it). The table travels in the model's metadata under `wootz.training`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Literal

import numpy as np

from wootz.passes.errors import WootzError
from wootz.passes.ir.model import TRAINING_KEY, Model
from wootz.passes.metadata import read_metadata

BATCHES_KEY = "wootz.batches"
"""Metadata: EmbeddedBatches as JSON, in a training graph that makes its batches itself."""

TARGET_OF = "target/"
"""The inputs for targets of several outputs begin with it, and end with the output's name."""


def target_input(output: str) -> str:
    """What the input is called that has the targets of an output."""
    return TARGET_OF + output


@dataclass(frozen=True)
class Slot:
    """One piece of state: parameters and running statistics keep the names they have in the inference graph.

    `loss` names the loss that trains it: in a joint graph each student has its own. It is empty for the counter of
    runs, `optimizer.iteration`, which all share. Where the solver's iter_size is n, the graph itself makes a step in
    every nth run and sums gradients in the others. Slots of kind `schedule` are those of EmbeddedBatches.
    """

    input: str
    output: str
    kind: Literal["parameter", "statistic", "optimizer", "schedule"]
    loss: str


@dataclass(frozen=True)
class TrainingInterface:
    """Names of graph inputs (`data`, `labels`, `learning_rate`, `targets`, `more_data`, `teacher`) and outputs
    (`losses`), and the state between steps.

    `more_data` are the other inputs of a network that has several, in its order, of any element type.
    `labels` is None where targets are computed in the graph; it takes classes, int64 [N] or [N, …], or what another
    loss than the cross-entropy compares with, float32 in the shape of the network's output. `targets` are further such
    inputs, where there are several losses. `teacher` are those for what the full network gives for the data, [N, …],
    where it isn't in the graph itself (`distill{given=true}`). `learning_rate` is a float32 scalar. Each loss is a
    float32 scalar, the mean over the batch, before the step.
    """

    data: str
    labels: str | None
    learning_rate: str
    losses: tuple[str, ...]
    slots: tuple[Slot, ...]
    targets: tuple[str, ...] = ()
    more_data: tuple[str, ...] = ()
    teacher: tuple[str, ...] = ()

    def to_json(self) -> str:
        """Without `teacher` where it is empty, as graphs had it before there was one: their digests stay."""
        return json.dumps({name: value for name, value in asdict(self).items() if name != "teacher" or value})

    @property
    def target_inputs(self) -> tuple[str, ...]:
        return () if self.labels is None else (self.labels, *self.targets)

    def targets_by_input(
        self, targets: np.ndarray | Mapping[str, np.ndarray] | None
    ) -> Iterator[tuple[str, np.ndarray]]:
        """What each input for labels or targets gets of an array, or of arrays by the names of outputs."""
        for name in self.target_inputs:
            output = name.partition(TARGET_OF)[2]
            yield name, np.asarray(targets[output] if isinstance(targets, Mapping) else targets)

    @staticmethod
    def of(model: Model) -> TrainingInterface:
        """The interface stored in `model`. Raises WootzError when it is not a training graph."""
        if TRAINING_KEY not in model.metadata:
            raise WootzError("not a training graph: apply-optimizer has not been run on this model")
        interface: TrainingInterface = read_metadata(model.metadata, TRAINING_KEY, TrainingInterface)
        given, computed = ({t.name for t in tensors} for tensors in (model.graph.inputs, model.graph.outputs))
        inputs = [interface.data, *interface.more_data, *interface.teacher, interface.labels, interface.learning_rate]
        inputs += [s.input for s in interface.slots]
        outputs = [*interface.losses, *(s.output for s in interface.slots)]
        missing = [n for n in inputs if n is not None and n not in given] + [n for n in outputs if n not in computed]
        if missing:
            raise WootzError(f"the metadata entry {TRAINING_KEY!r} names {missing[0]!r}, which the graph doesn't have")
        return interface


@dataclass(frozen=True)
class EmbeddedBatches:
    """Further names in a training graph that `embed-batches` has made: it has all images of a split as its input.

    In its TrainingInterface `data`, `labels` and `learning_rate` name inputs that hold the images and labels of a split
    and the learning rates of `window` runs. `order`, and where they are used `tops`, `lefts`, `heights`, `widths` and
    `flips`, are inputs, int64 [window, batch]: the schedule of these runs. `position`, int64, is the slot with the
    number of the next run, and `recorded` are the slots with the losses of all runs so far, float32 [window] each, in
    the order of `losses`.
    """

    order: str
    tops: str | None
    lefts: str | None
    flips: str | None
    position: str
    recorded: tuple[str, ...]
    window: int
    heights: str | None = None
    widths: str | None = None

    def to_json(self) -> str:
        return json.dumps(asdict(self))

    @staticmethod
    def of(model: Model) -> EmbeddedBatches:
        """Those stored in `model`. Raises WootzError when the batches are not made in the graph."""
        if BATCHES_KEY not in model.metadata:
            raise WootzError("the graph takes its batches from outside: embed-batches has not been run on this model")
        batches: EmbeddedBatches = read_metadata(model.metadata, BATCHES_KEY, EmbeddedBatches)
        return batches
