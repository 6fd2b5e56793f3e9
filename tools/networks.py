"""The networks of a subspace: its configurations, without those that make the same network as another."""

from __future__ import annotations

from pathlib import Path

from wootz.frontend.subspace import read_subspace
from wootz.passes.plan.subspace import Configuration, Subspace, format_configuration
from wootz.passes.pruning.block_pruner import BlockPruner, Kept
from wootz.runtime.defaults import rounding
from wootz.tools.models import prunable_network

MOST_NAMED = 3


def read_networks(file: Path, pruner: BlockPruner, round_to: int | None) -> tuple[Subspace, tuple[str, ...]]:
    """The subspace in a file, its networks rounded as `--round-to` says and each of them once, and notes on it.

    Raises InputError where it does not fit the network of `pruner`.
    """
    subspace, warnings = read_subspace(file, prunable_network(pruner))
    rounded = pruner.rounding_to(rounding(round_to, subspace.rates))
    first: dict[Kept, Configuration] = {}
    repeated = []
    for configuration in subspace.configurations:
        kept = rounded.kept(dict(zip(subspace.modules, configuration, strict=True)))
        if (same := first.setdefault(kept, configuration)) != configuration:
            repeated.append(f"{format_configuration(configuration)} is {format_configuration(same)}")
    if not repeated:
        return subspace, warnings
    more = f" and {len(repeated) - MOST_NAMED} more" if len(repeated) > MOST_NAMED else ""
    note = (
        f"{file}: left out {len(repeated)} of {len(subspace.configurations)} configurations, which are the same "
        f"network as an earlier one: {', '.join(repeated[:MOST_NAMED])}{more}."
    )
    return Subspace(subspace.modules, tuple(first.values())), (*warnings, note)
