"""Opens a MODEL argument, whatever its format."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import click

from wootz.frontend.caffe.importer import ImportedNetwork, import_caffe
from wootz.passes.errors import InputError, PassError, WootzError
from wootz.passes.ir.files import load
from wootz.passes.ir.model import Model
from wootz.passes.plan.subspace import PrunableConvolution, PrunableNetwork
from wootz.passes.plan.transform import TRANSFORM_KEY, InputTransform
from wootz.passes.pruning.block_pruner import BlockPruner
from wootz.passes.training.trainable_part import TrainablePart, postprocessing
from wootz.passes.transforms.image_classifier import as_trainable_network
from wootz.passes.transforms.set_interface import UNCHANGED, SetInterface, interface_of
from wootz.runtime.run_directory import BEST_FILE, whole_file

AS_EXPORTED = InputTransform(channel_order="RGB")
"""What an ONNX file is given that doesn't say how pixels become its input: Caffe's order is Caffe's alone."""


class Size(click.ParamType):
    """`224x224`, height and width, or one number for both."""

    name = "size"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int, int]:
        match = re.fullmatch(r"(\d{1,6})(?:x(\d{1,6}))?", str(value))
        if match is None:
            self.fail(f"{value!r} is no size: HEIGHTxWIDTH, as in 224x224", param, ctx)
        return int(match[1]), int(match[2] or match[1])


size_option = click.option(
    "--size", type=Size(), metavar="HxW", help="Of the images, where an ONNX file leaves it open."
)
scores_option = click.option("--scores", metavar="NAME", help="The network's output with the scores, of several.")


@dataclass(frozen=True)
class TrainableNetwork(ImportedNetwork):
    """A network in the form in which it is trained, and the `interface` that it came with.

    `whole` is it with its postprocessing, where it has some: what is trained ends before that.
    """

    interface: SetInterface = UNCHANGED
    whole: Model | None = None


def open_trainable(
    model: str,
    weights: str | None = None,
    seed: int = 0,
    scores: str | None = None,
    size: tuple[int, ...] | None = None,
) -> TrainableNetwork:
    """The network in the form in which it is trained, with a note on each change (see the pass image-classifier); of
    outputs of any kind, unless `scores` names one, all."""
    network = open_network(model, weights, seed)
    whole, changes = as_trainable_network(network.model, scores or "", size or ())
    trainable = _without_postprocessing(whole)
    has_postprocessing = trainable is not whole
    if has_postprocessing:
        changes = (*changes, _left_out(whole, trainable))
    return TrainableNetwork(
        model=trainable,
        train_transform=network.train_transform,
        test_transform=network.test_transform,
        initialised=network.initialised,
        notes=(*network.notes, *(f"{change}." for change in changes)),
        blobs=network.blobs,
        says_pixels=network.says_pixels,
        interface=interface_of(network.model, whole),
        whole=whole if has_postprocessing else None,
    )


def _without_postprocessing(network: Model) -> Model:
    """The part that learns; the network itself, where it is that, or nothing in it learns."""
    try:
        return TrainablePart().apply(network).model
    except PassError:
        return network


def _left_out(whole: Model, part: Model) -> str:
    operators = ", ".join(dict.fromkeys(node.op for node in postprocessing(whole.graph)))
    outputs = ", ".join(tensor.name for tensor in part.graph.outputs)
    has_all = whole_file(BEST_FILE)
    return f"its postprocessing ({operators}) is left out, and its outputs are {outputs}; {has_all} has all of it"


def open_network(model: str, weights: str | None = None, seed: int = 0) -> ImportedNetwork:
    """The network in a `.prototxt` (weights from a caffemodel or fillers), `.onnx` or `.onnxtxt` file, or `-`."""
    if model.endswith(".prototxt"):
        return import_caffe(Path(model), Path(weights) if weights else None, seed=seed)
    if weights:
        raise WootzError(f"--weights goes with a prototxt; {model} has its weights inside")
    loaded = load(model)
    text = loaded.metadata.get(TRANSFORM_KEY)
    try:
        transform = InputTransform.from_json(text) if text else AS_EXPORTED
    except WootzError as error:
        raise InputError(str(error), model) from error
    return ImportedNetwork(loaded, train_transform=transform, test_transform=transform, says_pixels=bool(text))


def weights_beside(model: str) -> str | None:
    """The file with the weights of a prototxt that has its name, and lies beside it."""
    if not model.endswith(".prototxt"):
        return None
    files = (Path(model).with_suffix(suffix) for suffix in (".caffemodel", ".caffemodel.h5"))
    return next((str(file) for file in files if file.is_file()), None)


round_to_option = click.option(
    "--round-to", type=click.IntRange(min=1), metavar="N",
    help="Layers keep multiples of N filters (default: 8, which are fast; 4, 2 or 1 in layers so narrow that rates "
         "would come to the same).",
)  # fmt: skip


def prunable_network(pruner: BlockPruner) -> PrunableNetwork:
    """The modules and all convolutions of a network, as the rows of a subspace refer to them."""
    tables = {name: table for table in pruner.convolutions for name in table.convolutions}
    convolutions = []
    for layer in pruner.analysis.layers:
        if layer.is_convolution:
            table = tables.get(layer.name)
            module = None if table is None else table.module
            locked = "" if table is None else table.locked.get(layer.name, "")
            convolutions.append(PrunableConvolution(layer.name, module, locked))
    return PrunableNetwork(tuple(m.name for m in pruner.modules), tuple(convolutions), pruner.unskippable)
