"""The multiplexing model of the paper (section 6.2): one function for the three networks that pruning needs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from wootz.passes.errors import WootzError
from wootz.passes.ir.model import Model
from wootz.passes.plan.subspace import Rate
from wootz.passes.pruning.block_pruner import BlockPruner
from wootz.passes.transforms.assemble import assemble
from wootz.passes.transforms.teacher_student import TeacherStudent, parse_blocks

Mode = Literal["full", "pretrain", "finetune"]


@dataclass(frozen=True)
class PruneInfo:
    """What is pruned. `blocks`, for the mode pretrain: the tuning blocks as `teacher-student` reads them, such as
    `res2a@0.3+res2b@0.5,res3a@0.7`. `rates`, for finetune: module -> rate; modules that aren't there stay whole.
    `trained`: pre-trained blocks, as models that `extract-blocks` made, to initialise the pruned network with.
    `criterion` ranks the filters.
    """

    blocks: str = ""
    rates: Mapping[str, Rate] = field(default_factory=dict)
    trained: tuple[Model, ...] = ()
    criterion: str = "l1"


def multiplex(model: Model, mode: Mode, prune_info: PruneInfo | None = None) -> Model:
    """The network to train in `mode`; none of them has its loss for labels, gradients or an optimizer yet.

    full: the network as it is. pretrain: the teacher and a student for each block, the students' losses as outputs.
    finetune: the network pruned at the given rates, with the weights of the pre-trained blocks, and what remains of the
    teacher's elsewhere. `build_training_graph` makes a training graph of each.

    Raises WootzError for modules that the model doesn't have, rates that can't be, and blocks that don't fit.
    """
    info = prune_info or PruneInfo()
    if mode == "full":
        return model
    pruner = BlockPruner.of(model, info.criterion)
    if mode == "pretrain":
        blocks = parse_blocks(info.blocks, pruner)
        if not blocks:
            raise WootzError("there are no blocks to pre-train: prune_info.blocks is empty")
        return TeacherStudent().join(pruner, blocks)
    if mode == "finetune":
        network = pruner.materialize(pruner.plan(info.rates))
        for block in info.trained:
            network = assemble(network, block)
        return network
    raise WootzError(f"no mode {mode!r}: full, pretrain or finetune")
