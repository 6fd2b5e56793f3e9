"""The training loop: steps, their losses, and the qualities measured on the way."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from itertools import islice
from typing import Protocol

import numpy as np

from wootz.passes.plan.solver import Solver
from wootz.runtime.batches import Batch
from wootz.runtime.session import TrainingSession

OnStep = Callable[[int, np.ndarray], None]
"""Called after each step with the number of steps done and the losses of that one."""

Curve = tuple[tuple[int, float], ...]
"""(steps done, quality) pairs, ascending."""


@dataclass(frozen=True)
class History:
    """`losses` [steps, losses]; `qualities` as (steps done, quality) pairs; `seconds` of training alone.

    `diverged` has the losses that were not finite, or whose weights are not, with the step at which that was seen.
    `ended` is what `ends` said, empty where all steps were made, or no loss was left.
    """

    losses: np.ndarray
    qualities: Curve = ()
    seconds: float = 0.0
    diverged: Mapping[str, int] = field(default_factory=dict)
    ended: str = ""

    @property
    def steps(self) -> int:
        return len(self.losses)


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
        losses = [self._session.step(batch.data, batch.labels, rate, batch.teacher) for batch in runs]
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
    measure: Callable[[], float] | None = None,
    ends: Callable[[Curve], str] | None = None,
    on_look: Callable[[History], bool] | None = None,
    look_interval: int = 0,
    begun: History | None = None,
) -> History:
    """Makes the solver's `max_iter` steps, with its learning rates.

    `measure` is called every `test_interval` steps; its time is not counted. After that `ends` may end the
    training: it gets all qualities so far and gives the reason, or nothing. In a joint graph losses are independent:
    one that is no longer finite is recorded in `diverged` with its step, and the others go on. The training ends early
    when none is left. Losses are those before a step: what the last one did is seen by the weights, which are looked at
    once, at the end. `on_step` hears of a step that is a multiple of `snapshot` or `display` before another one is
    made, of other steps perhaps later. `on_look` is called whenever the state is that after the last step heard of,
    among them multiples of `look_interval`: a training that has `begun` continues from what it saw. It says whether the
    training is to be left there.
    """
    begun = begun or History(np.empty((0, len(steps.names)), np.float32))
    history = np.empty((solver.max_iter, len(steps.names)), np.float32)
    done, seconds, ended = begun.steps, begun.seconds, begun.ended
    history[:done] = begun.losses
    qualities, diverged = list(begun.qualities), dict(begun.diverged)

    def so_far() -> History:
        return History(history[:done], tuple(qualities), seconds, dict(diverged), ended)

    begin = time.perf_counter()
    is_left = False
    while done < solver.max_iter and len(diverged) < len(steps.names) and not ended and not is_left:
        made = steps.advance(done, _next_stop(solver, done, look_interval))
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
            seconds += time.perf_counter() - begin
            if measure is not None and solver.test_interval and done % solver.test_interval == 0:
                qualities.append((done, measure()))
                ended = ends(tuple(qualities)) if ends is not None else ""
            if on_look is not None:
                is_left = on_look(so_far())
            begin = time.perf_counter()
    seconds += time.perf_counter() - begin
    if done:
        for name in steps.diverged():
            diverged.setdefault(name, done)
    return so_far()


def _next_stop(solver: Solver, done: int, look_interval: int) -> int:
    """The number of steps at the next test, snapshot, display or look, or at the end."""
    wanted = (solver.test_interval, solver.snapshot, solver.display, look_interval)
    intervals = [interval for interval in wanted if interval]
    return min([solver.max_iter, *(done + interval - done % interval for interval in intervals)])
