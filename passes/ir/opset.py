"""Models of one opset in terms of another, node by node, in graphs, subgraphs and local functions.

ONNX's own version converter is not used: it leaves subgraphs and local functions as they are, gives up whole models for
one operator, drops names and documentation, copies all weights several times (and refuses 2 GB of them), and some of
its adapters are wrong or keep attributes that the other form lacks.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Container, Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import onnx
from onnx import helper

from wootz.passes.ir.versions.downgrades import DOWNGRADES
from wootz.passes.ir.versions.rewriting import STANDARD_DOMAINS, Rewriting, Scope, Unconvertible
from wootz.passes.ir.versions.upgrades import EXPERIMENTS, UPGRADES

LARGEST_OPERAND = 1024
"""Constants of more elements say nothing about shapes; inference does without their values."""


FIRST_WITHOUT_EXPERIMENTS = 10
SUCCEEDED = ("Scatter", "Upsample")
"""Operators that another took the place of; exporters go on writing them in opsets that have none."""


def convert_to_opset(proto: onnx.ModelProto, version: int) -> None:
    """Brings a model to another version of ONNX's standard operators, in place; other domains stay as they are.

    Every node is brought from one version of its operator to the next. What that takes is a rule in `UPGRADES` or
    `DOWNGRADES`. Where there is none, the node stays as it is, if the other version knows its attributes, operands
    and results; attributes that it doesn't know are left out if they have their default. An operator that the other
    opset lacks becomes what ONNX defines it to be, if ONNX does. Afterwards the types of all operands are allowed.

    Raises Unconvertible, a ValueError, with the node and the reason; then the model is of no use any more.
    """
    names, read = _names(proto)
    scope = Scope(set(names), read)
    opset = standard_opset(proto.opset_import)
    if opset < FIRST_WITHOUT_EXPERIMENTS:
        _replace_experiments(proto.graph, scope, opset)
    _convert_graph(proto.graph, _inferred(proto), scope, opset, version)
    for function in proto.functions:
        inside = scope.inside({}, _constants(function.node))
        nodes = _convert_nodes(function.node, [], inside, standard_opset(function.opset_import, opset), version)
        _replace(function.node, nodes)
        _set_opset(function.opset_import, version)
    _drop_constants(proto, (names - read) | _names(proto)[1])
    _set_opset(proto.opset_import, version)
    proto.ir_version = max(proto.ir_version, helper.find_min_ir_version_for(list(proto.opset_import), True))
    _check_types(_inferred(proto), {}, version)


def standard_opset(imports: Iterable[onnx.OperatorSetIdProto], default: int = 1) -> int:
    """The version of the standard operators that a model or function imports."""
    return max((o.version for o in imports if o.domain in STANDARD_DOMAINS), default=default)


def _set_opset(imports, version: int) -> None:  # type: ignore[no-untyped-def]  # protobuf's repeated field
    others = [o for o in imports if o.domain not in STANDARD_DOMAINS]
    kept = [helper.make_opsetid("", version), *others]
    _replace(imports, kept)


def _replace(repeated, content: Sequence) -> None:  # type: ignore[no-untyped-def]
    """Gives a repeated field of protobuf other content."""
    del repeated[:]
    repeated.extend(content)


def _drop_constants(proto: onnx.ModelProto, kept: Container[str]) -> None:
    """Removes what became attributes or is left out now: the constants that aren't `kept`."""

    def needed(nodes: Iterable[onnx.NodeProto]) -> list[onnx.NodeProto]:
        for graph in (g for node in nodes for g in _subgraphs(node)):
            visit(graph)
        return [n for n in nodes if n.op_type != "Constant" or n.domain not in STANDARD_DOMAINS or n.output[0] in kept]

    def visit(graph: onnx.GraphProto) -> None:
        nodes = needed(graph.node)
        if len(nodes) < len(graph.node):
            _replace(graph.node, nodes)
        inputs = {info.name for info in graph.input}
        for i in reversed(range(len(graph.initializer))):
            if graph.initializer[i].name not in kept and graph.initializer[i].name not in inputs:
                del graph.initializer[i]

    visit(proto.graph)
    for function in proto.functions:
        _replace(function.node, needed(function.node))


