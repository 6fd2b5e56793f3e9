"""Which modules are seen by what comes after them: where their pruning takes channels from other inputs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from wootz.passes.ir.model import module_nodes
from wootz.passes.pruning.block_pruner import BlockPruner

ALMOST_ALL = 0.999
"""A rate at which one filter is left."""


@dataclass(frozen=True)
class InputSources:
    """Positions of modules that take channels from inputs when they are pruned.

    `of_modules` has those for each module whose input loses channels. It is empty for networks of closed modules
    (ResNet, Inception), whose top layers stay whole; in a chain of layers (LeNet, VGG) each module loses inputs with
    the one before it. `outside` are the modules that take channels from layers outside of all modules.
    """

    of_modules: Mapping[int, tuple[int, ...]]
    outside: tuple[int, ...]


def input_sources(pruner: BlockPruner) -> InputSources:
    """Whose inputs depend on which modules in the pruner's network."""
    removed = {i: _removed_channels(pruner, t.module) for i, t in enumerate(pruner.convolutions) if t.prunable}

    def sources(tensors: Iterable[str]) -> tuple[int, ...]:
        channels = [pruner.analysis.channels_in(tensor) for tensor in tensors]
        met = np.unique(np.concatenate(channels)) if channels else np.zeros(0, np.int32)
        return tuple(position for position, gone in removed.items() if np.isin(gone, met).any())

    of_modules = {i: tuple(s for s in sources([m.entry]) if s != i) for i, m in enumerate(pruner.modules)}
    inside = {id(node) for module in pruner.modules for node in module_nodes(pruner.model, module)}
    outside = {t.name for node in pruner.model.graph.nodes if id(node) not in inside for t in node.inputs}
    return InputSources({i: found for i, found in of_modules.items() if found}, sources(outside))


def _removed_channels(pruner: BlockPruner, module: str) -> np.ndarray:
    """The channels that go when `module` is pruned as far as it can be: int32[channels]."""
    plan = pruner.plan({module: ALMOST_ALL})
    removed = [
        np.delete(pruner.analysis.channels(layer), entry.keep)
        for layer, entry in zip(pruner.analysis.layers, plan.layers, strict=True)
        if entry.is_pruned
    ]
    return np.concatenate(removed) if removed else np.zeros(0, np.int32)
