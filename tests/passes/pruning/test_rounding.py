"""Rates that differ stay different networks where nobody says which multiples layers keep."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from wootz.passes.analysis.importance import kept_count
from wootz.passes.ir.text import parse_text
from wootz.passes.pruning.block_pruner import BlockPruner
from wootz.passes.pruning.rounding import LEAST_MULTIPLES, Rounding

RATES = st.lists(st.integers(0, 99).map(lambda percent: percent / 100), min_size=1, max_size=6)


def multiple_for(filters: int, rates: list[float]) -> int:
    rounding = Rounding(8, tuple(rates))
    return rounding.multiple_for(filters, lambda rate, multiple: kept_count(filters, rate, multiple))


@given(st.integers(1, 600), RATES)
def test_rates_that_differ_without_rounding_differ_with_it(filters: int, rates: list[float]) -> None:
    multiple = multiple_for(filters, rates)
    ordered = sorted({0.0, *rates})
    exact = [kept_count(filters, rate) for rate in ordered]
    rounded = [kept_count(filters, rate, multiple) for rate in ordered]
    for i in range(len(ordered)):
        for j in range(i):
            assert (exact[i] == exact[j]) == (rounded[i] == rounded[j])
    assert rounded == sorted(rounded, reverse=True)
    assert min(rounded) >= 1
    assert all(count % multiple == 0 or count == filters for count in rounded)
    assert multiple == 1 or all(abs(a - b) <= filters / 8 for a, b in zip(exact, rounded, strict=True) if a >= multiple)


@given(st.integers(1, 600), RATES)
def test_no_larger_multiple_would_do(filters: int, rates: list[float]) -> None:
    multiple = multiple_for(filters, rates)
    if multiple < 8:
        counts = {kept_count(filters, rate, 2 * multiple) for rate in {0.0, *rates}}
        exact = {kept_count(filters, rate) for rate in {0.0, *rates}}
        assert len(counts) < len(exact) or filters < LEAST_MULTIPLES * 2 * multiple


@pytest.mark.parametrize(
    ("filters", "rates", "multiple"),
    [
        (64, (0.3, 0.5, 0.7), 8),
        (32, (0.3, 0.5, 0.7), 8),
        (24, (0.3, 0.5, 0.7), 4),
        (16, (0.3, 0.5, 0.7), 4),
        (16, (0.5, 0.75, 0.9), 2),
        (64, (0.5, 0.51), 1),
        (16, (0.3,), 4),  # not 8: that would be half of the filters instead of 0.7
        (1, (0.3, 0.5), 1),
    ],
)
def test_multiples(filters: int, rates: tuple[float, ...], multiple: int) -> None:
    assert multiple_for(filters, list(rates)) == multiple


def test_without_rates_to_keep_apart_the_multiple_is_what_one_says() -> None:
    assert Rounding(3).multiple_for(2, lambda rate, multiple: 0) == 3


def network(*widths: int) -> BlockPruner:
    """A chain of convolutions, x[1,2,4,4] to 2 channels; all but the last one can be pruned."""
    generator, constants, nodes = np.random.default_rng(0), [], []
    for i, (before, width) in enumerate(zip((2, *widths), (*widths, 2), strict=True)):
        values = ",".join(f"{v:.3f}" for v in generator.standard_normal(before * width))
        constants.append(f"float[{width},{before},1,1] w{i} = {{{values}}}")
        nodes.append(f"[c{i}] {'y' if i == len(widths) else f't{i}'} = Conv({f't{i - 1}' if i else 'x'}, w{i})")
    head = '<ir_version: 8, opset_import: ["" : 18]> g (float[1,2,4,4] x) => (float[1,2,4,4] y)'
    return BlockPruner.of(parse_text(f"{head} <{', '.join(constants)}> {{ {' '.join(nodes)} }}"))


def test_each_layer_has_its_own_multiple() -> None:
    pruner = network(16, 64).rounding_to(Rounding(8, (0.3, 0.5, 0.7)))
    assert pruner.multiples == (8, 4)
    modules = [table.module for table in pruner.convolutions if table.prunable]
    for rate, counts in ((0.3, (12, 48)), (0.5, (8, 32)), (0.7, (4, 16))):
        plan = pruner.plan(dict.fromkeys(modules, rate))
        assert tuple(len(entry.keep) for entry in plan.layers[:2]) == counts


def test_rates_that_leave_the_same_have_one_least_rate() -> None:
    pruner = network(16, 3)
    first, second, last = (table.module for table in pruner.convolutions)
    least = pruner.least_rates((0.3, 0.5, 0.7))
    assert least[first] == {0.0: 0.0, 0.3: 0.3, 0.5: 0.5, 0.7: 0.7}
    assert least[second] == {0.0: 0.0, 0.3: 0.3, 0.5: 0.5, 0.7: 0.5}  # 3, 2, 1 and 1 filters
    assert set(least[last].values()) == {0.0}
    rounded = pruner.rounding_to(Rounding(8)).least_rates((0.3, 0.5, 0.7))
    assert rounded[first] == {0.0: 0.0, 0.3: 0.3, 0.5: 0.3, 0.7: 0.3}
    assert set(rounded[second].values()) == {0.0}
    assert pruner.kept({first: 0.3}) != pruner.kept({first: 0.5})
    assert pruner.kept({second: 0.5}) == pruner.kept({second: 0.7})