# Names, types and constants


def _names(proto: onnx.ModelProto) -> tuple[set[str], set[str]]:
    """All names of tensors and nodes in a model, and those of the tensors that are read."""
    names: set[str] = set()
    read: set[str] = set()

    def visit(nodes: Iterable[onnx.NodeProto]) -> None:
        for node in nodes:
            names.update((*node.input, *node.output, node.name))
            read.update(node.input)
            for subgraph in _subgraphs(node):
                visit_graph(subgraph)

    def visit_graph(graph: onnx.GraphProto) -> None:
        names.update(t.name for t in (*graph.input, *graph.output, *graph.initializer))
        read.update(t.name for t in graph.output)
        visit(graph.node)

    visit_graph(proto.graph)
    for function in proto.functions:
        names.update((*function.input, *function.output))
        read.update(function.output)
        visit(function.node)
    return names, read


def _subgraphs(node: onnx.NodeProto) -> list[onnx.GraphProto]:
    return [g for a in node.attribute for g in ((a.g, *a.graphs) if a.HasField("g") else a.graphs)]


def _constants(nodes: Iterable[onnx.NodeProto]) -> dict[str, onnx.TensorProto]:
    """The tensors that Constant nodes hold."""
    return {
        node.output[0]: attribute.t
        for node in nodes
        if node.op_type == "Constant" and node.domain in STANDARD_DOMAINS
        for attribute in node.attribute
        if attribute.name == "value" and attribute.HasField("t")
    }


def _types(graph: onnx.GraphProto) -> dict[str, onnx.TypeProto]:
    known = {info.name: info.type for info in (*graph.value_info, *graph.input, *graph.output) if info.HasField("type")}
    for tensor in graph.initializer:
        known[tensor.name] = helper.make_tensor_type_proto(tensor.data_type, tensor.dims)
    return known


def _inferred(proto: onnx.ModelProto) -> onnx.GraphProto:
    """The graph with the types that inference finds, without the values of large weights."""
    bare = onnx.ModelProto(ir_version=proto.ir_version)
    bare.opset_import.extend(proto.opset_import)
    bare.functions.extend(proto.functions)
    graph = bare.graph
    graph.name = proto.graph.name
    graph.node.extend(proto.graph.node)
    graph.input.extend(proto.graph.input)
    graph.output.extend(proto.graph.output)
    graph.value_info.extend(proto.graph.value_info)
    inputs = {info.name for info in graph.input}
    for tensor in proto.graph.initializer:
        if np.prod(tensor.dims, dtype=np.int64) <= LARGEST_OPERAND:
            graph.initializer.append(tensor)
        elif tensor.name not in inputs:
            graph.input.append(helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims))
    for data_propagation in (True, False):
        try:
            return onnx.shape_inference.infer_shapes(bare, data_prop=data_propagation).graph
        except (RuntimeError, ValueError, onnx.shape_inference.InferenceError):
            continue  # nothing is known then: rules that need types refuse
    return graph


# Nodes


def _convert_graph(graph: onnx.GraphProto, inferred: onnx.GraphProto, scope: Scope, opset: int, version: int) -> None:
    values = {t.name: t for t in graph.initializer} | _constants(graph.node)
    nodes = _convert_nodes(graph.node, inferred.node, scope.inside(_types(inferred), values), opset, version)
    _replace(graph.node, nodes)


