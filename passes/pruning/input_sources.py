"""Which modules' inputs lose channels when other modules are pruned."""

from __future__ import annotations

import numpy as np

from wootz.passes.transforms.prune_blocks import BlockPruner

ALMOST_ALL = 0.999
"""A rate at which one filter is left."""


def input_sources(pruner: BlockPruner) -> dict[int, tuple[int, ...]]:
    """For each module whose input loses channels, the positions of the modules whose pruning takes them.

    Empty for networks of closed modules (ResNet, Inception), whose top layers stay whole. In a chain of layers (LeNet,
    VGG) each module loses inputs with the one before it.
    """
    entries = [pruner.analysis.channels_in(module.entry) for module in pruner.modules]
    sources: dict[int, tuple[int, ...]] = {}
    for position, table in enumerate(pruner.convolutions):
        if table.prunable:
            removed = _removed_channels(pruner, table.module)
            for reader, entry in enumerate(entries):
                if reader != position and np.isin(entry, removed).any():
                    sources[reader] = (*sources.get(reader, ()), position)
    return sources


def _removed_channels(pruner: BlockPruner, module: str) -> np.ndarray:
    """The channels that go when `module` is pruned as far as it can be: int32[channels]."""
    plan = pruner.plan({module: ALMOST_ALL})
    removed = [
        np.delete(pruner.analysis.channels(layer), entry.keep)
        for layer, entry in zip(pruner.analysis.layers, plan.layers, strict=True)
        if entry.is_pruned
    ]
    return np.concatenate(removed) if removed else np.zeros(0, np.int32)
