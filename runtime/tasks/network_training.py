"""The fine-tuning of one network, and the tests of its quality on the way."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from wootz.passes.ir.model import Model
from wootz.passes.plan.solver import Solver
from wootz.runtime.outcome import Outcome, Trained
from wootz.runtime.quality.measuring import Predict
from wootz.runtime.session import Device, WeightedSession
from wootz.runtime.tasks.early_end import EarlyEnd
from wootz.runtime.tasks.training_run import TrainingRun, divergence
from wootz.runtime.training import Curve, History


class NetworkTraining:
    """Of a `model` whose weights a run trains. `measure` says how good its outputs are, on so many validation images
    or, with 0, on all; `end` when it is done before the last step."""

    def __init__(
        self,
        run: TrainingRun,
        model: Model,
        measure: Callable[[Predict, int], float],
        device: Device,
        end: EarlyEnd | None,
    ):
        self.run, self.solver, self.end = run, run.solver, end
        self._measure = measure
        self._evaluator = WeightedSession(model, run.session.weights(), device)

    def outcome(self) -> Outcome:
        begun = self.run.begun
        if begun is None:
            first = self._validate()
            self.run.keep_if_best(0, first)
            ended = "bound met" if self.end is not None and self.end.met(first) else ""
            begun = History(np.empty((0, 1), np.float32), ((0, first),), ended=ended)
        history = self.run.train(lambda: self._validate(tested_images(self.solver)), self._ends, begun)
        (losses,) = history.losses.T
        if history.diverged:
            return divergence(losses, history.steps, self.solver)
        between = [(step, value) for step, value in history.qualities if step < history.steps]
        last = history.qualities[-1]
        is_whole = last[0] == history.steps and (not last[0] or not tested_images(self.solver))
        if not is_whole:
            last = history.steps, self._validate()
            self.run.keep_if_best(*last)
        kept = self.run.kept
        assert kept is not None
        record = {
            "curve": [[step, value] for step, value in (*between, last)],
            "kept": kept.step,
            "seconds": history.seconds,
            "steps": history.steps,
            "ended": history.ended or "all steps",
        }
        return Trained(kept.weights, record)

    def _validate(self, limit: int = 0) -> float:
        self._evaluator.set_weights(self.run.session.device_weights())
        return self._measure(self._evaluator.outputs, limit)

    def _ends(self, curve: Curve) -> str:
        """Why the training is over after a test: a bound that some of the images meet has to be met by all."""
        self.run.trainer.progress.tested(*curve[-1])
        if not tested_images(self.solver):
            self.run.keep_if_best(*curve[-1])
        if self.end is None:
            return ""
        if self.end.met(curve[-1][1]) and (not tested_images(self.solver) or self.end.met(self._validate())):
            return "bound met"
        return given_up(self.end, curve, self.solver)


def given_up(end: EarlyEnd, curve: Curve, solver: Solver) -> str:
    """As `EarlyEnd.given_up`."""
    return end.given_up(curve, solver.max_iter, tests_all=not tested_images(solver))


def tested_images(solver: Solver) -> int:
    """How many images a test on the way looks at; 0: all."""
    return solver.test_iter * solver.batch_size