def _replace_experiments(graph: onnx.GraphProto, scope: Scope, opset: int) -> None:
    """Writes by others what inference doesn't know."""
    if not any(node.op_type in EXPERIMENTS for node in graph.node):
        return
    nodes: list[onnx.NodeProto] = []
    for node in graph.node:
        if node.op_type in EXPERIMENTS and node.domain in STANDARD_DOMAINS:
            rewriting = Rewriting(node, scope)
            EXPERIMENTS[node.op_type](rewriting, opset)
            nodes.extend(rewriting.nodes)
        else:
            nodes.append(node)
    _replace(graph.node, nodes)


def _convert_nodes(
    nodes: Sequence[onnx.NodeProto], inferred: Sequence[onnx.NodeProto], scope: Scope, opset: int, version: int
) -> list[onnx.NodeProto]:
    """The nodes in terms of `version`; `inferred` are the same with what inference finds in their subgraphs."""
    converted: list[onnx.NodeProto] = []
    for i, node in enumerate(nodes):
        subgraphs = _subgraphs(node)
        known = _subgraphs(inferred[i]) if i < len(inferred) else subgraphs
        for subgraph, annotated in zip(subgraphs, known, strict=True):
            _convert_graph(subgraph, annotated, scope, opset, version)
        converted.extend(_convert_node(node, scope, opset, version))
    return converted


def _convert_node(node: onnx.NodeProto, scope: Scope, opset: int, version: int) -> Iterator[onnx.NodeProto]:
    if node.domain not in STANDARD_DOMAINS or since(node.op_type, opset) is None:
        yield node
        return
    _check_form(node, scope, opset)
    if opset < version:
        yield from _upgrade(node, scope, opset, version)
    else:
        yield from _downgrade(node, scope, opset, version)


def _check_form(node: onnx.NodeProto, scope: Scope, opset: int) -> None:
    """Raises Unconvertible for a node that isn't one of its opset: rules take for granted that it is."""
    schema: Any = onnx.defs.get_schema(node.op_type, opset)  # onnx's stubs have no numbers for types of attributes
    rewriting = Rewriting(node, scope)
    if not schema.min_input <= len(node.input) <= schema.max_input:
        rewriting.refuse(f"has {len(node.input)} operands, which isn't what it has in opset {opset}")
    for name, attribute in schema.attributes.items():
        if attribute.required and name not in rewriting.attributes:
            rewriting.refuse(f"lacks the attribute {name}")
    for name, given in rewriting.attributes.items():
        if name in schema.attributes and given.type != schema.attributes[name].type.value:
            rewriting.refuse(f"has an attribute {name} of another type than that of opset {opset}")


def _upgrade(node: onnx.NodeProto, scope: Scope, opset: int, version: int) -> Iterator[onnx.NodeProto]:
    op = node.op_type
    current = since(op, opset)
    if current is not None and op in SUCCEEDED and onnx.defs.get_schema(op, opset).deprecated:
        opset = current - 1
    following = next((v for v in range(opset + 1, version + 1) if since(op, v) == v), None)
    if following is None:
        yield node
        return
    rewriting = Rewriting(node, scope)
    UPGRADES.get((op, following), _keep_if_known)(rewriting, following)
    for placed in rewriting.nodes:
        yield from _upgrade(placed, scope, following, version)


def _downgrade(node: onnx.NodeProto, scope: Scope, opset: int, version: int) -> Iterator[onnx.NodeProto]:
    op = node.op_type
    current = since(op, opset)
    if current is None or current <= version:
        yield node
        return
    rewriting = Rewriting(node, scope)
    rule = DOWNGRADES.get((op, current))
    if rule is None and since(op, version) is None and (op, first_version(op)) not in DOWNGRADES:
        nodes, defined_in = _definition(rewriting, current, version)
        yield from _convert_nodes(nodes, [], scope, defined_in, version)
        return
    (rule or _keep_if_known)(rewriting, current - 1)
    for placed in rewriting.nodes:
        yield from _downgrade(placed, scope, current - 1, version)


