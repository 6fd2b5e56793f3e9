"""The training of blocks in one graph, against the full network."""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Protocol

import numpy as np

from wootz.passes.ir.model import Model, constants
from wootz.passes.plan.blocks import TuningBlock
from wootz.passes.plan.solver import Solver
from wootz.passes.pruning.block_pruner import BlockPruner
from wootz.passes.pruning.student import Student
from wootz.passes.training.apply_optimizer import own_rate
from wootz.passes.training.interface import TrainingInterface
from wootz.passes.transforms.teacher_student import STUDENTS, student_loss, student_prefix
from wootz.runtime.outcome import Failed, Outcome, Trained
from wootz.runtime.store import Checkpoint
from wootz.runtime.tasks.closed_form import ClosedForm
from wootz.runtime.tasks.plateau import Plateau
from wootz.runtime.tasks.recipe import combined
from wootz.runtime.tasks.task import Finished, finished_of
from wootz.runtime.tasks.training_run import LOSSES, Surroundings, TrainingRun, divergence
from wootz.runtime.training import History


class BlockSurroundings(Surroundings, Protocol):
    """What a training of blocks needs beside that: those of a `Trainer`."""

    @property
    def plateau(self) -> Plateau | None: ...

    @property
    def run(self) -> str: ...

    def joint_graph(self, pruner: BlockPruner, blocks: Sequence[TuningBlock], solver: Solver) -> Model: ...

    def block_weights(
        self, pruner: BlockPruner, blocks: Sequence[TuningBlock], interface: TrainingInterface
    ) -> dict[str, np.ndarray]: ...

    def closed_form(self, pruner: BlockPruner) -> ClosedForm: ...


