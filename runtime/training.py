"""The training loop: steps, their losses, and the accuracies measured on the way."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from itertools import islice
from typing import Protocol

import numpy as np

from wootz.passes.plan.solver import Solver
from wootz.runtime.batches import Batch
from wootz.runtime.session import TrainingSession

OnStep = Callable[[int, np.ndarray], None]
"""Called after each step with the number of steps done and the losses of that one."""


@dataclass(frozen=True)
class History:
    """`losses` [steps, losses]; `accuracies` as (steps done, accuracy) pairs; `seconds` of training alone.

    `diverged` has the losses that were not finite, or whose weights are not, with the step at which that was seen.
    """

    losses: np.ndarray
    accuracies: tuple[tuple[int, float], ...] = ()
    seconds: float = 0.0
    diverged: dict[str, int] = field(default_factory=dict)


class Steps(Protocol):
    """What makes the steps of a training; `names` are those of its losses."""

    names: tuple[str, ...]

    def advance(self, first: int, stop: int) -> np.ndarray:
        """Makes the steps from number `first` (from 0) on, at least one and at most up to `stop`.

        Gives the losses of the steps made, [steps, losses], the mean over the runs of each; of no step where there are
        no more batches.
        """

    def diverged(self) -> set[str]:
        """The losses whose weights are not finite after the steps made so far."""


class HostSteps:
    """Steps on batches that the host prepares: one at a time."""

    def __init__(self, session: TrainingSession, batches: Iterable[Batch], solver: Solver):
        self.names = session.interface.losses
        self._session, self._batches, self._solver = session, iter(batches), solver

    def advance(self, first: int, stop: int) -> np.ndarray:
        rate = self._solver.learning_rate(first)
        runs = islice(self._batches, self._solver.iter_size)
        losses = [self._session.step(batch.data, batch.labels, rate) for batch in runs]
        return np.mean(losses, axis=0, keepdims=True) if losses else np.empty((0, len(self.names)))

    def diverged(self) -> set[str]:
        return diverged_losses(self._session)


def diverged_losses(session: TrainingSession) -> set[str]:
    """The losses that train parameters, or keep running statistics, which are not finite now."""
    weights = (slot for slot in session.interface.slots if slot.kind in ("parameter", "statistic"))
    return {slot.loss for slot in weights if not np.isfinite(session.read_slot(slot.input)).all()}


def train(
    steps: Steps,
    solver: Solver,
    *,
    on_step: OnStep | None = None,
    measure_accuracy: Callable[[], float] | None = None,
) -> History:
    """Makes the solver's `max_iter` steps, with its learning rates.

    `measure_accuracy` is called every `test_interval` steps; its time is not counted. In a joint graph losses are
    independent: one that is no longer finite is recorded in `diverged` with its step, and the others go on. The
    training ends early when none is left. Losses are those before a step: what the last one did is seen by the weights,
    which are looked at once, at the end. `on_step` hears of a step that is a multiple of `snapshot` or `display`
    before another one is made, of other steps perhaps later.
    """
    history = np.empty((solver.max_iter, len(steps.names)), np.float32)
    accuracies: list[tuple[int, float]] = []
    diverged: dict[str, int] = {}
    done, seconds = 0, 0.0
    begin = time.perf_counter()
    while done < solver.max_iter and len(diverged) < len(steps.names):
        made = steps.advance(done, _next_stop(solver, done))
        if not len(made):
            break
        for losses in made:
            history[done] = losses
            done += 1
            for name, loss in zip(steps.names, losses, strict=True):
                if not np.isfinite(loss):
                    diverged.setdefault(name, done)
            if len(diverged) == len(steps.names):
                break
            if on_step is not None:
                on_step(done, losses)
        else:
            if measure_accuracy is not None and solver.test_interval and done % solver.test_interval == 0:
                seconds += time.perf_counter() - begin
                accuracies.append((done, measure_accuracy()))
                begin = time.perf_counter()
    seconds += time.perf_counter() - begin
    if done:
        for name in steps.diverged():
            diverged.setdefault(name, done)
    return History(history[:done], tuple(accuracies), seconds, diverged)


def _next_stop(solver: Solver, done: int) -> int:
    """The number of steps at the next test, snapshot or display, or at the end."""
    intervals = [interval for interval in (solver.test_interval, solver.snapshot, solver.display) if interval]
    return min([solver.max_iter, *(done + interval - done % interval for interval in intervals)])
