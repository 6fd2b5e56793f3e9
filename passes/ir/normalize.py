"""An ONNX model as others write it, brought into the form that the IR has.

Afterwards the standard operators have the domain "", and no function of the model's own is called; nodes come in the
order of data flow, no two with one name; weights are dense; extents are numbers from 0, or have a name. What a model
computes is not changed by any of that.
"""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Iterable, Iterator, MutableSequence

import numpy as np
import onnx
import onnx.inliner
from google.protobuf.message import Message

from wootz.passes.errors import WootzError

STANDARD = "ai.onnx"
"""The long name of the domain ""."""
OWN_DOMAIN = "wootz"
"""Of gradient functions, which `legalize` replaces: they stay calls."""
LARGEST_DENSE = 2**28
"""Bytes of a sparse tensor when it is made dense."""
HELD_TYPES = ("tensor_type", "sequence_type")
"""The kinds of values that the IR has a place for, sequences of tensors among them: nothing optional, no maps."""
MOST_NODES = 1_000_000
"""Of a graph with its functions inlined: few bytes can state any number."""
UNREAD = (
    onnx.AttributeProto.TENSORS,
    onnx.AttributeProto.GRAPHS,
    onnx.AttributeProto.SPARSE_TENSORS,
    onnx.AttributeProto.TYPE_PROTO,
    onnx.AttributeProto.TYPE_PROTOS,
)
"""Types of attributes that no operator of a CNN has; the IR has no place for them."""


def check_text(message: Message) -> None:
    """Raises WootzError for a name that is not UTF-8: protobuf gives it as bytes."""
    for field, value in message.ListFields():
        for part in value if field.is_repeated else (value,):
            if field.type == field.TYPE_MESSAGE:
                check_text(part)
            elif field.type == field.TYPE_STRING and isinstance(part, bytes):
                raise WootzError(f"it has a {field.name} that is not UTF-8: {part[:50]!r}")
            elif field.type not in (field.TYPE_STRING, field.TYPE_MESSAGE):
                break


def normalize(proto: onnx.ModelProto) -> None:
    """Brings a model into that form in place, but for its functions. Raises WootzError for what the IR can't hold."""
    check_text(proto)
    _name_standard_domain(proto)
    for nodes in (proto.graph.node, *(f.node for f in proto.functions)):
        _sort(nodes)
    for graph in _graphs(proto.graph):
        for node in graph.node:
            _check_attributes(node)
        _sort(graph.node)
        _make_dense(graph)
        for tensor in graph.initializer:
            if min(tensor.dims, default=0) < 0:
                raise WootzError(f"the constant {tensor.name!r} has a negative extent: {list(tensor.dims)}")
        for info in (*graph.input, *graph.output, *graph.value_info):
            _check_type(info)
            _name_unknown_extents(info)
    for info in (info for function in proto.functions for info in function.value_info):
        _check_type(info)
    _name_apart(proto.graph)


def inline_functions(proto: onnx.ModelProto) -> onnx.ModelProto:
    """The model with calls of its functions replaced by what these do; all are of one version of the operators.

    Wootz's own functions, in gradients, stay calls. Raises WootzError for functions that call themselves or each other
    so often that the graph would be huge.
    """
    own = [(f.domain, f.name) for f in proto.functions if f.domain == OWN_DOMAIN]
    if len(own) == len(proto.functions):
        return proto
    _check_calls(proto)
    try:
        inlined = onnx.inliner.inline_selected_functions(proto, own, exclude=True)
    except RuntimeError as error:
        reason = " ".join(str(error).split()).rpartition("failed: ")[2]  # what comes before is a place in onnx
        raise WootzError(f"the model's functions can't be put in the place of their calls: {reason}") from error
    _name_apart(inlined.graph)
    return inlined


def _name_standard_domain(proto: onnx.ModelProto) -> None:
    for nodes, imports in (
        (proto.graph.node, proto.opset_import),
        *((f.node, f.opset_import) for f in proto.functions),
    ):
        versions = {o.domain if o.domain != STANDARD else "": o.version for o in imports}
        if len(versions) != len(imports) or any(o.domain == STANDARD for o in imports):
            del imports[:]
            imports.extend(onnx.helper.make_opsetid(domain, version) for domain, version in versions.items())
        for node in _all_nodes(nodes):
            if node.domain == STANDARD:
                node.domain = ""


