"""The training loop: steps of a training session, its losses, and the accuracies measured on the way."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from itertools import islice

import numpy as np

from wootz.passes.plan.solver import Solver
from wootz.runtime.batches import Batch
from wootz.runtime.session import TrainingSession

OnStep = Callable[[int, np.ndarray], None]
"""Called after each step with the number of steps done and the losses of the last one."""


@dataclass(frozen=True)
class History:
    """`losses` [steps, losses]; `accuracies` as (steps done, accuracy) pairs; `seconds` of training alone."""

    losses: np.ndarray
    accuracies: tuple[tuple[int, float], ...] = ()
    seconds: float = 0.0
    diverged: dict[str, int] = field(default_factory=dict)


def train(
    session: TrainingSession,
    batches: Iterable[Batch],
    solver: Solver,
    *,
    on_step: OnStep | None = None,
    measure_accuracy: Callable[[], float] | None = None,
) -> History:
    """Runs the solver's `max_iter` steps, `iter_size` batches each, with its learning rates.

    `measure_accuracy` is called every `test_interval` steps; its time is not counted. In a joint graph losses are
    independent: one that is no longer finite is recorded in `diverged` with its step, and the others go on. The
    training ends early when none is left.
    """
    names = session.interface.losses
    history: list[np.ndarray] = []
    accuracies: list[tuple[int, float]] = []
    diverged: dict[str, int] = {}
    seconds = 0.0
    begin = time.perf_counter()
    runs = iter(batches)
    for step in range(solver.max_iter):
        rate = solver.learning_rate(step)
        accumulated = [session.step(b.data, b.labels, rate) for b in islice(runs, solver.iter_size)]
        if not accumulated:
            break
        losses = np.mean(accumulated, axis=0)
        history.append(losses)
        for name, loss in zip(names, losses, strict=True):
            if not np.isfinite(loss):
                diverged.setdefault(name, step + 1)
        if len(diverged) == len(names):
            break
        if on_step is not None:
            on_step(step + 1, losses)
        if measure_accuracy is not None and solver.test_interval and (step + 1) % solver.test_interval == 0:
            seconds += time.perf_counter() - begin
            accuracies.append((step + 1, measure_accuracy()))
            begin = time.perf_counter()
    seconds += time.perf_counter() - begin
    return History(np.array(history), tuple(accuracies), seconds, diverged)
