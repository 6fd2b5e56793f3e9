"""Trains networks and blocks on one data set, or fetches them from the store when they have been trained before."""

from __future__ import annotations

import io
import re
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

from wootz.passes.ir.files import write_atomically
from wootz.passes.ir.model import Model
from wootz.passes.plan.blocks import TuningBlock
from wootz.passes.plan.solver import Solver
from wootz.passes.plan.transform import InputTransform
from wootz.passes.pruning.block_pruner import BlockPruner
from wootz.passes.training.joint_graph import joint_training_graph
from wootz.passes.training.legalize import Target
from wootz.passes.training.mixed_precision import Precision
from wootz.passes.training.training_graph import build_training_graph
from wootz.passes.transforms.teacher_student import (
    make_students,
    student_loss,
    student_prefix,
)
from wootz.runtime.batches import training_batches
from wootz.runtime.dataset import Dataset, Split
from wootz.runtime.evaluation import EVALUATION_BATCH, accuracy
from wootz.runtime.outcome import Failed
from wootz.runtime.progress import Progress
from wootz.runtime.resident import ResidentSteps, with_batches
from wootz.runtime.run_directory import SNAPSHOT_FOLDER
from wootz.runtime.schedule import training_schedule
from wootz.runtime.session import Device, InferenceSession, TrainingSession, WeightedSession, runtime_version
from wootz.runtime.store import ResultStore, Stored, digest
from wootz.runtime.training import History, HostSteps, Steps, train

Weights = Mapping[str, np.ndarray]

BLOCK_ERROR_WINDOW = 20
"""The first and the last so many losses are averaged for the error of a block before and after."""


RECORD_FORMAT = 2
"""Of what is recorded beside stored weights: a part of their keys."""


@dataclass(frozen=True)
class TrainedNetwork:
    """Accuracies are on the validation split; `curve` has (steps done, accuracy) pairs, from 0 to the last step."""

    weights: Weights
    curve: tuple[tuple[int, float], ...]
    seconds: float
    reused: bool = False

    @property
    def initial_accuracy(self) -> float:
        return self.curve[0][1]

    @property
    def final_accuracy(self) -> float:
        return self.curve[-1][1]


@dataclass(frozen=True)
class TrainedBlock:
    """`error` is the loss of the student, averaged over the first and the last steps of pre-training."""

    weights: Weights
    initial_error: float
    final_error: float
    steps: int


BlockOutcomes = dict[TuningBlock, TrainedBlock | Failed]


