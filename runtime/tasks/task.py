"""Tasks: what a run computes, in the words of the run.

A task is a small frozen value that can be sent to another machine and compared. It says nothing of files, processes or
weights: these come with an `Order`, as keys of the store.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from wootz.passes.plan.blocks import TuningBlock
from wootz.passes.plan.solver import Solver
from wootz.passes.plan.subspace import Configuration
from wootz.runtime.outcome import Failed, Outcome

Start = Literal["block-trained", "default"]
"""What a pruned network starts from: tuning blocks, or the teacher's remaining weights alone (the baseline)."""


@dataclass(frozen=True)
class TrainTeacher:
    """Train the full network."""

    def __str__(self) -> str:
        return "the full network"


@dataclass(frozen=True)
class FineTuneFull:
    """Fine-tune the full network as the pruned ones are, for a fair comparison."""

    def __str__(self) -> str:
        return "the full network, fine-tuned too"


@dataclass(frozen=True)
class PretrainBlocks:
    """Pre-train blocks in one graph."""

    blocks: tuple[TuningBlock, ...]

    def __str__(self) -> str:
        if len(self.blocks) == 1:
            return f"block {self.blocks[0]}"
        return f"{len(self.blocks)} blocks, {self.blocks[0]} to {self.blocks[-1]}"


@dataclass(frozen=True)
class ScoreNetworks:
    """Measure networks that differ from the full one in a block each; they are positions as in `FineTune`."""

    networks: tuple[int, ...]

    def __str__(self) -> str:
        return f"scores of {_count(self.networks)}"


@dataclass(frozen=True)
class LookAt:
    """Measure networks as they are assembled, without training; they are positions as in `FineTune`."""

    networks: tuple[int, ...]

    def __str__(self) -> str:
        return f"a look at {_count(self.networks)}"


def _count(networks: tuple[int, ...]) -> str:
    return f"{len(networks)} network{'s'[: len(networks) != 1]}"


@dataclass(frozen=True)
class FineTune:
    """Fine-tune a network; `network` is its position in the subspace, or in the order in which a search met it."""

    network: int
    start: Start = "block-trained"

    def __str__(self) -> str:
        return f"{self.start} network {self.network + 1}"


Task = TrainTeacher | FineTuneFull | PretrainBlocks | ScoreNetworks | LookAt | FineTune


@dataclass(frozen=True)
class Order:
    """A task with what it needs of the tasks before it.

    `teacher` is the key of the full network's training, empty where its weights are given. `configurations` are those
    of the task's networks, and `blocks` the keys of the blocks that these are assembled from. `of_full` is the quality
    that bounds relative to the full network refer to; None before that is known.
    """

    task: Task
    teacher: str = ""
    configurations: tuple[Configuration, ...] = ()
    blocks: tuple[tuple[TuningBlock, str], ...] = ()
    of_full: float | None = None

    def __str__(self) -> str:
        return str(self.task)


@dataclass(frozen=True)
class Finished:
    """How a training ended: what was recorded of it, or why it failed. Its weights lie in the store under `key`.

    `reused` says that it was not computed for this run, `computed` that it was just now: a run that is continued finds
    what it has computed before.
    """

    key: str
    outcome: Mapping[str, Any] | Failed
    reused: bool = False
    computed: bool = field(default=True, compare=False)

    @property
    def seconds(self) -> float:
        """What the training took, whenever it was."""
        return 0.0 if isinstance(self.outcome, Failed) else float(self.outcome.get("seconds", 0.0))


def finished_of(key: str, outcome: Outcome, reused: bool) -> Finished:
    return Finished(key, outcome if isinstance(outcome, Failed) else outcome.record, reused)


def steps_saved(solver: Solver, record: Mapping[str, Any]) -> int:
    """By the early end of a network's training."""
    return max(0, solver.max_iter - int(record["steps"]))


def curve_of(record: Mapping[str, Any]) -> tuple[tuple[int, float], ...]:
    """The (steps done, quality) pairs of a network's record."""
    return tuple((int(step), float(quality)) for step, quality in record["curve"])


def reached(record: Mapping[str, Any]) -> float:
    """The quality of the weights that a network's training left: those of its best test."""
    return dict(curve_of(record))[record["kept"]]


Results = tuple[Finished, ...]
"""Of a task: one, or one for each of its blocks or networks, in their order."""


def results_of(task: Task) -> int:
    """How many results a task has."""
    match task:
        case PretrainBlocks(blocks):
            return len(blocks)
        case ScoreNetworks(networks) | LookAt(networks):
            return len(networks)
        case _:
            return 1