def _all_nodes(nodes: Iterable[onnx.NodeProto]) -> Iterator[onnx.NodeProto]:
    """The nodes, and those of the graphs in their attributes."""
    for node in nodes:
        yield node
        for attribute in node.attribute:
            if attribute.HasField("g"):
                yield from _all_nodes(attribute.g.node)


def _graphs(graph: onnx.GraphProto) -> Iterator[onnx.GraphProto]:
    """The graph, and those in the attributes of its nodes."""
    yield graph
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("g"):
                yield from _graphs(attribute.g)


def _check_calls(proto: onnx.ModelProto) -> None:
    """Raises WootzError for functions that call themselves, or whose calls make a graph of too many nodes."""
    functions = {(f.domain, f.name, f.overload): f for f in proto.functions}
    if len(functions) < len(proto.functions):
        raise WootzError("two of the model's functions have one name")
    sizes: dict[tuple[str, str, str], int] = {}

    def size(nodes: Iterable[onnx.NodeProto], callers: tuple[tuple[str, str, str], ...]) -> int:
        total = 0
        for node in _all_nodes(nodes):
            key = (node.domain, node.op_type, node.overload)
            if key in callers:
                raise WootzError(f"the model's function {node.op_type!r} calls itself")
            if key in functions and key not in sizes:
                sizes[key] = size(functions[key].node, (*callers, key))
            total += sizes.get(key, 1)
        return total

    nodes = size(proto.graph.node, ())
    if nodes > MOST_NODES:
        raise WootzError(f"its functions make a graph of {nodes:,} nodes; Wootz reads those of up to {MOST_NODES:,}")


def _check_attributes(node: onnx.NodeProto) -> None:
    """Refuses what the IR can't hold, or ONNX's inference ends the process for; leaves out lists of nothing."""
    for attribute in list(node.attribute):
        if attribute.type in UNREAD:
            kind = onnx.AttributeProto.AttributeType.Name(attribute.type)
            raise WootzError(f"{node.op_type} node {node.name!r}: its attribute {attribute.name!r} is one of {kind}")
        if node.op_type == "Split" and attribute.name == "num_outputs" and attribute.i != len(node.output):
            raise WootzError(f"Split node {node.name!r}: num_outputs is {attribute.i}, and it has {len(node.output)}")
        if _is_empty_list(attribute) and node.op_type != "Constant":
            node.attribute.remove(attribute)  # graphsurgeon doesn't know of which type it is


def _check_type(info: onnx.ValueInfoProto) -> None:
    """Raises WootzError for a value that the IR can't hold."""
    kind = info.type.WhichOneof("value")
    if kind is None:
        info.ClearField("type")  # it may have said what the values stand for, and nothing else
        return
    if kind == "sequence_type":
        element = info.type.sequence_type.elem_type.WhichOneof("value") or "nothing"
        kind = kind if element == "tensor_type" else f"a sequence of {element}"
    if kind not in HELD_TYPES:
        raise WootzError(f"{info.name!r} is of a type that the IR can't hold: {kind}")


def _is_empty_list(attribute: onnx.AttributeProto) -> bool:
    lists = {
        onnx.AttributeProto.INTS: attribute.ints,
        onnx.AttributeProto.FLOATS: attribute.floats,
        onnx.AttributeProto.STRINGS: attribute.strings,
    }
    return attribute.type in lists and not lists[attribute.type] and not attribute.ref_attr_name


