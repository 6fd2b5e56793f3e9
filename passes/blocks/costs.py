"""What tuning blocks cost: parameters, multiply-accumulates, and the work that pre-training them takes and saves."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from wootz.passes.analysis.channels import node_names
from wootz.passes.analysis.cost import layer_costs
from wootz.passes.ir.model import Model, module_nodes
from wootz.passes.plan.blocks import BlockPlan, Symbol, TuningBlock

TRAINING_FACTOR = 3
"""A training step computes each convolution three times: forward, and the gradients of its input and its weight."""


@dataclass(frozen=True)
class Cost:
    """Parameters (running statistics not counted), and multiply-accumulates of one image going forward."""

    parameters: int = 0
    macs: int = 0

    def __add__(self, other: Cost) -> Cost:
        return Cost(self.parameters + other.parameters, self.macs + other.macs)

    def __sub__(self, other: Cost) -> Cost:
        return Cost(self.parameters - other.parameters, self.macs - other.macs)


@dataclass(frozen=True)
class BlockUse:
    """A block, the networks that use it (positions in the subspace) and its own cost."""

    block: TuningBlock
    networks: tuple[int, ...]
    cost: Cost


@dataclass(frozen=True)
class WorkEstimate:
    """Multiply-accumulates for one image and one training step.

    `students` and `teacher` are what pre-training takes, the teacher going forward once for each group. `separate` is
    what training the same pieces would take in every network for itself, `fine_tuning` what all networks take.
    """

    students: int
    teacher: int
    separate: int
    fine_tuning: int

    @property
    def pretraining(self) -> int:
        return self.students + self.teacher

    @property
    def break_even(self) -> float:
        """The part of the fine-tuning that pre-training has to save to pay, at equal numbers of steps."""
        return self.pretraining / self.fine_tuning


def total(costs: Iterable[Cost]) -> Cost:
    return sum(costs, Cost())


def network_cost(model: Model) -> Cost:
    layers = layer_costs(model)
    return Cost(sum(layer.parameters for layer in layers), sum(layer.macs for layer in layers))


def module_costs(model: Model) -> tuple[Cost, ...]:
    """The cost of each module of `model`, in the order of its module table."""
    layers = {layer.name: Cost(layer.parameters, layer.macs) for layer in layer_costs(model)}
    names = node_names(model.graph)
    name_of = {id(node): names[i] for i, node in enumerate(model.graph.nodes)}
    return tuple(
        total(layers.get(name_of[id(node)], Cost()) for node in module_nodes(model, module)) for module in model.modules
    )


def block_uses(plan: BlockPlan, costs: Mapping[Symbol, Cost]) -> tuple[BlockUse, ...]:
    """The blocks of `plan`, in its order, with their networks and costs."""
    networks: dict[TuningBlock, list[int]] = {block: [] for block in plan.blocks}
    for n, composite in enumerate(plan.composites):
        for block in composite:
            if block is not None:
                networks[block].append(n)
    return tuple(
        BlockUse(block, tuple(networks[block]), total(costs[symbol] for symbol in block.symbols))
        for block in plan.blocks
    )


def estimate_work(uses: Sequence[BlockUse], groups: int, teacher: Cost, networks: Sequence[Cost]) -> WorkEstimate:
    """The work for the pruned blocks among `uses`, pre-trained in so many groups; the others need no training."""
    trained = [use for use in uses if use.block.is_pruned]
    return WorkEstimate(
        students=TRAINING_FACTOR * sum(use.cost.macs for use in trained),
        teacher=groups * teacher.macs,
        separate=TRAINING_FACTOR * sum(use.cost.macs * len(use.networks) for use in trained),
        fine_tuning=TRAINING_FACTOR * sum(cost.macs for cost in networks),
    )
