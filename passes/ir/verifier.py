"""The invariants of the IR. `onnx.checker` is not enough: it accepts a Conv whose weight is for other channels.

A valid model: every tensor has a name of its own and is computed once, before it is read; operators exist in the
opset and have the operands and attributes that they need; shapes are inferable and agree along every edge; what is
annotated is what is inferred; the module table names tensors that exist, in order of data flow.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NoReturn

import numpy as np
import onnx

from wootz.passes.errors import VerificationError
from wootz.passes.ir.model import OPSET, Constant, Graph, Model, Node, Tensor, is_constant, producer, subgraph_nodes
from wootz.passes.ir.normalize import HELD_TYPES
from wootz.passes.ir.shapes import inferred_types, skeleton

Shape = Sequence[int | str]
Shapes = Callable[[Tensor], Shape | None]


def verify(model: Model) -> None:
    """Raises VerificationError for the first invariant that `model` breaks, with the node and both shapes."""
    _verify_inputs(model.graph)
    _verify_names(model.graph)
    _verify_order(model.graph, set())
    for node in model.graph.nodes:
        _verify_signature(node, model.graph)
    _verify_shapes(model.graph)
    _verify_modules(model)


def describe(node: Node) -> str:
    """How messages name a node: `Conv node 'conv1'`, or by its output where it has no name."""
    if node.name:
        return f"{node.op} node {node.name!r}"
    return f"{node.op} node that computes {next((t.name for t in node.outputs if t.name), '')!r}"


def _fail(node: Node, reason: str) -> NoReturn:
    raise VerificationError(f"{describe(node)}: {reason}")


# Names and order


def _verify_inputs(graph: Graph) -> None:
    """An input states its element type; its extents may be open, but not their number."""
    for tensor in graph.inputs:
        if not is_constant(tensor) and tensor.type not in HELD_TYPES:
            raise VerificationError(f"input {tensor.name!r}: it is of a type that the IR can't hold: {tensor.type}")
        if not is_constant(tensor) and tensor.dtype is None:
            raise VerificationError(f"input {tensor.name!r}: its element type isn't stated")
        if not is_constant(tensor) and tensor.shape is None and tensor.type == "tensor_type":
            raise VerificationError(
                f"input {tensor.name!r}: its shape isn't stated: write one into the file, with names for open extents"
            )


def _verify_names(graph: Graph) -> None:
    """One tensor a name, computed by one node, and not both computed and given."""
    computed: dict[str, Node] = {}
    tensors: dict[str, Tensor] = {}
    given = {t.name for t in graph.inputs}
    for tensor in [*graph.inputs, *graph.outputs, *(t for n in graph.nodes for t in [*n.inputs, *n.outputs])]:
        if not tensor.is_empty() and tensors.setdefault(tensor.name, tensor) is not tensor:
            raise VerificationError(f"two tensors are named {tensor.name!r}")
    for node in graph.nodes:
        for tensor in node.outputs:
            if tensor.is_empty():
                continue
            if tensor.name in computed:
                _fail(node, f"computes {tensor.name!r}, which {describe(computed[tensor.name])} computes already")
            if tensor.name in given or is_constant(tensor):
                _fail(
                    node, f"computes {tensor.name!r}, which is {'an input' if tensor.name in given else 'a constant'}"
                )
            computed[tensor.name] = node


def _verify_order(graph: Graph, outer: set[str]) -> None:
    """Every operand is known before the node that reads it; `outer` are the tensors around a subgraph."""
    known = outer | {t.name for t in graph.inputs}
    later = {t.name for node in graph.nodes for t in node.outputs}
    for node in graph.nodes:
        for tensor in node.inputs:
            if not tensor.is_empty() and not is_constant(tensor) and tensor.name not in known:
                problem = "before it is computed" if tensor.name in later else "which nothing computes"
                _fail(
                    node,
                    f"reads {tensor.name!r} {problem}" if tensor.name in later else f"reads {tensor.name!r}, {problem}",
                )
        for attribute in node.attrs.values():
            if isinstance(attribute, Graph):
                _verify_order(attribute, known)
        known.update(t.name for t in node.outputs if t.name)
    for tensor in graph.outputs:
        if tensor.name not in known and not is_constant(tensor):
            raise VerificationError(f"output {tensor.name!r}: nothing computes it")


# Signatures


def _verify_signature(node: Node, graph: Graph) -> None:
    """A standard operator exists in the opset and has as many operands, and the attributes, that it needs."""
    if node.domain not in (None, "", "ai.onnx"):
        return
    if not onnx.defs.has(node.op, OPSET):
        _fail(node, f"opset {OPSET} has no such operator")
    schema = onnx.defs.get_schema(node.op, OPSET)
    if not schema.min_input <= len(node.inputs) <= schema.max_input:
        _fail(node, f"has {len(node.inputs)} operands; {_range(schema.min_input, schema.max_input)} belong there")
    if not schema.min_output <= len(node.outputs) <= schema.max_output:
        _fail(node, f"has {len(node.outputs)} results; {_range(schema.min_output, schema.max_output)} belong there")
    for operand in VECTORS.get(node.op, ()):
        if operand < len(node.inputs) and is_constant(node.inputs[operand]) and len(node.inputs[operand].shape) != 1:
            name, shape = node.inputs[operand].name, _show(node.inputs[operand].shape)
            _fail(node, f"{name!r} has shape {shape}, and a vector belongs there")
    if node.op == "Range" and all(is_constant(t) and t.values.size == 1 for t in node.inputs):
        start, limit, step = (float(t.values.reshape(())) for t in node.inputs)
        if step == 0 or not abs(limit - start) / abs(step) <= LARGEST_RANGE:
            _fail(
                node, f"counts from {start:g} to {limit:g} by {step:g}; Wootz reads ranges of up to {LARGEST_RANGE:,}"
            )
    for name, attribute in schema.attributes.items():
        if attribute.required and name not in node.attrs:
            _fail(node, f"lacks the attribute {name!r}")
    for name, value in node.attrs.items():
        if name not in schema.attributes:
            _fail(node, f"has an attribute {name!r}, which the operator doesn't know")
        kind = schema.attributes[name].type
        if kind in ATTRIBUTE_TYPES and not ATTRIBUTE_TYPES[kind](value):
            wanted = str(kind).rpartition(".")[2]
            _fail(node, f"has an attribute {name!r} of another type than {wanted}: {str(value)[:50]}")


VECTORS = {
    "Reshape": (1,),
    "Expand": (1,),
    "Tile": (1,),
    "Pad": (1,),
    "Slice": (1, 2, 3, 4),
    "Split": (1,),
    "Resize": (2, 3),
}
"""Operands with an element an axis: ONNX's inference takes them in any shape."""