@dataclass(frozen=True)
class Trainer:
    """Everything that training depends on beside the network and the solver.

    `data_on_device` keeps the training images on the device. It is not part of the key of a result: batches are the
    same, bit for bit, and so are the formulas; what is left is the noise of another order of execution.
    """

    dataset: Dataset
    train_transform: InputTransform
    test_transform: InputTransform
    target: Target
    device: Device
    store: ResultStore
    progress: Progress = field(default_factory=Progress)
    data_on_device: bool = False
    precision: Precision = "float32"

    def fine_tune(self, model: Model, solver: Solver, title: str) -> TrainedNetwork | Failed:
        """Trains all parameters of `model`, a classifier, on the training split; or takes what that gave before.

        It fails, at a step that the reason names, where the loss or the weights are no longer finite.
        """
        key = self._network_key(model, solver)
        outcome = self.store.get(key)
        reused = outcome is not None
        if outcome is None:
            outcome = self._fine_tune(model, solver, title)
            self.store.put(key, outcome)
        else:
            self.progress.message(f"{title}: taken from the store")
        if isinstance(outcome, Failed):
            return outcome
        curve = tuple((int(step), float(value)) for step, value in outcome.record["curve"])
        return TrainedNetwork(outcome.weights, curve, outcome.record["seconds"], reused)

    def rehearse(self, model: Model, solver: Solver) -> None:
        """Builds the training graph of `model`, opens it, takes one step and evaluates it: what can fail fails here.

        Nothing is kept. Raises WootzError, or PassError for what has no gradient.
        """
        session, steps = self._open(
            build_training_graph(model, solver, target=self.target, precision=self.precision), solver
        )
        steps.advance(0, 1)
        evaluator = WeightedSession(model, session.weights(), self.device)
        evaluator.set_weights(session.device_weights())
        accuracy(evaluator.run, self.dataset.validation, self.test_transform, limit=EVALUATION_BATCH + 1)

    def stored_weights(self, model: Model, solver: Solver) -> Weights | None:
        """The weights of `model` after `fine_tune`; None if that was not done here, or failed."""
        stored = self.store.get(self._network_key(model, solver))
        return stored.weights if isinstance(stored, Stored) else None

    def _network_key(self, model: Model, solver: Solver) -> str:
        return digest("network", model, solver, *self._setting())

    def _fine_tune(self, model: Model, solver: Solver, title: str) -> Stored | Failed:
        session, training_steps = self._open(
            build_training_graph(model, solver, target=self.target, precision=self.precision), solver
        )
        evaluator = WeightedSession(model, session.weights(), self.device)

        def validate(limit: int = 0) -> float:
            evaluator.set_weights(session.device_weights())
            return accuracy(evaluator.run, self.dataset.validation, self.test_transform, limit)

        initial = validate()
        history = self._train(
            session,
            training_steps,
            solver,
            title,
            measure_accuracy=lambda: validate(solver.test_iter * solver.batch_size),
        )
        steps = len(history.losses)
        (loss,) = history.losses.T
        if history.diverged:
            return _divergence(loss, steps, solver)
        between = [(step, value) for step, value in history.accuracies if step < steps]
        curve = [(0, initial), *between, (steps, validate())]
        return Stored(session.weights(), {"curve": curve, "seconds": history.seconds})

    def stored_blocks(self, pruner: BlockPruner, blocks: Iterable[TuningBlock], solver: Solver) -> BlockOutcomes:
        """Those of `blocks` that have been trained before under the same conditions."""
        found = {block: self.store.get(key) for block, key in self._block_keys(pruner, blocks, solver).items()}
        return {block: _block_outcome(outcome) for block, outcome in found.items() if outcome is not None}

    def pretrain(self, pruner: BlockPruner, blocks: Sequence[TuningBlock], solver: Solver, title: str) -> BlockOutcomes:
        """Trains `blocks` together against the pruner's model, the unpruned network, and stores each."""
        losses = tuple(student_loss(i) for i in range(len(blocks)))
        session, steps = self._open(joint_training_graph(pruner, blocks, solver, self.target, self.precision), solver)
        history = self._train(session, steps, solver, title)
        weights = session.weights()
        keys = self._block_keys(pruner, blocks, solver)
        outcomes = {}
        for index, block in enumerate(blocks):
            errors = history.losses[:, session.interface.losses.index(losses[index])]
            prefix = student_prefix(index)
            diverged_at = history.diverged.get(losses[index])
            outcome: Stored | Failed
            if diverged_at is not None:
                outcome = _divergence(errors, diverged_at, solver)
            else:
                own = {name.removeprefix(prefix): w for name, w in weights.items() if name.startswith(prefix)}
                record: dict[str, Any] = {
                    "initial_error": float(np.mean(errors[:BLOCK_ERROR_WINDOW], dtype=np.float64)),
                    "final_error": float(np.mean(errors[-BLOCK_ERROR_WINDOW:], dtype=np.float64)),
                    "steps": len(errors),
                }
                outcome = Stored(own, record)
            self.store.put(keys[block], outcome)
            outcomes[block] = _block_outcome(outcome)
        return outcomes

    def _block_keys(self, pruner: BlockPruner, blocks: Iterable[TuningBlock], solver: Solver) -> dict[TuningBlock, str]:
        """The key of each block: what it is made from, not which others are trained beside it."""
        shared = (digest(pruner.model), solver, *self._setting())
        blocks = list(blocks)
        students = make_students(pruner, blocks)
        return {b: digest("block", s.model, *shared) for b, s in zip(blocks, students, strict=True)}

    def test_accuracy(self, model: Model, split: Split) -> float:
        """The accuracy of a finished network on `split`."""
        return accuracy(InferenceSession(model, self.device).run, split, self.test_transform)

    def _open(self, graph: Model, solver: Solver) -> tuple[TrainingSession, Steps]:
        """A session for `graph`, and its steps on the training split."""
        split, transform = self.dataset.train, self.train_transform
        count = solver.max_iter * solver.iter_size
        if self.data_on_device:
            graph = with_batches(graph, split, transform, solver)
            session = TrainingSession(graph, self.device)
            extents = split.images.shape[2:]
            schedule = training_schedule(len(split), extents, transform, solver.batch_size, count, solver.random_seed)
            return session, ResidentSteps(graph, session, split, schedule, solver)
        session = TrainingSession(graph, self.device, solver.batch_size)
        batches = training_batches(split, transform, solver.batch_size, count, solver.random_seed)
        return session, HostSteps(session, batches, solver)

    def _train(
        self,
        session: TrainingSession,
        steps: Steps,
        solver: Solver,
        title: str,
        measure_accuracy: Callable[[], float] | None = None,
    ) -> History:
        recent: deque[float] = deque(maxlen=max(1, solver.average_loss))

        def on_step(done: int, losses: np.ndarray) -> None:
            recent.append(float(np.nanmean(losses)))
            self.progress.advance(done, f"loss {np.mean(recent):.4f}")
            if solver.snapshot and done % solver.snapshot == 0:
                self._save_snapshot(session, solver, title, done)

        self.progress.begin(title, solver.max_iter, solver.display)
        history = train(steps, solver, on_step=on_step, measure_accuracy=measure_accuracy)
        self.progress.end(f"{len(history.losses) / history.seconds:.1f} steps/s")
        return history

    def _save_snapshot(self, session: TrainingSession, solver: Solver, title: str, done: int) -> None:
        """Weights and running statistics, by name, as `PREFIX_TITLE_iter_N.npz`."""
        prefix = solver.snapshot_prefix or str(self.store.folder.parent / SNAPSHOT_FOLDER / "snapshot")
        words = re.sub(r"[^A-Za-z0-9.]+", "-", title).strip("-")
        content = io.BytesIO()
        np.savez(content, allow_pickle=False, **session.weights())
        write_atomically(Path(f"{prefix}_{words}_iter_{done}.npz"), content.getvalue())

    def _setting(self) -> tuple[str, ...]:
        return (
            f"format {RECORD_FORMAT}",
            self.dataset.digest,
            repr(self.train_transform),
            repr(self.test_transform),
            self.target,
            self.precision,
            self.device.numerics,
            runtime_version(),
            metadata.version("wootz"),
        )


def _block_outcome(outcome: Stored | Failed) -> TrainedBlock | Failed:
    return outcome if isinstance(outcome, Failed) else TrainedBlock(outcome.weights, **outcome.record)


def _divergence(losses: np.ndarray, step: int, solver: Solver) -> Failed:
    """Why a training is of no use whose loss, one of `losses` a step, or whose weights were not finite at `step`."""
    what = "the weights are not finite after" if np.isfinite(losses[step - 1]) else "the loss is not finite at"
    return Failed(
        f"the training diverged, {what} step {step} (learning rate {solver.learning_rate(step - 1):g}): lower base_lr, "
        f"or set clip_gradients"
    )
