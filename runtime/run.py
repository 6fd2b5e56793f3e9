"""The main job: from a network, a subspace and an objective to the best pruned network."""

from __future__ import annotations

import json
import platform
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import Any, Literal, TypeVar

import msgspec
import numpy as np
import onnx

from wootz.passes.analysis.cost import flops, parameters
from wootz.passes.analysis.data_criteria import DATA_CRITERIA, LABELS, Sample
from wootz.passes.blocks.groups import Group, group_blocks
from wootz.passes.blocks.identifier import identify_blocks
from wootz.passes.errors import WootzError
from wootz.passes.ir.files import save
from wootz.passes.ir.model import Model, tensor_shape, with_weights
from wootz.passes.ir.verifier import verify
from wootz.passes.plan.blocks import BlockPlan, TuningBlock
from wootz.passes.plan.objective import Measurements, Metric, Objective
from wootz.passes.plan.solver import Solver
from wootz.passes.plan.subspace import Configuration, Rate, Subspace, format_configuration
from wootz.passes.plan.transform import CLASSES_KEY, TRANSFORM_KEY, InputTransform
from wootz.passes.pruning.block_pruner import BlockPruner
from wootz.passes.pruning.check import check_pruned
from wootz.passes.pruning.input_sources import input_sources
from wootz.passes.training.joint_graph import joint_training_graph, partition_by_memory
from wootz.passes.training.legalize import Target
from wootz.passes.training.merged_parameters import separate_merged_parameters
from wootz.passes.training.mixed_precision import Precision
from wootz.passes.training.parameters import placeholder_notes
from wootz.passes.transforms.embed_normalization import EmbedNormalization
from wootz.runtime.batches import ordered_batches
from wootz.runtime.cluster import Cluster
from wootz.runtime.dataset import Dataset, Split
from wootz.runtime.evaluation import latency
from wootz.runtime.exploration import Candidate, check_accuracy_bounds, explore, feasible_in_order
from wootz.runtime.guessing import guessing_note
from wootz.runtime.outcome import Failed
from wootz.runtime.progress import Progress
from wootz.runtime.rehearsal import check_batches, representatives
from wootz.runtime.result import (
    BestNetwork,
    BlockResult,
    Environment,
    EvaluatedNetworkResult,
    Exploration,
    FailedBlockResult,
    FailedFullNetworkResult,
    FailedNetworkResult,
    FullNetworkResult,
    InfeasibleNetworkResult,
    NetworkResult,
    PhaseSeconds,
    Reuse,
    RunResult,
    TrainedBlockResult,
    TrainedNetworkResult,
    UntriedNetworkResult,
    block_symbols,
    measurements,
    objective_result,
)
from wootz.runtime.run_directory import BEST_FILE, STORE_FOLDER, TEACHER_FILE
from wootz.runtime.seen_validation import COMPARED_IMAGES, Share, seen_validation_note
from wootz.runtime.session import CPU, Device, evaluate, runtime_version
from wootz.runtime.store import ResultStore
from wootz.runtime.trainer import BlockOutcomes, TrainedBlock, Trainer

T = TypeVar("T")

CRITERION_IMAGES = 128
"""Training images that a criterion looks at."""


@dataclass(frozen=True)
class Job:
    """All inputs of a run.

    `untrained` are the layers whose weights came from fillers: when there are any, the full network is trained with
    `teacher_solver` before it serves as teacher; the pruned networks are fine-tuned with `solver`. `title` and
    `data_title` name the inputs in the report. `memory_budget` is in bytes, for the training of a group of blocks in
    one process; None sets no bound. With `checks_pruned` each pruned network is executed beside the masked original
    before it is trained.
    """

    title: str
    network: Model
    modules_source: str
    untrained: tuple[str, ...]
    all_untrained: bool
    train_transform: InputTransform
    test_transform: InputTransform
    image_shape: tuple[int, int, int]
    data_title: str
    dataset: Dataset
    subspace: Subspace
    objective: Objective
    teacher_solver: Solver
    solver: Solver
    pretrain_solver: Solver
    out: Path
    baseline: bool = False
    identifier: Literal["paper", "maximal"] = "maximal"
    groups: Literal["joint", "paper"] = "joint"
    memory_budget: int | None = None
    criterion: str = "l1"
    target: Target = "onnx"
    device: Device = CPU
    embed_normalization: bool = False
    data_on_device: bool = False
    precision: Precision = "float32"
    checks_pruned: bool = True
    seed: int = 0
    notes: tuple[str, ...] = ()


