"""replace-head: gives a classifier a new last layer, for another number of classes."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from wootz.passes.analysis.class_scores import KINDS, LAYOUT_OPERATORS, axis_behind
from wootz.passes.analysis.symbolic_values import annotate_symbolic_shapes
from wootz.passes.base import Pass, PassResult, option
from wootz.passes.errors import WootzError
from wootz.passes.fillers import Filler, fill
from wootz.passes.ir.builder import Builder
from wootz.passes.ir.model import (
    Constant,
    Graph,
    Model,
    Node,
    Tensor,
    Variable,
    captured_tensors,
    constant_behind,
    producer,
    tensor_shape,
)
from wootz.passes.ir.rewrite import ModuleEnds, erase_dead_nodes
from wootz.passes.plan.transform import CLASSES_KEY
from wootz.passes.transforms.fuse_softmax import fuse_softmax

FillerName = Literal["gaussian", "xavier", "msra", "constant"]
FILLERS: dict[FillerName, Filler] = {
    "gaussian": Filler("gaussian", std=0.01),
    "xavier": Filler("xavier"),
    "msra": Filler("msra"),
    "constant": Filler("constant"),
}
POOLING = frozenset(("GlobalAveragePool", "GlobalMaxPool", "AveragePool", "MaxPool", "ReduceMean", "ReduceMax"))
BEHIND_THE_HEAD = LAYOUT_OPERATORS | POOLING | KINDS.keys() | {"Relu", "Dropout"}
"""What may stand behind the layer that tells the classes apart: it treats all of them alike."""
HEADS = frozenset(("Gemm", "MatMul", "Conv"))
"""The operators of that layer."""
A_CLASSIFIER = (
    "a classifier ends in a Gemm, MatMul or convolution whose outputs are the classes, with nothing but Softmax, "
    "pooling and changes of layout behind it"
)


@dataclass(frozen=True)
class ReplaceHead(Pass):
    """Gives a classifier of images a new last layer, which tells `classes` classes apart.

    The head is what the output, of shape [N, classes] or [N, classes, 1, …], comes from by nothing but Softmax,
    LogSoftmax, Sigmoid, Relu, Dropout, pooling, and changes of layout:

    1. Gemm, or MatMul, perhaps with an Add or Sub of a bias behind it, with a weight that no image decides;
    2. a convolution in one group, of 1x1 or of the size of its operand.

    Its weight is filled anew by `filler`: gaussian (with standard deviation 0.01), xavier, msra or constant (0), as
    Caffe has them, and a bias that it has is 0. Constant shapes of Reshape behind it are those of the new number of
    classes, a softmax in Exp, ReduceSum and Div becomes one operator, and a Sigmoid, which tells of each class by
    itself, becomes a Softmax. The names of classes in the metadata go. Everything else stays as it is.

    Refuses a network with several outputs, and what is no classifier, with what stands in the way.
    """

    name = "replace-head"
    requires = "classes"
    classes: int = option(0, "the number of classes of the new layer")
    filler: FillerName = option("gaussian", "where its weight starts: gaussian, xavier, msra or constant")
    seed: int = option(0, "of the filler")

    def apply(self, model: Model) -> PassResult:
        head = replace_head(model, self.classes, self.filler, self.seed)
        notes = [f"{head.layer}, for {head.before} classes, is new"]
        if head.was_sigmoid:
            notes.append("its Sigmoid is now a Softmax")
        return PassResult(head.model, True, notes=tuple(notes))


@dataclass(frozen=True)
class NewHead:
    """A network with a new last `layer`, and the number of classes that it told apart `before`.

    `was_sigmoid`: each of them by itself, where there is a Softmax now.
    """

    model: Model
    layer: str
    before: int
    was_sigmoid: bool


def replace_head(model: Model, classes: int, filler: FillerName = "gaussian", seed: int = 0) -> NewHead:
    """What the pass does. Raises PassError (see there)."""
    if classes < 1:
        raise _refusal(f"classes has to be the number of classes, 1 or more, not {classes}")
    model = model.copy()
    graph, ends = model.graph, ModuleEnds(model)
    fuse_softmax(graph)
    annotate_symbolic_shapes(graph)
    head = _find_head(graph)
    layer = _layer_name(head)
    was_sigmoid = any(node.op == "Sigmoid" for node in head.behind)
    _adjust_what_follows(graph, head, classes)
    _fill_weight(graph, head, layer, classes, FILLERS[filler], seed)
    _clear_bias(graph, head, layer, classes)
    erase_dead_nodes(graph)
    _infer_anew(graph, classes)
    metadata = {key: value for key, value in model.metadata.items() if key != CLASSES_KEY}
    return NewHead(replace(model, modules=ends.table(graph), metadata=metadata), layer, head.classes, was_sigmoid)


def _refusal(reason: str, node: Node | None = None) -> WootzError:
    return ReplaceHead().refuse(reason, None if node is None else node.name or node.outputs[0].name)


@dataclass(frozen=True)
class _Head:
    """The layer that tells the classes apart: `node`, whose operand 1 is the weight.

    The classes lie along `weight_axis` of the weight, and along `axis` of what `node` computes. `bias` is where a bias
    is read, as node and operand; `behind` is what follows, in order, from the node of a bias on.
    """

    node: Node
    classes: int
    weight_axis: int
    axis: int
    bias: tuple[Node, int] | None
    behind: tuple[Node, ...]


def _find_head(graph: Graph) -> _Head:
    if len(graph.outputs) != 1:
        names = ", ".join(t.name for t in graph.outputs)
        raise _refusal(
            f"the network has {len(graph.outputs)} outputs, {names}: image-classifier{{scores=NAME}} keeps one"
        )
    (scores,) = graph.outputs
    behind: list[Node] = []
    bias: tuple[Node, int] | None = None
    tensor: Tensor = scores
    while (node := producer(tensor)) is None or node.domain or node.op not in HEADS:
        if node is None:
            raise _refusal(f"no layer tells the classes of output {scores.name} apart: {A_CLASSIFIER}")
        operand = _bias_behind_a_head(node)
        if operand is not None:
            bias = (node, operand)
        elif node.domain or node.op not in BEHIND_THE_HEAD:
            raise _refusal(f"output {scores.name} comes from {node.op}: {A_CLASSIFIER}", node)
        else:
            behind.insert(0, node)
        tensor = node.inputs[0 if operand is None else 1 - operand]
        readers = [n.op for n in tensor.outputs if n.op not in ("Shape", "Size")]
        if len(readers) > 1:
            raise _refusal(f"{tensor.name} is read by {' and '.join(readers)}: {A_CLASSIFIER}", node)
    head = _head(graph, node, bias, tuple(behind))
    shape, axis = tensor_shape(scores), _axes_behind(head)[-1]
    if shape is None or axis != 1 or any(extent != 1 for extent in shape[2:]):
        raise _refusal(f"its {head.classes} outputs are not [N, classes] in output {scores.name}: {A_CLASSIFIER}", node)
    return head


def _bias_behind_a_head(node: Node) -> int | None:
    """The operand of an Add or Sub that is a constant, where the other is computed by a layer that can be a head."""
    if node.op not in ("Add", "Sub") or node.domain:
        return None
    for operand in (1, 0) if node.op == "Add" else (1,):
        layer = producer(node.inputs[1 - operand])
        if layer is not None and layer.op in HEADS and constant_behind(node.inputs[operand]) is not None:
            return operand
    return None


def _head(graph: Graph, node: Node, bias: tuple[Node, int] | None, behind: tuple[Node, ...]) -> _Head:
    """Raises PassError for a layer that can't be filled anew."""
    depending = _depending_on_inputs(graph)
    features, weight = node.inputs[:2]
    shape = tensor_shape(weight)
    if weight.name in depending or features.name not in depending:
        raise _refusal(f"the weight of its {node.op} is no constant: {A_CLASSIFIER}", node)
    if shape is None or any(not isinstance(n, int) for n in shape) or (node.op != "Conv" and len(shape) != 2):
        raise _refusal(f"the weight of its {node.op} is no matrix: {A_CLASSIFIER}", node)
    if node.op == "Conv":
        _check_convolution(node, shape)
    if node.attrs.get("transA", 0):
        raise _refusal(f"its Gemm takes features [features, N]: {A_CLASSIFIER}", node)
    if len(node.inputs) > 2 and not node.inputs[2].is_empty():
        bias = (node, 2) if bias is None else bias
    weight_axis = 0 if node.op == "Conv" or node.attrs.get("transB", 0) else 1
    axis = 1 if node.op == "Conv" else len(node.outputs[0].shape or (0, 0)) - 1
    return _Head(node, int(shape[weight_axis]), weight_axis, axis, bias, behind)


