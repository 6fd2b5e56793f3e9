"""Caffe network and weights -> IR."""

from __future__ import annotations

import difflib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from wootz.frontend.caffe.layers.data import data_shapes, is_data_layer
from wootz.frontend.caffe.layers.table import KNOWN_FIELDS, LAYERS, REGION_LAYERS, TRAINING_ONLY
from wootz.frontend.caffe.lowering import LayerKind, Lowered, Site, Value
from wootz.frontend.caffe.modules import marked_modules
from wootz.frontend.caffe.network import COMMON_FIELDS, Layer, NetState, Network, Phase, read_network, stored_state
from wootz.frontend.caffe.prototxt import Message, read_prototxt
from wootz.frontend.caffe.schema import decode, unknown_field
from wootz.frontend.caffe.shape import Shape, SizeMustBeFixed, Symbol, annotation
from wootz.frontend.caffe.transform import read_transform
from wootz.frontend.caffe.weights import FileWeights, WeightSource, open_weights
from wootz.frontend.caffe.wiring import WiredLayer, Wiring, wire
from wootz.passes.ir.builder import Builder
from wootz.passes.ir.model import OPSET, Graph, Model, Tensor, Variable, producer, subgraph_nodes
from wootz.passes.plan.transform import TRANSFORM_KEY, InputTransform

MULTIPLIERS_KEY = "wootz.multipliers"


@dataclass(frozen=True)
class ImportedNetwork:
    """A model and what its file says beyond the graph.

    `initialised` names the layers that started from fillers; `notes` tells what was left out or decided, each with
    its place.
    """

    model: Model
    train_transform: InputTransform
    test_transform: InputTransform
    initialised: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def import_caffe(
    prototxt: Path,
    weights: Path | None = None,
    *,
    seed: int = 0,
    phase: str = "TEST",
    level: int = 0,
    stages: Sequence[str] = (),
    input_shapes: Mapping[str, Sequence[int]] | None = None,
) -> ImportedNetwork:
    """The network of `prototxt`, with the weights in `weights` or, without them, from its fillers.

    Weights are matched by the names of layers. TEST gives the inference graph, TRAIN the graph with its loss.
    `input_shapes` gives the shapes of inputs that the network leaves to its data. The batch dimension is symbolic
    (`N`) unless the network works for its own batch size only. Raises InputError for whatever is not understood.
    """
    network = read_network(read_prototxt(prototxt))
    stored = stored_state(network)
    state = NetState(Phase[phase], level or stored.level, (*stored.stage, *stages))
    source = open_weights(weights, seed)
    return import_network(network, source, state, input_shapes or {})


def import_network(
    network: Network, weights: WeightSource, state: NetState, input_shapes: Mapping[str, Sequence[int]]
) -> ImportedNetwork:
    """`import_caffe` of what was read already."""
    try:
        return _import(network, weights, state, input_shapes, symbolic=True)
    except SizeMustBeFixed as reason:
        note = f"{network.message.source.file}: the batch size is fixed as declared: {reason}"
    try:
        result = _import(network, weights, state, input_shapes, symbolic=False)
    except SizeMustBeFixed as reason:
        raise network.message.error(f"shapes have to be known before the graph runs: {reason}") from reason
    return replace(result, notes=(note, *result.notes))


def _import(
    network: Network,
    weights: WeightSource,
    state: NetState,
    input_shapes: Mapping[str, Sequence[int]],
    symbolic: bool,
) -> ImportedNetwork:
    present = [layer for layer in network.layers if layer.is_in(state)]
    sources = [layer for layer in present if is_data_layer(layer)]
    notes: list[str] = []
    layers = [layer for layer in present if not is_data_layer(layer)]
    if state.phase is Phase.TEST:
        layers = _for_inference(layers, _labels(sources), notes)
    blobs = [*(blob for blob, _ in network.inputs), *(top for layer in sources for top in layer.tops)]
    wiring = wire(blobs, layers)
    shapes = _input_shapes(network, sources, wiring, input_shapes)
    lowered = Lowered(Builder(Graph(name=network.name or "network", opset=OPSET)), weights, state.phase, notes)
    names = _lower(wiring, shapes, lowered, symbolic)
    graph = lowered.builder.graph
    if not graph.outputs:
        raise network.message.error("the network has no output")
    if isinstance(weights, FileWeights) and weights.unused():
        notes.append(f"{weights.path}: not used, since the network has no such layers: {', '.join(weights.unused())}")
    test_transform = read_transform(network.layers, replace(state, phase=Phase.TEST))
    metadata = {TRANSFORM_KEY: test_transform.to_json()}
    multipliers = {name: list(m) for name, m in lowered.multipliers.items() if name in graph.tensors()}
    if multipliers:
        metadata[MULTIPLIERS_KEY] = json.dumps(multipliers)
    return ImportedNetwork(
        Model(graph, marked_modules(wiring, names), metadata),
        train_transform=read_transform(network.layers, replace(state, phase=Phase.TRAIN)),
        test_transform=test_transform,
        initialised=tuple(dict.fromkeys(weights.initialised)),
        notes=tuple(notes),
    )


