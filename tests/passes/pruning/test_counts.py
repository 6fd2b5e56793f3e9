"""Every layer keeps what its rate promises, wherever its filters lie."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wootz.passes.analysis.importance import kept_count
from wootz.passes.ir.model import Model
from wootz.passes.ir.text import parse_text
from wootz.passes.pipeline import parse_pass
from wootz.passes.pruning.counts import Families
from wootz.passes.pruning.planner import Planner


def network(nodes: str, declared: str = "", **weights: tuple[int, ...]) -> Model:
    """A network from x[1,4,8,8] to y, with random weights."""
    generator = np.random.default_rng(3)
    constants = [declared] if declared else []
    for name, shape in weights.items():
        values = ",".join(f"{v:.4f}" for v in generator.standard_normal(int(np.prod(shape))))
        constants.append(f"float[{','.join(map(str, shape))}] {name} = {{{values}}}")
    head = '<ir_version: 8, opset_import: ["" : 18]> g (float[1,4,8,8] x) => (float y)'
    return parse_text(f"{head} <{', '.join(constants)}> {{ {nodes} }}")


GROUPED = network(
    "[a] s = Conv(x, wa) [g] t = Conv<group = 8>(s, wg) [c] y = Conv(t, wc)",
    wa=(64, 4, 1, 1),
    wg=(64, 8, 1, 1),
    wc=(1, 64, 1, 1),
)
SHUFFLED = network(
    "[a] s = Conv(x, wa) u = DepthToSpace<blocksize = 2>(s) [c] y = Conv(u, wc)", wa=(64, 4, 1, 1), wc=(1, 16, 1, 1)
)
SPLIT = network(
    "[a] s = Conv(x, wa) p, q, r = Split<axis = 1>(s, sizes) [b] t = Conv(p, wb) [c] u = Conv(q, wb) "
    "[d] v = Conv(r, wd) m = Add(t, u) n = Add(m, v) [e] y = Conv(n, we)",
    "int64[3] sizes = {10,10,20}",
    wa=(40, 4, 1, 1),
    wb=(6, 10, 1, 1),
    wd=(6, 20, 1, 1),
    we=(1, 6, 1, 1),
)
PARTS = network(
    "[a] s = Conv(x, wa) p, q, r = Split<axis = 1>(s, sizes) [b] t = Conv(x, wb) k = Add(p, t) l = Mul(q, q) "
    "z = Concat<axis = 1>(k, l, r) [c] y = Conv(z, wc)",
    "int64[3] sizes = {5,5,5}",
    wa=(15, 4, 1, 1),
    wb=(5, 4, 1, 1),
    wc=(1, 15, 1, 1),
)


def kept(model: Model, options: str) -> dict[str, int]:
    plan = parse_pass(f"prune-filters{{{options}}}").apply(model).plan
    assert plan is not None
    return {entry.layer: len(entry.keep) for entry in plan.layers}


@pytest.mark.parametrize(
    ("model", "options", "counts"),
    [
        (GROUPED, "rate=0.5 round-to=8", {"a": 32, "g": 32}),
        (GROUPED, "rate=0.3 round-to=8", {"a": 48, "g": 48}),
        (GROUPED, "rate=0.3 round-to=16", {"a": 48, "g": 48}),
        (GROUPED, "rate=0.5 min-channels=48", {"a": 48, "g": 48}),
        (GROUPED, "rate=0.99", {"a": 8, "g": 8}),  # each group keeps one
        (SHUFFLED, "rate=0.5 round-to=8", {"a": 32}),
        (SHUFFLED, "rate=0.3 round-to=8", {"a": 48}),
        (SHUFFLED, "rate=0.3", {"a": 44}),
        (SPLIT, "rate=0.5", {"a": 20}),
        (SPLIT, "rate=0.3", {"a": 28}),
        (SPLIT, "rate=0.9", {"a": 4}),
        (PARTS, "rate=0.5", {"a": 7}),  # 2 or 3 of each part
        (PARTS, "rate=0.3", {"a": 10}),
        (GROUPED, "rate=0.5 round-to=8 ranking=global", {"g": 32}),
    ],
)
def test_a_layer_keeps_what_its_rate_promises(model: Model, options: str, counts: dict[str, int]) -> None:
    assert kept(model, options).items() >= counts.items()


def test_what_a_float_makes_of_a_rate_is_no_filter_less() -> None:
    """20 * (1 - 0.9) is 1.9999999999999996."""
    model = network("[a] s = Conv(x, wa) [c] y = Conv(s, wc)", wa=(20, 4, 1, 1), wc=(1, 20, 1, 1))
    assert kept(model, "rate=0.9") == {"a": 2, "c": 1}


@settings(max_examples=200)
@given(
    sizes=st.lists(st.tuples(st.integers(1, 20), st.integers(1, 4)), min_size=1, max_size=6),
    rate=st.floats(0.01, 0.99),
    round_to=st.sampled_from([1, 2, 8]),
)
def test_largest_remainders(sizes: list[tuple[int, int]], rate: float, round_to: int) -> None:
    """One layer, its filters in families of other sizes and weights."""
    families = Families(
        {i: (i,) for i in range(len(sizes))},
        {i: size for i, (size, _) in enumerate(sizes)},
        {0: {i: weight for i, (_, weight) in enumerate(sizes)}},
    )
    counts = families.counts(dict.fromkeys(range(len(sizes)), rate), round_to, 1)
    filters = sum(size * weight for size, weight in sizes)
    promised = kept_count(filters, rate, round_to)
    total = sum(counts[i] * weight for i, (_, weight) in enumerate(sizes))
    assert all(0 <= counts[i] <= size for i, (size, _) in enumerate(sizes))
    if len(sizes) > 1 and any(weight == 1 and size > 1 for size, weight in sizes) and round_to == 1:
        heaviest = max(weight for _, weight in sizes)
        assert promised - heaviest < total <= max(promised, heaviest)
    if all(weight == 1 for _, weight in sizes):
        assert total == promised


def test_rates_of_a_layer_that_differ_add_up() -> None:
    """A channel that is tied to 'b' has b's rate."""
    assert kept(PARTS, "rate=0.2 rates=b:0.8") == {"a": 1 + 4 + 4, "b": 1, "c": 1}