LARGEST_RANGE = 2**24
"""Elements of a Range of constants: ONNX's inference counts them one by one."""


def _is_int(value: object) -> bool:
    return isinstance(
        value, int | np.integer | np.dtype | type
    )  # element types are numbers in ONNX, and NumPy's in passes


def _is_float(value: object) -> bool:
    return isinstance(value, float | np.floating)


def _are(element: Callable[[object], bool]) -> Callable[[object], bool]:
    return lambda value: isinstance(value, list | tuple | np.ndarray) and all(map(element, value))


ATTRIBUTE_TYPES: dict[onnx.defs.OpSchema.AttrType, Callable[[object], bool]] = {
    onnx.defs.OpSchema.AttrType.INT: _is_int,
    onnx.defs.OpSchema.AttrType.INTS: _are(_is_int),
    onnx.defs.OpSchema.AttrType.FLOAT: _is_float,
    onnx.defs.OpSchema.AttrType.FLOATS: _are(_is_float),
    onnx.defs.OpSchema.AttrType.STRING: lambda value: isinstance(value, str | bytes),
    onnx.defs.OpSchema.AttrType.STRINGS: _are(lambda value: isinstance(value, str | bytes)),
    onnx.defs.OpSchema.AttrType.TENSOR: lambda value: isinstance(value, Constant | np.ndarray),
    onnx.defs.OpSchema.AttrType.GRAPH: lambda value: isinstance(value, Graph),
}
"""What graphsurgeon gives for attributes of these types, and what passes may write."""


