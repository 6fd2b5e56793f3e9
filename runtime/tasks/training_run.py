"""A training under way: its session, its checkpoints, and the best weights so far."""

from __future__ import annotations

import io
import re
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from wootz.passes.ir.files import write_atomically
from wootz.passes.ir.model import Model
from wootz.passes.plan.solver import Solver
from wootz.runtime.executors.control import Stopped
from wootz.runtime.outcome import Failed
from wootz.runtime.progress import Progress
from wootz.runtime.quality.quality import Quality
from wootz.runtime.session import DRAWS_RANDOM_NUMBERS, TrainingSession
from wootz.runtime.store import Checkpoint, Store
from wootz.runtime.teacher_outputs import TeacherOutputs
from wootz.runtime.training import Curve, History, Steps, train

SECONDS_BETWEEN_CHECKPOINTS = 60.0
LEAST_SHARE_OF_TRAINING = 50
"""The time between two checkpoints, in times that it takes to write one."""
LOSSES = "wootz.losses"
_AT_FIRST = " at first"
"""What the names of slots end with in a checkpoint that says what they began with."""
_AS_KEPT = " as kept"
"""What the names of weights end with in a checkpoint that has the best ones so far."""


class Surroundings(Protocol):
    """What a training needs beside its graph and solver: those of a `Trainer`."""

    @property
    def store(self) -> Store: ...

    @property
    def progress(self) -> Progress: ...

    @property
    def quality(self) -> Quality: ...

    @property
    def should_stop(self) -> Callable[[], bool]: ...

    def open(
        self, graph: Model, solver: Solver, first_step: int = 0, teacher: TeacherOutputs | None = None
    ) -> tuple[TrainingSession, Steps]: ...


@dataclass(frozen=True)
class Kept:
    """The weights after so many steps, by name, which have that quality."""

    step: int
    quality: float
    weights: Mapping[str, np.ndarray]