@functools.cache
def since(op: str, opset: int) -> int | None:
    """The version of a standard operator that an opset has; None where it has none."""
    try:
        return int(onnx.defs.get_schema(op, opset).since_version)
    except onnx.defs.SchemaError:
        return None


@functools.cache
def first_version(op: str) -> int | None:
    """The opset that introduced a standard operator."""
    return next((v for v in range(1, onnx.defs.onnx_opset_version() + 1) if since(op, v) is not None), None)


def _keep_if_known(rewriting: Rewriting, opset: int) -> None:
    """The node as it is, without attributes that `opset` lacks and that have their default. Refuses others."""
    op = rewriting.node.op_type
    schema = onnx.defs.get_schema(op, opset)
    for name in [name for name in rewriting.attributes if name not in schema.attributes]:
        value = rewriting.take(name)
        if value not in _defaults(op, name) and not (name == "dilations" and set(value) == {1}):
            rewriting.refuse(f"has the attribute {name}, which opset {opset} lacks")
    for names, most, what in (
        (rewriting.inputs, schema.max_input, "operands"),
        (rewriting.outputs, schema.max_output, "results"),
    ):
        while names and not names[-1] and len(names) > most:
            names.pop()
        if len(names) > most:
            rewriting.refuse(f"has {len(names)} {what}, and in opset {opset} at most {most}")
    rewriting.keep()


@functools.cache
def _defaults(op: str, attribute: str) -> list[object]:
    """The default of an attribute, which no two versions have differently where one of them lacks it."""
    found = []
    for version in range(1, onnx.defs.onnx_opset_version() + 1):
        schema = onnx.defs.get_schema(op, version) if since(op, version) == version else None
        if schema is not None and attribute in schema.attributes:
            default = schema.attributes[attribute].default_value
            if default.type:
                value = helper.get_attribute_value(default)
                found.append(value.decode() if isinstance(value, bytes) else value)
    return found


# Operators that ONNX defines by others


def _definition(rewriting: Rewriting, opset: int, version: int) -> tuple[list[onnx.NodeProto], int]:
    """The nodes by which ONNX defines an operator, with the names of this node, and their opset."""
    node = rewriting.node
    function = _function(rewriting, opset)
    if function is None:
        rewriting.refuse(f"can't be expressed in opset {version}")
    schema = onnx.defs.get_schema(node.op_type, opset)
    attributes = {name: a.default_value for name, a in schema.attributes.items() if a.default_value.type}
    attributes.update({a.name: a for a in function.attribute_proto})
    attributes.update(rewriting.attributes)
    names = {formal: rewriting.input(i) for i, formal in enumerate(function.input)}
    names.update(dict(zip(function.output, rewriting.outputs, strict=False)))
    nodes = []
    for inner in function.node:
        placed = onnx.NodeProto()
        placed.CopyFrom(inner)
        _rename(placed, names, rewriting.fresh)
        _replace(placed.attribute, list(_bound(placed.attribute, attributes)))
        nodes.append(placed)
    defined_in = standard_opset(function.opset_import, opset)
    rewriting.scope.values.update(_constants(nodes))
    rewriting.scope.types.update(_types(_inferred(_alone(nodes, rewriting.scope, defined_in))))
    return nodes, defined_in


def _alone(nodes: Sequence[onnx.NodeProto], scope: Scope, opset: int) -> onnx.ModelProto:
    """A model of these nodes, for inference: what they read from `scope` are its inputs and constants."""
    model = helper.make_model(
        helper.make_graph(nodes, "definition", [], []), opset_imports=[helper.make_opsetid("", opset)]
    )
    for name in {name for node in nodes for name in node.input} - {name for node in nodes for name in node.output}:
        if name in scope.values:
            model.graph.initializer.add().CopyFrom(scope.values[name])
        elif name in scope.types:
            model.graph.input.add(name=name).type.CopyFrom(scope.types[name])
    return model