def _labels(sources: Sequence[Layer]) -> set[str]:
    """What data layers give besides the data."""
    return {top for layer in sources if layer.type != "Input" for top in layer.tops[1:]}


def _for_inference(layers: Sequence[Layer], labels: set[str], notes: list[str]) -> list[Layer]:
    """Without the layers that only training needs, and without those that prepare labels for them."""
    from_labels = set(labels)
    kept: list[Layer] = []
    for layer in layers:
        if set(layer.bottoms) <= from_labels or layer.type in TRAINING_ONLY:
            from_labels.update(set(layer.tops) - set(layer.bottoms))
            if layer.type != "Silence":
                notes.append(f"{layer.place}: layer {layer.name!r} ({layer.type}) is left out: only training needs it")
        else:
            kept.append(layer)
    return kept


def _input_shapes(
    network: Network, sources: Sequence[Layer], wiring: Wiring, given: Mapping[str, Sequence[int]]
) -> dict[str, tuple[int, ...]]:
    """The shapes of the inputs that some layer reads."""
    read = {w.blob for w, readers in zip(wiring.wires, wiring.readers, strict=True) if readers and w.producer is None}
    if unknown := set(given) - {w.blob for w in wiring.wires if w.producer is None}:
        raise network.message.error(f"a shape is given for {sorted(unknown)[0]!r}, which is no input of the network")
    shapes = {blob: shape for blob, shape in network.inputs if blob in read}
    for layer in sources:
        for top, shape in zip(layer.tops, data_shapes(layer), strict=True):
            if top in given or top not in read:
                continue
            if shape is None:
                raise layer.error(
                    f"the shape of {top!r} is in the data, not in the network: give it (--input-shape {top}=1,3,H,W)"
                )
            shapes[top] = shape
    shapes.update({blob: tuple(shape) for blob, shape in given.items() if blob in read})
    for blob, shape in shapes.items():
        if min(shape, default=1) < 1:
            raise network.message.error(f"the input {blob!r} has shape {shape}: dimensions have to be 1 or more")
    return shapes


def _lower(wiring: Wiring, shapes: Mapping[str, tuple[int, ...]], lowered: Lowered, symbolic: bool) -> dict[int, str]:
    """Fills the graph, and gives for each wire the name of its tensor."""
    builder = lowered.builder
    for blob in dict.fromkeys(w.blob for w in wiring.wires):
        builder.fresh(blob)
    values = _inputs(wiring, shapes, builder.graph, symbolic)
    renamable: set[int] = set()
    layer_names: set[str] = set()
    for wired in wiring.layers:
        first_node = len(builder.graph.nodes)
        tops = _lower_layer(wired, wiring, values, lowered)
        made = {id(n) for n in builder.graph.nodes[first_node:]}
        for top, value in zip(wired.tops, tops, strict=True):
            values[top] = value
            node = producer(value.tensor)
            if node is not None and id(node) in made and wired.layer.name not in layer_names:
                node.name = wired.layer.name
                layer_names.add(node.name)
            if node is not None and (id(node) in made or id(value.tensor) in renamable or value.takes_name):
                _name_top(value, wired, top, wiring, renamable, builder)
    _outputs(wiring, values, builder)
    return {i: value.tensor.name for i, value in values.items()}


