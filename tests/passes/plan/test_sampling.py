from collections import Counter
from itertools import groupby

import pytest

from wootz.passes.errors import WootzError
from wootz.passes.plan.sampling import LONGEST_RUN, sample_subspace

MODULES = tuple(f"m{i}" for i in range(16))
RATES = (0.3, 0.5, 0.7)
WHOLE_B = {"b": {0.3: 0.0, 0.5: 0.0}}


def mean_rates(sampling):
    subspace = sample_subspace(MODULES, RATES, 500, seed=0, sampling=sampling)
    return [sum(configuration) / len(MODULES) for configuration in subspace.configurations]


@pytest.mark.parametrize("sampling", ["spread", "independent", "runs"])
def test_samples_are_different_complete_and_reproducible(sampling):
    subspace = sample_subspace(MODULES, RATES, 100, seed=1, sampling=sampling)
    assert subspace.modules == MODULES
    assert len(set(subspace.configurations)) == 100
    assert {len(configuration) for configuration in subspace.configurations} == {16}
    frequency = Counter(rate for configuration in subspace.configurations for rate in configuration)
    assert set(frequency) == set(RATES)
    assert min(frequency.values()) > 1600 / 3 * 0.8, "all rates are equally likely"
    assert subspace == sample_subspace(MODULES, RATES, 100, seed=1, sampling=sampling)
    assert subspace != sample_subspace(MODULES, RATES, 100, seed=2, sampling=sampling)


def test_spread_sizes_are_nearly_uniform():
    bins = Counter(min(int((mean - 0.3) / 0.1), 3) for mean in mean_rates("spread"))
    assert all(90 < bins[quarter] < 160 for quarter in range(4))


def test_independent_sizes_are_nearly_one():
    bins = Counter(min(int((mean - 0.3) / 0.1), 3) for mean in mean_rates("independent"))
    assert bins[1] + bins[2] > 490


def test_runs_have_one_rate():
    """Neighbouring runs may draw the same rate, so that runs seen are longer than runs drawn."""
    subspace = sample_subspace(MODULES, RATES, 200, seed=0, sampling="runs")
    runs = [len(list(run)) for configuration in subspace.configurations for _, run in groupby(configuration)]
    assert sum(runs) / len(runs) > (1 + LONGEST_RUN) / 2


def test_a_whole_space_can_be_sampled():
    subspace = sample_subspace(("a", "b", "c"), (0, 0.5), 8, seed=0)
    assert len(set(subspace.configurations)) == 8


def test_modules_that_stay_whole():
    subspace = sample_subspace(("a", "b", "c"), (0.3, 0.5), 4, seed=0, standing_for=WHOLE_B)
    assert subspace.modules == ("a", "b", "c")
    assert set(subspace.configurations) == {(0.3, 0, 0.3), (0.3, 0, 0.5), (0.5, 0, 0.3), (0.5, 0, 0.5)}
    with pytest.raises(WootzError, match="2 rates for 2 modules give 4 different networks, not 5"):
        sample_subspace(("a", "b", "c"), (0.3, 0.5), 5, seed=0, standing_for=WHOLE_B)


def test_rates_that_leave_the_same_are_one():
    same = {"a": {0.3: 0.3, 0.5: 0.3, 0.7: 0.7}, "b": dict.fromkeys(RATES, 0.3)}
    for sampling in ("spread", "independent", "runs"):
        subspace = sample_subspace(("a", "b", "c"), RATES, 6, 0, sampling, same)
        assert set(subspace.configurations) == {(a, 0.3, c) for a in (0.3, 0.7) for c in RATES}
    with pytest.raises(WootzError, match="3 rates for 3 modules give 6 different networks, not 7"):
        sample_subspace(("a", "b", "c"), RATES, 7, 0, "spread", same)


@pytest.mark.parametrize(
    ("rates", "count", "reason"),
    [
        ((0.3, 1.5), 2, "not 0.3, 1.5"),
        ((-0.1,), 1, "not -0.1"),
        ((float("nan"),), 1, "not nan"),
        ((), 1, "fractions"),
        ((0.3, 0.3, 0.5), 9, "2 rates for 3 modules give 8 different networks, not 9"),
        ((0.3,), 0, "give 1 different networks, not 0"),
    ],
)
def test_refusals(rates, count, reason):
    with pytest.raises(WootzError, match=reason):
        sample_subspace(("a", "b", "c"), rates, count, seed=0)
