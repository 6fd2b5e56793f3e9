"""Which constants of a graph are parameters that a loss trains."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from wootz.passes.ir.model import Constant, Model, Node, Tensor, subgraph_nodes
from wootz.passes.training.gradient_rules import LAYOUT_OPERATORS, WEIGHT_OPERANDS
from wootz.passes.training.state import multipliers


def trained_parameters(model: Model, losses: list[Tensor], frozen: tuple[str, ...]) -> list[Constant]:
    """The constants that an operator uses as weights and that `losses` depend on, in the graph's order.

    Left out is what `frozen` names (a name, or a prefix that ends in / or *) and what has lr_mult 0.
    """
    fixed = {name for name, (rate, _) in multipliers(model).items() if rate == 0.0}
    reachable = subgraph_nodes(losses)
    weights = [w for node in model.graph.nodes if id(node) in reachable for w in _weights(node)]
    unique = {id(w): w for w in weights}.values()
    return [w for w in unique if w.name not in fixed and not is_named(w.name, frozen)]


def is_named(name: str, patterns: Iterable[str]) -> bool:
    """Whether `name` is one of `patterns`, or begins with one that ends in / or *."""
    return any(name.startswith(p.rstrip("*")) if p.endswith(("/", "*")) else name == p for p in patterns)


def _weights(node: Node) -> Iterable[Constant]:
    """The constants that `node` uses as parameters, also through a change of layout."""
    for index in WEIGHT_OPERANDS.get(node.op, ()) if not node.domain else ():
        if index < len(node.inputs):
            tensor = _source(node.inputs[index])
            if isinstance(tensor, Constant) and _is_weight(tensor, node):
                yield tensor


def _is_weight(tensor: Constant, node: Node) -> bool:
    if np.dtype(tensor.dtype).kind != "f":
        return False
    return node.op not in ("Add", "Mul") or int(np.prod(tensor.shape)) > 1


def _source(tensor: Tensor) -> Tensor:
    while tensor.inputs and tensor.inputs[0].op in LAYOUT_OPERATORS:
        tensor = tensor.inputs[0].inputs[0]
    return tensor