def run(job: Job, cluster: Cluster, progress: Progress) -> RunResult:
    """Does the whole job and writes `teacher.onnx`, `best.onnx` and `result.json` into `job.out`.

    All processes of `cluster` call this with the same job and get the same result; process 0 writes the files.
    Raises WootzError, before anything is trained or written, for inputs that don't fit each other.
    """
    check(job)
    return _Run(job, cluster, progress).execute()


def check(job: Job) -> None:
    """Raises WootzError where the inputs of a job don't fit each other."""
    check_accuracy_bounds(job.objective)
    channels = job.dataset.train.images.shape[1]
    for name, values in (("mean", job.test_transform.mean), ("scale", job.test_transform.scale)):
        if len(values) not in (1, channels):
            wanted = "1" if channels == 1 else f"1 or {channels}"
            raise WootzError(
                f"the {name} of the input has {len(values)} values, for images of {channels} channels: give {wanted}"
            )
    classes = len(job.dataset.classes)
    output = job.network.graph.outputs[0]
    shape = tensor_shape(output)
    if shape is not None and shape[1] != classes:
        raise WootzError(
            f"the network tells {shape[1]} classes apart ({output.name}), the data set has {classes}: in a prototxt "
            f"change num_output of the last layer, and its name, so that it starts anew; an ONNX file has to be "
            f"exported with {classes} classes, trained on them"
        )
    for name, solver in (
        ("teacher's solver", job.teacher_solver),
        ("solver", job.solver),
        ("pre-training solver", job.pretrain_solver),
    ):
        if solver.batch_size > len(job.dataset.train):
            raise WootzError(
                f"batch_size {solver.batch_size} of the {name} exceeds the {len(job.dataset.train)} training images"
            )


def in_subspace_order(subspace: Subspace, candidates: Sequence[Candidate]) -> Subspace:
    """Those configurations of `subspace` that are candidates."""
    chosen = sorted(candidate.index for candidate in candidates)
    return replace(subspace, configurations=tuple(subspace.configurations[i] for i in chosen))


def pruned_blocks(plan: BlockPlan) -> tuple[TuningBlock, ...]:
    """The blocks that need training: the others equal the teacher."""
    return tuple(block for block in plan.blocks if block.is_pruned)


@dataclass(frozen=True)
class _Pretraining:
    """What pre-training gave: an outcome for each block; `groups` are those that were trained now."""

    plan: BlockPlan
    outcomes: BlockOutcomes
    reused: frozenset[TuningBlock]
    groups: tuple[Group, ...]
    seconds: float

    @property
    def usable(self) -> dict[TuningBlock, TrainedBlock]:
        """The blocks that networks are assembled from."""
        return {block: outcome for block, outcome in self.outcomes.items() if isinstance(outcome, TrainedBlock)}

    def results(self, modules: Sequence[str]) -> tuple[BlockResult, ...]:
        return tuple(self._result(block, outcome, modules) for block, outcome in self.outcomes.items())

    def _result(self, block: TuningBlock, outcome: TrainedBlock | Failed, modules: Sequence[str]) -> BlockResult:
        known: dict[str, Any] = {
            "symbols": block_symbols(block, modules),
            "networks": sum(block in composite for composite in self.plan.composites),
            "reused": block in self.reused,
        }
        if isinstance(outcome, Failed):
            return FailedBlockResult(reason=outcome.reason, **known)
        return TrainedBlockResult(
            initial_error=outcome.initial_error, final_error=outcome.final_error, steps=outcome.steps, **known
        )

    def positions(self) -> dict[TuningBlock, int]:
        return {block: position for position, block in enumerate(self.outcomes)}


