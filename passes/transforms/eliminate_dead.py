"""eliminate-dead: removes nodes that no output depends on, and Identity nodes."""

from __future__ import annotations

from dataclasses import dataclass, replace

from wootz.passes.base import Pass, PassResult
from wootz.passes.ir.model import Graph, Model, Node, captured_tensors
from wootz.passes.ir.rewrite import erase_dead_nodes, remaining_modules, replace_all_uses
from wootz.passes.pruning.skipping import without_skipped


@dataclass(frozen=True)
class EliminateDead(Pass):
    """Removes nodes that no output depends on, and Identity nodes.

    1. Nodes whose results no output of the network depends on go, and with them constants that nothing else reads.
    2. What reads an Identity reads its operand instead, except where the Identity computes an output of the network,
       the entry or exit of a module, or something that a subgraph reads.
    3. A module that is an Identity and nothing else (`prune-blocks` leaves modules out so) goes with its place in the
       table; its neighbours meet. Where its exit is an output of the network, what computed its entry computes that.
    4. Modules whose entry or exit is gone are taken out of the table.

    The outputs of the network are the same.
    """

    name = "eliminate-dead"
    preserves_outputs = True

    def apply(self, model: Model) -> PassResult:
        result = without_skipped(model)
        graph = result.graph
        skipped = len(model.graph.nodes) - len(graph.nodes)
        bypassed = _bypass_identities(graph, {name for m in result.modules for name in m.ends})
        erase_dead_nodes(graph)
        modules = remaining_modules(result.modules, graph)
        removed = len(model.graph.nodes) - len(graph.nodes)
        statistics = {
            "nodes removed": removed,
            "identities among them": skipped + bypassed,
            "modules dropped": len(model.modules) - len(modules),
        }
        return PassResult(replace(model, graph=graph, modules=modules), removed > 0, statistics)


def _bypass_identities(graph: Graph, boundaries: set[str]) -> int:
    kept = boundaries | {t.name for t in graph.outputs} | {t.name for n in graph.nodes for t in captured_tensors(n)}
    identities: list[Node] = [n for n in graph.nodes if n.op == "Identity" and n.outputs[0].name not in kept]
    for node in identities:
        replace_all_uses(graph, node.outputs[0], node.inputs[0])
    return len(identities)