def _depending_on_inputs(graph: Graph) -> set[str]:
    """The names of all tensors that change with the network's inputs."""
    depending = {t.name for t in graph.inputs}
    for node in graph.nodes:
        if any(t.name in depending for t in (*node.inputs, *captured_tensors(node))):
            depending.update(t.name for t in node.outputs)
    return depending


def _check_convolution(node: Node, weight: tuple[int | str, ...]) -> None:
    result = tensor_shape(node.outputs[0])
    if node.attrs.get("group", 1) != 1:
        raise _refusal(f"its convolution has groups: {A_CLASSIFIER}", node)
    covers_all = result is not None and all(extent == 1 for extent in result[2:])
    if not covers_all and any(extent != 1 for extent in weight[2:]):
        kernel = "x".join(map(str, weight[2:]))
        raise _refusal(f"its last layer is a convolution of {kernel}, which finds features: {A_CLASSIFIER}", node)


def _layer_name(head: _Head) -> str:
    """`fc` for a weight `fc.weight`; of other weights the name of the node."""
    tensor = head.node.inputs[1]
    while (node := producer(tensor)) is not None and node.inputs:
        tensor = node.inputs[0]
    stem = tensor.name.removesuffix(".weight")
    return str(stem if stem != tensor.name else head.node.name or head.node.outputs[0].name)