@dataclass(frozen=True)
class _Tried:
    """A network, and the process that has its weights."""

    network: EvaluatedNetworkResult
    process: int

    @property
    def measured(self) -> Measurements | None:
        return self.network.measured


class _Run:
    """One run: what its stages share."""

    def __init__(self, job: Job, cluster: Cluster, progress: Progress):
        self.job, self.cluster, self.progress = job, cluster, progress
        self.trainer = Trainer(
            dataset=job.dataset,
            train_transform=job.train_transform,
            test_transform=job.test_transform,
            target=job.target,
            device=job.device,
            store=ResultStore(job.out / STORE_FOLDER),
            progress=progress,
            data_on_device=job.data_on_device,
            precision=job.precision,
        )
        self.wants_latency = any(
            m is Metric.LATENCY for m in (job.objective.metric, *(c.metric for c in job.objective.constraints))
        )
        self.notes = list(job.notes)

    def execute(self) -> RunResult:
        job, begin = self.job, time.perf_counter()
        network = job.network.copy()
        separate_merged_parameters(network.graph)
        for note in placeholder_notes(network.graph):
            self.note(f"{note[:1].upper()}{note[1:]}.")
        untrained = BlockPruner.of(network, "l1" if job.criterion in DATA_CRITERIA else job.criterion)
        candidates, order, full_size = self.order_of_exploration(untrained)
        tried = in_subspace_order(job.subspace, order)
        plan = identify_blocks(tried, job.identifier, input_sources(untrained).of_modules)
        self.on_process_0(lambda: self.rehearse(untrained, tried, plan))
        planned = time.perf_counter()
        teacher, full = self.prepare_teacher(network, full_size)
        prepared = time.perf_counter()
        seconds = PhaseSeconds(plan=planned - begin, teacher=prepared - planned, total=prepared - begin)
        rest = self.not_evaluated(candidates, order, full_size)
        if isinstance(full, FailedFullNetworkResult):
            nothing = Exploration(best=None, networks=rest({}), networks_evaluated=0, seconds=0.0)
            return self.finish(full, full_size, nothing, seconds)
        check_accuracy_bounds(job.objective, full.measured)
        pruner = BlockPruner.of(teacher, job.criterion, sample=self.sample(teacher))
        if len(tried.configurations) == 1:
            self.note("There is a single network to try: it shares no block with another, so nothing is pre-trained.")
        composites = dict(zip(tried.configurations, plan.composites, strict=True))
        pretrained = self.pretrain(pruner, plan)
        block_trained, best_model = self.explore(
            "block-trained", pruner, order, full, rest, partial(self.assembled, pruner, composites, pretrained)
        )
        default: Exploration | None = None
        if job.baseline:
            default, _ = self.explore("default", pruner, order, full, rest, partial(self.inherited, pruner))
        if best_model is not None and self.cluster.rank == 0:
            self.write_model(best_model, BEST_FILE)
        seconds = msgspec.structs.replace(
            seconds,
            pretraining=pretrained.seconds,
            exploration=block_trained.seconds,
            baseline=default.seconds if default else 0.0,
            total=time.perf_counter() - begin,
        )
        return self.finish(full, full.measured, block_trained, seconds, pretrained, default)

    def finish(
        self,
        full: FullNetworkResult | FailedFullNetworkResult,
        measured: Measurements,
        block_trained: Exploration,
        seconds: PhaseSeconds,
        pretrained: _Pretraining | None = None,
        default: Exploration | None = None,
    ) -> RunResult:
        """The result of what was done, on all processes; process 0 writes it down."""
        job = self.job
        networks = [*block_trained.trained, *(default.trained if default else ())]
        positions = pretrained.positions() if pretrained else {}
        result = RunResult(
            best=block_trained.best,
            full=full,
            networks_evaluated=block_trained.networks_evaluated,
            networks_feasible=sum(not isinstance(n, InfeasibleNetworkResult) for n in block_trained.networks),
            networks_total=len(job.subspace.configurations),
            baseline=default,
            seconds=seconds,
            reuse=Reuse(
                blocks=len(pretrained.reused) if pretrained else 0,
                networks=sum(n.reused for n in block_trained.evaluated),
                baseline_networks=sum(n.reused for n in default.evaluated) if default else 0,
                seconds_saved=sum(n.seconds for n in networks if n.reused),
            ),
            seed=job.seed,
            network=job.title,
            data=job.data_title,
            objective=objective_result(job.objective, measured),
            classes=job.dataset.classes,
            modules=job.subspace.modules,
            modules_source=job.modules_source,
            networks=block_trained.networks,
            blocks=pretrained.results(job.subspace.modules) if pretrained else (),
            groups=tuple(tuple(positions[b] for b in g) for g in pretrained.groups) if pretrained else (),
            notes=tuple(self.notes),
            environment=Environment(
                wootz=metadata.version("wootz"),
                python=platform.python_version(),
                platform=platform.platform(),
                runtime=runtime_version(),
                executor="this process" if self.cluster.size == 1 else "MPI",
                workers=self.cluster.size,
                device=job.device.kind,
                precision=job.precision,
                target=job.target,
            ),
        )
        if self.cluster.rank == 0:
            result.save(job.out)
        return result

    def order_of_exploration(self, pruner: BlockPruner) -> tuple[list[Candidate], list[Candidate], Measurements]:
        """All configurations; those to try, in order; the size of the full network: weights play no part in them."""
        full, candidates = self.on_process_0(lambda: (self.size(pruner.model), self.candidates(pruner)))
        return candidates, feasible_in_order(candidates, self.job.objective, full), full

    def not_evaluated(
        self, candidates: Sequence[Candidate], order: Sequence[Candidate], full: Measurements
    ) -> Callable[[Mapping[int, EvaluatedNetworkResult]], tuple[NetworkResult, ...]]:
        """Fills up the networks that were evaluated with those that were not tried, and the infeasible ones."""
        known = [c for c in self.job.objective.constraints if not c.metric.needs_training]
        tried = {candidate.index for candidate in order}

        def complete(evaluated: Mapping[int, EvaluatedNetworkResult]) -> tuple[NetworkResult, ...]:
            feasible = [evaluated.get(c.index) or UntriedNetworkResult(**self.known_before(c)) for c in order]
            violated = {c.index: next((k for k in known if not k.holds(c.measured, full)), "") for c in candidates}
            infeasible = [
                InfeasibleNetworkResult(violates=str(violated[c.index]), **self.known_before(c))
                for c in candidates
                if c.index not in tried
            ]
            return *feasible, *infeasible

        return complete

    def known_before(self, candidate: Candidate) -> dict[str, Any]:
        """The fields of a network's result that its architecture decides."""
        return {
            "index": candidate.index,
            "configuration": self.job.subspace.configurations[candidate.index],
            "model_size": int(candidate.measured[Metric.MODEL_SIZE]),
            "flops": int(candidate.measured[Metric.FLOPS]),
            "latency_ms": candidate.measured.get(Metric.LATENCY),
        }

    def rehearse(self, pruner: BlockPruner, tried: Subspace, plan: BlockPlan) -> None:
        """Raises WootzError for what would fail later by its structure: the full network, its gradients, the pruned
        networks, the groups of blocks, or a block that does not fit into the memory.

        Of the networks to be tried, those few are built that have each module at each of its rates; each takes a step.
        Weights play no part, so the full network need not be trained.
        """
        job, begin = self.job, time.perf_counter()
        check_batches(pruner.model, job.dataset.validation, job.test_transform, job.device)
        if job.untrained:
            self.trainer.rehearse(pruner.model, job.teacher_solver)
        for position in representatives(tried.configurations):
            configuration = tried.configurations[position]
            try:
                self.check_pruned(pruner, configuration)
                self.trainer.rehearse(self.pruned(pruner, configuration), job.solver)
            except WootzError as error:
                raise WootzError(f"configuration {format_configuration(configuration)}: {error}") from error
        groups = self.groups(pruner, pruned_blocks(plan))
        if not self.groups_by_memory:  # else their graphs were built to know it
            for group in groups:
                joint_training_graph(pruner, group, job.pretrain_solver, job.target, job.precision)
        self.progress.message(
            f"All networks and trainings can be built (checked in {time.perf_counter() - begin:.1f} s)."
        )

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

    def sample(self, model: Model) -> Sample | None:
        """Training images for criteria that look at data; from all classes, where images are sorted by class."""
        if self.job.criterion not in DATA_CRITERIA:
            return None
        split = self.job.dataset.train
        chosen = np.unique(np.linspace(0, len(split) - 1, CRITERION_IMAGES).astype(np.int64))
        images = Split(split.images[chosen], split.labels[chosen])
        (batch,) = ordered_batches(images, self.job.test_transform, len(chosen))
        feeds = {model.graph.inputs[0].name: batch.data, LABELS: batch.labels}
        return Sample(feeds, partial(evaluate, device=self.job.device))

    def prepare_teacher(
        self, model: Model, size: Measurements
    ) -> tuple[Model, FullNetworkResult | FailedFullNetworkResult]:
        """The full network, trained first if it has untrained layers, and what was measured of it."""
        job = self.job
        curve: tuple[tuple[int, float], ...] = ()
        seconds, steps, reused = 0.0, 0, False
        origin: Literal["fine-tuned", "trained from scratch"] = (
            "trained from scratch" if job.all_untrained else "fine-tuned"
        )
        known: dict[str, Any] = {
            "configuration": (0.0,) * len(job.subspace.modules),
            "model_size": int(size[Metric.MODEL_SIZE]),
            "flops": int(size[Metric.FLOPS]),
            "latency_ms": size.get(Metric.LATENCY),
            "new_layers": () if job.all_untrained else job.untrained,
        }
        if job.untrained:
            new_layers = "" if job.all_untrained else f"; new layers: {', '.join(job.untrained)}"
            self.progress.message(f"The full network is {origin}{new_layers}.")
            trained = self.on_process_0(lambda: self.trainer.fine_tune(model, job.teacher_solver, "full network"))
            if isinstance(trained, Failed):
                self.note(f"full network: {trained.reason}")
                return model, FailedFullNetworkResult(reason=trained.reason, origin=origin, **known)
            model, curve, seconds = with_weights(model, trained.weights), trained.curve, trained.seconds
            steps, reused = curve[-1][0], trained.reused
        accuracy = self.trainer.test_accuracy(model, job.dataset.validation)
        test = job.dataset.test
        full = FullNetworkResult(
            model=TEACHER_FILE,
            origin=origin if job.untrained else "given",
            accuracy=accuracy,
            curve=curve,
            steps=steps,
            seconds=seconds,
            reused=reused,
            test_accuracy=None if test is None else self.trainer.test_accuracy(model, test),
            **known,
        )
        if not job.untrained:
            self.warn_of_seen_validation(model, full)
            labels = job.dataset.validation.labels
            note = guessing_note(Share(accuracy, len(labels)), labels, job.dataset.classes)
            if note:
                self.note(note)
        if self.cluster.rank == 0:
            self.write_model(model, TEACHER_FILE)
        self.progress.message(f"Full network: accuracy {accuracy:.4f}, {full.model_size:,} parameters.")
        return model, full

    def warn_of_seen_validation(self, model: Model, full: FullNetworkResult) -> None:
        """Notes where a network that came with its weights seems to have been trained on the validation images."""
        data = self.job.dataset
        images = min(len(data.train), COMPARED_IMAGES)
        compared = Split(data.train.images[:images], data.train.labels[:images])
        note = seen_validation_note(
            training=Share(self.trainer.test_accuracy(model, compared), images),
            validation=Share(full.accuracy, len(data.validation)),
            test=None if data.test is None or full.test_accuracy is None else Share(full.test_accuracy, len(data.test)),
            splits_training=data.splits_training,
        )
        if note:
            self.note(note)

    def candidates(self, pruner: BlockPruner) -> list[Candidate]:
        """What the architecture of each configuration tells before any training."""
        found = []
        for index, configuration in enumerate(self.job.subspace.configurations):
            model = self.pruned(pruner, configuration)
            found.append(Candidate(index, self.size(model)))
        return found

    def size(self, model: Model) -> Measurements:
        """What is known of a network before any training. Latency is measured only where the objective asks for it."""
        latency_ms = latency(model, self.job.image_shape, self.job.device) if self.wants_latency else None
        return measurements(parameters(model), flops(model), None, latency_ms)

    def pretrain(self, pruner: BlockPruner, plan: BlockPlan) -> _Pretraining:
        """Trains the pruned blocks, group by group, the groups spread over the processes.

        Blocks that are in the store are taken from there.
        """
        job, begin = self.job, time.perf_counter()
        wanted = pruned_blocks(plan)
        stored = self.on_process_0(lambda: self.trainer.stored_blocks(pruner, wanted, job.pretrain_solver))
        if stored:
            self.progress.message(f"{len(stored)} of {len(wanted)} tuning blocks taken from the store.")
        missing = tuple(b for b in wanted if b not in stored)
        groups = self.on_process_0(lambda: self.groups(pruner, missing))
        mine: BlockOutcomes = {}
        for number in range(self.cluster.rank, len(groups), self.cluster.size):
            title = f"{len(groups[number])} tuning blocks, group {number + 1} of {len(groups)}"
            mine |= self.trainer.pretrain(pruner, groups[number], job.pretrain_solver, title)
        outcomes = dict(stored)
        for trained in self.cluster.gather(mine):
            outcomes |= trained
        outcomes = {block: outcomes[block] for block in wanted}
        for block, outcome in outcomes.items():
            if isinstance(outcome, Failed):
                self.note(f"Block {block}: {outcome.reason}. Its modules start from the teacher's remaining weights.")
        return _Pretraining(plan, outcomes, frozenset(stored), groups, time.perf_counter() - begin)

    @property
    def groups_by_memory(self) -> bool:
        return self.job.groups == "joint" and self.job.memory_budget is not None

    def groups(self, pruner: BlockPruner, blocks: tuple[TuningBlock, ...]) -> tuple[Group, ...]:
        """The blocks to be pre-trained in one graph each: by memory, or the paper's way."""
        if self.job.groups == "paper":
            return group_blocks(blocks)
        job = self.job
        return partition_by_memory(
            pruner, blocks, job.pretrain_solver, job.memory_budget, self.cluster.size, job.target, job.precision
        )

    def explore(
        self,
        kind: str,
        pruner: BlockPruner,
        order: Sequence[Candidate],
        full: FullNetworkResult,
        rest: Callable[[Mapping[int, EvaluatedNetworkResult]], tuple[NetworkResult, ...]],
        build: Callable[[Candidate], tuple[Model, tuple[int | None, ...]]],
    ) -> tuple[Exploration, Model | None]:
        """Fine-tunes and evaluates networks in order. The best one is tested, and its model given, on all processes."""
        begin = time.perf_counter()
        job = self.job

        def try_out(candidate: Candidate) -> _Tried:
            model, blocks = build(candidate)
            configuration = job.subspace.configurations[candidate.index]
            title = (
                f"{kind} network {order.index(candidate) + 1} of at most {len(order)} "
                f"{format_configuration(configuration)}"
            )
            known = {**self.known_before(candidate), "blocks": blocks}
            try:
                self.check_pruned(pruner, configuration)
            except WootzError as error:
                return _Tried(FailedNetworkResult(reason=str(error), **known), self.cluster.rank)
            trained = self.trainer.fine_tune(model, job.solver, title)
            if isinstance(trained, Failed):
                return _Tried(FailedNetworkResult(reason=trained.reason, **known), self.cluster.rank)
            network = TrainedNetworkResult(
                initial_accuracy=trained.initial_accuracy,
                accuracy=trained.final_accuracy,
                curve=trained.curve,
                steps=trained.curve[-1][0],
                seconds=trained.seconds,
                reused=trained.reused,
                **known,
            )
            return _Tried(network, self.cluster.rank)

        found = explore(order, job.objective, full.measured, try_out, self.cluster)
        seconds = time.perf_counter() - begin
        evaluated = {tried.network.index: tried.network for tried in found.evaluated}
        for failed in evaluated.values():
            if isinstance(failed, FailedNetworkResult):
                self.note(f"{kind} network {format_configuration(failed.configuration)}: {failed.reason}")
        best, model = None, None
        if found.best is not None:
            index = found.best.network.index
            model = self.trained(found.best.process, build(next(c for c in order if c.index == index))[0])
            best = self.chosen(found.best.network, model, BEST_FILE if kind == "block-trained" else None)
        exploration = Exploration(
            best=best, networks=rest(evaluated), networks_evaluated=len(evaluated), seconds=seconds
        )
        return exploration, model

    def chosen(self, network: EvaluatedNetworkResult, model: Model, file: str | None) -> BestNetwork:
        """The best network with its accuracy on the test split."""
        assert isinstance(network, TrainedNetworkResult), "a network that failed is never the best"
        test = self.job.dataset.test
        return BestNetwork(
            index=network.index,
            configuration=network.configuration,
            model=file,
            model_size=network.model_size,
            flops=network.flops,
            latency_ms=network.latency_ms,
            accuracy=network.accuracy,
            test_accuracy=None if test is None else self.trainer.test_accuracy(model, test),
        )

    def trained(self, process: int, initial: Model) -> Model:
        """The network after fine-tuning on `process`, on all processes; `initial` is what fine-tuning began with."""
        is_here = self.cluster.rank == process
        weights = self.trainer.stored_weights(initial, self.job.solver) if is_here else None
        return with_weights(initial, self.cluster.broadcast(weights, root=process))

    def assembled(
        self,
        pruner: BlockPruner,
        composites: Mapping[Configuration, tuple[TuningBlock | None, ...]],
        pretrained: _Pretraining,
        candidate: Candidate,
    ) -> tuple[Model, tuple[int | None, ...]]:
        """The block-trained network of a configuration, and for each module the block that it starts from."""
        configuration = self.job.subspace.configurations[candidate.index]
        model = self.pruned(pruner, configuration)
        usable, positions = pretrained.usable, pretrained.positions()
        sources: dict[int, int] = {}
        for block in composites[configuration]:
            if block is not None and block in usable:
                model = with_weights(model, usable[block].weights)
                sources |= dict.fromkeys(block.modules, positions[block])
        return model, tuple(map(sources.get, range(len(configuration))))

    def inherited(self, pruner: BlockPruner, candidate: Candidate) -> tuple[Model, tuple[int | None, ...]]:
        """The default network of a configuration: the teacher's remaining weights."""
        configuration = self.job.subspace.configurations[candidate.index]
        return self.pruned(pruner, configuration), (None,) * len(configuration)

    def pruned(self, pruner: BlockPruner, configuration: Configuration) -> Model:
        return pruner.materialize(pruner.plan(self.rates(configuration)))

    def rates(self, configuration: Configuration) -> dict[str, Rate]:
        return dict(zip(self.job.subspace.modules, configuration, strict=True))

    def write_model(self, model: Model, name: str) -> None:
        """Writes a finished network with its input transform and class names, after it has been verified."""
        job = self.job
        entries = {
            **model.metadata,
            TRANSFORM_KEY: job.test_transform.to_json(),
            CLASSES_KEY: json.dumps(job.dataset.classes),
        }
        model = replace(model, metadata=entries)
        if job.embed_normalization:
            model = EmbedNormalization().apply(model).model
        verify(model)
        onnx.checker.check_model(model.to_proto(), full_check=True)
        save(model, job.out / name)

    def on_process_0(self, compute: Callable[[], T]) -> T:
        """`compute()` on process 0, its value on all."""
        value: T = self.cluster.broadcast(compute() if self.cluster.rank == 0 else None)
        return value

    def note(self, text: str) -> None:
        self.notes.append(text)
        self.progress.message(text)
