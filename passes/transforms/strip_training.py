"""strip-training: brings a graph that was exported in training mode into inference mode."""

from __future__ import annotations

from dataclasses import dataclass, replace

from wootz.passes.base import Pass, PassResult
from wootz.passes.ir.model import Model, Node
from wootz.passes.ir.rewrite import ModuleEnds, erase_nodes, replace_all_uses


@dataclass(frozen=True)
class StripTraining(Pass):
    """Brings a graph that was exported in training mode into inference mode.

    1. Dropout goes: what reads its output reads its operand. Refuses when something reads its mask.
    2. BatchNormalization normalises by its running statistics, and no longer computes new ones; outputs of the
       network that were new statistics go. Refuses when another node reads them.
    """

    name = "strip-training"

    def apply(self, model: Model) -> PassResult:
        result = model.copy()
        graph, ends = result.graph, ModuleEnds(result)
        dropouts = [n for n in graph.nodes if n.op == "Dropout"]
        normalizations = [n for n in graph.nodes if n.op == "BatchNormalization" and _is_training(n)]
        for node in dropouts:
            self._require_unread(node, "mask")
            if any(node.outputs[0] is t for t in graph.outputs):
                node.op, node.attrs, node.inputs, node.outputs = "Identity", {}, node.inputs[:1], node.outputs[:1]
            else:
                replace_all_uses(graph, node.outputs[0], node.inputs[0])
                ends.move(node.outputs[0], node.inputs[0])
                erase_nodes(graph, [node])
        for node in normalizations:
            self._require_unread(node, "new statistics")
            statistics = {id(t) for t in node.outputs[1:]}
            graph.outputs = [t for t in graph.outputs if id(t) not in statistics]
            node.outputs = node.outputs[:1]
            node.attrs.pop("training_mode", None)
        counts = {"dropouts removed": len(dropouts), "normalizations changed": len(normalizations)}
        result = replace(result, modules=ends.table(graph))
        return PassResult(result, bool(dropouts or normalizations), counts)

    def _require_unread(self, node: Node, what: str) -> None:
        for tensor in node.outputs[1:]:
            if tensor.outputs:
                raise self.refuse(f"{tensor.outputs[0].op} reads its {what} {tensor.name!r}", node.name)


def _is_training(node: Node) -> bool:
    return bool(node.attrs.get("training_mode", 0)) or len(node.outputs) > 1
