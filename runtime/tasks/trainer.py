"""Trains networks and blocks on one data set, or finds them in the store where that was done before."""

from __future__ import annotations

import platform
import time
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, astuple, dataclass, field, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Literal, TypeVar

import numpy as np

from wootz.passes.errors import PassError
from wootz.passes.ir.model import Model
from wootz.passes.pipeline import Observers
from wootz.passes.plan.blocks import TuningBlock
from wootz.passes.plan.lesson import LABELLED, Lesson
from wootz.passes.plan.solver import Solver
from wootz.passes.plan.transform import InputTransform
from wootz.passes.pruning.block_pruner import BlockPruner
from wootz.passes.training.distill import Distill
from wootz.passes.training.interface import TrainingInterface
from wootz.passes.training.joint_graph import joint_training_graph
from wootz.passes.training.legalize import Target
from wootz.passes.training.mixed_precision import Precision
from wootz.passes.training.trainable_part import TrainablePart
from wootz.passes.training.training_graph import build_training_graph
from wootz.passes.transforms.teacher_student import student_prefix
from wootz.runtime.batches import extents, training_batches
from wootz.runtime.data.dataset import Dataset, Split
from wootz.runtime.evaluation import EVALUATION_BATCH, answers
from wootz.runtime.executors.control import Stopped
from wootz.runtime.guessing import above_guessing
from wootz.runtime.inputs import inputs_of_network, zeros
from wootz.runtime.latency import Latency, latencies
from wootz.runtime.outcome import Failed, Trained
from wootz.runtime.progress import Progress
from wootz.runtime.quality.measuring import Predict, Reference, measured, measured_each
from wootz.runtime.quality.quality import ACCURACY, Quality
from wootz.runtime.recalibration import (
    CALIBRATION_BATCH,
    CALIBRATION_IMAGES,
    Statistics,
    measured_statistics,
    offsets,
    recalibrated,
)
from wootz.runtime.resident import ResidentSteps, with_batches
from wootz.runtime.schedule import training_schedule
from wootz.runtime.session import (
    Device,
    InferenceSession,
    MergedSession,
    TrainingSession,
    WeightedSession,
    native_numerics,
)
from wootz.runtime.store import Lease, Store
from wootz.runtime.tasks.block_training import GroupTraining
from wootz.runtime.tasks.closed_form import ClosedForm
from wootz.runtime.tasks.early_end import EarlyEnd
from wootz.runtime.tasks.network_training import NetworkTraining, given_up, tested_images
from wootz.runtime.tasks.plateau import PLATEAU, Plateau
from wootz.runtime.tasks.program import Program
from wootz.runtime.tasks.recipe import (
    BlockRecipe,
    Digests,
    EvaluationRecipe,
    TrainingRecipe,
    combined,
    rates_digest,
    records_of,
    schedule_text,
)
from wootz.runtime.tasks.task import Finished, finished_of
from wootz.runtime.tasks.training_run import TrainingRun
from wootz.runtime.teacher_outputs import (
    TEACHER_BATCH,
    TeacherOutputs,
    can_be_kept,
    examples_once,
    teacher_outputs,
    values_of_example,
)
from wootz.runtime.training import HostSteps, Steps
from wootz.runtime.variants.scoring import Score, score_variants

K = TypeVar("K", bound=Hashable)

SECONDS_BETWEEN_LOOKS_AT_A_LEASE = 10.0

BlockStart = Literal["closed-form", "remaining"]
"""What the training of a block begins with: the teacher's remaining weights, or what `closed_form` makes of them."""


@dataclass(frozen=True)
class Look:
    """What is known of a network that was assembled and not trained: its quality on the validation split."""

    quality: float