def test_the_best_stay_where_a_cell_loses_everything() -> None:
    """Twenty parts of one filter: the rate is kept all the same."""
    parts = ", ".join(f"p{i}" for i in range(20))
    sums = " ".join(f"[b{i}] t{i} = Conv(x, wb{i}) k{i} = Mul(p{i}, t{i})" for i in range(20))
    model = network(
        f"[a] s = Conv(x, wa) {parts} = Split<axis = 1, num_outputs = 20>(s) {sums} "
        f"z = Concat<axis = 1>({', '.join(f'k{i}' for i in range(20))}) [c] y = Conv(z, wc)",
        wa=(20, 4, 1, 1),
        wc=(1, 20, 1, 1),
        **{f"wb{i}": (1, 4, 1, 1) for i in range(20)},
    )
    planner = Planner.of(model)
    plan = planner.plan(dict.fromkeys(range(len(planner.cells)), 0.5))
    assert all(entry.keep for entry in plan.layers)


def test_largest_remainders_decide_and_small_families_keep_one() -> None:
    """Of 33 filters a tenth is 3: 2.7 and 0.3 would be 3 and 0, but each family keeps one while there is room."""
    families = Families({0: (0,), 1: (1,)}, {0: 3, 1: 30}, {0: {0: 1, 1: 1}})
    assert families.counts({0: 0.9, 1: 0.9}, 1, 1) == {0: 1, 1: 2}
    uneven = Families({0: (0,), 1: (1,)}, {0: 5, 1: 4}, {0: {0: 1, 1: 1}})
    assert uneven.counts({0: 0.3, 1: 0.3}, 1, 1) == {0: 3, 1: 3}  # 6 of 9: 3.33 and 2.67
