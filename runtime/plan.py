"""What a run would do: candidates, blocks and groups, without training anything."""

from __future__ import annotations

import platform
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from typing import Any

import msgspec

from wootz.passes.blocks.costs import Cost, network_cost
from wootz.passes.blocks.groups import Group, group_blocks, partition_blocks
from wootz.passes.errors import WootzError
from wootz.passes.plan.blocks import TuningBlock
from wootz.passes.plan.metrics import Metric
from wootz.passes.plan.objective import Measurements
from wootz.passes.plan.space import Quantity
from wootz.passes.plan.subspace import SKIP, Configuration, Subspace, format_configuration
from wootz.runtime.delivery.delivered import for_inference, rehearse_delivery
from wootz.runtime.digest import digest
from wootz.runtime.job import Searching
from wootz.runtime.latency_table.measuring import measure_table
from wootz.runtime.latency_table.table import LatencyTable
from wootz.runtime.outcome import Trained
from wootz.runtime.result import measurements
from wootz.runtime.strategies.selection import Candidate, feasible_in_order
from wootz.runtime.survey import Survey, space_costs, subspace_costs, survey_space, survey_subspace
from wootz.runtime.tasks.program import compiler_digest
from wootz.runtime.tasks.recipe import EvaluationRecipe
from wootz.runtime.tasks.rehearsal import check_batches, representatives, structure
from wootz.runtime.tasks.task import reached
from wootz.runtime.tasks.workshop import Workshop


@dataclass(frozen=True)
class RunPlan:
    """What a run is going to do, whose networks are judged by `quality`.

    `full` and `candidates` have what is known before any training of the unpruned network and of each configuration of
    `subspace`. `order` are those to be tried, as the objective has it; `survey` is of these, in the subspace's order.
    For a search `pieces` has what each piece of a network adds to the metrics that are known before training, to
    latencies by `latency_table`.
    """

    subspace: Subspace
    full: Measurements
    candidates: tuple[Candidate, ...]
    order: tuple[Candidate, ...]
    survey: Survey
    quality: Metric
    pieces: Mapping[Metric, Quantity] = field(default_factory=dict)
    latency_table: LatencyTable | None = None

    @cached_property
    def composites(self) -> Mapping[int, tuple[TuningBlock | None, ...]]:
        """The composite vector of each network that is to be tried, by its position in the subspace."""
        return dict(zip(_positions(self.order), self.survey.plan.composites, strict=True))

    def configuration(self, network: int) -> Configuration:
        return self.subspace.configurations[network]

    @property
    def tried(self) -> Subspace:
        """The configurations to be tried."""
        return self.survey.subspace

    @property
    def groups(self) -> tuple[Group, ...]:
        """The blocks that need training, by the graphs that they are trained in."""
        return self.survey.groups

    @cached_property
    def networks_with(self) -> Mapping[TuningBlock, int]:
        """How many of the networks to be tried share each block."""
        return {use.block: len(use.networks) for use in self.survey.uses}

    def measured(self, network: int, record: Mapping[str, Any]) -> Measurements:
        """What is known of a network after its training, of which that was recorded."""
        return {**self.candidates[network].measured, self.quality: self.quality_of(record)}

    @staticmethod
    def quality_of(record: Mapping[str, Any]) -> float:
        """The quality that a training came to."""
        return reached(record)


def plan_run(workshop: Workshop, workers: int = 1) -> RunPlan:
    """The plan of a job for so many workers. Raises WootzError where no configuration can meet the objective."""
    job, pruner = workshop.job, workshop.architecture
    if job.search is not None:
        return _plan_search(workshop, job.search, workers)
    costs = subspace_costs(pruner, job.subspace, pruner.input_sources)
    full, candidates = _measured(workshop, costs.networks)
    order = feasible_in_order(candidates, job.objective, full)
    positions = _positions(order)
    tried = replace(job.subspace, configurations=tuple(job.subspace.configurations[i] for i in positions))
    costs_of_tried = replace(costs, networks=tuple(costs.networks[i] for i in positions))
    survey = survey_subspace(pruner, tried, job.identifier, partial(_groups, workshop, workers), costs_of_tried)
    return RunPlan(job.subspace, full, candidates, tuple(order), survey, job.quality.metric)


def _plan_search(workshop: Workshop, search: Searching, workers: int) -> RunPlan:
    """The pieces of the space of a search, and their blocks; the networks are those that differ from the full one in a
    module each, and the uniform ones."""
    from wootz.runtime.strategies.search import check_bounds  # here: importing scipy takes half a second

    job, pruner = workshop.job, workshop.architecture
    space, costs = search.space, space_costs(pruner, search.space)
    pieces: dict[Metric, Quantity] = {
        Metric.MODEL_SIZE: {symbol: float(cost.parameters) for symbol, cost in costs.items()},
        Metric.FLOPS: {symbol: 2.0 * cost.macs for symbol, cost in costs.items()},
    }
    table = None
    if job.wants_latency:
        table = search.latency_table or _latency_table(workshop, search)
        pieces[Metric.LATENCY] = table.costs
    full = {metric: space.total(of, (0.0,) * len(space.modules)) for metric, of in pieces.items()}
    check_bounds(space, pieces, job.objective, full)
    candidates = tuple(
        Candidate(i, {metric: space.total(of, configuration) for metric, of in pieces.items()})
        for i, configuration in enumerate(job.subspace.configurations)
    )
    survey = survey_space(pruner, space, costs, job.subspace, partial(_groups, workshop, workers))
    return RunPlan(job.subspace, full, candidates, candidates, survey, job.quality.metric, pieces, table)