def _sort(nodes: MutableSequence[onnx.NodeProto]) -> None:
    """Brings nodes into the order of data flow; those that are in order stay where they are. A cycle stays as it is."""
    producers = {name: i for i, node in enumerate(nodes) for name in node.output if name}
    needed = [{producers[n] for n in _read_by(node) if n in producers} for node in nodes]
    if all(max(sources, default=-1) < i for i, sources in enumerate(needed)):
        return
    readers: dict[int, list[int]] = {}
    for i, sources in enumerate(needed):
        for source in sources:
            readers.setdefault(source, []).append(i)
    waiting = [len(sources) for sources in needed]
    ready = [i for i, count in enumerate(waiting) if not count]
    order = []
    while ready:
        order.append(heapq.heappop(ready))
        for reader in readers.get(order[-1], ()):
            waiting[reader] -= 1
            if not waiting[reader]:
                heapq.heappush(ready, reader)
    if len(order) == len(needed):
        ordered = [onnx.NodeProto.FromString(nodes[i].SerializeToString()) for i in order]
        del nodes[:]
        nodes.extend(ordered)


def _read_by(node: onnx.NodeProto) -> Iterator[str]:
    """The names that a node reads, and those that its graphs do: they may be of tensors around them."""
    for inner in _all_nodes([node]):
        yield from (name for name in inner.input if name)
    for attribute in node.attribute:
        if attribute.HasField("g"):
            for graph in _graphs(attribute.g):
                yield from (info.name for info in graph.output)


# Tensors


def _make_dense(graph: onnx.GraphProto) -> None:
    """Sparse initializers, and those of Constant nodes, become dense ones."""
    for sparse in graph.sparse_initializer:
        graph.initializer.append(dense(sparse, sparse.values.name))
    del graph.sparse_initializer[:]
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.type == onnx.AttributeProto.SPARSE_TENSOR:
                if node.op_type != "Constant" or node.domain:
                    raise WootzError(f"{node.op_type} node {node.name!r}: its attribute {attribute.name!r} is sparse")
                tensor = dense(attribute.sparse_tensor, node.output[0])
                attribute.CopyFrom(onnx.helper.make_attribute("value", tensor))


def dense(sparse: onnx.SparseTensorProto, name: str) -> onnx.TensorProto:
    """The tensor with all its zeros. Raises WootzError for a huge one, and for indices outside it."""
    values = onnx.numpy_helper.to_array(sparse.values).reshape(-1)
    indices = onnx.numpy_helper.to_array(sparse.indices)
    shape = tuple(sparse.dims)
    elements = int(np.prod(shape, dtype=object))
    if min(shape, default=0) < 0 or elements * values.itemsize > LARGEST_DENSE:
        raise WootzError(f"the sparse tensor {name!r} of shape {list(shape)} is too large to be made dense")
    if indices.ndim == 2 and indices.shape[1] == len(shape):
        inside = bool(((indices >= 0) & (indices < np.array(shape))).all())
        places = np.ravel_multi_index(tuple(indices.T), shape) if inside else indices
    else:
        places, inside = indices, bool(((indices >= 0) & (indices < elements)).all())
    if not inside or places.shape != values.shape:
        raise WootzError(f"the sparse tensor {name!r}: its indices don't fit its {len(values)} values or its shape")
    array = np.zeros(elements, values.dtype)
    array[places] = values
    return onnx.numpy_helper.from_array(array.reshape(shape), name)


def _name_unknown_extents(info: onnx.ValueInfoProto) -> None:
    """An extent that isn't stated, or is -1, gets a name of its own: nothing is known of it."""
    if not info.type.HasField("tensor_type") or not info.type.tensor_type.HasField("shape"):
        return
    for axis, extent in enumerate(info.type.tensor_type.shape.dim):
        if not extent.dim_param and (not extent.HasField("dim_value") or extent.dim_value < 0):
            extent.dim_param = f"{info.name}_{axis}"


def _name_apart(graph: onnx.GraphProto) -> None:
    """Gives all but the first of several nodes of one name a number."""
    taken = {node.name for node in graph.node}
    if len(taken) == len(graph.node):
        return
    seen: Counter[str] = Counter()
    for node in graph.node:
        seen[node.name] += 1
        if node.name and seen[node.name] > 1:
            name, number = node.name, seen[node.name] - 1
            while f"{name}_{number}" in taken:
                number += 1
            node.name = f"{name}_{number}"
            taken.add(node.name)
