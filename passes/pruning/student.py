"""Consecutive modules of a pruned network, as a model of their own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from wootz.passes.analysis.channels import ChannelAnalysis, node_names
from wootz.passes.analysis.index_maps import NO_ATOM
from wootz.passes.analysis.module_boundaries import block_of, module_fault
from wootz.passes.errors import WootzError
from wootz.passes.ir.model import Constant, Model, Module, Tensor, Variable, copy_graph, module_nodes, subgraph_nodes
from wootz.passes.ir.rewrite import erase_nodes, redirect_readers
from wootz.passes.ir.shapes import annotate_shapes
from wootz.passes.plan.pruning import stored_keep_sets, with_keep_sets

NO_WEIGHTS = {"Resize", "Upsample"}
"""Their constants of several numbers are settings."""


@dataclass(frozen=True, eq=False)
class Student:
    """A block pruned and cut out, whose arrays are those of its pruner, and which atoms of the network are left:
    bool, as `kept_atoms` gives them. `shared` has the names of its weights that layers elsewhere read, too."""

    model: Model
    atoms: np.ndarray
    analysis: ChannelAnalysis
    shared: frozenset[str]

    def kept(self, tensor: str) -> np.ndarray:
        """Which elements of a tensor of the whole network are left: bool, broadcastable to the tensor's shape."""
        labels = self.analysis.maps.get(tensor, np.full((), NO_ATOM))
        return np.asarray(self.atoms[labels])


def carve(model: Model, modules: Sequence[Module], analysis: ChannelAnalysis | None) -> Model:
    """The block of `modules`. `analysis` is that of `model`, or of the network it was pruned from; None will do
    where the model isn't pruned. Raises WootzError for modules that are no piece of their own."""
    for module in modules:
        if fault := module_fault(model, module):
            raise WootzError(f"{module.name}: {fault}")
    block = block_of(model, modules)
    graph = copy_graph(model.graph)
    tensors = graph.tensors()
    entries, exits = ([tensors[name] for name in names] for names in (block.entries, block.exits))
    inside = subgraph_nodes(exits, stop=entries)
    if any(t.shape is None for t in (*entries, *exits)):
        annotate_shapes(graph)
    names = node_names(graph)
    layers = {names[i] for i, node in enumerate(graph.nodes) if id(node) in inside}
    erase_nodes(graph, [node for node in graph.nodes if id(node) not in inside])
    sources = [Variable(entry.name, entry.dtype, entry.shape) for entry in entries]
    for entry, source in zip(entries, sources, strict=True):
        redirect_readers(entry, source)
    graph.inputs, graph.outputs = sources, exits
    graph.name = block.name
    if analysis is not None:
        layers |= set().union(*(_layers_behind(name, analysis) for name in block.entries))
    keep_sets = {n: keep for n, keep in stored_keep_sets(model.metadata).items() if n in layers}
    metadata = with_keep_sets(model.metadata, keep_sets)
    return replace(model, graph=graph, modules=tuple(modules), metadata=metadata)


def weights_shared_with_others(model: Model, modules: Sequence[Module]) -> frozenset[str]:
    """The names of the weights of consecutive modules that nodes outside, for instance in a module that is called
    again elsewhere, read as well."""
    inside = [*module_nodes(model, block_of(model, modules))]
    own = {id(node) for node in inside}
    weights = {id(t): t for node in inside if node.op not in NO_WEIGHTS for t in node.inputs if _may_be_weight(t)}
    return frozenset(t.name for t in weights.values() if any(id(reader) not in own for reader in t.outputs))


def _may_be_weight(tensor: Tensor) -> bool:
    return isinstance(tensor, Constant) and np.dtype(tensor.dtype).kind == "f" and int(np.prod(tensor.shape)) > 1


def _layers_behind(tensor: str, analysis: ChannelAnalysis) -> set[str]:
    """The layers that the channels of a tensor are filters of."""
    return {analysis.layers[p].name for p in analysis.layers_with(analysis.channels_in(tensor))}