@dataclass(frozen=True)
class Trainer:
    """Everything that training depends on beside the network and the solver. Networks are judged by `quality`, where
    that compares by what the `full` network does.

    `data_on_device` keeps the training images on the device. `block_start` is where blocks begin, and `plateau` where
    they end before their last step. `run` is the run that trains: what another one has trained counts as reused.
    `should_stop` is asked now and then: where it says so, a training ends with `Stopped`, and goes on from there when
    it is asked for again. `verify_each` and `observers` are for the passes that make training graphs.
    """

    dataset: Dataset
    train_transform: InputTransform
    test_transform: InputTransform
    target: Target
    device: Device
    store: Store
    progress: Progress = field(default_factory=Progress)
    data_on_device: bool = False
    precision: Precision = "float32"
    block_start: BlockStart = "closed-form"
    plateau: Plateau | None = PLATEAU
    quality: Quality = ACCURACY
    run: str = ""
    digests: Digests = field(default_factory=Digests, repr=False)
    references: dict[str, Reference] = field(default_factory=dict, repr=False)
    taught: dict[str, TeacherOutputs] = field(default_factory=dict, repr=False)
    should_stop: Callable[[], bool] = lambda: False
    verify_each: bool = False
    observers: Observers = field(default_factory=Observers, repr=False)

    # Networks

    def fine_tune(
        self,
        model: Model,
        solver: Solver,
        title: str,
        end: EarlyEnd | None = None,
        check: Callable[[], None] = lambda: None,
        snapshots: Path | None = None,
        lesson: Lesson = LABELLED,
        teacher: Model | None = None,
        full: Model | None = None,
    ) -> Finished:
        """Trains all parameters of `model` on the training split; or finds what that gave before.

        It learns what `lesson` says, from `teacher`, the full network, where that has a part in it.

        It fails, at a step that the reason names, where the loss or the weights are no longer finite. `check` is called
        before anything is trained. The weights are those of the test with the best quality on the whole validation
        split, the last one of equals. The record has `curve`, (steps done, quality on that split) pairs from 0 to the
        last step, the step whose weights are `kept`, `seconds` of training, and why it `ended`.
        """
        program = self.network_program(model, solver, title, lesson, teacher)
        recipe = self._network_recipe(program, solver, end, lesson, full)
        found = self._known_network(recipe, solver, end)
        if found is not None:
            return found
        check()
        with self.store.lease(recipe.key) or self._turn(recipe.key):
            if (found := self._known_network(recipe, solver, end)) is not None:  # another process was quicker
                return found
            begin = time.perf_counter()
            taught = self.teacher_outputs(program)
            training = TrainingRun(self, program.graph, solver, title, recipe.key, snapshots, teacher=taught)
            outcome = NetworkTraining(training, model, partial(self._validated, full), self.device, end).outcome()
            self.store.put(recipe.key, outcome, what=title, seconds=time.perf_counter() - begin, by=self.run)
            self.store.drop_checkpoint(recipe.key)
        return finished_of(recipe.key, outcome, reused=False)

    def known_network(
        self,
        model: Model,
        solver: Solver,
        title: str,
        end: EarlyEnd | None = None,
        lesson: Lesson = LABELLED,
        teacher: Model | None = None,
        full: Model | None = None,
    ) -> Finished | None:
        """What `fine_tune` gave before; None where it would have to train."""
        program = self.network_program(model, solver, title, lesson, teacher)
        return self._known_network(self._network_recipe(program, solver, end, lesson, full), solver, end)

    def _known_network(self, recipe: TrainingRecipe, solver: Solver, end: EarlyEnd | None) -> Finished | None:
        """What is stored of a training, or of the same one under another rule that would have ended it alike."""
        own = self._known(recipe.key)
        if own is not None or end is None:
            return own
        whole = self._known(recipe.to_the_end().key)
        if whole is None or isinstance(whole.outcome, Failed):
            return whole
        curve = whole.outcome["curve"]
        tests = curve[:-1] if solver.test_iter else curve  # of few images, that a bound is met has to be confirmed
        if any(end.met(value) or given_up(end, curve[: i + 1], solver) for i, (_, value) in enumerate(tests)):
            return None
        return whole

    def _network_recipe(
        self,
        program: Program,
        solver: Solver,
        end: EarlyEnd | None,
        lesson: Lesson = LABELLED,
        full: Model | None = None,
    ) -> TrainingRecipe:
        images, labels = self.dataset.train.digests
        labels = labels if lesson.reads_targets else ""
        if (teacher := program.teacher) is not None:
            order_of_sums = teacher.order_of_sums(self.device, TEACHER_BATCH)
            labels = f"{labels}, {teacher.digest} of {TEACHER_BATCH} images at once {order_of_sums}"
        validation = self.dataset.validation.digests
        images_tested = f"every {solver.test_interval}, {tested_images(solver)} images"
        tests = f"{self._judged_by(full)} {validation} {self.test_transform} {images_tested}, the best kept"
        return self._recipe(program, solver, images, labels, tests, "" if end is None else str(end))

    # Blocks

    def block_keys(self, pruner: BlockPruner, blocks: Sequence[TuningBlock], solver: Solver) -> dict[TuningBlock, str]:
        """The key of each block: of its own training against the teacher, whichever blocks are trained beside it."""
        programs = self._block_programs(pruner, [[block] for block in blocks], solver)
        recipes = (self._block_recipe(program, pruner, solver) for program in programs)
        return {block: recipe.key for block, recipe in zip(blocks, recipes, strict=True)}

    def _block_recipe(self, program: Program, pruner: BlockPruner, solver: Solver) -> TrainingRecipe:
        images, _ = self.dataset.train.digests
        end = "" if self.plateau is None else str(self.plateau)
        recipe = self._recipe(program, solver, images, labels="", tests="", end=end)
        closed_form = self.closed_form(pruner)
        start = "" if self.block_start == "remaining" else str(closed_form)
        return BlockRecipe(
            **vars(recipe), start=start, kept=f"the last unless worse than the first: {closed_form.judge}"
        )

    def closed_form(self, pruner: BlockPruner) -> ClosedForm:
        """What solves for layers of the pruner's blocks, and measures their errors."""
        return ClosedForm(pruner.model, self.dataset.train, self.test_transform, self.device)

    def block_memory(self, pruner: BlockPruner, blocks: Sequence[TuningBlock], solver: Solver) -> int:
        """What pre-training `blocks` together takes, in bytes, at the solver's batch size."""
        (program,) = self._block_programs(pruner, [blocks], solver)
        return program.memory(solver.batch_size)

    def network_program(
        self, model: Model, solver: Solver, title: str, lesson: Lesson = LABELLED, teacher: Model | None = None
    ) -> Program:
        taught = () if teacher is None else (self.digests.program(teacher), repr(teacher.modules))
        part = self._teacher_part(model, solver, lesson, teacher)
        given = () if part is None else ("given what the full network says",)
        sources = ("network", self.digests.program(model), *self._options(solver), repr(lesson), *taught, *given)
        build = partial(self.training_graph, model, solver, lesson, teacher, is_given=part is not None)
        return Program(build, sources, title, self.store, self.digests, part)

    def _teacher_part(self, model: Model, solver: Solver, lesson: Lesson, teacher: Model | None) -> Program | None:
        """What computes once for each training image what `model` learns of the teacher; None where that is computed in
        each step: images are cropped at random, a training doesn't see all of them, or it is too much to be kept."""
        split, transform = self.dataset.train, self.train_transform
        if teacher is None or not (examples := examples_once(split, transform, solver)):
            return None

        def build() -> Model:
            return self.distillation(lesson, teacher).teacher_part(TrainablePart().apply(model).model)

        def values() -> str:
            try:
                return str(values_of_example(part.graph))
            except PassError:  # what the training graph can't be made of either, or what has no batch in front
                return str(None)

        of_networks = (*map(self.digests.program, (model, teacher)), repr(teacher.modules))
        sources = ("what the full network says", *of_networks, repr(lesson))
        part = Program(build, sources, "what the full network says", self.store, self.digests)
        found = part.remembered("values of an example", values)
        return part if found != str(None) and can_be_kept(int(found), examples, split) else None

    def examples_once(self, model: Model, solver: Solver, lesson: Lesson, teacher: Model | None) -> int:
        """For how many examples, mirrored ones counted, the teacher runs once before `model` is trained, instead of in
        each step; 0 where it doesn't."""
        is_given = self._teacher_part(model, solver, lesson, teacher) is not None
        return examples_once(self.dataset.train, self.train_transform, solver) if is_given else 0

    def teacher_outputs(self, program: Program, limit: int | None = None) -> TeacherOutputs | None:
        """What the training graph of `program` is given of the full network, None where it is given nothing: computed
        once a process; with a `limit`, for so many training images, and zeros for the others."""
        part, split, transform = program.teacher, self.dataset.train, self.train_transform
        if part is None:
            return None
        key = f"{part.digest} {split.digests} {transform}"
        if key in self.taught:
            return self.taught[key]
        found = teacher_outputs(part.graph, split, transform, self.device, limit, self._stop_if_asked)
        if limit is None:
            self.taught.clear()
            self.taught[key] = found
        return found

    def distillation(self, lesson: Lesson, teacher: Model) -> Distill:
        """The pass that puts the teacher beside a network."""
        return Distill.of(lesson, teacher)

    def training_graph(
        self,
        model: Model,
        solver: Solver,
        lesson: Lesson = LABELLED,
        teacher: Model | None = None,
        is_given: bool = False,
    ) -> Model:
        """What trains all parameters of a network; where it `is_given` what the teacher computes, without that. Raises
        PassError for what has no gradient."""
        return build_training_graph(
            model,
            solver,
            loss=lesson.losses if lesson.reads_targets else None,
            distill=None if teacher is None else replace(self.distillation(lesson, teacher), given=is_given),
            target=self.target,
            precision=self.precision,
            verify_each=self.verify_each,
            observers=self.observers,
        )

    def _block_programs(
        self, pruner: BlockPruner, groups: Iterable[Sequence[TuningBlock]], solver: Solver
    ) -> Iterator[Program]:
        """The training graph of each group."""
        planner = pruner.planner
        chosen_by = (self.digests.array(planner.scores), f"{planner.rounding} {planner.min_channels}")
        teacher = (self.digests.program(pruner.model), repr(pruner.modules), *chosen_by)
        for blocks in groups:
            own_rates = ("own rates",) * (self.plateau is not None)
            sources = ("blocks", *teacher, *map(repr, blocks), *self._options(solver), *own_rates)
            build = partial(self.joint_graph, pruner, blocks, solver)
            what = f"block {blocks[0]}" if len(blocks) == 1 else f"{len(blocks)} blocks"
            yield Program(build, sources, what, self.store, self.digests)

    def joint_graph(self, pruner: BlockPruner, blocks: Sequence[TuningBlock], solver: Solver) -> Model:
        """What trains blocks together against the pruner's model."""
        own_rates = self.plateau is not None
        return joint_training_graph(
            pruner, blocks, solver, self.target, self.precision, self.verify_each, self.observers, own_rates
        )

    def _options(self, solver: Solver) -> tuple[str, ...]:
        """Of what else training graphs are made."""
        return repr(solver), self.target, self.precision

    def pretrain(
        self, pruner: BlockPruner, keys: Mapping[TuningBlock, str], solver: Solver, title: str
    ) -> dict[TuningBlock, Finished]:
        """Trains blocks together against the pruner's model, the unpruned network; or finds what that gave before.

        Of each the last weights are kept, or the first where their error is smaller. Its record has `initial_error` and
        `final_error`, those of `ClosedForm.errors` with the first weights and with the `kept` ones, and `steps`. Blocks
        that another process is training are waited for.
        """
        found: dict[TuningBlock, Finished] = {}
        while missing := {block: key for block, key in keys.items() if block not in found}:
            found |= {b: f for b, key in missing.items() if (f := self._known(key)) is not None}
            missing = {block: key for block, key in missing.items() if block not in found}
            with ExitStack() as leases:
                leased: list[TuningBlock] = []
                for block, key in missing.items():
                    if (lease := self.store.lease(key)) is not None:
                        leases.enter_context(lease)
                        leased.append(block)
                known = {b: f for b in leased if (f := self._known(keys[b])) is not None}
                found |= known
                own = [block for block in leased if block not in known]
                if own:
                    found |= GroupTraining(self, pruner, keys, own, solver, title).finished()
            elsewhere = [key for block, key in missing.items() if block not in leased]
            if elsewhere:
                self._wait(elsewhere[0])
        self.store.drop_checkpoint(combined(keys.values()))  # also that of who was killed after the last block
        return {block: found[block] for block in keys}

    def block_weights(
        self, pruner: BlockPruner, blocks: Sequence[TuningBlock], interface: TrainingInterface
    ) -> dict[str, np.ndarray]:
        """Those that the training of `blocks` begins with, by their names in the joint graph, where they are others
        than in it."""
        if self.block_start == "remaining":
            return {}
        weights = [slot.input for slot in interface.slots if slot.kind in ("parameter", "statistic")]
        prefixes = [student_prefix(i) for i in range(len(blocks))]
        students = [pruner.student(block) for block in blocks]
        trained = [
            {w.removeprefix(prefix) for w in weights if w.startswith(prefix)} - student.shared
            for prefix, student in zip(prefixes, students, strict=True)
        ]
        solver = replace(self.closed_form(pruner), check=self._stop_if_asked)
        found = solver.weights(students, trained)
        return {prefix + name: w for prefix, new in zip(prefixes, found, strict=True) for name, w in new.items()}

    # Both

    def rehearse(
        self,
        model: Model,
        solver: Solver,
        lesson: Lesson = LABELLED,
        teacher: Model | None = None,
        full: Model | None = None,
    ) -> None:
        """Builds the training graph of `model`, opens it, takes one step and evaluates it: what can fail fails here.

        Nothing is kept. Raises WootzError, or PassError for what has no gradient.
        """
        session, steps = self.open_to_try(model, solver, lesson, teacher)
        steps.advance(0, 1)
        evaluator = WeightedSession(model, session.weights(), self.device)
        evaluator.set_weights(session.device_weights())
        self.measured(evaluator.outputs, self.dataset.validation, full or model, limit=EVALUATION_BATCH + 1)

    def measured(self, predict: Predict, split: Split, full: Model | None, limit: int = 0) -> float:
        """The quality of what `predict` does on `split`, or on its first `limit` examples."""
        return measured(self.quality, predict, split, self.test_transform, self.reference(full), limit)

    def _validated(self, full: Model | None, predict: Predict, limit: int) -> float:
        return self.measured(predict, self.dataset.validation, full, limit)

    def reference(self, full: Model | None) -> Reference | None:
        """What a quality that compares is measured by; None for others."""
        if not self.quality.compares:
            return None
        assert full is not None, f"{self.quality.metric} compares with the full network"
        reference = Reference(full, self.test_transform, self.device)
        return self.references.setdefault(self.digests.program(full), reference)

    def _judged_by(self, full: Model | None) -> str:
        """What the values of the quality depend on beside a network and the data."""
        if not self.quality.compares:
            return self.quality.text
        assert full is not None, f"{self.quality.metric} compares with the full network"
        return f"{self.quality.text} beside {self.digests.program(full)}"

    def quality_of(self, model: Model, split: Split, full: Model | None = None) -> float:
        """That of a finished network on `split`, beside the full one; measured once and stored."""
        (quality,) = self.qualities_of([model], split, full)
        return quality

    def qualities_of(self, models: Sequence[Model], split: Split, full: Model | None = None) -> list[float]:
        """The same of several networks, which are measured together."""
        data, judged = f"{split.digests} {self.test_transform}", self._judged_by(full)
        recipes = [EvaluationRecipe(self.digests.program(model), judged, data, self.machine) for model in models]

        def measure(missing: Sequence[int]) -> list[Mapping[str, float]]:
            return [{"value": value} for value in self._measured_each([models[i] for i in missing], split, full)]

        return [float(record["value"]) for record in records_of(recipes, self.store, measure)]

    def _measured_each(self, models: Sequence[Model], split: Split, full: Model | None) -> list[float]:
        predict, reference = MergedSession(models, self.device).outputs, self.reference(full)
        return measured_each(self.quality, predict, len(models), split, self.test_transform, reference)

    def scores(self, full: Model, variants: Mapping[K, Model], split: Split) -> dict[K, Score]:
        """What each variant of a finished network is worth on `split`, measured once and stored; all that is missing is
        measured together. Raises WootzError for a variant whose output isn't like the network's."""
        data, whole = f"{split.digests} {self.test_transform}", self.digests.program(full)
        recipes = [
            EvaluationRecipe(
                f"{whole} {self.digests.program(variant)}", f"score, {self.quality.text}", data, self.machine
            )
            for variant in variants.values()
        ]

        def measure(missing: Sequence[int]) -> list[Mapping[str, float]]:
            wanted = dict(list(variants.items())[i] for i in missing)
            found = score_variants(full, wanted, split, self.test_transform, self.device, self.quality)
            return [asdict(found[key]) for key in wanted]

        records = records_of(recipes, self.store, measure, what="score", by=self.run)
        return {key: Score(**record) for key, record in zip(variants, records, strict=True)}

    def looks(self, models: Sequence[Model], beyond: Sequence[Statistics], full: Model | None = None) -> list[Look]:
        """What assembled networks are worth without training, measured once, together, and stored.

        Their BatchNormalizations get statistics of what they see of training images. `beyond` are `statistics_offsets`
        of the full network in the channels that each has left.
        """
        images, _ = self.dataset.train.digests
        data = f"{images} {self.dataset.validation.digests} {self.test_transform}"
        recipes = [
            EvaluationRecipe(self.digests.program(model), self._looked_at(own, full), data, self.machine)
            for model, own in zip(models, beyond, strict=True)
        ]

        def measure(missing: Sequence[int]) -> list[Mapping[str, float]]:
            assembled = [models[i] for i in missing]
            measured = self._measured_statistics(assembled)
            networks = [
                recalibrated(model, found, beyond[i])
                for model, found, i in zip(assembled, measured, missing, strict=True)
            ]
            values = self._measured_each(networks, self.dataset.validation, full)
            return [{"quality": value} for value in values]

        records = records_of(recipes, self.store, measure, what="look")
        return [Look(float(record["quality"])) for record in records]

    def _looked_at(self, beyond: Statistics, full: Model | None) -> str:
        corrections = " ".join(f"{name} {self.digests.array(values)}" for name, values in sorted(beyond.items()))
        return (
            f"{self._judged_by(full)} with statistics of {CALIBRATION_IMAGES} images, {CALIBRATION_BATCH} at once: "
            f"{corrections}"
        )

    def statistics_offsets(self, full: Model) -> Statistics:
        """What the running statistics of the full network have beyond those that looks measure."""
        (measured,) = self._measured_statistics([full])
        return offsets(full, measured)

    def _measured_statistics(self, models: Sequence[Model]) -> list[Statistics]:
        return measured_statistics(models, self.dataset.train, self.test_transform, self.device, self.target)

    def above_guessing(self, model: Model, split: Split) -> float:
        """By how many standard deviations a finished network is better on `split` than if it knew nothing of images."""
        data = f"{split.digests} {self.test_transform}"
        recipe = EvaluationRecipe(self.digests.program(model), "above guessing", data, self.machine)

        def measure() -> Mapping[str, float]:
            found = answers(InferenceSession(model, self.device).run, split, self.test_transform)
            return {"value": above_guessing(found, split.classes)}

        return float(recipe.measured(self.store, measure)["value"])

    def latencies(self, full: Model, pruned: Model) -> tuple[Latency, Latency]:
        """Of the full network and a pruned one, side by side; once a machine: a second time would give others."""
        sizes = ", ".join(str(each.shape) for each in inputs_of_network(full))
        measure = f"latency of {sizes} on {self.device.numerics_threads} threads of {platform.node()}"
        programs = f"{self.digests.program(full)} {self.digests.program(pruned)}"
        recipe = EvaluationRecipe(programs, measure, "", self.machine)
        record = recipe.measured(
            self.store,
            lambda: {"latencies": [astuple(found) for found in latencies((full, pruned), zeros(full), self.device)]},
        )
        of_full, of_pruned = (Latency(*map(float, quartiles)) for quartiles in record["latencies"])
        return of_full, of_pruned

    def stored_weights(self, key: str) -> Mapping[str, np.ndarray] | None:
        """What a training left under its key; None where there is nothing, or it failed."""
        outcome = self.store.get(key)
        return outcome.weights if isinstance(outcome, Trained) else None

    def open_to_try(
        self, model: Model, solver: Solver, lesson: Lesson = LABELLED, teacher: Model | None = None
    ) -> tuple[TrainingSession, Steps]:
        """What `fine_tune` opens, but that the teacher says of few images something else than zeros, if it is asked
        once for each: the steps are of use to see whether they can be made, and how long they take."""
        program = self.network_program(model, solver, "a trial", lesson, teacher)
        return self.open(program.graph, solver, teacher=self.teacher_outputs(program, limit=TEACHER_BATCH))

    def open(
        self, graph: Model, solver: Solver, first_step: int = 0, teacher: TeacherOutputs | None = None
    ) -> tuple[TrainingSession, Steps]:
        """A session for `graph`, and its steps on the training split from number `first_step` on; `teacher` where the
        graph is given what that computes."""
        split, transform = self.dataset.train, self.train_transform
        count, first = solver.max_iter * solver.iter_size, first_step * solver.iter_size
        if self.data_on_device:
            graph = with_batches(graph, split, transform, solver)
            session = TrainingSession(graph, self.device)
            schedule = training_schedule(
                len(split), extents(split), transform, solver.batch_size, count, solver.random_seed
            )
            for _ in range(first):
                next(schedule)
            tensors = {} if teacher is None else teacher.tensors
            return session, ResidentSteps(graph, session, split, schedule, solver, tensors)
        session = TrainingSession(graph, self.device, solver.batch_size)
        says = (lambda _: {}) if teacher is None else teacher.of
        batches = training_batches(split, transform, solver.batch_size, count, solver.random_seed, first, says)
        return session, HostSteps(session, batches, solver)

    @cached_property
    def machine(self) -> str:
        """What of the machine, and of how it is used, changes numbers."""
        kernels = f"own kernels {native_numerics()}" if self.target == "native" else ""
        data = "data on the device" if self.data_on_device else ""
        return ", ".join(filter(None, (self.device.numerics, kernels, data)))

    def _recipe(
        self, program: Program, solver: Solver, images: str, labels: str, tests: str, end: str
    ) -> TrainingRecipe:
        order_of_sums = program.order_of_sums(self.device, solver.batch_size)
        return TrainingRecipe(
            program=program.digest,
            images=images,
            labels=labels,
            schedule=schedule_text(len(self.dataset.train), self.train_transform, solver),
            rates=rates_digest(solver),
            tests=tests,
            end=end,
            machine=", ".join(filter(None, (self.machine, order_of_sums))),
        )

    def _known(self, key: str) -> Finished | None:
        outcome, entry = self.store.get(key), self.store.entry(key)
        if outcome is None or entry is None:
            return None
        return replace(finished_of(key, outcome, reused=entry.by != self.run), computed=False)

    def _turn(self, key: str) -> Lease:
        """The lease of `key`, once its owner has given it back or has died."""
        while (lease := self.store.lease(key)) is None:
            self._wait(key)
        return lease

    def _wait(self, key: str) -> None:
        """A while, or until what another process computes is there. Raises Stopped where that is of no use."""
        self._stop_if_asked()
        self.store.wait(key, SECONDS_BETWEEN_LOOKS_AT_A_LEASE)

    def _stop_if_asked(self) -> None:
        if self.should_stop():
            raise Stopped