def _inputs(wiring: Wiring, shapes: Mapping[str, tuple[int, ...]], graph: Graph, symbolic: bool) -> dict[int, Value]:
    """The graph inputs. The batch dimension is the first one of the first input, and of those of the same size."""
    batch = next((shape[0] for shape in shapes.values() if shape), None)
    values: dict[int, Value] = {}
    for i, w in enumerate(wiring.wires):
        if w.producer is None and w.blob in shapes:
            shape: Shape = shapes[w.blob]
            if any(i in r.bottoms[1:2] and r.layer.type in REGION_LAYERS for r in wiring.layers):
                shape = (Symbol("regions"), *shape[1:])
            elif symbolic and shape and shape[0] == batch:
                shape = (Symbol(), *shape[1:])
            tensor = Variable(w.blob, np.dtype(np.float32), annotation(shape))
            graph.inputs.append(tensor)
            values[i] = Value(tensor, shape)
    return values


def _lower_layer(wired: WiredLayer, wiring: Wiring, values: Mapping[int, Value], lowered: Lowered) -> list[Value]:
    layer = wired.layer
    kind = LAYERS.get(layer.type)
    if kind is None:
        close = difflib.get_close_matches(layer.type, LAYERS, n=1)
        hint = f"did you mean {close[0]!r}?" if close else "docs/caffe-layers.md lists what is"
        raise layer.error(f"layers of this type are not understood: {hint}", "type")
    site = Site(
        layer,
        tuple(values[b] for b in wired.bottoms),
        tuple(len(wiring.readers[b]) == 1 for b in wired.bottoms),
        lowered,
    )
    parameter = _parameter(site, kind)
    result = kind.lower(site, parameter)
    tops = [result] if isinstance(result, Value) else list(result)
    if len(wired.tops) > len(tops):
        raise layer.error(f"it has {len(wired.tops)} tops where {len(tops)} are known", "top")
    return tops[: len(wired.tops)]


def _parameter(site: Site, kind: LayerKind) -> object:
    """The layer's own parameters. Those of other types have no effect in Caffe either: they are noted."""
    messages: list[Message] = []
    for field in site.layer.parameter_fields():
        if field.name in kind.fields and isinstance(field.value, Message):
            messages.append(field.value)
        elif field.name in KNOWN_FIELDS:
            site.note(f"{field.name} has no effect on a layer of this type")
        else:
            raise unknown_field(field, site.layer.message, {*kind.fields, *COMMON_FIELDS}, f"layer {site.layer.name!r}")
    if kind.schema is None:
        return None
    merged = Message(
        tuple(f for m in messages for f in m.fields),
        site.layer.message.source,
        messages[0].offset if messages else site.layer.message.offset,
    )
    return decode(merged, kind.schema, f"layer {site.layer.name!r}: {kind.fields[0]}")


def _name_top(value: Value, wired: WiredLayer, top: int, wiring: Wiring, renamable: set[int], builder: Builder) -> None:
    """Gives a new tensor the name of its blob; of a blob that takes several values the last one has its name."""
    blob = wiring.wires[top].blob
    is_input = any(w.blob == blob and w.producer is None for w in wiring.wires[: top + 1])
    tensor = value.tensor
    if top in wiring.last and not is_input:
        tensor.name = blob
        renamable.discard(id(tensor))
    else:
        tensor.name = builder.fresh(f"{blob}/{wired.layer.name}")
        renamable.add(id(tensor))
    if isinstance(tensor, Variable):
        tensor.dtype, tensor.shape = np.dtype(np.float32), annotation(value.shape)


def _outputs(wiring: Wiring, values: dict[int, Value], builder: Builder) -> None:
    """Makes what nobody reads the graph's outputs, under the names of their blobs."""
    graph = builder.graph
    taken: list[Tensor] = list(graph.inputs)
    for i in wiring.outputs():
        if wiring.wires[i].producer is None:
            continue
        value, blob = values[i], wiring.wires[i].blob
        tensor = value.tensor
        if producer(tensor) is None or any(t is tensor for t in taken):
            tensor = builder.op("Identity", tensor, hint=f"{blob}/output")
            values[i] = Value(tensor, value.shape)
        tensor.name = blob
        tensor.dtype, tensor.shape = np.dtype(np.float32), annotation(value.shape)
        taken.append(tensor)
        graph.outputs.append(tensor)
    needed = subgraph_nodes(graph.outputs)
    for node in graph.nodes:
        if id(node) not in needed:
            node.inputs.clear()
            node.outputs.clear()
    graph.nodes = [n for n in graph.nodes if id(n) in needed]