class GroupTraining:
    """The training of blocks in one graph, which those leave that are done: with half of them a new one is built."""

    def __init__(
        self,
        trainer: BlockSurroundings,
        pruner: BlockPruner,
        group: Mapping[TuningBlock, str],
        missing: Collection[TuningBlock],
        solver: Solver,
        title: str,
    ):
        """`missing` are those of `group`, which has their keys, whose outcomes are wanted."""
        self.trainer, self.pruner, self.group, self.solver, self.title = trainer, pruner, group, solver, title
        self._key = combined(group.values())  # of checkpoints
        self._left = list(missing)
        self._finished: dict[TuningBlock, Finished] = {}
        self._seconds = 0.0  # what a block has taken that is still trained
        self._since = time.perf_counter()

    def finished(self) -> dict[TuningBlock, Finished]:
        """Trains the missing blocks, with all that their training began with if it was interrupted."""
        blocks, state = self._begun_with(), None
        while True:
            run = self._run(blocks, state)
            looks = 0 if self.trainer.plateau is None else self.trainer.plateau.window
            history = run.train(on_look=partial(self._look, run, blocks), look_interval=looks)
            if not self._left or not self._is_thinned(run, blocks, history):
                break
            left = [block for block in blocks if block in self._left]
            state = self._state_of(left, blocks, run.state(history))
            blocks = left
            del run  # its memory is for the next one
        run.checkpoint(history)  # the blocks are stored one by one: a kill in between loses nothing
        self._finish(list(self._left), run, blocks, history)
        return self._finished

    def _begun_with(self) -> list[TuningBlock]:
        """The blocks that an interrupted training goes on with, if it has all that are missing; else these."""
        begun = self.trainer.store.get_checkpoint(self._key)
        keys = [] if begun is None else begun.record["blocks"]
        blocks = {key: block for block, key in self.group.items()}
        found = [blocks[key] for key in keys if key in blocks]
        if begun is not None and self._is_past(found, begun.arrays[LOSSES]):
            self.trainer.store.drop_checkpoint(self._key)
            found = []
        return found if set(found) >= set(self._left) else list(self._left)

    def _is_past(self, blocks: Sequence[TuningBlock], losses: np.ndarray) -> bool:
        """Whether a missing block was done before a checkpoint: its outcome was stored, and has gone since."""
        plateau = self.trainer.plateau
        ends = [] if plateau is None else [plateau.end(errors) for errors in losses.T]
        done = [end is not None and end <= len(losses) for end in ends]
        return any(is_done and block in self._left for is_done, block in zip(done, blocks, strict=False))

    def _run(self, blocks: Sequence[TuningBlock], state: Checkpoint | None) -> TrainingRun:
        graph = self.trainer.joint_graph(self.pruner, blocks, self.solver)
        start = partial(self.trainer.block_weights, self.pruner, blocks, TrainingInterface.of(graph))
        keys = [self.group[block] for block in blocks]
        return TrainingRun(
            self.trainer, graph, self.solver, self.title, self._key, blocks=keys, start=start, state=state
        )

    def _look(self, run: TrainingRun, blocks: Sequence[TuningBlock], history: History) -> bool:
        """Lets the learning rates of blocks fall, and stores those that are done. Whether the others are to get a graph
        of their own."""
        plateau = self.trainer.plateau
        if plateau is None or history.steps % plateau.window:
            return False
        done = []
        for block in self._left:
            index = blocks.index(block)
            errors = _errors(run, history, index)
            end = plateau.end(errors)
            if student_loss(index) in history.diverged or (end is not None and end <= history.steps):
                done.append(block)
            elif plateau.begins(errors) == history.steps:
                _, fade = own_rate(student_loss(index))
                run.session.write_slot(fade, np.array(1 / (plateau.fade * self.solver.iter_size), np.float32))
        self._finish(done, run, blocks, history)
        return not self._left or self._is_thinned(run, blocks, history)

    def _is_thinned(self, run: TrainingRun, blocks: Sequence[TuningBlock], history: History) -> bool:
        """Whether so many blocks are done that a graph of the others pays: all graphs together take no longer to build
        than twice the first one."""
        is_over = history.steps == self.solver.max_iter
        return run.can_continue and not is_over and 2 * len(self._left) <= len(blocks)

    def _state_of(self, left: Sequence[TuningBlock], blocks: Sequence[TuningBlock], state: Checkpoint) -> Checkpoint:
        """The state of some of `blocks`, by the names that they have in a graph of their own."""
        places = [blocks.index(block) for block in left]
        renamed = {student_prefix(place): student_prefix(i) for i, place in enumerate(places)}
        shared = {name: values for name, values in state.arrays.items() if not name.startswith(STUDENTS)}
        own = {
            new + name.removeprefix(old): values
            for name, values in state.arrays.items()
            for old, new in renamed.items()
            if name.startswith(old)
        }
        losses = state.arrays[LOSSES][:, places]
        record = {**state.record, "blocks": [self.group[block] for block in left], "diverged": {}}
        return Checkpoint({**shared, **own, LOSSES: losses}, record)

    def _finish(
        self, done: Sequence[TuningBlock], run: TrainingRun, blocks: Sequence[TuningBlock], history: History
    ) -> None:
        """Stores the outcomes of the blocks `done` as they are now."""
        ends = [_BlockEnd.of(self.pruner.student(b), run, blocks.index(b), history, self.solver) for b in done]
        weights = [() if end.failure else (end.first, end.last) for end in ends]
        errors = self.trainer.closed_form(self.pruner).errors([end.student for end in ends], weights)
        now = time.perf_counter()
        self._seconds += (now - self._since) / max(1, len(self._left))
        self._since = now
        for block, end, of_block in zip(done, ends, errors, strict=True):
            key, outcome = self.group[block], end.failure or self._kept(end, *of_block)
            self.trainer.store.put(key, outcome, what=f"block {block}", seconds=self._seconds, by=self.trainer.run)
            self._finished[block] = finished_of(key, outcome, reused=False)
            self._left.remove(block)

    def _kept(self, end: _BlockEnd, before: float, after: float) -> Outcome:
        """The better of a block's first and last weights, which have these errors."""
        if not np.isfinite(before):
            return Failed("its error before the training is not finite: scale the images")
        is_better = after <= before
        record = {
            "initial_error": before,
            "final_error": after if is_better else before,
            "kept": "last weights" if is_better else "first weights",
            "steps": end.steps,
            "seconds": self._seconds,
            "ended": "all steps" if end.steps == self.solver.max_iter else "error no longer falls",
        }
        return Trained(end.last if is_better else end.first, record)


@dataclass(frozen=True)
class _BlockEnd:
    """A block that is done after `steps`: the weights that it began with and those that it has, by name, and what makes
    these useless."""

    student: Student
    first: Mapping[str, np.ndarray]
    last: Mapping[str, np.ndarray]
    steps: int
    failure: Failed | None

    @classmethod
    def of(cls, student: Student, run: TrainingRun, index: int, history: History, solver: Solver) -> _BlockEnd:
        prefix, errors, in_graph = student_prefix(index), _errors(run, history, index), constants(student.model.graph)
        slots = run.session.interface.slots
        names = [s.input for s in slots if s.kind in ("parameter", "statistic") and s.input.startswith(prefix)]
        own = {name.removeprefix(prefix): name for name in names}
        last = {name: run.session.read_slot(slot) for name, slot in own.items() if name not in student.shared}
        first = {name: run.first.get(prefix + name, in_graph[name]) for name in last}
        diverged = history.diverged.get(student_loss(index), 0)
        if not diverged and not all(np.isfinite(w).all() for w in last.values()):
            diverged = history.steps
        failure = divergence(errors, diverged, solver) if diverged else None
        return cls(student, first, last, len(errors), failure)


def _errors(run: TrainingRun, history: History, index: int) -> np.ndarray:
    """The losses [steps] of a student."""
    return history.losses[:, run.session.interface.losses.index(student_loss(index))]
