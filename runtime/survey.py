"""What a subspace shares and costs: its tuning blocks, and what they and its networks take. Nothing is trained."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from wootz.passes.blocks.costs import (
    BlockUse,
    Cost,
    WorkEstimate,
    block_uses,
    estimate_work,
    module_costs,
    network_cost,
    total,
)
from wootz.passes.blocks.groups import Group
from wootz.passes.blocks.identifier import Alphabet, Method, identify_blocks
from wootz.passes.plan.blocks import BlockPlan, Symbol, TuningBlock
from wootz.passes.plan.space import Space
from wootz.passes.plan.subspace import Subspace
from wootz.passes.pruning.block_pruner import BlockPruner
from wootz.passes.pruning.input_sources import InputSources
from wootz.runtime.store.amounts import counted, show_count

Grouping = Callable[[Sequence[TuningBlock]], tuple[Group, ...]]
"""Which blocks are trained in one graph."""


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


def space_of(pruner: BlockPruner, options: Sequence[Sequence[float]], listed: Sequence[Sequence[float]] = ()) -> Space:
    """All networks that these options of the modules allow, or those that are listed."""
    sources = pruner.input_sources
    outside = {len(options): sources.outside} if sources.outside else {}
    names = tuple(module.name for module in pruner.modules)
    return Space(names, tuple(map(tuple, options)), {**sources.of_modules, **outside}, tuple(map(tuple, listed)))


def show_space(space: Space) -> str:
    """`The space has 4,096 networks`, `The list has 1 network`."""
    if space.listed:
        return f"The list has {counted(space.count, 'network')}"
    return f"The space has {show_count(space.count)} networks"


def space_costs(pruner: BlockPruner, space: Space) -> Mapping[Symbol, Cost]:
    """The cost of every piece of a space, exactly."""
    subspace = Subspace(space.modules, space.covering())
    return subspace_costs(pruner, subspace, pruner.input_sources).pieces


@dataclass(frozen=True)
class Survey:
    """The tuning blocks of a subspace, their groups, and what they and the networks cost; `full` is the unpruned one.

    `costs` are those of the networks, in the subspace's order, and `uses` those of the blocks, in the plan's.
    """

    subspace: Subspace
    plan: BlockPlan
    uses: tuple[BlockUse, ...]
    groups: tuple[Group, ...]
    costs: tuple[Cost, ...]
    full: Cost

    @cached_property
    def names(self) -> Mapping[TuningBlock, str]:
        """Short names of the blocks: B1, B2, …"""
        return {block: f"B{i}" for i, block in enumerate(self.plan.blocks, start=1)}

    @property
    def work(self) -> WorkEstimate:
        return estimate_work(self.uses, len(self.groups), self.full, self.costs)


def survey_subspace(
    pruner: BlockPruner, subspace: Subspace, method: Method, grouping: Grouping, costs: SubspaceCosts | None = None
) -> Survey:
    """Identifies the blocks of `subspace`, groups those that need training, and measures all.

    `costs`, of these networks and perhaps further pieces, saves measuring them again.
    """
    sources = pruner.input_sources
    costs = costs or subspace_costs(pruner, subspace, sources)
    plan = identify_blocks(subspace, method, sources.of_modules)
    groups = grouping([block for block in plan.blocks if block.is_pruned])
    uses = block_uses(plan, costs.pieces)
    return Survey(subspace, plan, uses, groups, costs.networks, network_cost(pruner.model))


def survey_space(
    pruner: BlockPruner, space: Space, pieces: Mapping[Symbol, Cost], networks: Subspace, grouping: Grouping
) -> Survey:
    """The survey of some networks of a space, whose `pieces` cost that. Its blocks are those of the whole space: each
    module pruned is a block of its own, however often it occurs."""
    pruned = {piece for star in space.stars for piece in space.spell(star)[:-1] if TuningBlock((piece,)).is_pruned}
    blocks = {piece: TuningBlock((piece,)) for piece in sorted(pruned, key=lambda piece: (piece.module, str(piece)))}
    spelled = [space.spell(configuration) for configuration in networks.configurations]
    composites = tuple(tuple(map(blocks.get, network[:-1])) for network in spelled)
    plan = BlockPlan(tuple(blocks.values()), composites, ())
    costs = tuple(total(pieces[piece] for piece in network) for network in spelled)
    return Survey(networks, plan, block_uses(plan, pieces), grouping(plan.blocks), costs, network_cost(pruner.model))


def one_group(blocks: Sequence[TuningBlock]) -> tuple[Group, ...]:
    return (tuple(blocks),) if blocks else ()
