"""How a classifier ends: the function that makes scores of logits, and what changes their layout behind it."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from wootz.passes.ir.model import Node, Tensor, producer

LAYOUT_OPERATORS = frozenset(("Identity", "Transpose", "Reshape", "Squeeze", "Unsqueeze", "Flatten", "Cast"))
"""Operators that give all their elements, and each once."""

ScoreKind = Literal["logits", "probabilities", "log-probabilities"]

KINDS: dict[str, ScoreKind] = {
    "Softmax": "probabilities",
    "LogSoftmax": "log-probabilities",
    "Sigmoid": "probabilities",
}
"""What the last function of a network makes of logits. All of them leave the order of the classes as it is."""


@dataclass(frozen=True)
class LastActivation:
    """The Softmax, LogSoftmax or Sigmoid at the end of a network, and what changes the layout `behind` it."""

    node: Node
    behind: tuple[Node, ...]


def last_activation(scores: Tensor) -> LastActivation | None:
    """That which computes `scores`, an output; None where there is none."""
    behind: list[Node] = []
    tensor = scores
    while (node := producer(tensor)) is not None and not node.domain:
        if node.op in KINDS:
            return LastActivation(node, tuple(behind[::-1]))
        if node.op not in LAYOUT_OPERATORS:
            return None
        behind.append(node)
        tensor = node.inputs[0]
    return None


def score_kind(scores: Tensor) -> ScoreKind:
    """What an output of a classifier with annotated shapes gives."""
    found = last_activation(scores)
    if found is None or (found.node.op != "Sigmoid" and axis_behind(softmax_axis(found.node), found.behind) != 1):
        return "logits"
    return KINDS[found.node.op]


def softmax_axis(node: Node) -> int:
    """The axis over which a Softmax or LogSoftmax with annotated operand sums, from 0."""
    axis: int = node.attrs.get("axis", -1)
    return axis % len(node.inputs[0].shape or (0,))


def axis_behind(axis: int, nodes: Iterable[Node]) -> int | None:
    """Where nodes that change the layout, in their order, move an axis of the first one's operand, counted from 0.

    None where one of them merges it with others, or its shapes are not known.
    """
    for node in nodes:
        moved = _moved(axis, node)
        if moved is None:
            return None
        axis = moved
    return axis


def _moved(axis: int, node: Node) -> int | None:
    if node.inputs[0].shape is None or node.outputs[0].shape is None:
        return None
    before, after = list(node.inputs[0].shape), list(node.outputs[0].shape)
    axis %= len(before)
    if node.op == "Transpose":
        order: list[int] = list(node.attrs.get("perm", range(len(before))[::-1]))
        return order.index(axis)
    inner = _extent(before[axis + 1 :])
    same = (i for i, n in enumerate(after) if n == before[axis] and _extent(after[i + 1 :]) == inner)
    return next(same, None)


def _extent(shape: list[int | str]) -> tuple[int, list[str]]:
    """The number of elements: the product of the sizes that are known, and the symbols of the others."""
    return math.prod(n for n in shape if isinstance(n, int)), sorted(n for n in shape if isinstance(n, str))
