"""The integer program of choosing networks, against looking at all of them."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wootz.passes.plan.space import Space
from wootz.runtime.strategies.choice import Bound, Choice, choose, front, k_best

RATES = (0.0, 0.3, 0.5, 1.0)
WHOLE_NUMBERS = st.integers(0, 10**8)
FEW_NUMBERS = st.integers(0, 3).map(float)
SMALL_NUMBERS = st.floats(0, 1e-3)


@st.composite
def spaces(draw):
    """1 to 5 modules of 1 to 4 options, closed or in chains with up to two sources, the outside with some, too."""
    count = draw(st.integers(1, 5))
    options = tuple(RATES[: draw(st.integers(1, 4))] for _ in range(count))
    sources = {}
    for position in range(1, count + 1):
        nearest = draw(st.lists(st.sampled_from(range(max(0, position - 3), position)), max_size=2, unique=True))
        if nearest and (sources or draw(st.booleans())):
            sources[position] = tuple(sorted(nearest))
    return Space(tuple(f"m{i}" for i in range(count)), options, sources)


def quantities(space, values):
    pieces = [piece for position in range(len(space.modules) + 1) for piece in space.pieces(position)]
    return st.lists(values, min_size=len(pieces), max_size=len(pieces)).map(lambda v: dict(zip(pieces, v, strict=True)))


def losses(space):
    return st.one_of(quantities(space, values) for values in (WHOLE_NUMBERS, FEW_NUMBERS, SMALL_NUMBERS))


@st.composite
def problems(draw, most_bounds=3):
    space = draw(spaces())
    bounds = []
    for _ in range(draw(st.integers(0, most_bounds))):
        quantity = draw(losses(space))
        totals = sorted(space.total(quantity, c) for c in space.configurations())
        bounds.append(Bound(quantity, draw(st.sampled_from(totals)) - draw(st.sampled_from([0, 0, 1]))))
    return space, draw(losses(space)), bounds


def feasible(space, bounds):
    """The configurations that meet all bounds."""
    return [c for c in space.configurations() if all(space.total(b.quantity, c) <= b.most for b in bounds)]


def tolerance(space, quantity):
    """What HiGHS can't tell apart: 10^-9 of the largest coefficient."""
    return 1e-9 * max(map(abs, quantity.values()))


def differences(a, b):
    return sum(x != y for x, y in zip(a, b, strict=True))


@settings(max_examples=150, deadline=None)
@given(problems())
def test_the_choice_is_the_best_of_all(problem):
    space, loss, bounds = problem
    found = choose(space, loss, bounds)
    left = feasible(space, bounds)
    assert (found is None) == (not left)
    if found is not None:
        assert found.configuration in left
        assert found.value == space.total(loss, found.configuration)
        least = min(space.total(loss, c) for c in left)
        assert found.value <= least + tolerance(space, loss)
        assert found.at_least <= least + tolerance(space, loss)
        assert found.value - found.at_least <= 2 * tolerance(space, loss), "the gap is closed"
        assert choose(space, dict(reversed(loss.items())), bounds) == found, "whatever order things come in"


def test_bounds_whose_relaxation_cannot_be_solved():
    """HiGHS 1.12 says "Unknown" of it."""
    space = Space(("a", "b"), ((0.0, 0.3, 0.5), (0.0, 0.3, 0.5, 1.0)))
    pieces = [piece for position in range(3) for piece in space.pieces(position)]
    coefficients = {
        42.0: (0, 0, 42, 43, 4, 0, 0, 0),
        2097342.0: (157, 0, 0, 190, 190, 184609, 272, 2097152),
        60478.0: (1775, 60479, 0, 0, 60477, 0, 0, 1),
    }
    bounds = [Bound(dict(zip(pieces, values, strict=True)), most) for most, values in coefficients.items()]
    loss = dict(zip(pieces, (0, 0, 1, 0, 0, 0, 1, 0), strict=True))
    found = choose(space, loss, bounds)
    assert (found is None) == (not feasible(space, bounds))


@settings(max_examples=50, deadline=None)
@given(problems(most_bounds=1), st.integers(1, 6), st.integers(1, 3))
def test_the_k_best_are_each_the_best_of_what_is_far_enough_from_those_before(problem, k, differ_in):
    space, loss, bounds = problem
    found = k_best(space, loss, bounds, k, differ_in)
    left = feasible(space, bounds)
    for i, choice in enumerate(found):
        earlier = [c.configuration for c in found[:i]]
        apart = [c for c in left if all(differences(c, e) >= differ_in for e in earlier)]
        assert choice.configuration in apart
        assert choice.value <= min(space.total(loss, c) for c in apart) + tolerance(space, loss)
    if len(found) < k:
        assert not [c for c in left if all(differences(c, f.configuration) >= differ_in for f in found)]
    if differ_in == 1:
        assert [c.value for c in found] == pytest.approx(
            sorted(space.total(loss, c) for c in left)[:k], abs=2 * tolerance(space, loss), rel=0
        )