def _range(low: int, high: int) -> str:
    return str(low) if low == high else f"{low} or more" if high > 1000 else f"{low} to {high}"


# Shapes


def _verify_shapes(graph: Graph) -> None:
    try:
        types = inferred_types(graph)
        contradiction = None
    except VerificationError as error:  # says no shapes; the checks below do where they can
        types = inferred_types(graph, strict=False)
        contradiction = error

    def shape(tensor: Tensor) -> Shape | None:
        if is_constant(tensor):
            return tuple(tensor.shape)
        return types.get(tensor.name, (None, None))[1]

    for node in graph.nodes:
        if node.domain in (None, "", "ai.onnx") and node.op in SHAPE_CHECKS:
            SHAPE_CHECKS[node.op](node, shape)
    if contradiction:
        raise contradiction
    for node in graph.nodes:
        _verify_element_types(node, {name: dtype for name, (dtype, _) in types.items()})
    _verify_annotations(graph, shape)
    _verify_skeleton(graph)


def _verify_element_types(node: Node, computed: Mapping[str, np.dtype]) -> None:
    """Operands that the operator wants of one type are (ONNX's inference looks at the first one only)."""
    if node.domain not in (None, "", "ai.onnx"):
        return
    formal = onnx.defs.get_schema(node.op, OPSET).inputs
    seen: dict[str, Tensor] = {}
    for i, tensor in enumerate(node.inputs):
        parameter = formal[min(i, len(formal) - 1)]
        dtype = _element_type(tensor, computed)
        if dtype is None or not parameter.is_homogeneous:
            continue
        first = seen.setdefault(parameter.type_str, tensor)
        expected = _element_type(first, computed)
        if dtype != expected:
            _fail(node, f"{first.name!r} is {expected} and {tensor.name!r} is {dtype}; they have to be of one type")


def _element_type(tensor: Tensor, computed: Mapping[str, np.dtype]) -> np.dtype | None:
    return np.dtype(tensor.dtype) if is_constant(tensor) else computed.get(tensor.name)


def _verify_annotations(graph: Graph, shape: Shapes) -> None:
    for name, tensor in graph.tensors().items():
        inferred = shape(tensor)
        node = producer(tensor)
        if is_constant(tensor) or inferred is None or node is None:
            continue
        if tensor.type != "tensor_type":
            _fail(node, f"{name!r} is annotated as {tensor.type} and computed as a tensor")
        if tensor.shape is None:
            continue
        if not _compatible(tuple(tensor.shape), tuple(inferred)):
            _fail(node, f"{name!r} is annotated {_show(tensor.shape)} and computed {_show(inferred)}")


def _verify_skeleton(graph: Graph) -> None:
    """What ONNX's own checker knows beyond this."""
    proto = skeleton(graph)
    for output in proto.graph.output:  # the checker wants types, which were inferred and checked already
        output.CopyFrom(onnx.helper.make_tensor_value_info(output.name, onnx.TensorProto.FLOAT, ()))
    try:
        onnx.checker.check_model(proto)
    except onnx.checker.ValidationError as error:
        raise VerificationError(" ".join(str(error).split())) from error


def _compatible(a: Shape, b: Shape) -> bool:
    return len(a) == len(b) and all(_same(x, y) for x, y in zip(a, b, strict=True))


def _same(a: int | str, b: int | str) -> bool:
    """Whether two extents may be equal; symbolic ones may."""
    return isinstance(a, str) or isinstance(b, str) or a == b


def _show(shape: Shape) -> str:
    return "[" + ",".join(str(d) for d in shape) + "]"


