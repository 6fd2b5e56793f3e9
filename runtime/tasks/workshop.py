"""Where the tasks of a job are performed: one in each process, which opens network and data once."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, replace
from functools import cached_property, partial
from pathlib import Path

import numpy as np

from wootz.passes.analysis.data_criteria import DATA_CRITERIA, LABELS, Sample
from wootz.passes.blocks.identifier import symbols
from wootz.passes.errors import StorageError
from wootz.passes.ir.model import Model, with_weights
from wootz.passes.ir.text import print_text
from wootz.passes.pipeline import ir_printer
from wootz.passes.plan.blocks import TuningBlock
from wootz.passes.plan.subspace import Configuration, Rate
from wootz.passes.pruning.block_pruner import BlockPruner
from wootz.passes.pruning.check import check_pruned
from wootz.passes.training.merged_parameters import separate_merged_parameters
from wootz.runtime.batches import ordered_batches
from wootz.runtime.executors.control import Control
from wootz.runtime.inputs import feeds
from wootz.runtime.job import Job
from wootz.runtime.recalibration import Statistics, running_statistics
from wootz.runtime.run_directory import SNAPSHOT_FOLDER
from wootz.runtime.session import evaluate
from wootz.runtime.store import Store
from wootz.runtime.tasks.early_end import EarlyEnd, early_end
from wootz.runtime.tasks.plateau import PLATEAU
from wootz.runtime.tasks.task import (
    FineTune,
    FineTuneFull,
    Finished,
    LookAt,
    Order,
    PretrainBlocks,
    Results,
    ScoreNetworks,
    TrainTeacher,
)
from wootz.runtime.tasks.telling import Telling
from wootz.runtime.tasks.trainer import Look, Trainer

RECALIBRATED_FROM = 0.1
"""Lost quality from which on an assembled network may be better with statistics of its own (docs/benchmarks.md)."""
LONGEST_PRINTED = 100
"""Weights of more elements are left out of training graphs that are printed."""
CRITERION_IMAGES = 128
"""Training images that a criterion looks at."""
SCORED_IMAGES = 512
"""Validation images on which blocks are scored: all blocks lose on the same ones, so that few tell which lose more."""


class Workshop:
    """Performs the tasks of one job. What it trains goes into the store, and what tasks need comes from there."""

    def __init__(self, job: Job, store: Store):
        self.job = job
        self.network = Model.from_proto(job.network.to_proto())  # the same in all processes
        separate_merged_parameters(self.network.graph)
        as_text = partial(print_text, elide_over=LONGEST_PRINTED)
        self.trainer = Trainer(
            dataset=job.dataset,
            train_transform=job.train_transform,
            test_transform=job.test_transform,
            target=job.target,
            device=job.device,
            store=store,
            data_on_device=job.data_on_device,
            precision=job.precision,
            block_start=job.block_start,
            plateau=PLATEAU if job.block_end == "plateau" else None,
            quality=job.quality,
            run=job.run,
            verify_each=job.verify_each,
            observers=ir_printer(sys.stderr.write, after=job.print_ir_after, text=as_text),
        )
        self._pruners: dict[str, BlockPruner] = {}
        self._block_weights: dict[str, Mapping[str, np.ndarray]] = {}
        self._statistics_offsets: dict[str, Statistics] = {}

    def perform(self, order: Order, control: Control) -> Results:
        """Does what the order's task says, or finds it in the store. Raises WootzError for what can't be done, and
        Stopped when `control` says so."""
        job, task = self.job, order.task
        trainer = replace(self.trainer, should_stop=control.should_stop, progress=Telling(control))
        match task:
            case TrainTeacher():
                return (
                    trainer.fine_tune(
                        self.network,
                        job.teacher_solver,
                        str(task),
                        snapshots=self._snapshots,
                        lesson=job.lesson.without_teacher(),
                    ),
                )
            case FineTuneFull():
                teacher = self.teacher(order.teacher)
                return (
                    trainer.fine_tune(
                        teacher,
                        job.solver,
                        str(task),
                        snapshots=self._snapshots,
                        lesson=job.lesson,
                        teacher=self.instructor(self.pruner(order.teacher)),
                        full=teacher,
                    ),
                )
            case PretrainBlocks():
                keys = self.block_keys(order.teacher, task.blocks)
                found = trainer.pretrain(self.pruner(order.teacher), keys, job.pretrain_solver, str(task))
                return tuple(found[block] for block in task.blocks)
            case ScoreNetworks():
                variants = {c: self.assembled(order, c) for c in order.configurations}
                split = job.dataset.validation
                scores = trainer.scores(self.teacher(order.teacher), variants, split.part(split.spread(SCORED_IMAGES)))
                return tuple(Finished("", asdict(scores[c])) for c in order.configurations)
            case LookAt():
                return tuple(Finished("", asdict(look)) for look in self.looks(order))
            case FineTune():
                (configuration,) = order.configurations
                check = partial(self.check_pruned, self.pruner(order.teacher), configuration)
                network = self.assembled(order, configuration)
                return (
                    trainer.fine_tune(
                        network,
                        job.solver,
                        str(task),
                        self.early_end(order),
                        check,
                        self._snapshots,
                        job.lesson,
                        self.instructor(self.pruner(order.teacher)),
                        self.teacher(order.teacher),
                    ),
                )

    def teacher(self, key: str) -> Model:
        """The full network with the weights that its training left under `key`; as given where that is empty."""
        return self.pruner(key).model

    def instructor(self, pruner: BlockPruner) -> Model | None:
        """The full network, with its modules, that pruned ones learn from; None where they don't."""
        return replace(pruner.model, modules=pruner.modules) if self.job.lesson.needs_teacher else None

    def examples_once(self, job: Job) -> int:
        """On how many examples the full network runs once before those of `job` learn from it, not in each step."""
        teacher = self.instructor(self.architecture)
        return self.trainer.examples_once(self.network, job.solver, job.lesson, teacher)

    @cached_property
    def architecture(self) -> BlockPruner:
        """Prunes the full network as it was given: whoever asks for sizes and structure needs no trained weights."""
        job = self.job
        criterion = "l1" if job.criterion in DATA_CRITERIA else job.criterion
        return BlockPruner.of(self.network, criterion, rounding=job.rounding)

    def pruner(self, teacher: str) -> BlockPruner:
        """Prunes the teacher whose key that is, empty where its weights were given."""
        looks_at_data = self.job.criterion in DATA_CRITERIA
        if not teacher and not looks_at_data:
            return self.architecture
        if teacher not in self._pruners:
            weights = self.weights(teacher, "the full network") if teacher else {}
            sample = self._sample(with_weights(self.network, weights)) if looks_at_data else None
            self._pruners[teacher] = self.architecture.with_weights(weights, self.job.criterion, sample)
        return self._pruners[teacher]

    def pruned(self, pruner: BlockPruner, configuration: Configuration) -> Model:
        return pruner.materialize(pruner.plan(self.rates(configuration)))

    def assembled(self, order: Order, configuration: Configuration) -> Model:
        """The network of a configuration, pruned, with the weights of those of the order's blocks that it has."""
        pruner = self.pruner(order.teacher)
        model = self.pruned(pruner, configuration)
        own = {symbol.module: symbol for symbol in symbols(configuration, pruner.input_sources.of_modules)}
        for block, key in order.blocks:
            if block.serves(own):
                if key not in self._block_weights:
                    self._block_weights[key] = self.weights(key, f"block {block}")
                weights = self._block_weights[key]
                if not set(block.symbols) <= set(own.values()):
                    weights = pruner.narrowed(block, weights, self.rates(configuration))
                model = with_weights(model, weights)
        return model

    def is_known(self, order: Order) -> bool:
        """Whether the fine-tuning of an order is in the store, and the blocks that it begins with."""
        (configuration,) = order.configurations
        if any(self.trainer.store.entry(key) is None for _, key in order.blocks):
            return False
        network, solver = self.assembled(order, configuration), self.job.solver
        end, taught = self.early_end(order), (self.job.lesson, self.instructor(self.pruner(order.teacher)))
        full = self.teacher(order.teacher)
        return self.trainer.known_network(network, solver, str(order.task), end, *taught, full) is not None

    def trained_network(self, order: Order, key: str) -> Model:
        """The network of an order after its fine-tuning, which is stored under `key`."""
        (configuration,) = order.configurations
        return with_weights(self.assembled(order, configuration), self.weights(key, str(order.task)))

    def looks(self, order: Order) -> list[Look]:
        """What the networks of an order are worth without training: as they are assembled or, if that is more, with
        statistics of what their BatchNormalizations see."""
        trainer, full, sign = self.trainer, self.pruner(order.teacher).model, self.trainer.quality.metric.sign
        networks = [self.assembled(order, c) for c in order.configurations]
        qualities = trainer.qualities_of(networks, self.job.dataset.validation, full)
        spoiled = [
            i
            for i, quality in enumerate(qualities)
            if order.of_full is None or sign * (order.of_full - quality) >= RECALIBRATED_FROM
        ]
        beyond = [self._statistics_left(order.teacher, order.configurations[i]) for i in spoiled]
        for i, look in zip(spoiled, trainer.looks([networks[i] for i in spoiled], beyond, full), strict=True):
            qualities[i] = sign * max(sign * qualities[i], sign * look.quality)
        return [Look(quality) for quality in qualities]

    def _statistics_left(self, teacher: str, configuration: Configuration) -> Statistics:
        """What looks have to add to statistics, in the channels that a configuration leaves."""
        pruner = self.pruner(teacher)
        if teacher not in self._statistics_offsets:
            self._statistics_offsets[teacher] = self.trainer.statistics_offsets(pruner.model)
        beyond = self._statistics_offsets[teacher]
        materializer = pruner.materializer.with_weights(with_weights(pruner.model, beyond))
        return running_statistics(materializer.materialize(pruner.plan(self.rates(configuration))))

    def early_end(self, order: Order) -> EarlyEnd | None:
        job = self.job
        if not job.ends_early or order.of_full is None:
            return None
        return early_end(job.objective, order.of_full, job.gives_up, len(job.dataset.validation))

    def block_keys(self, teacher: str, blocks: Iterable[TuningBlock]) -> dict[TuningBlock, str]:
        return self.trainer.block_keys(self.pruner(teacher), tuple(blocks), self.job.pretrain_solver)

    def block_memory(self, blocks: Sequence[TuningBlock]) -> int:
        """What pre-training `blocks` together takes, in bytes: that doesn't depend on the teacher's weights."""
        return self.trainer.block_memory(self.architecture, blocks, self.job.pretrain_solver)

    def check_pruned(self, pruner: BlockPruner, configuration: Configuration) -> None:
        """Raises WootzError where the pruned network is not the original without its filters."""
        if self.job.checks_pruned:
            plan = pruner.plan(self.rates(configuration))
            check_pruned(
                pruner.model,
                pruner.materialize(plan),
                plan,
                partial(evaluate, device=self.job.device),
                pruner.analysis,
            )

    def rates(self, configuration: Configuration) -> dict[str, Rate]:
        return dict(zip(self.job.subspace.modules, configuration, strict=True))

    def weights(self, key: str, what: str) -> Mapping[str, np.ndarray]:
        """What a training left in the store. Raises StorageError where that is gone."""
        weights = self.trainer.stored_weights(key)
        if weights is None:
            raise StorageError(
                f"{self.trainer.store.folder}: the weights of {what} are no longer there ({key[:12]}…): the same "
                f"command trains it again"
            )
        return weights

    def _sample(self, model: Model) -> Sample:
        """Training images for criteria that look at data; from all classes, where images are sorted by class."""
        split = self.job.dataset.train
        chosen = split.spread(CRITERION_IMAGES)
        images = split.part(chosen)
        (batch,) = ordered_batches(images, self.job.test_transform, len(chosen))
        labels = {LABELS: images.classes} if images.has_classes else {}
        given = {**feeds(batch.data, model.graph.inputs[0].name), **labels}
        return Sample(given, partial(evaluate, device=self.job.device))

    @property
    def _snapshots(self) -> Path:
        return self.job.out / SNAPSHOT_FOLDER