def _axes_behind(head: _Head) -> list[int]:
    """Along which axis the classes lie: of what the head computes, and behind each node that follows."""
    axes = [head.axis]
    for node in head.behind:
        axis = _reduced(axes[-1], node) if node.op.startswith("Reduce") else axes[-1]
        if node.op in LAYOUT_OPERATORS:
            axis = axis_behind(axes[-1], (node,))
        if axis is None:
            raise _refusal(f"the classes can't be followed through {node.op}: {A_CLASSIFIER}", node)
        axes.append(axis)
    return axes


def _reduced(axis: int, node: Node) -> int | None:
    """Where a reduction moves an axis; None where it is one of those reduced, or these are computed."""
    rank = len(node.inputs[0].shape or ())
    operand = node.inputs[1] if len(node.inputs) > 1 else None
    if operand is None or operand.is_empty():
        given = np.array(node.attrs.get("axes", ()))
    elif isinstance(operand, Constant):
        given = operand.values
    else:
        return None
    reduced = {int(a) % rank for a in given.reshape(-1)} if rank else set()
    if axis in reduced or not reduced:
        return None
    return axis if node.attrs.get("keepdims", 1) else axis - sum(a < axis for a in reduced)


def _adjust_what_follows(graph: Graph, head: _Head, classes: int) -> None:
    """Constant shapes have the new number of classes; what tells of each class by itself becomes a Softmax."""
    for node, axis in zip(head.behind, _axes_behind(head)[1:], strict=True):
        if node.op == "Sigmoid":
            node.op, node.attrs = "Softmax", {"axis": axis}
        shape = constant_behind(node.inputs[1]) if node.op == "Reshape" else None
        if shape is not None and shape.values[axis] > 0:
            changed = shape.values.copy()
            changed[axis] = classes
            node.inputs[1] = Constant(Builder(graph).fresh(f"{node.outputs[0].name}/shape"), changed)


def _fill_weight(graph: Graph, head: _Head, layer: str, classes: int, filler: Filler, seed: int) -> None:
    old = head.node.inputs[1]
    name = old.name if isinstance(old, Constant) and len(old.outputs) == 1 else Builder(graph).fresh(f"{layer}.weight")
    others = [n for axis, n in enumerate(old.shape) if axis != head.weight_axis]
    values = np.moveaxis(fill(filler, (classes, *others), seed, layer), 0, head.weight_axis)
    head.node.inputs[1] = Constant(name, np.ascontiguousarray(values, old.dtype))


def _clear_bias(graph: Graph, head: _Head, layer: str, classes: int) -> None:
    if head.bias is None:
        return
    node, operand = head.bias
    old = node.inputs[operand]
    shape = list(old.shape)
    axis = head.axis - (len(head.node.outputs[0].shape) - len(shape)) if node.op != "Conv" else 0
    if axis >= 0 and shape[axis] == head.classes:
        shape[axis] = classes
    name = old.name if isinstance(old, Constant) and len(old.outputs) == 1 else Builder(graph).fresh(f"{layer}.bias")
    node.inputs[operand] = Constant(name, np.zeros(shape, old.dtype))


def _infer_anew(graph: Graph, classes: int) -> None:
    for tensor in graph.tensors().values():
        if isinstance(tensor, Variable) and not any(tensor is t for t in graph.inputs):
            tensor.shape = None
    (scores,) = graph.outputs
    try:
        annotate_symbolic_shapes(graph)
    except WootzError as error:
        raise _refusal(f"with {classes} classes the network is no longer valid ({error})") from error
    shape = tensor_shape(scores)
    if shape is None or shape[1:2] != (classes,):
        raise _refusal(f"output {scores.name} would be {list(shape or ())} with {classes} classes: {A_CLASSIFIER}")
