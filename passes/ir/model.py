"""The IR, and the one place that knows onnx-graphsurgeon.

A `Model` is a graphsurgeon graph, the table of convolution modules and the model's other metadata. Graphsurgeon
drops `metadata_props`; the table and the metadata travel through them here. In the IR every constant is a
`Constant` tensor: `Constant` nodes are turned into tensors when a model is read.

Two tensors of graphsurgeon are equal when their names are: compare tensors by `is` or by name, never their values
by `==`.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any, TypeVar

import numpy as np
import onnx
import onnx_graphsurgeon as gs
from onnx_graphsurgeon.exporters.onnx_exporter import OnnxExporter
from onnx_graphsurgeon.ir.tensor import LazyValues
from onnx_graphsurgeon.logger import G_LOGGER
from onnx_graphsurgeon.util.misc import SynchronizedList

from wootz.passes.errors import WootzError
from wootz.passes.ir.normalize import inline_functions, normalize
from wootz.passes.ir.opset import convert_to_opset, standard_opset
from wootz.passes.ir.versions.rewriting import Unconvertible
from wootz.passes.metadata import read_metadata

G_LOGGER.severity = G_LOGGER.CRITICAL + 1  # it writes to standard output, where the IR goes

OPSET = 18
"""The one opset of the IR: ONNX Runtime 1.19 refuses newer ones with IR 11."""
IR_VERSION = 8
OLDEST_OPSET, NEWEST_OPSET = 7, 28

MODULES_KEY = "wootz.modules"
TRAINING_KEY = "wootz.training"
"""Marks a training graph: its state is inputs with an initializer each; elsewhere such inputs are constants."""
INITIAL_VALUES_KEY = "wootz.initial-values"
"""Metadata of a binary model: the file beside it that holds the first values of some of its inputs."""
MULTIPLIERS_KEY = "wootz.multipliers"
"""Metadata: JSON, parameter -> [lr_mult, decay_mult] where these are not 1 (Caffe's `param`)."""

Graph = gs.Graph
Node = gs.Node
Function = gs.Function
Tensor = gs.Tensor
Variable = gs.Variable
Constant = gs.Constant


@dataclass(frozen=True)
class Module:
    """A convolution module: everything between the tensors `entries` and `exits` (names of tensors).

    `exits` are produced by the module, `entries` are not. Most modules have one of each. A *region* has further ones:
    skips that it reads, taps that others read.
    """

    name: str
    entry: str
    exit: str
    more_entries: tuple[str, ...] = ()
    more_exits: tuple[str, ...] = ()

    @property
    def entries(self) -> tuple[str, ...]:
        return self.entry, *self.more_entries

    @property
    def exits(self) -> tuple[str, ...]:
        return self.exit, *self.more_exits

    @property
    def ends(self) -> tuple[str, ...]:
        return *self.entries, *self.exits

    def renamed(self, names: Mapping[str, str]) -> Module:
        """The module whose ends are called as `names` says; those that aren't there stay."""
        entry, *more_entries = (names.get(name, name) for name in self.entries)
        exit_, *more_exits = (names.get(name, name) for name in self.exits)
        return Module(self.name, entry, exit_, tuple(more_entries), tuple(more_exits))

    def to_json(self) -> dict[str, Any]:
        """The fields of JSON, without empty ones."""
        return {name: value for name, value in vars(self).items() if value != ()}


@dataclass(frozen=True)
class Header:
    """What an ONNX model says of itself."""

    producer_name: str = "wootz"
    producer_version: str = ""
    domain: str = ""
    model_version: int = 0
    doc_string: str = ""

    @staticmethod
    def of(proto: onnx.ModelProto) -> Header:
        stated = {f.name: getattr(proto, f.name) for f in fields(Header)}
        return Header(**{name: value for name, value in stated.items() if value})


@dataclass(frozen=True)
class Model:
    """A graph of opset 18 with its modules (in order of data flow) and further `metadata_props`.

    `source_opset` is the opset of the model that it was read from.
    """

    graph: Graph
    modules: tuple[Module, ...] = ()
    metadata: Mapping[str, str] = field(default_factory=dict)
    header: Header = Header()
    source_opset: int = OPSET

    @staticmethod
    def from_proto(proto: onnx.ModelProto) -> Model:
        """The IR of an ONNX model of opset 7 to 28, whose proto may be changed. Raises WootzError for other opsets."""
        header = Header.of(proto)
        normalize(proto)
        source_opset = standard_opset(proto.opset_import, OPSET)
        _pin_opset(proto)
        proto = inline_functions(proto)
        metadata = {p.key: p.value for p in proto.metadata_props}
        modules = read_metadata(metadata, MODULES_KEY, tuple[Module, ...], "[]")
        metadata.pop(MODULES_KEY, None)
        graph = gs.import_onnx(proto)
        for node, source in zip(graph.nodes, proto.graph.node, strict=True):
            if source.doc_string:
                node.doc_string = source.doc_string  # graphsurgeon drops it
        if TRAINING_KEY in metadata:
            _keep_overridable_inputs(graph, proto)
        _constants_to_tensors(graph)
        _numpy_element_types(graph)
        return Model(graph, modules, metadata, header, source_opset)

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickled as its ONNX model: a graph of nodes that know each other is too deep for pickle."""
        return _from_bytes, (self.to_proto().SerializeToString(),)

    def to_proto(self, opset: int = OPSET) -> onnx.ModelProto:
        """The ONNX model, of opset 18 or another, with the module table in its `metadata_props`.

        Raises WootzError for an operator that the other opset can't express.
        """
        self.graph.opset = OPSET
        graph = _with_encoded_constants(self.graph)
        proto = gs.export_onnx(graph, do_type_check=False)
        for node, written in zip(graph.nodes, proto.graph.node, strict=True):
            written.doc_string = getattr(node, "doc_string", "")
        proto.ir_version = IR_VERSION
        if has_subgraphs(graph):
            name_inner_weights_apart(proto.graph, {})
        for name, value in vars(self.header).items():
            if value:
                setattr(proto, name, value)
        metadata = dict(self.metadata)
        if self.modules:
            metadata[MODULES_KEY] = json.dumps([m.to_json() for m in self.modules])
        onnx.helper.set_model_props(proto, metadata)
        if opset != OPSET:
            _bring_to_opset(proto, opset)
        return proto

    def copy(self) -> Model:
        """The same model with nodes and tensors of its own; weight arrays are shared."""
        return replace(self, graph=copy_graph(self.graph))

    def module(self, name: str) -> Module:
        """The module of that name. Raises WootzError, with the names there are."""
        for module in self.modules:
            if module.name == name:
                return module
        known = ", ".join(m.name for m in self.modules) or "none"
        raise WootzError(f"no module named {name!r} in the model (modules: {known})")


def name_inner_weights_apart(graph: onnx.GraphProto, outer: Mapping[str, onnx.TensorProto | None]) -> None:
    """A subgraph's copy of a weight around it is left out; where a pass has changed one of the two, it gets a name.

    Graphsurgeon writes a weight that a branch reads from around it into the branch. `outer` are the tensors around the
    graph, with None for those whose values aren't known.
    """
    known = {**outer, **{t.name: t for t in graph.initializer}}
    for subgraph in (a.g for node in graph.node for a in node.attribute if a.HasField("g")):
        renamed = {}
        for tensor in list(subgraph.initializer):
            if tensor.name in known:
                original = known[tensor.name]
                if original == tensor:
                    subgraph.initializer.remove(tensor)
                else:
                    renamed[tensor.name] = next(
                        n for i in itertools.count(1) if (n := f"{tensor.name}_{i}") not in known
                    )
                    tensor.name = renamed[tensor.name]
        for node in subgraph.node if renamed else ():
            node.input[:] = [renamed.get(name, name) for name in node.input]
        name_inner_weights_apart(subgraph, known)


def _with_encoded_constants(graph: Graph) -> Graph:
    """The graph, or a copy in which values whose memory is not what ONNX stores are encoded: text, 4-bit numbers."""
    if all(t.values.dtype.kind in "biufc" for t in _all_constants(graph)):
        return graph
    copied = copy_graph(graph)
    for tensor in _all_constants(copied):
        if tensor.values.dtype.kind not in "biufc":
            tensor.values = LazyValues(onnx.numpy_helper.from_array(tensor.values, tensor.name))
    return copied


def _from_bytes(content: bytes) -> Model:
    return Model.from_proto(onnx.ModelProto.FromString(content))


def copy_graph(graph: Graph) -> Graph:
    """A copy with its own nodes and tensors that shares the arrays of the constants."""
    if has_subgraphs(graph) or type(graph) is not gs.Graph:
        copied = graph.copy()
        _own_shapes(copied)
        _keep_kinds(graph, copied)
        for node, twin in zip(graph.nodes, copied.nodes, strict=True):
            if hasattr(node, "doc_string"):
                twin.doc_string = node.doc_string
    else:
        copied = _copy_flat(graph)
    copied.producer_name, copied.producer_version = graph.producer_name, graph.producer_version
    domains = graph.import_domains or [onnx.helper.make_opsetid("", OPSET)]
    copied.import_domains = list(domains)  # a list of its own: graphsurgeon adds to it when exporting
    return copied


def _own_shapes(graph: Graph) -> None:
    """Gives every tensor a list of extents of its own: graphsurgeon's copies share them."""
    for tensor in graph.tensors().values():
        if isinstance(tensor, Variable) and tensor.shape is not None:
            tensor.shape = list(tensor.shape)
    for subgraph in (a for node in graph.nodes for a in node.attrs.values() if isinstance(a, gs.Graph)):
        _own_shapes(subgraph)


def _keep_kinds(graph: Graph, copied: Graph) -> None:
    """Says again which values are sequences: graphsurgeon's copies are tensors all of them."""
    originals = graph.tensors()
    for name, tensor in copied.tensors().items():
        if isinstance(tensor, Variable) and isinstance(original := originals.get(name), Variable):
            tensor.type = original.type
    for node, twin in zip(graph.nodes, copied.nodes, strict=True):
        for name, attribute in node.attrs.items():
            if isinstance(attribute, gs.Graph):
                _keep_kinds(attribute, twin.attrs[name])


def has_subgraphs(graph: Graph) -> bool:
    """Whether a node of `graph` (If, Loop, Scan) holds graphs."""
    return any(isinstance(a, gs.Graph) for node in graph.nodes for a in node.attrs.values())


def _copy_flat(graph: Graph) -> Graph:
    """What graphsurgeon's copy does for a graph without subgraphs, in a fifth of the time.

    Its lists keep nodes and tensors in step, one element at a time; here both sides are filled as they are.
    """
    append = list.append  # graphsurgeon's own would add to the other side too
    twins: dict[int, Tensor] = {}

    def twin(tensor: Tensor) -> Tensor:
        found = twins.get(id(tensor))
        if found is not None:
            return found
        if tensor.name == "":
            return Variable.empty()
        copied = twins[id(tensor)] = _unconnected(tensor)
        if isinstance(copied, Variable) and copied.shape is not None:
            copied.shape = list(copied.shape)
        return copied

    nodes = []
    for node in graph.nodes:
        copied = _unconnected(node)
        copied.attrs = dict(node.attrs)
        nodes.append(copied)
        for original in node.inputs:
            tensor = twin(original)
            append(copied.inputs, tensor)
            append(tensor.outputs, copied)
        for original in node.outputs:
            tensor = twin(original)
            append(copied.outputs, tensor)
            append(tensor.inputs, copied)
    return gs.Graph(
        nodes,
        [twin(t) for t in graph.inputs],
        [twin(t) for t in graph.outputs],
        name=graph.name,
        doc_string=graph.doc_string,
        opset=graph.opset,
        functions=graph.functions,
        ir_version=graph.ir_version,
    )


class _Inputs(SynchronizedList):
    """The inputs of a node or tensor. Graphsurgeon's own lists have a dictionary each, which takes time to make, and
    take out the first node that is written like the one to be taken out, for which they compare all that nodes have."""

    __slots__ = ("parent_obj",)
    field_name = "outputs"

    def __init__(self, owner: Node | Tensor):
        self.parent_obj = owner

    def _remove_from_elem(self, elem: Node | Tensor) -> None:
        others = getattr(elem, self.field_name)
        place = next(i for i, other in enumerate(others) if other is self.parent_obj)
        list.__delitem__(others, place)


class _Outputs(_Inputs):
    __slots__ = ()
    field_name = "inputs"


Part = TypeVar("Part", Node, Tensor)


def _unconnected(original: Part) -> Part:
    """A copy of a node or tensor with empty lists of its own, and everything else shared."""
    copied = object.__new__(type(original))
    for name, value in vars(original).items():
        object.__setattr__(copied, name, value)
    object.__setattr__(copied, "inputs", _Inputs(copied))
    object.__setattr__(copied, "outputs", _Outputs(copied))
    return copied


def shell_proto(graph: Graph, inputs: Sequence[Tensor], outputs: Sequence[Tensor]) -> onnx.ModelProto:
    """An ONNX model with these inputs and outputs, the domains and functions of `graph`, and no nodes."""
    domains = {o.domain: o for o in graph.import_domains or [onnx.helper.make_opsetid("", OPSET)]}
    for domain in {node.domain for node in graph.nodes if node.domain} - domains.keys():
        domains[domain] = onnx.helper.make_opsetid(domain, 1)
    return Model(
        gs.Graph(
            inputs=inputs,
            outputs=outputs,
            name=graph.name,
            import_domains=list(domains.values()),
            functions=graph.functions,
        )
    ).to_proto()


def proto_without_values(model: Model, names: Collection[str]) -> onnx.ModelProto:
    """The ONNX model with the constants `names` as initializers of no elements, [0]."""
    light = model.copy()
    tensors = light.graph.tensors()
    left_out = {name: tensors[name] for name in names}
    declared = {name: value_info(tensor) for name, tensor in left_out.items()}
    arrays = {name: tensor.values for name, tensor in left_out.items()}
    for tensor in _all_constants(light.graph):  # branches have copies of those that they read from around them
        if tensor.values is arrays.get(tensor.name):
            tensor.values = np.empty(0, tensor.values.dtype)
    proto = light.to_proto()
    for info in (*proto.graph.input, *proto.graph.output):  # those have their values' shape
        if info.name in declared:
            info.CopyFrom(declared[info.name])
    return proto


def _all_constants(graph: Graph) -> Iterator[Constant]:
    """The constants of a graph and of its subgraphs."""
    yield from (t for t in graph.tensors().values() if isinstance(t, Constant))
    for subgraph in (a for node in graph.nodes for a in node.attrs.values() if isinstance(a, gs.Graph)):
        yield from _all_constants(subgraph)


def node_proto(node: Node) -> onnx.NodeProto:
    """The ONNX node."""
    return OnnxExporter.export_node(node)


def tensor_proto(tensor: Constant) -> onnx.TensorProto:
    """The ONNX tensor with the constant's values."""
    return OnnxExporter.export_tensor_proto(tensor)


def value_info(tensor: Tensor) -> onnx.ValueInfoProto:
    """Name, element type and shape of a tensor."""
    return OnnxExporter.export_value_info_proto(tensor, do_type_check=False)


def constants(graph: Graph) -> dict[str, np.ndarray]:
    """The values of all constant tensors, by name."""
    return {name: t.values for name, t in graph.tensors().items() if isinstance(t, Constant)}


def with_weights(model: Model, weights: Mapping[str, np.ndarray]) -> Model:
    """`model` with the constants named in `weights` replaced; the others stay.

    Raises WootzError when a name is not a constant of the model, or has another shape there.
    """
    result = model.copy()
    tensors = result.graph.tensors()
    for name, values in weights.items():
        tensor = tensors.get(name)
        if not isinstance(tensor, Constant):
            raise WootzError(f"{name}: the network has no weight of that name")
        if tuple(tensor.shape) != values.shape:
            raise WootzError(f"{name}: shape {values.shape} does not fit the network's {tuple(tensor.shape)}")
        tensor.values = values
    return result


def captured_tensors(node: Node) -> list[Tensor]:
    """The tensors that the subgraphs of `node` (If, Loop, Scan) read from around them."""
    captured: list[Tensor] = []
    for subgraph in (a for a in node.attrs.values() if isinstance(a, gs.Graph)):
        local = {t.name for t in subgraph.inputs} | {t.name for n in subgraph.nodes for t in n.outputs}
        read = [t for n in subgraph.nodes for t in (*n.inputs, *captured_tensors(n))] + list(subgraph.outputs)
        captured += [t for t in read if t.name not in local and not t.is_empty() and not isinstance(t, gs.Constant)]
    return captured


def is_constant(tensor: Tensor) -> bool:
    return isinstance(tensor, Constant)


def is_fixed(tensor: Tensor, graph: Graph) -> bool:
    """Whether it is a constant that can't be overridden, being no input of the graph: sessions rearrange these."""
    return isinstance(tensor, Constant) and not any(tensor is t for t in graph.inputs)


def constant_behind(tensor: Tensor) -> Constant | None:
    """The constant that a tensor is, or that Identity nodes pass on: exporters merge parameters of equal values."""
    node = producer(tensor)
    while node is not None and node.op == "Identity":
        tensor = node.inputs[0]
        node = producer(tensor)
    return tensor if isinstance(tensor, Constant) else None


def to_variable(tensor: Constant) -> Variable:
    """Turns a constant into a tensor without a value, of the same type and shape, in place."""
    variable = tensor.to_variable(tensor.values.dtype, tensor.values.shape)
    variable.type = "tensor_type"  # graphsurgeon leaves it out
    return variable


def producer(tensor: Tensor) -> Node | None:
    """The node that computes `tensor`; None for graph inputs, constants and omitted operands."""
    return tensor.inputs[0] if tensor.inputs else None


def first_result(node: Node) -> str:
    """The name of the first tensor that a node computes, which no other node does."""
    name: str = next(t.name for t in node.outputs if not t.is_empty())
    return name


def tensor_shape(tensor: Tensor) -> tuple[int | str, ...] | None:
    """The shape, with names for symbolic dimensions; None when it is not known."""
    return None if tensor.shape is None else tuple(tensor.shape)


def subgraph_nodes(outputs: Iterable[Tensor], stop: Iterable[Tensor] = ()) -> set[int]:
    """The `id`s of all nodes that `outputs` depend on, not looking behind the tensors in `stop`."""
    stops = {id(t) for t in stop}
    seen: set[int] = set()
    pending = [t for t in outputs if id(t) not in stops]
    while pending:
        node = producer(pending.pop())
        if node is None or id(node) in seen:
            continue
        seen.add(id(node))
        pending.extend(t for t in (*node.inputs, *captured_tensors(node)) if id(t) not in stops)
    return seen


def module_nodes(model: Model, module: Module) -> Iterator[Node]:
    """The nodes between the entries and the exits of `module`, in the graph's order."""
    tensors = model.graph.tensors()
    exits, entries = ([tensors[name] for name in names] for names in (module.exits, module.entries))
    inside = subgraph_nodes(exits, stop=entries)
    return (node for node in model.graph.nodes if id(node) in inside)


def _pin_opset(proto: onnx.ModelProto) -> None:
    """Brings a model to the IR's opset, in place."""
    version, *of_functions = (standard_opset(p.opset_import, OPSET) for p in (proto, *proto.functions))
    if {version, *of_functions} == {OPSET}:
        return
    if not OLDEST_OPSET <= version <= NEWEST_OPSET:
        raise WootzError(
            f"the model has opset {version}; opsets {OLDEST_OPSET} to {NEWEST_OPSET} are read: "
            f"export it again with one of these"
        )
    _bring_to_opset(proto, OPSET)


def _bring_to_opset(proto: onnx.ModelProto, opset: int) -> None:
    version = standard_opset(proto.opset_import, OPSET)
    try:
        convert_to_opset(proto, opset)
    except Unconvertible as error:
        raise WootzError(f"the model has opset {version} and can't be converted to {opset}: {error}") from error


def _keep_overridable_inputs(graph: Graph, proto: onnx.ModelProto) -> None:
    """Graphsurgeon drops inputs that have an initializer."""
    tensors = {t.name: t for t in graph.inputs} | graph.tensors()
    unread = {t.name: t for t in proto.graph.initializer if t.name not in tensors}
    tensors |= {name: Constant(name, onnx.numpy_helper.to_array(t)) for name, t in unread.items()}
    graph.inputs = [tensors[i.name] for i in proto.graph.input]


def _numpy_element_types(graph: Graph) -> None:
    """Graphsurgeon leaves element types that NumPy has not itself (bfloat16) as ONNX's numbers."""
    for tensor in graph.tensors().values():
        if isinstance(tensor, Variable) and isinstance(tensor.dtype, int):
            tensor.dtype = onnx.helper.tensor_dtype_to_np_dtype(tensor.dtype) if tensor.dtype else None
    for subgraph in (a for node in graph.nodes for a in node.attrs.values() if isinstance(a, gs.Graph)):
        _numpy_element_types(subgraph)


def _constants_to_tensors(graph: Graph) -> None:
    for node in [n for n in graph.nodes if n.op == "Constant"]:
        node.outputs[0].to_constant(constant_value(node.attrs))
        node.outputs.clear()
    graph.nodes = [n for n in graph.nodes if n.op != "Constant"]
    for tensor in graph.tensors().values():
        if isinstance(tensor, Constant):
            _read_values(tensor)


def _read_values(constant: Constant) -> None:
    """Reads the values from the ONNX model now: copies then share the array."""
    try:
        constant.values  # noqa: B018
    except ValueError as error:
        raise WootzError(f"constant {constant.name!r} can't be read: {error}") from error


def constant_value(attrs: Mapping[str, Any]) -> np.ndarray:
    """What a Constant node with these attributes holds."""
    (kind, value), *_ = attrs.items()
    if kind == "value":
        return np.asarray(value.values if isinstance(value, gs.Constant) else value)
    dtypes = {
        "value_int": np.int64,
        "value_ints": np.int64,
        "value_float": np.float32,
        "value_floats": np.float32,
        "value_string": object,
        "value_strings": object,
    }
    if kind not in dtypes:
        raise WootzError(f"a Constant node holds {kind}, which the IR has no tensor for")
    return np.asarray(value, dtype=dtypes[kind])
