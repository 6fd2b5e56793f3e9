"""What a run would do: candidates, blocks and groups, without training anything."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from wootz.passes.blocks.costs import Cost, module_costs, network_cost, total
from wootz.passes.blocks.groups import Group, group_blocks
from wootz.passes.blocks.identifier import Alphabet, identify_blocks
from wootz.passes.errors import WootzError
from wootz.passes.plan.blocks import BlockPlan, Symbol, TuningBlock
from wootz.passes.plan.objective import Measurements, Metric
from wootz.passes.plan.subspace import Subspace, format_configuration
from wootz.passes.pruning.block_pruner import BlockPruner
from wootz.passes.pruning.input_sources import InputSources, input_sources
from wootz.passes.training.joint_graph import joint_training_graph, partition_by_memory
from wootz.runtime.job import Job
from wootz.runtime.outcome import Trained
from wootz.runtime.result import measurements
from wootz.runtime.strategies.selection import Candidate, feasible_in_order
from wootz.runtime.tasks.recipe import digest
from wootz.runtime.tasks.rehearsal import check_batches, representatives
from wootz.runtime.tasks.workshop import Workshop


@dataclass(frozen=True)
class RunPlan:
    """What a run is going to do.

    `full` and `candidates` have what is known before any training of the unpruned network and of each configuration of
    the subspace. `order` are those to be tried, as the objective has it. `blocks` are the tuning blocks of the networks
    to be tried, and their composite vectors, in the subspace's order; `groups` are those that are trained in one graph.
    """

    full: Measurements
    candidates: tuple[Candidate, ...]
    order: tuple[Candidate, ...]
    tried: Subspace
    blocks: BlockPlan
    groups: tuple[Group, ...]

    @cached_property
    def composites(self) -> Mapping[int, tuple[TuningBlock | None, ...]]:
        """The composite vector of each network that is to be tried, by its position in the subspace."""
        positions = sorted(candidate.index for candidate in self.order)
        return dict(zip(positions, self.blocks.composites, strict=True))

    @cached_property
    def networks_with(self) -> Mapping[TuningBlock, int]:
        """How many of the networks to be tried share each block."""
        return Counter(block for composite in self.blocks.composites for block in composite if block is not None)

    def measured(self, network: int, record: Mapping[str, Any]) -> Measurements:
        """What is known of a network after its training, of which that was recorded."""
        return {**self.candidates[network].measured, Metric.ACCURACY: self.accuracy(record)}

    @staticmethod
    def accuracy(record: Mapping[str, Any]) -> float:
        """The accuracy at the end of a training."""
        return float(record["curve"][-1][1])

    @property
    def pruned_blocks(self) -> tuple[TuningBlock, ...]:
        """The blocks that need training: the others equal the teacher."""
        return tuple(block for block in self.blocks.blocks if block.is_pruned)


def plan_run(workshop: Workshop, workers: int = 1) -> RunPlan:
    """The plan of a job for so many workers. Raises WootzError where no configuration can meet the objective."""
    job, pruner = workshop.job, workshop.architecture
    sources = input_sources(pruner)
    full, candidates = _measured_candidates(workshop, sources)
    order = feasible_in_order(candidates, job.objective, full)
    chosen = sorted(candidate.index for candidate in order)
    tried = replace(job.subspace, configurations=tuple(job.subspace.configurations[i] for i in chosen))
    blocks = identify_blocks(tried, job.identifier, sources.of_modules)
    trained = tuple(block for block in blocks.blocks if block.is_pruned)
    return RunPlan(full, candidates, tuple(order), tried, blocks, _groups(job, pruner, trained, workers))


def _measured_candidates(workshop: Workshop, sources: InputSources) -> tuple[Measurements, tuple[Candidate, ...]]:
    """The full network and all configurations. Latency is measured only where the objective asks for it."""
    job, pruner = workshop.job, workshop.architecture
    full = network_cost(pruner.model)
    costs = subspace_costs(pruner, job.subspace, sources).networks
    latencies: list[float | None] = [None] * (len(costs) + 1)
    if job.wants_latency:
        models = (workshop.pruned(pruner, c) for c in job.subspace.configurations)
        latencies = [workshop.trainer.latency(model, job.image_shape) for model in (pruner.model, *models)]
    measured = [
        measurements(c.parameters, 2 * c.macs, None, ms) for c, ms in zip([full, *costs], latencies, strict=True)
    ]
    return measured[0], tuple(Candidate(i, m) for i, m in enumerate(measured[1:]))


@dataclass(frozen=True)
class SubspaceCosts:
    """The cost of each configuration, and of each piece: a module at a rate, and what is outside of all modules."""

    networks: tuple[Cost, ...]
    pieces: Mapping[Symbol, Cost]


def subspace_costs(pruner: BlockPruner, subspace: Subspace, sources: InputSources) -> SubspaceCosts:
    """The costs of a subspace, exactly: what a configuration costs is the sum over its pieces.

    Few networks are pruned, in which all pieces occur.
    """
    behind = len(subspace.modules)  # what is outside of modules is one more symbol, behind the last one
    alphabet = Alphabet({**sources.of_modules, behind: sources.outside}, is_open=bool(sources.of_modules))
    networks = np.array([alphabet.spell((*c, 0.0)) for c in subspace.configurations], np.int32)
    known = np.zeros(len(alphabet.letters), bool)
    costs = np.zeros((len(known), 2), np.int64)
    for network, configuration in zip(networks, subspace.configurations, strict=True):
        if not known[network].all():
            rates = dict(zip(subspace.modules, configuration, strict=True))
            pruned = pruner.materialize(pruner.plan(rates))
            inside = module_costs(pruned)
            of_pieces = (*inside, network_cost(pruned) - total(inside))
            costs[network] = [(cost.parameters, cost.macs) for cost in of_pieces]
            known[network] = True
    sums = costs[networks].sum(axis=1).tolist()
    return SubspaceCosts(
        networks=tuple(Cost(parameters, macs) for parameters, macs in sums),
        pieces={s: Cost(*cost) for s, cost in zip(alphabet.letters, costs.tolist(), strict=True)},
    )


def _groups(job: Job, pruner: BlockPruner, blocks: tuple[TuningBlock, ...], workers: int) -> tuple[Group, ...]:
    """The blocks to be pre-trained in one graph each: by memory, or the paper's way."""
    if job.groups == "paper":
        return group_blocks(blocks)
    return partition_by_memory(
        pruner, blocks, job.pretrain_solver, job.memory_budget, workers, job.target, job.precision
    )


