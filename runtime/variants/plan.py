"""In which order the parts of a network and of its variants are computed, so that nothing is computed twice."""

from __future__ import annotations

from collections.abc import Collection, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Generic, TypeVar

from wootz.passes.analysis.changed_region import ChangedRegion, ComparedNetwork
from wootz.passes.ir.model import Constant, Model, Node

LARGEST_SUFFIXES = 1 << 29
"""Bytes of weights that the programs behind all branches may hold together, as long as joints can make them fewer."""

K = TypeVar("K", bound=Hashable)


@dataclass(frozen=True)
class Part:
    """Nodes of the full network that are run together, by their first result; what they read, and what of their results
    is read later. Of all that is there then, `kept` is what is still needed once the part's results were used."""

    nodes: frozenset[str]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    kept: frozenset[str]


@dataclass(frozen=True, eq=False)
class Group(Generic[K]):
    """Variants that differ from the full network between the same tensors, and what computes the outputs behind them.

    `needs` are the tensors of the full network that their branches and the suffix read, and those that the exits of the
    branches are compared with.
    """

    regions: Mapping[K, ChangedRegion]
    exits: tuple[str, ...]
    suffix: tuple[Part, ...]
    needs: frozenset[str]


@dataclass(frozen=True, eq=False)
class Stage(Generic[K]):
    """A part of the full network, and the groups that can be computed once it is there."""

    part: Part
    groups: tuple[Group[K], ...]


@dataclass(frozen=True, eq=False)
class VariantPlan(Generic[K]):
    """How the outputs of a full network and of its variants are computed from one batch.

    The stages are the full network, each node once. Of what they compute, no tensor is kept longer than a later stage,
    or a group of variants, needs it. `same` are the variants that are the full network.
    """

    network: ComparedNetwork
    stages: tuple[Stage[K], ...]
    same: tuple[K, ...]

    @staticmethod
    def of(full: Model, variants: Mapping[K, Model]) -> VariantPlan[K]:
        """Raises WootzError for a variant whose outputs have other names or shapes."""
        network = ComparedNetwork(full)
        regions = {key: network.region_of(variant) for key, variant in variants.items()}
        groups = _groups(network, {key: region for key, region in regions.items() if region.exits})
        same = tuple(key for key, region in regions.items() if not region.exits)
        return VariantPlan(network, _stages(network, groups), same)

    @property
    def groups(self) -> tuple[Group[K], ...]:
        return tuple(group for stage in self.stages for group in stage.groups)

    @cached_property
    def passes(self) -> float:
        """What is computed for an image, in multiply-accumulates, by those of one pass of the full network."""
        work = sum(self.network.macs(stage.part.nodes) for stage in self.stages)
        for group in self.groups:
            behind = sum(self.network.macs(part.nodes) for part in group.suffix)
            work += sum(region.macs + behind for region in group.regions.values())
        return work / max(1, self.network.macs(self.network.nodes))


def in_order(
    network: ComparedNetwork, parts: Sequence[frozenset[str]], wanted: Sequence[Collection[str]]
) -> tuple[Part, ...]:
    """Nodes that run one part after another; what is `wanted` from outside after each is computed, or still kept."""
    found: list[Part] = []
    later: set[str] = set()
    for nodes, now in zip(reversed(parts), reversed(wanted), strict=True):
        kept, made, inputs = frozenset(later), network.makes(nodes), network.reads(nodes)
        later.update(now)
        found.append(Part(nodes, inputs, tuple(sorted(made & later)), kept))
        later = (later - made).union(inputs)
    return tuple(reversed(found))


def _groups(network: ComparedNetwork, regions: Mapping[K, ChangedRegion]) -> tuple[Group[K], ...]:
    """In the order in which what they need becomes known."""
    together: dict[tuple[frozenset[str], frozenset[str]], dict[K, ChangedRegion]] = {}
    for key, region in regions.items():
        together.setdefault((region.suffix, frozenset(region.exits)), {})[key] = region
    suffixes = _suffix_parts(network, {suffix for suffix, _ in together})
    groups = []
    for (suffix, exits), members in together.items():
        entries = (entry for region in members.values() for entry in region.entries)
        needs = exits.union(entries, network.reads(suffix))
        groups.append(Group(members, tuple(sorted(exits)), suffixes[suffix], needs))
    place = {name: i for i, name in enumerate(network.nodes)}
    return tuple(
        sorted(groups, key=lambda group: max(place.get(network.maker.get(name, ""), -1) for name in group.needs))
    )


def _stages(network: ComparedNetwork, groups: Sequence[Group[K]]) -> tuple[Stage[K], ...]:
    """A stage for each group that needs something new, and for what is behind the last one."""
    parts: list[frozenset[str]] = []
    members: list[list[Group[K]]] = []
    wanted: list[frozenset[str]] = []
    needs_and_groups = [*((group.needs, [group]) for group in groups), (frozenset(network.outputs), [])]
    for needs, together in needs_and_groups:
        nodes = _made_from(network, needs, set().union(*parts))
        if nodes:
            parts.append(nodes)
            members.append([])
            wanted.append(frozenset())
        members[-1] += together
        wanted[-1] |= needs
    return tuple(Stage(part, tuple(m)) for part, m in zip(in_order(network, parts, wanted), members, strict=True))


def _made_from(network: ComparedNetwork, names: Iterable[str], done: Collection[str]) -> frozenset[str]:
    """The nodes that compute tensors from what the nodes `done` have computed."""
    found: set[str] = set()
    pending = list(names)
    while pending:
        node = network.maker.get(pending.pop())
        if node is not None and node not in done and node not in found:
            found.add(node)
            pending.extend(network.reads((node,)))
    return frozenset(found)


def _suffix_parts(
    network: ComparedNetwork, suffixes: Collection[frozenset[str]]
) -> dict[frozenset[str], tuple[Part, ...]]:
    """Each suffix as one part; where the weights of all would take too much memory, with as few joints as it takes."""
    ascending = sorted((suffix for suffix in suffixes if suffix), key=len)
    held = {name: _weight_bytes(node) for name, node in network.nodes.items()}
    for apart in range(max(1, len(ascending)), 0, -1):
        chains = _chains(ascending, apart)
        programs = {part for parts in chains.values() for part in parts}
        if sum(held[name] for part in programs for name in part) <= LARGEST_SUFFIXES:
            break
    return {frozenset(): ()} | {
        suffix: in_order(network, parts, [*([()] * (len(parts) - 1)), network.outputs])
        for suffix, parts in chains.items()
        if suffix
    }


def _chains(suffixes: Sequence[frozenset[str]], apart: int) -> dict[frozenset[str], tuple[frozenset[str], ...]]:
    """The parts of each suffix, in order: what lies before the largest joint within it, and that one's parts. Of the
    suffixes, in order of size, one in `apart` is a joint."""
    joints = [frozenset[str](), *suffixes[apart - 1 :: apart]]
    chains: dict[frozenset[str], tuple[frozenset[str], ...]] = {frozenset(): ()}
    for suffix in suffixes:
        joint = max((other for other in joints if other < suffix), key=len)
        chains[suffix] = (suffix - joint, *chains[joint])
    return chains


def _weight_bytes(node: Node) -> int:
    return sum(t.values.nbytes for t in node.inputs if isinstance(t, Constant))
