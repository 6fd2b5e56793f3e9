"""Caffe network and weights -> IR."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from wootz.frontend.caffe.assembly import assemble
from wootz.frontend.caffe.layers.data import data_shapes, is_data_layer
from wootz.frontend.caffe.layers.table import LAYERS, is_for_training_only
from wootz.frontend.caffe.lowering import Lowered
from wootz.frontend.caffe.modules import marked_modules
from wootz.frontend.caffe.network import Layer, NetState, Network, Phase, read_network, stored_state
from wootz.frontend.caffe.prototxt import read_prototxt
from wootz.frontend.caffe.shape import SizeMustBeFixed, annotation
from wootz.frontend.caffe.transform import read_transform, says_pixels
from wootz.frontend.caffe.weights import LARGEST_BLOB, FileWeights, WeightSource, open_weights
from wootz.frontend.caffe.wiring import Wiring, wire
from wootz.passes.errors import InputError, VerificationError, reading
from wootz.passes.ir.builder import Builder
from wootz.passes.ir.model import MULTIPLIERS_KEY, OPSET, Graph, Model
from wootz.passes.ir.verifier import verify
from wootz.passes.plan.transform import TRANSFORM_KEY, InputTransform


@dataclass(frozen=True)
class ImportedNetwork:
    """A model and what its file says beyond the graph.

    `initialised` names the layers that started from fillers; `notes` tells what was left out or decided, each with
    its place; `blobs` has the shape of every blob, in order of computation, as Caffe sees it. Without `says_pixels` the
    network came with weights, but the transforms' mean and scale are not known.
    """

    model: Model
    train_transform: InputTransform
    test_transform: InputTransform
    initialised: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    blobs: Mapping[str, tuple[int | str, ...]] = field(default_factory=dict)
    says_pixels: bool = True


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

    Weights are matched by the names of layers. TEST gives the inference graph, TRAIN the graph with its losses as
    scalar outputs, for the training passes. `input_shapes` gives the shapes of inputs that the network leaves to its
    data. The batch dimension is symbolic (`N`) unless the network works for its own batch size only. Raises
    InputError for whatever is not understood.
    """
    with reading(prototxt, "a Caffe network"):
        network = read_network(read_prototxt(prototxt))
        stored = stored_state(network)
        state = NetState(Phase[phase], level or stored.level, (*stored.stage, *stages))
        return import_network(network, open_weights(weights, seed), state, input_shapes or {})


def import_network(
    network: Network, weights: WeightSource, state: NetState, input_shapes: Mapping[str, Sequence[int]]
) -> ImportedNetwork:
    """`import_caffe` of a network that was read already."""
    try:
        return _import(network, weights, state, input_shapes, symbolic=True)
    except (SizeMustBeFixed, InputError) as error:
        reason = error
    try:
        result = _import(network, weights, state, input_shapes, symbolic=False)
    except SizeMustBeFixed as error:
        raise network.message.error(f"shapes have to be known before the graph runs: {error}") from error
    note = f"{network.message.source.file}: the batch size is fixed as declared: {reason}"
    return replace(result, notes=(note, *result.notes))


def _import(
    network: Network,
    weights: WeightSource,
    state: NetState,
    input_shapes: Mapping[str, Sequence[int]],
    symbolic: bool,
) -> ImportedNetwork:
    notes = list(network.notes)
    present = [layer for layer in network.layers if layer.is_in(state)]
    sources = [layer for layer in present if is_data_layer(layer)]
    for layer in sources:
        if layer.type in LAYERS and layer.type != "Python":
            raise layer.error("it has no bottom to compute from")
    layers = _computing(present, sources, state.phase, notes)
    left_out = [layer for layer in network.layers if not layer.is_in(state)]
    left_out.sort(key=lambda layer: any(rule.phase is state.phase for rule in layer.include))  # those win below
    absent = {top: layer.choice(state) for layer in left_out for top in layer.tops}
    wiring = wire(_input_blobs(network, sources), layers, absent)
    shapes = _input_shapes(network, sources, wiring, input_shapes)
    lowered = Lowered(Builder(Graph(name=network.name or "network", opset=OPSET)), weights, state.phase, notes)
    values = assemble(wiring, shapes, lowered, symbolic)
    graph = lowered.builder.graph
    if not graph.outputs:
        silenced = [layer for layer in layers if layer.type == "Silence" and set(layer.bottoms) - wiring.inputs]
        if silenced:
            raise silenced[0].error(
                "all that the network computes ends in Silence: remove it to have its bottoms as outputs"
            )
        raise network.message.error("no layer of the network makes an output")
    if isinstance(weights, FileWeights) and weights.unused():
        notes.append(f"{weights.path}: not used, since the network has no such layers: {', '.join(weights.unused())}")
    test_transform = read_transform(network.layers, replace(state, phase=Phase.TEST), notes)
    metadata = {TRANSFORM_KEY: test_transform.to_json()}
    tensors = graph.tensors()
    multipliers = {name: list(pair) for name, pair in lowered.multipliers.items() if name in tensors}
    if multipliers:
        metadata[MULTIPLIERS_KEY] = json.dumps(multipliers)
    model = Model(graph, marked_modules(wiring, {i: v.tensor.name for i, v in values.items()}), metadata)
    try:
        verify(model)
    except VerificationError as error:
        raise network.message.error(f"the network contradicts itself: {error}") from error
    train_transform = read_transform(network.layers, replace(state, phase=Phase.TRAIN), notes)
    return ImportedNetwork(
        model,
        train_transform=train_transform,
        test_transform=test_transform,
        initialised=tuple(dict.fromkeys(weights.initialised)),
        notes=tuple(dict.fromkeys(notes)),
        blobs={wiring.wires[i].blob: tuple(annotation(v.shape)) for i, v in values.items()},
        says_pixels=not isinstance(weights, FileWeights) or any(map(says_pixels, (train_transform, test_transform))),
    )


