"""Which layers of a student can be solved for: those whose operand has lost channels, or comes from such layers."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

import numpy as np

from wootz.passes.analysis.index_maps import first_along, varying_axes
from wootz.passes.ir.builder import Builder
from wootz.passes.ir.model import Constant, Graph, Node, Tensor
from wootz.passes.ir.shapes import annotate_shapes
from wootz.passes.pruning.student import Student
from wootz.passes.training.expression import Expression, UnknownShape
from wootz.passes.training.rules.geometry import Window
from wootz.passes.training.rules.rule import NoRule

MOST_FEATURES = 2304
"""Numbers that an output of a layer is a sum over: 256 channels of a 3×3 convolution. Equations of more take too long
(their matrix has 42 MB, and its products a second for each eight images of 14×14)."""
CHANNEL_BY_CHANNEL = frozenset(
    {"Add", "AveragePool", "BatchNormalization", "Clip", "Concat", "Dropout", "Flatten", "GlobalAveragePool"}
    | {"GlobalMaxPool", "HardSigmoid", "HardSwish", "Identity", "LeakyRelu", "MaxPool", "Mul", "PRelu", "ReduceMean"}
    | {"Relu", "Reshape", "Sigmoid", "Squeeze", "Sub", "Tanh", "Transpose", "Unsqueeze"}
)
"""What these give for the channels that are left doesn't depend on those that are not."""


@dataclass(frozen=True)
class Normalization:
    """The parameters of a BatchNormalization, by name."""

    scale: str
    bias: str
    mean: str
    variance: str
    epsilon: float


@dataclass(frozen=True, eq=False)
class SolvableLayer:
    """A convolution or fully connected layer of a student: names are those of the student and of the teacher alike.

    `data` is what it reads, `output` what it computes, of which the student has the channels `kept` of the teacher's
    (int64). `window` is None for a fully connected layer, whose weights are [features, filters] where `is_transposed`,
    as they are in memory. `bias` and `norm`, the BatchNormalization behind it, may be None. `level` is the number of
    solvable layers on the longest way to its operand.
    """

    data: str
    output: str
    weight: str
    bias: str | None
    norm: Normalization | None
    window: Window | None
    groups: int
    is_transposed: bool
    kept: np.ndarray
    level: int


def solvable_layers(
    student: Student, teacher: Mapping[str, np.ndarray], trained: Collection[str]
) -> tuple[SolvableLayer, ...]:
    """The layers to be solved for, in the order of data flow; `teacher` are the constants of the unpruned network.

    A layer whose operand is whole, and the teacher's own, computes what the teacher's does, and is none. Neither is
    one whose weights, bias or BatchNormalization are not among the `trained`, are shared or computed, or that has more
    than MOST_FEATURES, or channels along several axes.
    """
    graph = student.model.copy().graph
    annotate_shapes(graph)
    levels = {graph.inputs[0].name: 0}
    differing: set[str] = set()
    found = []
    for node in graph.nodes:
        operands = [t.name for t in node.inputs if t.name in levels]
        level = max((levels[name] for name in operands), default=0)
        differs = not differing.isdisjoint(operands) or _has_lost_operands(node, student, teacher)
        if differs and (layer := _layer(node, graph, student, trained, level)) is not None:
            found.append(layer)
            level += 1
        for output in node.outputs:
            levels[output.name] = level
            if differs:
                differing.add(output.name)
    return tuple(found)


def _has_lost_operands(node: Node, student: Student, teacher: Mapping[str, np.ndarray]) -> bool:
    """Whether the node sums over channels of which some are gone, or may."""
    if node.op in CHANNEL_BY_CHANNEL:
        return False
    if node.op == "Conv" and isinstance(weight := node.inputs[1], Constant) and weight.name in teacher:
        return weight.values.shape[1:] != teacher[weight.name].shape[1:]
    return not all(student.kept(t.name).all() for t in node.inputs if not isinstance(t, Constant))


def _layer(node: Node, graph: Graph, student: Student, trained: Collection[str], level: int) -> SolvableLayer | None:
    """The node as a layer to be solved for, if it is one."""
    output = node.outputs[0]
    operands = [t for t in node.inputs[1:] if not t.is_empty()]
    norm = _normalization(output, graph)
    own = [t.name for t in operands if _is_own(t)] + _names(norm)
    is_plain = node.op == "Conv" or (
        node.op == "Gemm" and all(node.attrs.get(n, d) == d for n, d in (("transA", 0), ("alpha", 1.0), ("beta", 1.0)))
    )
    if (
        not is_plain
        or node.domain
        or not set(own) <= set(trained)
        or len(own) != len(operands) + 4 * (norm is not None)
    ):
        return None
    if norm is None and _is_normalized(output):  # by parameters that have to stay
        return None
    weight, groups = operands[0].values, node.attrs.get("group", 1)
    is_transposed = node.op == "Gemm" and not node.attrs.get("transB", 0)
    filters = weight.shape[1] if is_transposed else weight.shape[0]
    kept = _kept_channels(student.kept(output.name), filters)
    bias_fits = len(operands) == 1 or operands[1].values.shape == (filters,)
    if weight.dtype != np.float32 or weight.size > MOST_FEATURES * filters or kept is None or not bias_fits:
        return None
    window = _window(node, graph) if node.op == "Conv" else None
    if node.op == "Conv" and window is None:
        return None
    return SolvableLayer(
        data=node.inputs[0].name,
        output=output.name,
        weight=operands[0].name,
        bias=operands[1].name if len(operands) > 1 else None,
        norm=norm,
        window=window,
        groups=groups,
        is_transposed=is_transposed,
        kept=kept,
        level=level,
    )


def _kept_channels(kept: np.ndarray, filters: int) -> np.ndarray | None:
    """Which channels `filters` are; None where they don't lie along the second axis."""
    if kept.all():
        return np.arange(filters)
    return np.flatnonzero(first_along(kept, 1)) if varying_axes(kept) == (1,) else None


def _window(node: Node, graph: Graph) -> Window | None:
    builder = Builder(graph)
    data, output = (Expression.of(t, builder) for t in (node.inputs[0], node.outputs[0]))
    try:
        window = Window.of(node, data, output, node.inputs[1].values.shape[2:])
    except (NoRule, UnknownShape):
        return None
    return window if min(window.pads_begin, default=0) >= 0 else None


def _normalization(output: Tensor, graph: Graph) -> Normalization | None:
    """The BatchNormalization that alone reads `output`, if its parameters are its own."""
    if not _is_normalized(output) or any(output is t for t in graph.outputs):
        return None
    (node,) = output.outputs
    parameters = node.inputs[1:5]
    if node.attrs.get("training_mode", 0) or not all(map(_is_own, parameters)):
        return None
    scale, bias, mean, variance = (t.name for t in parameters)
    return Normalization(scale, bias, mean, variance, node.attrs.get("epsilon", 1e-5))


def _is_normalized(output: Tensor) -> bool:
    return [node.op for node in output.outputs] == ["BatchNormalization"]


def _is_own(tensor: Tensor) -> bool:
    """Whether it is a constant that a single node reads."""
    return isinstance(tensor, Constant) and len(tensor.outputs) == 1


def _names(norm: Normalization | None) -> list[str]:
    return [] if norm is None else [norm.scale, norm.bias, norm.mean, norm.variance]
