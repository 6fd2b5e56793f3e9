from hypothesis import given
from hypothesis import strategies as st

from wootz.passes.analysis.block_groups import group_blocks
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
