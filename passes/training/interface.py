"""What a program needs to know to run a training graph: which tensor is what.

A training graph is a pure function. Each slot is a pair of a graph input and the graph output that is its value
after the step; the input carries its initial value as an initializer of the same name. The table travels in the
model's metadata under `wootz.training`.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Literal

from wootz.passes.errors import WootzError
from wootz.passes.ir.model import TRAINING_KEY, Model


@dataclass(frozen=True)
class Slot:
    """One piece of state: parameters and running statistics keep the names they have in the inference graph.

    `loss` names the loss that trains it: in a joint graph each student has its own. It is empty for the counter of
    runs, `optimizer.iteration`, which all share. Where the solver's iter_size is n, the graph itself makes a step in
    every nth run and sums gradients in the others.
    """

    input: str
    output: str
    kind: Literal["parameter", "statistic", "optimizer"]
    loss: str


@dataclass(frozen=True)
class TrainingInterface:
    """Names of graph inputs (`data`, `labels`, `learning_rate`) and outputs (`losses`), and the state between steps.

    `labels` is None where targets are computed in the graph. `learning_rate` is a float32 scalar. Each loss is a
    float32 scalar, the mean over the batch, before the step.
    """

    data: str
    labels: str | None
    learning_rate: str
    losses: tuple[str, ...]
    slots: tuple[Slot, ...]

    def to_json(self) -> str:
        return json.dumps(asdict(self))

    @staticmethod
    def of(model: Model) -> TrainingInterface:
        """The interface stored in `model`. Raises WootzError when it is not a training graph."""
        if TRAINING_KEY not in model.metadata:
            raise WootzError("not a training graph: apply-optimizer has not been run on this model")
        table = json.loads(model.metadata[TRAINING_KEY])
        slots = tuple(Slot(**row) for row in table.pop("slots"))
        return TrainingInterface(losses=tuple(table.pop("losses")), slots=slots, **table)