def _check_convolution(node: Node, shape: Shapes) -> None:
    data, weight = shape(node.inputs[0]), shape(node.inputs[1])
    if data is None or weight is None:
        return
    both = f"input {_show(data)}, weight {_show(weight)}"
    if len(data) != len(weight) or len(data) < 3:
        _fail(node, f"ranks don't agree: {both}")
    groups, is_transposed = node.attrs.get("group", 1), node.op == "ConvTranspose"
    channels, a_group = data[1], weight[0] if is_transposed else weight[1]
    filters = weight[1] if is_transposed else weight[0]
    if isinstance(filters, str) or isinstance(a_group, str):
        return
    expected = a_group if is_transposed else a_group * groups
    if not _same(channels, expected):
        _fail(node, f"the input has {channels} channels and the weight is for {expected}: {both}, group {groups}")
    if groups < 1 or (a_group if is_transposed else filters) % groups:
        _fail(node, f"channels can't be divided into {groups} groups: {both}")
    if "kernel_shape" in node.attrs and list(node.attrs["kernel_shape"]) != list(weight[2:]):
        _fail(node, f"kernel_shape {_show(node.attrs['kernel_shape'])} is not the weight's: {both}")
    if len(node.inputs) > 2 and not node.inputs[2].is_empty():
        _check_vector(node, 2, filters * groups if is_transposed else filters, shape, both)


def _check_vector(node: Node, operand: int, extent: int | str, shape: Shapes, beside: str) -> None:
    vector = shape(node.inputs[operand])
    if vector is not None and (len(vector) != 1 or not _same(vector[0], extent)):
        name = node.inputs[operand].name
        _fail(node, f"{name!r} has shape {_show(vector)} where [{extent}] belongs: {beside}")


def _check_normalization(node: Node, shape: Shapes) -> None:
    data = shape(node.inputs[0])
    if data is not None and len(data) > 1:
        for operand in range(1, len(node.inputs)):
            _check_vector(node, operand, data[1], shape, f"input {_show(data)}")


def _check_gemm(node: Node, shape: Shapes) -> None:
    left, right = shape(node.inputs[0]), shape(node.inputs[1])
    if left is None or right is None:
        return
    both = f"{_show(left)} times {_show(right)}"
    if len(left) != 2 or len(right) != 2:
        _fail(node, f"operands must be matrices: {both}")
    inner = left[0 if node.attrs.get("transA", 0) else 1], right[1 if node.attrs.get("transB", 0) else 0]
    if not _same(*inner):
        _fail(node, f"inner extents {inner[0]} and {inner[1]} differ: {both}{_transposed(node)}")
    if len(node.inputs) > 2 and not node.inputs[2].is_empty() and (bias := shape(node.inputs[2])):
        filters = right[0 if node.attrs.get("transB", 0) else 1]
        if bias[-1] != 1 and not _same(bias[-1], filters):
            _fail(node, f"the bias {_show(bias)} doesn't fit {filters} outputs: {both}")


def _transposed(node: Node) -> str:
    return "".join(f", {name}" for name in ("transA", "transB") if node.attrs.get(name, 0))


def _check_matmul(node: Node, shape: Shapes) -> None:
    left, right = shape(node.inputs[0]), shape(node.inputs[1])
    if left and right and not _same(left[-1], right[-2 if len(right) > 1 else 0]):
        _fail(node, f"inner extents differ: {_show(left)} times {_show(right)}")


def _check_broadcast(node: Node, shape: Shapes) -> None:
    shapes = [s for t in node.inputs if not t.is_empty() and (s := shape(t)) is not None]
    rank = max((len(s) for s in shapes), default=0)
    for axis in range(1, rank + 1):
        extents = {s[-axis] for s in shapes if len(s) >= axis and isinstance(s[-axis], int) and s[-axis] != 1}
        if len(extents) > 1:
            _fail(node, f"operands can't be broadcast together: {' and '.join(_show(s) for s in shapes)}")


