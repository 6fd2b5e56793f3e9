"""Which tuning blocks are pre-trained in one graph."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from wootz.passes.errors import WootzError
from wootz.passes.plan.blocks import TuningBlock

Group = tuple[TuningBlock, ...]


def partition_blocks(
    blocks: Iterable[TuningBlock], memory: Callable[[Sequence[TuningBlock]], int], budget: int, parts: int = 1
) -> tuple[Group, ...]:
    """As few groups as fit into `budget` bytes each: one teacher pass serves all blocks of a group, overlapping or not.

    `memory` estimates what training a group takes, in bytes; it grows with the group. Blocks go into groups in the
    order of their modules, so that the teacher of an early group can stop early. With `parts` processes the blocks are
    dealt out first, so that each has work. Raises WootzError for a block that doesn't fit alone.
    """
    ordered = sorted(blocks, key=lambda block: block.modules[0])
    hands = [ordered[i::parts] for i in range(min(parts, len(ordered)))]
    packed = [_packed(hand, memory, budget) for hand in hands]
    return tuple(group for groups in packed for group in groups)


def _packed(blocks: list[TuningBlock], memory: Callable[[Sequence[TuningBlock]], int], budget: int) -> list[Group]:
    groups = []
    while blocks:
        count = _largest_prefix(blocks, memory, budget)
        groups.append(tuple(blocks[:count]))
        blocks = blocks[count:]
    return groups


def _largest_prefix(blocks: list[TuningBlock], memory: Callable[[Sequence[TuningBlock]], int], budget: int) -> int:
    """How many of the first blocks fit together, by bisection; all of them are tried first."""
    fits, too_many = 0, len(blocks) + 1
    count = len(blocks)
    while too_many - fits > 1:
        needed = memory(blocks[:count])
        if needed <= budget:
            fits = count
        else:
            too_many = count
        if too_many == 1:
            raise WootzError(
                f"pre-training block {blocks[0]} alone takes about {format_bytes(needed)}, and the budget is "
                f"{format_bytes(budget)}: raise it (--memory), or lower batch_size of the pre-training solver"
            )
        count = (fits + too_many) // 2
    return fits


def group_blocks(blocks: Iterable[TuningBlock]) -> tuple[Group, ...]:
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


def format_bytes(count: int) -> str:
    """`1.5 GB`, `20 MB`: decimal units."""
    for size, unit in ((10**9, "GB"), (10**6, "MB"), (10**3, "kB")):
        if count >= size:
            return f"{count / size:.3g} {unit}"
    return f"{count} bytes"