class TrainingRun:
    """A training under way, with its checkpoints under `key`: all of its state is in the slots and in the history."""

    def __init__(
        self,
        trainer: Surroundings,
        graph: Model,
        solver: Solver,
        title: str,
        key: str,
        snapshots: Path | None = None,
        blocks: Sequence[str] = (),
        start: Callable[[], Mapping[str, np.ndarray]] = dict,
        state: Checkpoint | None = None,
        teacher: TeacherOutputs | None = None,
    ):
        """`blocks` are the keys of those that are trained together: a checkpoint of others is of no use. `start` gives
        other first values of slots than those in the graph; `state` is what to go on from instead of a checkpoint, and
        `teacher` what the full network gives, where the graph is given that."""
        self.trainer, self.solver, self.title, self.key, self.snapshots = trainer, solver, title, key, snapshots
        self._blocks = list(blocks)
        self.can_continue = not any(node.op in DRAWS_RANDOM_NUMBERS for node in graph.graph.nodes)
        stored = state or (trainer.store.get_checkpoint(key) if self.can_continue else None)
        if stored is not None and stored.record["blocks"] != self._blocks:
            stored = None
        self.begun = None if stored is None else _history(stored)
        self.first = start() if stored is None else _first(stored)
        self.kept = None if stored is None else _kept(stored)
        values = self.first if stored is None else stored.arrays
        self.session, self.steps = trainer.open(graph, solver, self.begun.steps if self.begun else 0, teacher)
        for slot in values.keys() & set(self._slots()):
            self.session.write_slot(slot, values[slot])
        self._last_checkpoint = time.monotonic()
        self._pause = SECONDS_BETWEEN_CHECKPOINTS

    def train(
        self,
        measure: Callable[[], float] | None = None,
        ends: Callable[[Curve], str] | None = None,
        begun: History | None = None,
        on_look: Callable[[History], bool] = lambda _: False,
        look_interval: int = 0,
    ) -> History:
        """Raises Stopped when it is to stop, after a checkpoint. The training is left where `on_look` says so."""
        recent: deque[float] = deque(maxlen=max(1, self.solver.average_loss))
        progress = self.trainer.progress

        def on_step(done: int, losses: np.ndarray) -> None:
            recent.append(float(np.nanmean(losses)))
            progress.advance(done, float(np.mean(recent)))
            if self.snapshots is not None and self.solver.snapshot and done % self.solver.snapshot == 0:
                self._save_snapshot(self.snapshots, done)

        progress.begin(self.title, self.solver.max_iter, self.solver.display)
        return train(
            self.steps,
            self.solver,
            on_step=on_step,
            measure=measure,
            ends=ends,
            on_look=lambda history: self._look(history, on_look(history)),
            look_interval=look_interval,
            begun=begun or self.begun,
        )

    def keep_if_best(self, step: int, quality: float) -> None:
        """Remembers the weights of now, which have that quality, unless those of an earlier step had a better one."""
        sign = self.trainer.quality.metric.sign
        if self.kept is None or sign * quality >= sign * self.kept.quality:
            self.kept = Kept(step, quality, self.session.weights())

    def _look(self, history: History, is_left: bool) -> bool:
        stop = self.trainer.should_stop()
        now = time.monotonic()
        if stop or now - self._last_checkpoint > self._pause:
            self.checkpoint(history)
            self._last_checkpoint = time.monotonic()
            self._pause = max(SECONDS_BETWEEN_CHECKPOINTS, LEAST_SHARE_OF_TRAINING * (self._last_checkpoint - now))
        if stop:
            raise Stopped
        return is_left

    def checkpoint(self, history: History) -> None:
        if self.can_continue:
            state = self.state(history)
            self.trainer.store.put_checkpoint(self.key, state.arrays, state.record)

    def state(self, history: History) -> Checkpoint:
        arrays = {slot: self.session.read_slot(slot) for slot in self._slots()}
        first = {slot + _AT_FIRST: values for slot, values in self.first.items()}
        record = {
            "qualities": history.qualities,
            "seconds": history.seconds,
            "diverged": history.diverged,
            "ended": history.ended,
            "blocks": self._blocks,
        }
        kept: dict[str, np.ndarray] = {}
        if self.kept is not None:
            record["kept"] = (self.kept.step, self.kept.quality)
            kept = {name + _AS_KEPT: values for name, values in self.kept.weights.items()}
        return Checkpoint({**arrays, **first, **kept, LOSSES: history.losses}, record)

    def _slots(self) -> Iterator[str]:
        """The slots that are state: those of the schedule are set anew before each window."""
        return (slot.input for slot in self.session.interface.slots if slot.kind != "schedule")

    def _save_snapshot(self, folder: Path, done: int) -> None:
        """Weights and running statistics, by name, as `PREFIX_TITLE_iter_N.npz`."""
        prefix = self.solver.snapshot_prefix or str(folder / "snapshot")
        words = re.sub(r"[^A-Za-z0-9.]+", "-", self.title).strip("-")
        content = io.BytesIO()
        np.savez(content, allow_pickle=False, **self.session.weights())
        write_atomically(Path(f"{prefix}_{words}_iter_{done}.npz"), content.getvalue())


def _history(checkpoint: Checkpoint) -> History:
    record = checkpoint.record
    return History(
        losses=checkpoint.arrays[LOSSES],
        qualities=tuple((int(step), float(value)) for step, value in record["qualities"]),
        seconds=record["seconds"],
        diverged=record["diverged"],
        ended=record["ended"],
    )


def _first(checkpoint: Checkpoint) -> dict[str, np.ndarray]:
    """The values that slots began with, where they were others than in the graph."""
    return {
        name.removesuffix(_AT_FIRST): values for name, values in checkpoint.arrays.items() if name.endswith(_AT_FIRST)
    }


def _kept(checkpoint: Checkpoint) -> Kept | None:
    if "kept" not in checkpoint.record:
        return None
    step, quality = checkpoint.record["kept"]
    arrays = checkpoint.arrays.items()
    weights = {name.removesuffix(_AS_KEPT): values for name, values in arrays if name.endswith(_AS_KEPT)}
    return Kept(int(step), float(quality), weights)


def divergence(losses: np.ndarray, step: int, solver: Solver) -> Failed:
    """Why a training is of no use whose loss, one of `losses` a step, or whose weights were not finite at `step`."""
    what = "the weights are not finite after" if np.isfinite(losses[step - 1]) else "the loss is not finite at"
    return Failed(
        f"the training diverged, {what} step {step} (learning rate {solver.learning_rate(step - 1):g}): lower base_lr, "
        f"or set clip_gradients"
    )