def _computing(present: Sequence[Layer], sources: Sequence[Layer], phase: Phase, notes: list[str]) -> list[Layer]:
    """The layers of the graph: not those that only training needs, nor those that prepare labels for them alone.

    While training, losses stay; what only measures or shows goes in either phase.
    """
    layers = [layer for layer in present if not is_data_layer(layer)]
    from_labels = _from_labels(layers, sources)
    unneeded = _unneeded(layers, phase)
    kept: list[Layer] = []
    needed: set[str] = set()
    read_by_dropped: set[str] = set()
    dropped: list[str] = []
    for layer in reversed(layers):
        tops = set(layer.tops)
        for_labels = set(layer.bottoms) <= from_labels and not tops & needed and bool(tops & read_by_dropped)
        if id(layer) in unneeded or (phase is Phase.TEST and for_labels):
            read_by_dropped.update(layer.bottoms)
            reason = "it only prepares labels" if for_labels else "inference doesn't need it"
            dropped.append(f"{layer.place}: layer {layer.name!r} ({layer.type}) is left out: {reason}")
        else:
            needed.update(layer.bottoms)
            kept.append(layer)
    notes += reversed(dropped)
    return kept[::-1]


def _unneeded(layers: Sequence[Layer], phase: Phase) -> set[int]:
    """The `id`s of layers that the phase does without; inference also does without those that read what these make."""
    unneeded: set[int] = set()
    missing: set[str] = set()
    for layer in layers:
        own_loss = phase is Phase.TEST and layer.type == "Python" and bool(layer.loss_weights)
        follows = phase is Phase.TEST and not missing.isdisjoint(layer.bottoms)
        if own_loss or follows or is_for_training_only(layer.type, phase):
            unneeded.add(id(layer))
            missing.update(layer.tops)
        else:
            missing.difference_update(layer.tops)
    return unneeded


def _from_labels(layers: Sequence[Layer], sources: Sequence[Layer]) -> set[str]:
    """The blobs that come from what data layers give besides the data, and from nothing else."""
    blobs = {top for layer in sources if layer.type != "Input" for top in layer.tops[1:]}
    for layer in layers:
        if layer.bottoms and set(layer.bottoms) <= blobs:
            blobs.update(layer.tops)
    return blobs


def _input_blobs(network: Network, sources: Sequence[Layer]) -> list[str]:
    """The blobs that come from outside. As in Caffe an `input` without a shape adds nothing to a layer that makes it.

    Raises InputError where two give a blob different shapes.
    """
    declared, fed = dict(network.inputs), {top for layer in sources for top in layer.tops}
    for layer in sources:
        for top, shape in zip(layer.tops, data_shapes(layer), strict=True):
            if shape and declared.get(top) and declared[top] != shape:
                raise layer.error(f"the blob {top!r} is an input of another shape too: remove one of the two", "top")
    return [*(blob for blob in declared if blob not in fed), *(top for layer in sources for top in layer.tops)]


def _input_shapes(
    network: Network, sources: Sequence[Layer], wiring: Wiring, given: Mapping[str, Sequence[int]]
) -> dict[str, tuple[int, ...]]:
    """The shapes of the inputs that some layer reads."""
    inputs = [i for i, w in enumerate(wiring.wires) if w.producer is None]
    read = {
        wiring.wires[i].blob
        for i in inputs
        if any(wiring.layers[reader].layer.type != "Silence" for reader in wiring.readers[i])
    }
    if unknown := set(given) - {wiring.wires[i].blob for i in inputs}:
        raise network.message.error(f"a shape is given for {min(unknown)!r}, which is no input of the network")
    shapes: dict[str, tuple[int, ...]] = {}
    for blob, shape in network.inputs:
        if shape is not None and blob in read:
            shapes[blob] = shape
        elif blob in read and blob not in given and not any(blob in layer.tops for layer in sources):
            raise network.message.error(_shape_wanted(blob), "input")
    for layer in sources:
        for top, shape in zip(layer.tops, data_shapes(layer), strict=True):
            if top in given or top not in read:
                continue
            if shape is None:
                raise layer.error(_shape_wanted(top))
            images = given.get(layer.tops[0])
            shapes[top] = (images[0],) if images and len(shape) == 1 else shape  # as many labels as images
    shapes.update({blob: tuple(shape) for blob, shape in given.items() if blob in read})
    for blob, shape in shapes.items():
        if min(shape, default=1) < 1:
            raise network.message.error(f"the input {blob!r} has shape {shape}: dimensions have to be 1 or more")
        if math.prod(shape) > LARGEST_BLOB:
            raise network.message.error(f"the input {blob!r} of shape {shape} has more elements than 2^31")
    return shapes


def _shape_wanted(blob: str) -> str:
    return f"the shape of {blob!r} is in the data, not in the network: give it (--input-shape {blob}=1,3,H,W)"
