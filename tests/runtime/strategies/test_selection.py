"""What objectives say of networks."""

import pytest

from wootz.passes.errors import WootzError
from wootz.passes.plan.metrics import Metric
from wootz.passes.plan.objective import Constraint, Objective
from wootz.runtime.defaults import default_objective
from wootz.runtime.strategies.selection import (
    Candidate,
    best_of,
    check_quality_bounds,
    feasible_in_order,
    violated,
)

SIZE, ACCURACY = Metric.MODEL_SIZE, Metric.ACCURACY
FULL = {SIZE: 100.0, ACCURACY: 0.9}
SMALLEST = Objective("min", SIZE, (Constraint(ACCURACY, ">=", offset=-0.1, scale=1.0),))
MOST_ACCURATE = Objective("max", ACCURACY, (Constraint(SIZE, "<", offset=0.0, scale=0.5),))


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
    with pytest.raises(WootzError, match="Accuracy lies between 0 and 1"):
        check_quality_bounds(objective)


def test_a_relative_bound_is_checked_when_the_full_accuracy_is_known():
    objective = Objective("min", SIZE, (Constraint(ACCURACY, ">", offset=0.2, scale=1.0),))
    check_quality_bounds(objective)
    with pytest.raises(WootzError, match=r"Accuracy > full \+ 0.2"):
        check_quality_bounds(objective, FULL)


@pytest.mark.parametrize("is_higher_better", [True, False])
def test_a_share_of_a_negative_quality_is_no_bound(is_higher_better):
    metric = Metric("likelihood", is_higher_better, needs_training=True)
    objective = default_objective(metric)
    check_quality_bounds(objective, {metric: 10.0})
    example = "full - 0.2" if is_higher_better else r"full \+ 0.2"
    with pytest.raises(WootzError, match=f"asks for more than the full network has, -10: .* {example}'"):
        check_quality_bounds(objective, {metric: -10.0})


def best(objective, accuracies):
    """The best of networks of 10, 20, 30, … parameters; None stands for one whose training failed."""
    networks = {
        index: None if accuracy is None else {SIZE: 10.0 * (index + 1), ACCURACY: accuracy}
        for index, accuracy in enumerate(accuracies)
    }
    return best_of(networks, objective, FULL)


def test_the_smallest_that_is_good_enough_is_the_best():
    assert best(SMALLEST, [0.5, 0.79, 0.8, 0.9, 0.9]) == 2
    assert best(SMALLEST, [0.1, 0.2]) is None


def test_the_most_accurate_of_those_that_are_small_enough_and_the_first_of_equals():
    assert best(MOST_ACCURATE, [0.5, 0.7, 0.7, 0.6, 0.95]) == 1


def test_order_follows_the_metric_not_the_size_or_the_direction():
    """The network with the fewest operations is not the smallest here."""
    flops = Metric.FLOPS
    sized = [Candidate(i, {SIZE: 10.0 + i, flops: 50.0 - i}) for i in range(4)]
    for objective, expected in (
        (Objective("min", flops), [3, 2, 1, 0]),
        (Objective("max", flops), [0, 1, 2, 3]),
        (Objective("max", SIZE), [3, 2, 1, 0]),
        (Objective("min", SIZE), [0, 1, 2, 3]),
        (Objective("min", ACCURACY), [0, 1, 2, 3]),
        (Objective("max", ACCURACY), [3, 2, 1, 0]),
    ):
        order = feasible_in_order(sized, objective, {**FULL, flops: 100.0})
        assert [c.index for c in order] == expected, objective


def test_the_constraint_that_a_candidate_misses_is_named():
    first, second = candidates([40, 60])
    assert violated(first, MOST_ACCURATE, FULL) == ""
    assert violated(second, MOST_ACCURATE, FULL) == "ModelSize < 0.5 * full"
    assert violated(second, SMALLEST, FULL) == "", "of accuracy nothing is known"


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
    assert best(objective, [None, None, 0.4, None]) == 2
    assert best(objective, [None, None]) is None


def test_of_equally_good_networks_the_smaller_one_is_the_best():
    networks = {"large": {SIZE: 40.0, ACCURACY: 0.7}, "small": {SIZE: 30.0, ACCURACY: 0.7}}
    assert best_of(networks, MOST_ACCURATE, FULL) == "small"
