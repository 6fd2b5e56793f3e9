"""add-postprocessing: puts what a network computes behind its trainable part behind a trained one."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from wootz.passes.base import Pass, PassResult, option
from wootz.passes.errors import WootzError
from wootz.passes.ir.files import load
from wootz.passes.ir.model import Graph, Model, Variable, captured_tensors, copy_graph, producer
from wootz.passes.ir.rewrite import redirect_readers
from wootz.passes.ir.shapes import annotate_shapes


@dataclass(frozen=True)
class AddPostprocessing(Pass):
    """Gives a network the outputs of another one, and what computes these behind tensors that both have.

    It is the way back from `trainable-part`: a detector that was pruned and trained without its NonMaxSuppression gets
    it from the network that it was made from.

    1. From the outputs of `network` back, nodes are added up to tensors that this network has, by name: what it takes,
       computes or holds, perhaps as a constant what the other one computes.
    2. The outputs of this network that aren't outputs of the other are none any more.

    Refuses a network of which an input would be needed that this one doesn't have.
    """

    name: ClassVar[str] = "add-postprocessing"
    requires = "the network with the postprocessing: add-postprocessing{network=FILE}"
    network: Path | None = option(None, "the file of the network that has it")
    whole: Model | None = None
    """That network, where it is there already."""

    def apply(self, model: Model) -> PassResult:
        whole = self.whole
        if whole is None:
            if self.network is None:
                raise self.refuse("no network: option network takes the file of the one that has the postprocessing")
            try:
                whole = load(self.network)
            except WootzError as error:
                raise self.refuse(str(error)) from error
        result = model.copy()
        added = self._add(result.graph, copy_graph(whole.graph))
        if added:
            annotate_shapes(result.graph)
        return PassResult(result, modified=added > 0, statistics={"nodes added": added})

    def _add(self, graph: Graph, whole: Graph) -> int:
        """Moves nodes of `whole`, which is used up; gives their number."""
        own = {t.name: t for t in graph.inputs} | graph.tensors()
        others = {t.name: t for t in whole.inputs} | whole.tensors()
        needed: set[int] = set()
        pending = list(whole.outputs)
        while pending:
            tensor = pending.pop()
            node = producer(tensor)
            if tensor.name in own or (node is not None and id(node) in needed):
                continue
            if node is None and isinstance(tensor, Variable) and not tensor.is_empty():
                raise self.refuse("the network doesn't compute it", tensor.name)
            if node is not None:
                needed.add(id(node))
                pending += [*node.inputs, *captured_tensors(node)]
        nodes = [node for node in whole.nodes if id(node) in needed]
        for name, tensor in own.items():
            if name in others:
                redirect_readers(others[name], tensor)
        graph.outputs = [own.get(tensor.name, tensor) for tensor in whole.outputs]
        outputs = set(map(id, whole.outputs))
        for tensor in (t for node in nodes for t in node.outputs if id(t) not in outputs):
            tensor.shape = None  # of another batch, perhaps
        graph.nodes.extend(nodes)
        return len(nodes)