def _check_prelu(node: Node, shape: Shapes) -> None:
    data, slope = shape(node.inputs[0]), shape(node.inputs[1])
    if data is None or slope is None:
        return
    fits = len(slope) <= len(data) and all(
        s == 1 or _same(s, d) for s, d in zip(reversed(slope), reversed(data), strict=False)
    )
    if not fits:
        _fail(node, f"the slope {_show(slope)} can't be broadcast to the input {_show(data)}")


def _check_concat(node: Node, shape: Shapes) -> None:
    shapes = [s for t in node.inputs if (s := shape(t)) is not None]
    if not shapes:
        return
    first, axis = shapes[0], node.attrs["axis"] % max(1, len(shapes[0]))
    for other in shapes[1:]:
        fits = len(first) == len(other) and all(
            _same(a, b) for i, (a, b) in enumerate(zip(first, other, strict=True)) if i != axis
        )
        if not fits:
            _fail(node, f"operands differ beside axis {axis}: {_show(first)} and {_show(other)}")


def _check_split(node: Node, shape: Shapes) -> None:
    data = shape(node.inputs[0])
    if data is None or len(node.inputs) < 2 or not is_constant(node.inputs[1]):
        return
    sizes, axis = node.inputs[1].values.tolist(), node.attrs.get("axis", 0)
    if len(sizes) != len(node.outputs) or not _same(data[axis], sum(sizes)):
        _fail(node, f"sizes {sizes} don't divide axis {axis} of {_show(data)} into {len(node.outputs)} results")


def _check_reshape(node: Node, shape: Shapes) -> None:
    data = shape(node.inputs[0])
    if data is None or not is_constant(node.inputs[1]) or any(isinstance(d, str) for d in data):
        return
    target = [int(d) for d in node.inputs[1].values]
    stated = [
        data[i] if d == 0 and i < len(data) and not node.attrs.get("allowzero", 0) else d for i, d in enumerate(target)
    ]
    size, known = int(np.prod([int(d) for d in data])), int(np.prod([int(d) for d in stated if d != -1]))
    if size % known if -1 in stated and known else size != known:
        _fail(node, f"{_show(data)} has {size} elements and can't be reshaped to {_show(target)}")


_BROADCASTING = (
    *("Add", "Sub", "Mul", "Div", "Pow", "Max", "Min", "Mean", "Sum", "Where", "Mod", "And", "Or", "Xor"),
    *("Equal", "Greater", "Less", "GreaterOrEqual", "LessOrEqual"),
)

SHAPE_CHECKS: dict[str, Callable[[Node, Shapes], None]] = {
    "Conv": _check_convolution,
    "ConvTranspose": _check_convolution,
    "BatchNormalization": _check_normalization,
    "InstanceNormalization": _check_normalization,
    "Gemm": _check_gemm,
    "MatMul": _check_matmul,
    "PRelu": _check_prelu,
    "Concat": _check_concat,
    "Split": _check_split,
    "Reshape": _check_reshape,
    **dict.fromkeys(_BROADCASTING, _check_broadcast),
}


# The module table


def _verify_modules(model: Model) -> None:
    if not model.modules:
        return
    tensors = model.graph.tensors()
    names: set[str] = set()
    for module in model.modules:
        if module.name in names:
            raise VerificationError(f"two modules are named {module.name!r}")
        names.add(module.name)
        for end, ends in (("entry", module.entries), ("exit", module.exits)):
            for tensor in (name for name in ends if name not in tensors):
                raise VerificationError(f"module {module.name!r}: its {end} {tensor!r} is no tensor of the graph")
        entries = [tensors[name] for name in module.entries]
        for name in module.exits:
            if not _depends(tensors[name], entries):
                other = "any of its entries" if module.more_entries else f"its entry {module.entry!r}"
                raise VerificationError(f"module {module.name!r}: its exit {name!r} isn't computed from {other}")


def _depends(exit_: Tensor, entries: Sequence[Tensor]) -> bool:
    if any(exit_ is entry for entry in entries):
        return False
    consumers = {id(node) for entry in entries for node in entry.outputs}
    return not consumers.isdisjoint(subgraph_nodes([exit_], stop=entries))