def _rename(node: onnx.NodeProto, names: dict[str, str], fresh: Callable[[str], str]) -> None:
    """Names tensors by `names`, and new ones, which are added, by `fresh`; those of its subgraphs, too."""
    for name in node.output:
        if name and not names.get(name):
            names[name] = fresh(name)
    _replace(node.input, [names.get(name, name) for name in node.input])
    _replace(node.output, [names.get(name, name) for name in node.output])
    node.name = fresh(node.op_type)
    for graph in _subgraphs(node):
        inside = dict(names)
        for info in (*graph.input, *graph.initializer):
            inside[info.name] = fresh(info.name)
            info.name = inside[info.name]
        for inner in graph.node:
            _rename(inner, inside, fresh)
        for info in (*graph.output, *graph.value_info):
            info.name = inside.get(info.name, info.name)


def _bound(
    formal: Iterable[onnx.AttributeProto], actual: dict[str, onnx.AttributeProto]
) -> Iterator[onnx.AttributeProto]:
    """Attributes, with what a function's caller gives for those that refer to the function's own."""
    for attribute in list(formal):
        if not attribute.ref_attr_name:
            copied = onnx.AttributeProto()
            copied.CopyFrom(attribute)  # it is about to be replaced
            yield copied
        elif attribute.ref_attr_name in actual:
            bound = onnx.AttributeProto()
            bound.CopyFrom(actual[attribute.ref_attr_name])
            bound.name = attribute.name
            yield bound


def _function(rewriting: Rewriting, opset: int) -> onnx.FunctionProto | None:
    """How ONNX defines a node; None where it doesn't."""
    schema: Any = onnx.defs.get_schema(rewriting.node.op_type, opset)  # onnx's stubs lack what is asked here
    if schema.has_function:
        return _parsed(schema.get_function_with_opset_version(max(schema.function_opset_versions)))
    if not schema.has_context_dependent_function:
        return None
    types = [rewriting.scope.types.get(name, onnx.TypeProto()) for name in rewriting.inputs]
    if any(not t.WhichOneof("value") for t, name in zip(types, rewriting.inputs, strict=True) if name):
        rewriting.refuse("is defined by the types of its operands, which can't be inferred")
    content = schema.get_context_dependent_function_with_opset_version(
        max(schema.context_dependent_function_opset_versions),
        rewriting.node.SerializeToString(),
        [t.SerializeToString() for t in types],
    )
    function = _parsed(content)
    return function if function.node else None


def _parsed(content: bytes) -> onnx.FunctionProto:
    function = onnx.FunctionProto()
    function.ParseFromString(content)
    return function


# What was made


def _check_types(graph: onnx.GraphProto, outer: dict[str, onnx.TypeProto], version: int) -> None:
    """Raises Unconvertible for an operand or result of a type that its operator doesn't have in `version`."""
    types = {**outer, **_types(graph)}
    for node in graph.node:
        for subgraph in _subgraphs(node):
            _check_types(subgraph, types, version)
        if node.domain not in STANDARD_DOMAINS or since(node.op_type, version) is None:
            continue
        schema = onnx.defs.get_schema(node.op_type, version)
        for names, formal in ((node.input, schema.inputs), (node.output, schema.outputs)):
            for i, name in enumerate(names):
                element = types[name].tensor_type.elem_type if name in types else 0
                if element and formal and _tensor(element) not in formal[min(i, len(formal) - 1)].types:
                    where = repr(node.name) if node.name else f"that computes {node.output[0]!r}"
                    raise Unconvertible(
                        f"{node.op_type} node {where} has {name!r} of type {_tensor(element)[7:-1]}, "
                        f"which it doesn't know in opset {version}"
                    )


@functools.cache
def _tensor(element: int) -> str:
    """How ONNX's schemas write the type of a tensor."""
    return f"tensor({onnx.TensorProto.DataType.Name(element).lower()})"