def rehearse(workshop: Workshop, plan: RunPlan) -> float:
    """Raises WootzError for what would fail later by its structure: the full network, its gradients, the pruned
    networks, the groups of blocks, or a block that does not fit into the memory. Gives the seconds that it took.

    Of the networks to be tried, those few are built that have each module at each of its rates; each takes a step.
    Weights play no part, so the full network need not be trained. What was rehearsed once isn't again.
    """
    store, begin = workshop.trainer.store, time.perf_counter()
    key = _rehearsal_key(workshop, plan)
    if store.get_record(key) is not None:
        return 0.0
    job, pruner, trainer = workshop.job, workshop.architecture, workshop.trainer
    check_batches(pruner.model, job.dataset.validation, job.test_transform, job.device)
    if job.untrained:
        trainer.rehearse(pruner.model, job.teacher_solver)
    for position in representatives(plan.tried.configurations):
        configuration = plan.tried.configurations[position]
        try:
            workshop.check_pruned(pruner, configuration)
            trainer.rehearse(workshop.pruned(pruner, configuration), job.solver)
        except WootzError as error:
            raise WootzError(f"configuration {format_configuration(configuration)}: {error}") from error
    if job.groups == "paper" or job.memory_budget is None:  # else their graphs were built to know their memory
        for group in plan.groups:
            joint_training_graph(pruner, group, job.pretrain_solver, job.target, job.precision)
    seconds = time.perf_counter() - begin
    store.put(key, Trained({}, {}), what=f"rehearsal of {job.title}", seconds=seconds)
    return seconds


def _rehearsal_key(workshop: Workshop, plan: RunPlan) -> str:
    job = workshop.job
    parts = (
        workshop.trainer.digests.program(workshop.network),
        *workshop.trainer.digests.split(job.dataset.validation),
        repr((plan.tried, plan.groups, job.teacher_solver, job.solver, job.pretrain_solver, job.test_transform)),
        repr((job.train_transform, job.target, job.precision, job.checks_pruned, job.untrained)),
        workshop.trainer.machine,
    )
    return digest(*(part.encode() for part in parts))
