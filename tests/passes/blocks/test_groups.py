from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wootz.passes.blocks.groups import format_bytes, group_blocks, partition_blocks
from wootz.passes.errors import WootzError
from wootz.passes.plan.blocks import Symbol, TuningBlock


def block(first, last, rate=0.3):
    return TuningBlock(tuple(Symbol(module, rate) for module in range(first, last + 1)))


def test_first_fit_by_lowest_module():
    blocks = [block(2, 3), block(0, 1), block(1, 2, 0.5), block(0, 0, 0.7), block(4, 4)]
    groups = group_blocks(blocks)
    assert [[str(b) for b in group] for group in groups] == [
        ["1(0.3) 2(0.3)", "3(0.3) 4(0.3)", "5(0.3)"],
        ["1(0.7)", "2(0.5) 3(0.5)"],
    ]


def test_no_blocks_no_groups():
    assert group_blocks([]) == ()


spans = st.tuples(st.integers(0, 9), st.integers(0, 4), st.sampled_from([0.3, 0.5, 0.7]))


@given(st.lists(spans, unique=True))
def test_groups_partition_the_blocks_and_nothing_overlaps(spans):
    blocks = [block(first, first + more, rate) for first, more, rate in spans]
    groups = group_blocks(blocks)
    assert sorted(map(str, blocks)) == sorted(str(b) for group in groups for b in group)
    for group in groups:
        assert not any(a.overlaps(b) for i, a in enumerate(group) for b in group[:i])
    deepest = max((sum(m in b.modules for b in blocks) for m in range(14)), default=0)
    assert len(groups) == deepest  # first fit by left end colours intervals with as few groups as possible


def memory(blocks):
    """A teacher of 100 bytes a module, and 10 bytes a module and student."""
    return 100 * max(m + 1 for b in blocks for m in b.modules) + 10 * sum(len(b.modules) for b in blocks)


def test_overlapping_blocks_share_a_group():
    blocks = [block(0, 1), block(0, 1, 0.5), block(1, 2, 0.7)]
    assert partition_blocks(blocks, memory, budget=1000) == (tuple(blocks),)


def test_groups_are_filled_in_the_order_of_modules():
    blocks = [block(2, 2), block(0, 0), block(1, 1), block(0, 0, 0.5), block(2, 2, 0.5)]
    groups = partition_blocks(blocks, memory, budget=330)
    assert [[str(b) for b in group] for group in groups] == [["1(0.3)", "1(0.5)", "2(0.3)"], ["3(0.3)", "3(0.5)"]]


def test_every_process_has_work():
    blocks = [block(i, i) for i in range(5)]
    groups = partition_blocks(blocks, memory, budget=10**6, parts=3)
    assert [[str(b) for b in group] for group in groups] == [["1(0.3)", "4(0.3)"], ["2(0.3)", "5(0.3)"], ["3(0.3)"]]
    assert len(partition_blocks(blocks[:2], memory, budget=10**6, parts=3)) == 2
    assert partition_blocks([], memory, budget=1) == ()


def test_a_block_that_does_not_fit_alone():
    with pytest.raises(
        WootzError, match=r"^pre-training block 5\(0.3\) alone takes about 510 bytes, and the budget is 400 b"
    ):
        partition_blocks([block(0, 0), block(4, 4)], memory, budget=400)


@given(st.lists(spans, unique=True), st.integers(1, 3), st.integers(1600, 4000))
def test_no_group_exceeds_the_budget_and_none_could_take_the_next_block(spans, parts, budget):
    blocks = [block(first, first + more, rate) for first, more, rate in spans]
    groups = partition_blocks(blocks, memory, budget, parts)
    assert sorted(map(str, blocks)) == sorted(str(b) for group in groups for b in group)
    assert all(memory(group) <= budget for group in groups)
    if parts == 1:
        assert all(memory((*group, after[0])) > budget for group, after in pairwise(groups))


@pytest.mark.parametrize(
    ("count", "text"), [(12, "12 bytes"), (1500, "1.5 kB"), (2 * 10**6, "2 MB"), (4 * 10**9, "4 GB")]
)
def test_bytes_as_text(count, text):
    assert format_bytes(count) == text
