"""Carves consecutive modules out of a model, as a model of their own."""

from __future__ import annotations

from dataclasses import dataclass, replace

from wootz.passes.base import Pass, PassResult, option
from wootz.passes.errors import WootzError
from wootz.passes.ir.model import Model, Module, Variable, copy_graph, subgraph_nodes


@dataclass(frozen=True)
class ExtractBlocks(Pass):
    """Keeps the modules `first` to `last` and makes them a model with one input and one output.

    The input is the entry tensor of `first`, the output the exit tensor of `last`; all names stay. `last` defaults
    to `first`. Refuses modules in the wrong order, and modules that read a tensor other than their entry which is
    computed outside.
    """

    name = "extract-blocks"
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
        return PassResult(self._carve(model, model.modules[start : end + 1]), modified=True)

    def _carve(self, model: Model, modules: tuple[Module, ...]) -> Model:
        graph = copy_graph(model.graph)
        tensors = graph.tensors()
        entry, exit_ = tensors[modules[0].entry], tensors[modules[-1].exit]
        inside = subgraph_nodes([exit_], stop=[entry])
        nodes = [n for n in graph.nodes if id(n) in inside]
        graph_inputs = {id(t) for t in graph.inputs}
        for node in nodes:
            for tensor in node.inputs:
                if id(tensor) in graph_inputs and tensor is not entry:
                    raise self.refuse(f"reads {tensor.name}, which is computed outside of the block", node.name)
        if not nodes:
            raise self.refuse(f"nothing lies between {entry.name} and {exit_.name}")
        for node in graph.nodes:
            if id(node) not in inside:
                node.inputs.clear()
                node.outputs.clear()
        graph.nodes = nodes
        source = Variable(entry.name, entry.dtype, entry.shape)
        for node in nodes:
            node.inputs = [source if t is entry else t for t in node.inputs]
        graph.inputs, graph.outputs = [source], [exit_]
        graph.name = modules[0].name if len(modules) == 1 else f"{modules[0].name}-{modules[-1].name}"
        return replace(model, graph=graph, modules=modules)
