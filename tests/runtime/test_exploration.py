from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wootz.passes.errors import WootzError
from wootz.passes.plan.objective import Constraint, Metric, Objective
from wootz.runtime.cluster import SingleProcess
from wootz.runtime.exploration import Candidate, check_accuracy_bounds, explore, feasible_in_order

SIZE, ACCURACY = Metric.MODEL_SIZE, Metric.ACCURACY
FULL = {SIZE: 100.0, ACCURACY: 0.9}
SMALLEST = Objective("min", SIZE, (Constraint(ACCURACY, ">=", offset=-0.1, scale=1.0),))
MOST_ACCURATE = Objective("max", ACCURACY, (Constraint(SIZE, "<", offset=0.0, scale=0.5),))


@dataclass(frozen=True)
class Network:
    measured: dict


def candidates(sizes):
    return [Candidate(i, {SIZE: float(size)}) for i, size in enumerate(sizes)]


def test_order_follows_the_objective():
    assert [c.index for c in feasible_in_order(candidates([30, 10, 20]), SMALLEST, FULL)] == [1, 2, 0]
    assert [c.index for c in feasible_in_order(candidates([30, 10, 60]), MOST_ACCURATE, FULL)] == [0, 1]


def test_equal_sizes_keep_their_order():
    assert [c.index for c in feasible_in_order(candidates([5, 4, 5, 4]), SMALLEST, FULL)] == [1, 3, 0, 2]


def test_a_constraint_that_no_configuration_meets_is_told_before_training():
    with pytest.raises(WootzError, match=r"no configuration can meet 'ModelSize < 0.5 \* full': .* from 60 to 80"):
        feasible_in_order(candidates([60, 80]), MOST_ACCURATE, FULL)


def test_constraints_that_exclude_each_other():
    both = Objective("max", ACCURACY, (Constraint(SIZE, "<", 50.0), Constraint(SIZE, ">", 60.0)))
    with pytest.raises(WootzError, match="meets all constraints"):
        feasible_in_order(candidates([40, 70]), both, FULL)


@pytest.mark.parametrize(("comparison", "bound"), [(">", 1.0), (">=", 1.01), ("<", 0.0)])
def test_impossible_accuracies(comparison, bound):
    objective = Objective("min", SIZE, (Constraint(ACCURACY, comparison, bound),))
    with pytest.raises(WootzError, match="an accuracy lies between 0 and 1"):
        check_accuracy_bounds(objective)


def test_a_relative_bound_is_checked_when_the_full_accuracy_is_known():
    objective = Objective("min", SIZE, (Constraint(ACCURACY, ">", offset=0.2, scale=1.0),))
    check_accuracy_bounds(objective)
    with pytest.raises(WootzError, match=r"Accuracy > full \+ 0.2"):
        check_accuracy_bounds(objective, FULL)


def run(objective, accuracies, cluster=None):
    tried = []

    def evaluate(candidate):
        tried.append(candidate.index)
        return Network({**candidate.measured, ACCURACY: accuracies[candidate.index]})

    order = feasible_in_order(candidates([10 * (i + 1) for i in range(len(accuracies))]), objective, FULL)
    return explore(order, objective, FULL, evaluate, cluster or SingleProcess()), tried


def test_the_smallest_that_is_good_enough_ends_the_exploration():
    found, tried = run(SMALLEST, [0.5, 0.79, 0.8, 0.9, 0.9])
    assert tried == [0, 1, 2]
    assert found.best.measured[SIZE] == 30


def test_the_most_accurate_needs_all_feasible_ones():
    found, tried = run(MOST_ACCURATE, [0.5, 0.7, 0.7, 0.6, 0.95])
    assert tried == [3, 2, 1, 0]
    assert found.best.measured == {SIZE: 30, ACCURACY: 0.7}


def test_order_and_stop_follow_the_metric_not_the_size_or_the_direction():
    """The network with the fewest operations is not the smallest here; of `max ModelSize` the first is the best."""
    flops = Metric.FLOPS
    sized = [Candidate(i, {SIZE: 10.0 + i, flops: 50.0 - i}) for i in range(4)]
    for objective, expected in (
        (Objective("min", flops), [3]),
        (Objective("max", flops), [0]),
        (Objective("max", SIZE), [3]),
        (Objective("min", SIZE), [0]),
        (Objective("min", ACCURACY), [0, 1, 2, 3]),
        (Objective("max", ACCURACY), [3, 2, 1, 0]),
    ):
        tried = []

        def evaluate(candidate, tried=tried):
            tried.append(candidate.index)
            return Network({**candidate.measured, ACCURACY: 0.5})

        order = feasible_in_order(sized, objective, {**FULL, flops: 100.0})
        explore(order, objective, FULL, evaluate, SingleProcess())
        assert tried == expected, objective


def test_none_is_good_enough():
    found, tried = run(SMALLEST, [0.1, 0.2])
    assert (found.best, len(tried)) == (None, 2)


FAILED = Network(None)


@pytest.mark.parametrize(
    "objective",
    [
        Objective("min", SIZE),
        Objective("min", SIZE, (Constraint(ACCURACY, ">=", 0.0),)),
        Objective("min", SIZE, (Constraint(ACCURACY, "<", 0.5),)),
        Objective("min", ACCURACY),
        Objective("max", ACCURACY),
    ],
)
def test_a_failed_network_is_never_the_best(objective):
    def evaluate(candidate):
        return FAILED if candidate.index != 2 else Network({**candidate.measured, ACCURACY: 0.4})

    order = feasible_in_order(candidates([10, 20, 30, 40]), objective, FULL)
    assert explore(order, objective, FULL, evaluate, SingleProcess()).best.measured[SIZE] == 30
    found = explore(order, objective, FULL, lambda candidate: FAILED, SingleProcess())
    assert (found.best, len(found.evaluated)) == (None, 4)


class Lockstep:
    """What processes would see, simulated in one: `explore` is run for each rank with the others' values known."""

    def __init__(self, rank, size, accuracies, order):
        self.rank, self.size = rank, size
        self._round, self._accuracies, self._order = 0, accuracies, order

    def gather(self, value):
        start = self._round * self.size
        self._round += 1
        mine = self._order[start : start + self.size]
        return [[Network({**c.measured, ACCURACY: self._accuracies[c.index]})] for c in mine]


@given(
    accuracies=st.lists(st.sampled_from([0.1, 0.5, 0.8, 0.85, 0.9]), min_size=1, max_size=12),
    size=st.integers(1, 5),
    objective=st.sampled_from([SMALLEST, MOST_ACCURATE]),
)
def test_many_processes_find_what_one_finds(accuracies, size, objective):
    alone, _ = run(objective, accuracies)
    order = feasible_in_order(candidates([10 * (i + 1) for i in range(len(accuracies))]), objective, FULL)
    for rank in range(size):
        cluster = Lockstep(rank, size, accuracies, order)
        together, tried = run(objective, accuracies, cluster)
        assert together.best == alone.best
        assert tried == [c.index for c in order[rank::size]][: len(tried)]
