"""Opens a MODEL argument, whatever its format."""

from __future__ import annotations

from pathlib import Path

from wootz.frontend.caffe.importer import ImportedNetwork, import_caffe
from wootz.passes.errors import InputError, WootzError
from wootz.passes.ir.files import load
from wootz.passes.plan.subspace import PrunableConvolution, PrunableNetwork
from wootz.passes.plan.transform import TRANSFORM_KEY, InputTransform
from wootz.passes.transforms.prune_blocks import BlockPruner


def open_network(model: str, weights: str | None = None, seed: int = 0) -> ImportedNetwork:
    """The network in a `.prototxt` (weights from a caffemodel or fillers), `.onnx` or `.onnxtxt` file, or `-`."""
    if model.endswith(".prototxt"):
        return import_caffe(Path(model), Path(weights) if weights else None, seed=seed)
    if weights:
        raise WootzError(f"--weights goes with a prototxt; {model} has its weights inside")
    loaded = load(model)
    text = loaded.metadata.get(TRANSFORM_KEY)
    try:
        transform = InputTransform.from_json(text) if text else InputTransform()
    except WootzError as error:
        raise InputError(str(error), model) from error
    return ImportedNetwork(loaded, train_transform=transform, test_transform=transform)


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
    return PrunableNetwork(tuple(m.name for m in pruner.modules), tuple(convolutions))
