"""Lowers wired layers, one after the other, into a graph."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from wootz.frontend.caffe.layers.table import KNOWN_FIELDS, LAYERS, REFUSED, REGION_LAYERS
from wootz.frontend.caffe.lowering import LayerKind, Lowered, Site, Value
from wootz.frontend.caffe.network import COMMON_FIELDS, Layer
from wootz.frontend.caffe.prototxt import Message
from wootz.frontend.caffe.schema import decode, misspelt, unknown_field
from wootz.frontend.caffe.shape import Shape, SizeMustBeFixed, Symbol, annotation, elements, text
from wootz.frontend.caffe.weights import LARGEST_BLOB
from wootz.frontend.caffe.wiring import WiredLayer, Wiring
from wootz.passes.errors import WootzError
from wootz.passes.ir.builder import Builder
from wootz.passes.ir.model import Tensor, Variable, producer
from wootz.passes.ir.rewrite import erase_dead_nodes


def assemble(
    wiring: Wiring, shapes: Mapping[str, tuple[int, ...]], lowered: Lowered, symbolic: bool
) -> dict[int, Value]:
    """Fills the graph of `lowered`, and gives for each wire its tensor and shape.

    `shapes` are those of the inputs that are read. Their batch dimension becomes a symbol if `symbolic`. Raises
    InputError for a layer or field that is not understood, SizeMustBeFixed where a shape can't be symbolic.
    """
    builder = lowered.builder
    for name in dict.fromkeys([*(w.blob for w in wiring.wires), *(w.layer.name for w in wiring.layers)]):
        builder.fresh(name)
    lowered.batch = next((shape[0] for shape in shapes.values() if shape), 0)
    values = _inputs(wiring, shapes, lowered, symbolic)
    renamable: set[int] = set()
    layer_names: set[str] = set()
    for wired in wiring.layers:
        first_node = len(builder.graph.nodes)
        bottoms = {id(values[b].tensor) for b in wired.bottoms if b in values}
        tops = _lower_layer(wired, wiring, values, lowered)
        if len(builder.graph.nodes) > first_node and wired.layer.name not in layer_names:
            builder.graph.nodes[-1].name = wired.layer.name
            layer_names.add(wired.layer.name)
        for top, value in zip(wired.tops, tops, strict=True):
            values[top] = value
            if isinstance(value.tensor, Variable) and (
                id(value.tensor) not in bottoms or id(value.tensor) in renamable or value.takes_name
            ):
                _name_top(value, wired, top, wiring, renamable, builder)
    _outputs(wiring, values, builder)
    return values


def _inputs(
    wiring: Wiring, shapes: Mapping[str, tuple[int, ...]], lowered: Lowered, symbolic: bool
) -> dict[int, Value]:
    """The graph inputs. The batch dimension is the first one of the first input, and of those of the same size."""
    regions = {b for w in wiring.layers if w.layer.type in REGION_LAYERS for b in w.bottoms[1:2]}
    values: dict[int, Value] = {}
    for i, w in enumerate(wiring.wires):
        if w.producer is None and w.blob in shapes:
            shape: Shape = shapes[w.blob]
            if i in regions:
                shape = (Symbol("regions"), *shape[1:])
            elif symbolic and shape and shape[0] == lowered.batch:
                shape = (Symbol(), *shape[1:])
            tensor = Variable(w.blob, np.dtype(np.float32), annotation(shape))
            lowered.builder.graph.inputs.append(tensor)
            values[i] = Value(tensor, shape)
    return values


def _lower_layer(wired: WiredLayer, wiring: Wiring, values: Mapping[int, Value], lowered: Lowered) -> list[Value]:
    layer = wired.layer
    if layer.type == "Silence":
        return []
    kind = LAYERS.get(layer.type)
    if kind is None:
        if layer.type in REFUSED:
            raise layer.error(f"layers of this type are not read: {REFUSED[layer.type]}", "type")
        meant = misspelt(layer.type, LAYERS)
        hint = f"did you mean {meant!r}?" if meant else "docs/caffe-layers.md lists what is"
        raise layer.error(f"layers of this type are not understood: {hint}", "type")
    site = Site(
        layer,
        tuple(_known(layer, wiring.wires[b].blob, values.get(b)) for b in wired.bottoms),
        tuple(len(wiring.readers[b]) == 1 for b in wired.bottoms),
        lowered,
    )
    parameter = _parameter(site, kind)
    try:
        result = kind.lower(site, parameter)
    except (WootzError, SizeMustBeFixed):
        raise
    except Exception as error:  # of values that contradict each other, and that no check has named
        said = f"{type(error).__name__}: {next(iter(str(error).splitlines()), '')}"
        raise layer.error(f"its fields and the shapes of its bottoms don't go together ({said})") from error
    tops = [result] if isinstance(result, Value) else list(result)
    if len(wired.tops) > len(tops):
        raise layer.error(f"it has {len(wired.tops)} tops where {len(tops)} are known", "top")
    for value in tops:
        if elements(value.shape) > LARGEST_BLOB:
            raise layer.error(f"a blob of shape {text(value.shape)} has more elements than 2^31")
    return tops[: len(wired.tops)]


def _known(layer: Layer, blob: str, value: Value | None) -> Value:
    if value is None:
        raise layer.error(f"its bottom {blob!r} is an input whose shape is not known", "bottom")
    return value


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
    tensor = value.tensor
    if top in wiring.last and blob not in wiring.inputs:
        tensor.name = blob
        renamable.discard(id(tensor))
    else:
        tensor.name = builder.fresh(f"{blob}/{wired.layer.name}")
        renamable.add(id(tensor))
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
    erase_dead_nodes(graph)
    graph.inputs = [t for t in graph.inputs if t.outputs]
