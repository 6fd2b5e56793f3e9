"""Assembly: puts the weights of blocks, or of a whole network, into a model of the same architecture."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from wootz.passes.analysis.channels import node_names
from wootz.passes.base import Pass, PassResult, option
from wootz.passes.errors import WootzError
from wootz.passes.ir.files import load
from wootz.passes.ir.model import Constant, Model, constants
from wootz.passes.plan.pruning import stored_keep_sets


@dataclass(frozen=True)
class Assemble(Pass):
    """Puts the weights of tuning blocks into a network pruned to the same keep-sets.

    The blocks are models that `extract-blocks` made. Their weights and running statistics replace those of the same
    names; everything else stays, and so do names and structure.

    Refuses a block with a weight that the network does not have, or has in another shape, and one that keeps other
    filters than the network does.
    """

    name = "assemble"
    requires = "trained blocks: assemble{blocks=FILE,FILE}"
    blocks: tuple[Path, ...] = option((), "files of the blocks")

    def apply(self, model: Model) -> PassResult:
        if not self.blocks:
            raise self.refuse("needs blocks: assemble{blocks=FILE,FILE}")
        for file in self.blocks:
            try:
                block = load(file)
            except WootzError as error:
                raise self.refuse(str(error)) from error
            try:
                model = assemble(model, block)
            except WootzError as error:
                raise self.refuse(str(error), str(file)) from error
        return PassResult(model, modified=True, statistics={"blocks": len(self.blocks)})


def assemble(network: Model, block: Model) -> Model:
    """`network` with the weights of `block`. Raises WootzError where the block doesn't fit (see the pass)."""
    of_block, of_network = stored_keep_sets(block.metadata), stored_keep_sets(network.metadata)
    for layer in {*of_block, *node_names(block.graph).values()}:
        if of_block.get(layer) != of_network.get(layer):
            raise WootzError(f"the block keeps other filters of {layer!r} than the network does")
    return with_weights(network, constants(block.graph))


def with_weights(model: Model, weights: Mapping[str, np.ndarray]) -> Model:
    """`model` with the constants named in `weights` replaced; the others stay.

    Raises WootzError when a name is not a constant of the model, or has another shape there.
    """
    graph = model.graph.copy()
    tensors = graph.tensors()
    for name, values in weights.items():
        tensor = tensors.get(name)
        if not isinstance(tensor, Constant):
            raise WootzError(f"{name}: the network has no weight of that name")
        if tuple(tensor.shape) != values.shape:
            raise WootzError(f"{name}: shape {values.shape} does not fit the network's {tuple(tensor.shape)}")
        tensor.values = values
    return replace(model, graph=graph)
