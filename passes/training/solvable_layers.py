"""Which layers of a student can be solved for: those whose operand has lost channels, or comes from such layers."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

import numpy as np

from wootz.passes.analysis.index_maps import first_along, varying_axes
from wootz.passes.ir.builder import Builder
from wootz.passes.ir.model import Constant, Graph, Model, Node, Tensor, Variable
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
    | {"Pad", "Relu", "Reshape", "Shape", "Sigmoid", "Slice", "Squeeze", "Sub", "Tanh", "Transpose", "Unsqueeze"}
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


def solvable_layers(student: Student, teacher: Model, trained: Collection[str]) -> tuple[SolvableLayer, ...]:
    """The layers to be solved for, in the order of data flow; `teacher` is the unpruned network.

    A layer whose operand is whole, and the teacher's own, computes what the teacher's does, and is none. Neither is
    one whose weights, bias or BatchNormalization are not among the `trained`, are shared or computed, or that has more
    than MOST_FEATURES, or channels along several axes.
    """
    graph = student.model.copy().graph
    _annotate(graph, student, teacher)
    known = teacher.graph.tensors()
    levels = {t.name: 0 for t in graph.inputs}
    differing: set[str] = set()
    found = []
    for node in graph.nodes:
        operands = [t.name for t in node.inputs if t.name in levels]
        level = max((levels[name] for name in operands), default=0)
        differs = not differing.isdisjoint(operands) or _has_lost_operands(node, student, known)
        if differs and (layer := _layer(node, graph, student, known, trained, level)) is not None:
            found.append(layer)
            level += 1
        for output in node.outputs:
            levels[output.name] = level
            if differs:
                differing.add(output.name)
    return tuple(found)


def _annotate(graph: Graph, student: Student, teacher: Model) -> None:
    """Puts shapes to the tensors, those too that depend on what the network computes from the size of its images."""
    annotate_shapes(graph)
    size = (teacher.graph.inputs[0].shape or ("unknown",))[1:]
    if all(isinstance(extent, int) for extent in size):
        for name, tensor in graph.tensors().items():
            known = student.analysis.shapes.get(name)
            if isinstance(tensor, Variable) and known is not None and len(known) > 2:
                tensor.shape = ["N", "C", *known[2:]]


def _has_lost_operands(node: Node, student: Student, teacher: Mapping[str, Tensor]) -> bool:
    """Whether the node sums over channels of which some are gone, or may."""
    if node.op in CHANNEL_BY_CHANNEL:
        return False
    if node.op == "Conv" and isinstance(weight := node.inputs[1], Constant) and weight.name in teacher:
        return tuple(weight.shape[1:]) != tuple((teacher[weight.name].shape or ())[1:])
    return not all(student.kept(t.name).all() for t in node.inputs if not isinstance(t, Constant))


def _layer(
    node: Node, graph: Graph, student: Student, teacher: Mapping[str, Tensor], trained: Collection[str], level: int
) -> SolvableLayer | None:
    """The node as a layer to be solved for, if it is one."""
    output = node.outputs[0]
    if not _is_linear(node) or output.name not in teacher or node.inputs[1].name not in teacher:
        return None
    weight, *biases = (t for t in node.inputs[1:] if not t.is_empty())
    norm = next((reader for reader in output.outputs if reader.op == "BatchNormalization"), None)
    if norm is not None and (len(output.outputs) > 1 or any(output is t for t in graph.outputs)):
        return None
    parameters = [weight, *biases, *(norm.inputs[1:5] if norm is not None else ())]
    if not all(_is_own(t) and t.name in trained for t in parameters):
        return None
    is_transposed = node.op == "Gemm" and not node.attrs.get("transB", 0)
    filters = weight.values.shape[1 if is_transposed else 0]
    kept = _kept_channels(student.kept(output.name), filters, teacher[output.name])
    window = _window(node, graph) if node.op == "Conv" else None
    if kept is None or (window is None and node.op == "Conv"):
        return None
    has_plain_bias = all(bias.values.shape == (filters,) for bias in biases)
    if weight.dtype != np.float32 or weight.values.size > MOST_FEATURES * filters or not has_plain_bias:
        return None
    return SolvableLayer(
        data=node.inputs[0].name,
        output=output.name,
        weight=weight.name,
        bias=biases[0].name if biases else None,
        norm=None if norm is None else _normalization(norm),
        window=window,
        groups=node.attrs.get("group", 1),
        is_transposed=is_transposed,
        kept=kept,
        level=level,
    )


def _is_linear(node: Node) -> bool:
    """Whether it multiplies its operand by its weights, and nothing else by anything."""
    neutral = {"transA": 0, "alpha": 1.0, "beta": 1.0}
    is_product = node.op == "Gemm" and all(node.attrs.get(name, value) == value for name, value in neutral.items())
    return not node.domain and (node.op == "Conv" or is_product)


def _kept_channels(kept: np.ndarray, filters: int, output: Tensor) -> np.ndarray | None:
    """Which channels of the teacher's `output` the `filters` are; None where they don't lie along the second axis."""
    if kept.all():
        return np.arange(filters) if output.shape is None or output.shape[1] == filters else None
    return np.flatnonzero(first_along(kept, 1)) if varying_axes(kept) == (1,) else None


def _window(node: Node, graph: Graph) -> Window | None:
    builder = Builder(graph)
    data, output = (Expression.of(t, builder) for t in (node.inputs[0], node.outputs[0]))
    try:
        window = Window.of(node, data, output, node.inputs[1].values.shape[2:])
    except (NoRule, UnknownShape):
        return None
    return window if min(window.pads_begin, default=0) >= 0 else None


def _normalization(node: Node) -> Normalization:
    scale, bias, mean, variance = (t.name for t in node.inputs[1:5])
    return Normalization(scale, bias, mean, variance, node.attrs.get("epsilon", 1e-5))


def _is_own(tensor: Tensor) -> bool:
    """Whether it is a constant that a single node reads."""
    return isinstance(tensor, Constant) and len(tensor.outputs) == 1
