"""Which constants of a graph are parameters that a loss trains."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from wootz.passes.errors import PassError
from wootz.passes.ir.model import Constant, Graph, Model, Node, Tensor, subgraph_nodes
from wootz.passes.training.gradient_rules import FIXED_OPERANDS, LAYOUT_OPERATORS, WEIGHT_OPERANDS, WITHOUT_GRADIENT
from wootz.passes.training.state import GRADIENT_SUFFIX, multipliers

HALF_SUFFIX = ".float16"
"""`<name>.float16` is the constant that mixed-precision makes of the constant `<name>`."""


def trained_parameters(model: Model, losses: list[Tensor], frozen: tuple[str, ...], asking: str) -> list[Constant]:
    """The constants that an operator uses as weights and that `losses` depend on, in the graph's order.

    Left out is what `frozen` names (a name, or a prefix that ends in / or *) and what has lr_mult 0. For the pass
    `asking` it raises PassError where `frozen` names no constant, where weights would stay untrained because they are
    computed, and where gradients are there already.
    """
    for output in model.graph.outputs:
        if output.name.endswith(GRADIENT_SUFFIX):
            raise PassError(asking, "the graph has its gradients already", output.name)
    _check_names(frozen, model.graph, asking)
    fixed = [*(name for name, (rate, _) in multipliers(model).items() if rate == 0.0), *frozen]
    reachable = subgraph_nodes(losses)
    nodes = [node for node in model.graph.nodes if id(node) in reachable]
    weights = {id(w): w for node in nodes for w in _weights(node)}
    _check_computed_weights(nodes, weights, fixed, asking)
    return [w for w in weights.values() if not is_named(_given_name(w), fixed) and not _is_fixed(w)]


def is_named(name: str, patterns: Iterable[str]) -> bool:
    """Whether `name` is one of `patterns`, or begins with one that ends in / or *."""
    return any(name.startswith(p.rstrip("*")) if p.endswith(("/", "*")) else name == p for p in patterns)


def _check_names(frozen: tuple[str, ...], graph: Graph, asking: str) -> None:
    names = {_given_name(t) for t in graph.tensors().values() if isinstance(t, Constant)}
    for name in frozen:
        if not any(is_named(known, [name]) for known in names):
            raise PassError(asking, f"frozen={name} names no constant (a prefix ends in / or *)")


def _given_name(constant: Constant) -> str:
    """The name that the constant had before mixed-precision."""
    in_half = np.dtype(constant.dtype) == np.float16
    return str(constant.name.removesuffix(HALF_SUFFIX) if in_half else constant.name)


def _check_computed_weights(nodes: list[Node], weights: dict[int, Constant], fixed: list[str], asking: str) -> None:
    """Raises PassError for weights that are computed from constants of which some are neither trained nor fixed."""
    computed: dict[int, dict[int, Constant]] = {}
    for node in nodes:
        for tensor in _weight_operands(node):
            for source in computed.get(id(tensor), {}).values():
                if id(source) not in weights and not is_named(name := _given_name(source), fixed):
                    reason = f"{node.op} computes its weights from {name}, which isn't trained"
                    where = node.name or node.outputs[0].name
                    raise PassError(asking, f"{reason}: run fold-constants before, or freeze {name}", where)
        sources = _sources(node, computed)
        if sources is not None:
            computed.update((id(t), sources) for t in node.outputs)


def _sources(node: Node, computed: dict[int, dict[int, Constant]]) -> dict[int, Constant] | None:
    """The constants of several real numbers that `node` computes its result from; None where it reads other things."""
    found: dict[int, Constant] = {}
    for tensor in node.inputs:
        if isinstance(tensor, Constant):
            if np.dtype(tensor.dtype).kind == "f" and int(np.prod(tensor.shape)) > 1:
                found[id(tensor)] = tensor
        elif id(tensor) in computed:
            found |= computed[id(tensor)]
        elif not tensor.is_empty():
            return None
    return {} if node.op in WITHOUT_GRADIENT else found


def _weights(node: Node) -> Iterable[Constant]:
    """The constants that `node` uses as parameters, also through a change of layout."""
    for operand in _weight_operands(node):
        tensor = _source(operand)
        if isinstance(tensor, Constant) and _is_weight(tensor, node):
            yield tensor


def _weight_operands(node: Node) -> list[Tensor]:
    places = WEIGHT_OPERANDS.get(node.op, ()) if not node.domain else ()
    return [node.inputs[i] for i in places if i < len(node.inputs)]


def _is_fixed(constant: Constant) -> bool:
    uses = [(node, index) for node in constant.outputs for index in FIXED_OPERANDS.get(node.op, ())]
    return any(index < len(node.inputs) and node.inputs[index] is constant for node, index in uses)


def _is_weight(tensor: Constant, node: Node) -> bool:
    if np.dtype(tensor.dtype).kind != "f":
        return False
    return node.op not in ("Add", "Mul") or int(np.prod(tensor.shape)) > 1


def _source(tensor: Tensor) -> Tensor:
    while tensor.inputs and tensor.inputs[0].op in LAYOUT_OPERATORS:
        tensor = tensor.inputs[0].inputs[0]
    return tensor