@settings(max_examples=40, deadline=None)
@given(
    spaces().flatmap(lambda s: st.tuples(st.just(s), quantities(s, st.integers(0, 50)), quantities(s, WHOLE_NUMBERS)))
)
def test_the_front_over_all_budgets_is_the_front_of_all(problem):
    space, loss, cost = problem
    points = {(space.total(cost, c), space.total(loss, c)) for c in space.configurations()}
    best = sorted(p for p in points if not any(q != p and q[0] <= p[0] and q[1] <= p[1] for q in points))
    budgets = sorted({p[0] for p in best})[:6]
    found = front(space, loss, cost, budgets)
    assert [(space.total(cost, c.configuration), c.value) for c in found] == best[:6]


@settings(max_examples=25, deadline=None)
@given(problems(most_bounds=2), st.integers(1, 5))
def test_a_front_of_so_many_budgets_has_both_ends_and_nothing_dominated(problem, count):
    space, loss, bounds = problem
    cost = {piece: 1000 * (1 - piece.rate) for piece in loss}
    found = front(space, loss, cost, count, bounds)
    left = feasible(space, bounds)
    assert bool(found) == bool(left)
    assert len(found) <= count
    assert {c.configuration for c in found} <= set(left)
    costs = [space.total(cost, c.configuration) for c in found]
    assert all(a < b for a, b in pairwise(costs))
    assert all(a.value > b.value for a, b in pairwise(found))
    if left:
        assert costs[0] == min(space.total(cost, c) for c in left)
    if count > 1 and left:
        assert found[-1].value <= min(space.total(loss, c) for c in left) + tolerance(space, loss)


def test_a_bound_is_not_violated_by_what_the_solver_tolerates():
    """One parameter in 10^12 beyond the bound: to HiGHS that is nothing."""
    space = Space(("a", "b"), ((0.0, 0.5), (0.0, 0.5)))
    loss = space.by_option({(0, 0.0): 0, (0, 0.5): 1, (1, 0.0): 0, (1, 0.5): 3})
    size = space.by_option({(0, 0.0): 10**12, (0, 0.5): 5, (1, 0.0): 10, (1, 0.5): 9})
    assert choose(space, loss, [Bound(size, 10**12 + 10)]) == Choice((0.0, 0.0), 0, 0)
    assert choose(space, loss, [Bound(size, 10**12 + 9)]).configuration == (0.5, 0.0)
    assert choose(space, loss, [Bound(size, 13)]) is None


def test_the_gap_that_is_asked_for_bounds_how_much_better_another_could_be():
    options = tuple(i / 10 for i in range(9))
    space = Space(tuple("abcdefghijklmnopqrst"), (options,) * 20)
    loss = space.by_option({(m, r): (1 + m % 7) * r**1.5 for m in range(20) for r in options})
    size = space.by_option({(m, r): (1 + m % 5) * (1 - r) * 1000 for m in range(20) for r in options})
    bounds = [Bound(size, 30_111)]
    exact, rough = choose(space, loss, bounds), choose(space, loss, bounds, gap=0.05)
    assert rough.at_least <= exact.value <= rough.value
    assert exact.gap <= 1e-9
    assert rough.gap <= 0.05


def test_nothing_is_printed_by_the_solver(capfd):
    space = Space(("a", "b"), ((0.0, 0.5), (0.0, 0.5)))
    print("before")
    assert choose(space, space.by_option({(m, r): r for m in range(2) for r in (0.0, 0.5)})) is not None
    print("after")
    assert capfd.readouterr().out == "before\nafter\n"


@pytest.mark.parametrize("exponent", [1, 2, 3])
@pytest.mark.parametrize("seed", range(3))
def test_small_sums_are_told_apart_beside_large_pieces(exponent, seed):
    """Losses to the third power lie far apart: near the full network the sums are 10^-15 of the largest piece."""
    generator, rates = np.random.default_rng(seed), (0.0, 0.25, 0.5, 0.875)
    space = Space(tuple("abcd"), (rates,) * 4)
    own, sizes = 10 ** generator.uniform(-5, 0, 4), generator.integers(10, 100_000, 4)
    loss = space.by_option({(m, r): max(1e-6, own[m] * r * r) ** exponent * (r > 0) for m in range(4) for r in rates})
    cost = {p: float(sizes[p.module] * (1 - p.rate)) for m in range(4) for p in space.pieces(m)}
    cost |= dict.fromkeys(space.pieces(4), 1.0)
    all_of_them = [(space.total(loss, c), space.total(cost, c)) for c in space.configurations()]
    for budget in np.geomspace(*np.quantile([c for _, c in all_of_them], (0.1, 1.0)), 8).tolist():
        (choice,) = front(space, loss, cost, [budget])
        least = min(value for value, spent in all_of_them if spent <= budget)
        assert choice.value == pytest.approx(least, rel=1e-9, abs=0)
        assert choice.gap == pytest.approx(0, abs=1e-6)
