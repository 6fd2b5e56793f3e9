"""Carves consecutive modules out of a model, as a model of their own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from wootz.passes.analysis.channels import ChannelAnalysis, analyse_channels, node_names
from wootz.passes.analysis.module_boundaries import region_fault
from wootz.passes.base import Pass, PassResult, option
from wootz.passes.errors import WootzError
from wootz.passes.ir.model import Model, Module, Variable, copy_graph, subgraph_nodes
from wootz.passes.ir.rewrite import erase_nodes, redirect_readers
from wootz.passes.ir.shapes import annotate_shapes
from wootz.passes.plan.pruning import stored_keep_sets, with_keep_sets


@dataclass(frozen=True)
class ExtractBlocks(Pass):
    """Carves consecutive modules out of a model, as a model of their own with one input and one output.

    The input is the entry tensor of `first`, the output the exit tensor of `last`; all names stay. `last` defaults
    to `first`. Of the metadata's keep-sets, those of layers inside stay, and of those that the input comes from.

    Refuses modules in the wrong order, modules that read a second tensor from outside, and modules of which a second
    tensor is read outside.
    """

    name = "extract-blocks"
    requires = "the name of a module: extract-blocks{first=MODULE}"
    first: str = option("", "name of the first module")
    last: str = option("", "name of the last module (default: the first)")

    def apply(self, model: Model) -> PassResult:
        if not self.first:
            raise self.refuse("option first is missing: the name of a module")
        try:
            first, last = model.module(self.first), model.module(self.last or self.first)
        except WootzError as error:
            raise self.refuse(str(error)) from error
        start, end = model.modules.index(first), model.modules.index(last)
        if end < start:
            raise self.refuse(f"{last.name} comes before {first.name}")
        modules = model.modules[start : end + 1]
        analysis = analyse_channels(model) if stored_keep_sets(model.metadata) else None
        return PassResult(self.carve(model, modules, analysis), modified=True)

    def carve(self, model: Model, modules: Sequence[Module], analysis: ChannelAnalysis | None) -> Model:
        """The block of `modules`. `analysis` is that of `model`, or of the network it was pruned from; None will do
        where the model isn't pruned."""
        fault = region_fault(model, modules[0], modules[-1])
        if fault:
            raise self.refuse(fault, "-".join(dict.fromkeys((modules[0].name, modules[-1].name))))
        graph = copy_graph(model.graph)
        tensors = graph.tensors()
        entry, exit_ = tensors[modules[0].entry], tensors[modules[-1].exit]
        inside = subgraph_nodes([exit_], stop=[entry])
        if entry.shape is None or exit_.shape is None:
            annotate_shapes(graph)
        names = node_names(graph)
        layers = {names[i] for i, node in enumerate(graph.nodes) if id(node) in inside}
        erase_nodes(graph, [node for node in graph.nodes if id(node) not in inside])
        source = Variable(entry.name, entry.dtype, entry.shape)
        redirect_readers(entry, source)
        graph.inputs, graph.outputs = [source], [exit_]
        graph.name = modules[0].name if len(modules) == 1 else f"{modules[0].name}-{modules[-1].name}"
        if analysis is not None:
            layers |= _layers_behind(entry.name, analysis)
        keep_sets = {n: keep for n, keep in stored_keep_sets(model.metadata).items() if n in layers}
        metadata = with_keep_sets(model.metadata, keep_sets)
        return replace(model, graph=graph, modules=tuple(modules), metadata=metadata)


def _layers_behind(tensor: str, analysis: ChannelAnalysis) -> set[str]:
    """The layers that the channels of a tensor are filters of."""
    return {analysis.layers[p].name for p in analysis.layers_with(analysis.channels_in(tensor))}
