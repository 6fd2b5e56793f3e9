"""Assembly: puts the weights of blocks, or of a whole network, into a model of the same architecture."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from wootz.passes.analysis.channels import node_names
from wootz.passes.base import Pass, PassResult, option
from wootz.passes.errors import WootzError
from wootz.passes.ir.files import load
from wootz.passes.ir.model import Model, constants, with_weights
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