def _latency_table(workshop: Workshop, search: Searching) -> LatencyTable:
    """Of this machine, measured once: a second time would give others."""
    job, trainer, options = workshop.job, workshop.trainer, search.space.options
    pruner, device = workshop.architecture, job.device
    where = f"{job.image_shape} on {device.numerics_threads} threads of {platform.node()}"
    program = trainer.digests.program(pruner.model)
    recipe = EvaluationRecipe(program, f"latencies of {options}, {job.rounding}, {where}", "", trainer.machine)
    record = recipe.measured(
        trainer.store,
        lambda: msgspec.to_builtins(measure_table(pruner, options, job.image_shape, device)),
        what=f"latency table of {job.title}",
    )
    return msgspec.convert(record, LatencyTable)


def _positions(candidates: Iterable[Candidate]) -> list[int]:
    return sorted(candidate.index for candidate in candidates)


def _measured(workshop: Workshop, costs: Sequence[Cost]) -> tuple[Measurements, tuple[Candidate, ...]]:
    """The full network and all configurations. Latency is measured only where the objective asks for it."""
    job, pruner = workshop.job, workshop.architecture
    latencies: list[float | None] = [None] * (len(costs) + 1)
    if job.wants_latency:
        latencies = _latencies(workshop)
    all_costs = (network_cost(pruner.model), *costs)
    measured = [measurements(c.parameters, 2 * c.macs, ms) for c, ms in zip(all_costs, latencies, strict=True)]
    return measured[0], tuple(Candidate(i, m) for i, m in enumerate(measured[1:]))


def _latencies(workshop: Workshop) -> list[float | None]:
    """Milliseconds of the full network, then of each configuration, as they were beside the full network.

    What slows the machine down for a while changes both, and not their ratio.
    """
    job, pruner = workshop.job, workshop.architecture
    full, _ = workshop.trainer.latencies(pruner.model, pruner.model)
    found: list[float | None] = [full.median_ms]
    for configuration in job.subspace.configurations:
        pruned = workshop.pruned(pruner, configuration)
        beside, latency = workshop.trainer.latencies(pruner.model, pruned)
        found.append(full.median_ms * latency.median_ms / beside.median_ms)
    return found


def _groups(workshop: Workshop, workers: int, blocks: Sequence[TuningBlock]) -> tuple[Group, ...]:
    """The blocks to be pre-trained in one graph each: by memory, or the paper's way."""
    budget = workshop.job.memory_budget
    if workshop.job.groups == "paper":
        return group_blocks(blocks)
    if budget is None:
        return partition_blocks(blocks, lambda group: 0, 0, workers)
    return partition_blocks(blocks, workshop.block_memory, budget, workers)


def rehearse(workshop: Workshop, plan: RunPlan) -> float:
    """Raises WootzError for what would fail later by its structure: the full network, its gradients, the pruned
    networks, the files that they become, the groups of blocks, or a block that does not fit into the memory. Gives the
    seconds that it took.

    Of the networks to be tried, those few are built that have each module at each of its rates, and brought into the
    form of `best.onnx`; a search's without any module is left out, in which there may be nothing to train. Those of
    them take a step that have each module unpruned, pruned and left out.
    Weights play no part, so the full network need not be trained. What was rehearsed once isn't again.
    """
    store, begin = workshop.trainer.store, time.perf_counter()
    key = _rehearsal_key(workshop, plan)
    if store.get_record(key) is not None:
        return 0.0
    job, pruner, trainer = workshop.job, workshop.architecture, workshop.trainer
    check_batches(pruner.model, job.dataset.validation, job.test_transform, job.device)
    taught = job.lesson, workshop.instructor(pruner)
    if job.untrained:
        trainer.rehearse(pruner.model, job.teacher_solver, job.lesson.without_teacher())
    if job.reference != "given":
        trainer.rehearse(pruner.model, job.solver, *taught, pruner.model)
    configurations = [c for c in plan.tried.configurations if job.search is None or set(c) != {SKIP}]
    built = [configurations[position] for position in representatives(configurations)]
    trained = representatives([structure(configuration) for configuration in built])
    for position, configuration in enumerate(built):
        try:
            workshop.check_pruned(pruner, configuration)
            pruned = workshop.pruned(pruner, configuration)
            rehearse_delivery(job, pruned, for_inference(job, pruned))
            if position in trained:
                trainer.rehearse(pruned, job.solver, *taught, pruner.model)
        except WootzError as error:
            raise WootzError(f"configuration {format_configuration(configuration)}: {error}") from error
    if job.groups == "paper" or job.memory_budget is None:  # else their graphs were built to know their memory
        for group in plan.groups:
            trainer.joint_graph(pruner, group, job.pretrain_solver)
    seconds = time.perf_counter() - begin
    store.put(key, Trained({}, {}), what=f"rehearsal of {job.title}", seconds=seconds)
    return seconds


def _rehearsal_key(workshop: Workshop, plan: RunPlan) -> str:
    job = workshop.job
    parts = (
        workshop.trainer.digests.program(workshop.network),
        *job.dataset.validation.digests,
        repr((plan.tried, plan.groups, job.teacher_solver, job.solver, job.pretrain_solver, job.test_transform)),
        repr((job.train_transform, job.target, job.precision, job.checks_pruned, job.untrained, job.reference)),
        repr((job.interface, job.opset, job.keeps_batchnorm, job.embed_normalization, job.lesson, job.quality.text)),
        str(len(job.dataset.train)),  # whether the full network runs in each step depends on that
        workshop.trainer.machine,
        compiler_digest(),
    )
    return digest(*(part.encode() for part in parts))
