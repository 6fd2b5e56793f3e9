"""Which tuning blocks are pre-trained in one graph, the paper's way."""

from __future__ import annotations

from collections.abc import Iterable

from wootz.passes.plan.blocks import TuningBlock


def group_blocks(blocks: Iterable[TuningBlock]) -> tuple[tuple[TuningBlock, ...], ...]:
    """Groups in which no two blocks overlap: first fit, by lowest module (paper, section 6).

    The paper's pseudocode would open a group for every group that a block doesn't fit into; here a block goes to the
    first group it fits into, and opens one when it fits into none.
    """
    groups: list[list[TuningBlock]] = []
    for block in sorted(blocks, key=lambda block: block.modules[0]):
        for group in groups:
            if not any(block.overlaps(member) for member in group):
                group.append(block)
                break
        else:
            groups.append([block])
    return tuple(tuple(group) for group in groups)
