"""Which modules are seen by what comes after them: where their pruning takes channels from other inputs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from wootz.passes.analysis.channels import ChannelAnalysis
from wootz.passes.ir.model import Model, Module, module_nodes


@dataclass(frozen=True)
class InputSources:
    """Positions of modules that take channels from inputs when they are pruned.

    `of_modules` has those for each module whose input loses channels. It is empty for networks of closed modules
    (ResNet, Inception), whose top layers stay whole; in a chain of layers (LeNet, VGG) each module loses inputs with
    the one before it. `outside` are the modules that take channels from layers outside of all modules.
    """

    of_modules: Mapping[int, tuple[int, ...]]
    outside: tuple[int, ...]


def find_input_sources(
    model: Model, modules: Sequence[Module], analysis: ChannelAnalysis, removed: Mapping[int, np.ndarray]
) -> InputSources:
    """Whose inputs depend on which of `modules`. `removed` has for each that can be pruned, by its position, the
    channels that go when it is pruned as far as it can be."""

    def sources(tensors: Iterable[str]) -> tuple[int, ...]:
        channels = [analysis.channels_in(tensor) for tensor in tensors]
        met = np.unique(np.concatenate(channels)) if channels else np.zeros(0, np.int32)
        return tuple(position for position, gone in removed.items() if np.isin(gone, met).any())

    of_modules = {i: tuple(s for s in sources(m.entries) if s != i) for i, m in enumerate(modules)}
    inside = {id(node) for module in modules for node in module_nodes(model, module)}
    outside = {t.name for node in model.graph.nodes if id(node) not in inside for t in node.inputs}
    return InputSources({i: found for i, found in of_modules.items() if found}, sources(outside))
