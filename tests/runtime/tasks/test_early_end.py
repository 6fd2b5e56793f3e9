"""When a training ends before its last step."""

from dataclasses import replace

import pytest

from wootz.frontend.objective import parse_objective
from wootz.passes.plan.solver import Solver, SolverType
from wootz.runtime.tasks.early_end import early_end
from wootz.runtime.tasks.network_training import given_up


def rule(text, full=0.9, gives_up=False, images=0):
    return early_end(parse_objective(text, "test"), full, gives_up, images)


@pytest.mark.parametrize(
    "text",
    [
        "max Accuracy constraint ModelSize < 100",
        "min ModelSize",
        "min ModelSize constraint FLOPs < 100",
        "min ModelSize constraint Accuracy < 0.5",
        "min ModelSize constraint Accuracy > 0.5 constraint Accuracy < 0.6",
    ],
)
def test_no_rule_where_more_accuracy_is_of_use_or_too_much_of_it(text):
    assert rule(text) is None


@pytest.mark.parametrize(
    ("text", "met", "missed"),
    [
        ("min ModelSize constraint Accuracy > 0.5", 0.51, 0.5),
        ("min Latency constraint Accuracy >= 0.5", 0.5, 0.499),
        ("min ModelSize constraint Accuracy >= full - 0.1", 0.8, 0.79),
        ("min FLOPs constraint Accuracy > 0.5 constraint Accuracy >= 0.5 * full constraint ModelSize < 9", 0.51, 0.46),
    ],
)
def test_bounds_are_those_of_the_objective(text, met, missed):
    assert rule(text).met(met)
    assert not rule(text).met(missed)


def test_a_bound_is_met_by_a_standard_error():
    """Of 0.5 on 96 images, four more with two right: 0.05."""
    found = rule("min ModelSize constraint Accuracy > 0.45", gives_up=True, images=96)
    assert found.met(0.501)
    assert not found.met(0.499)
    assert not found.given_up([(0, 0.4), (20, 0.44), (40, 0.45), (60, 0.46)], 100), "it may come to meet it surely"
    assert found.given_up([(0, 0.4), (20, 0.46), (40, 0.45), (60, 0.46)], 100) == "bound met"
    assert rule("min ModelSize constraint Accuracy >= 0.99", images=500).met(1.0)


def test_a_training_is_given_up_when_its_rise_does_not_reach():
    end = rule("min ModelSize constraint Accuracy > 0.5", gives_up=True)
    flat = [(0, 0.1), (20, 0.2), (40, 0.21), (60, 0.22)]
    assert end.given_up(flat, 100) == "given up"
    assert not end.given_up(flat, 200), "before half of the steps"
    assert not end.given_up(flat[:3], 40), "too few tests"
    assert not end.given_up([(0, 0.1), (20, 0.3), (40, 0.33), (60, 0.37)], 100)
    assert end.given_up([(0, 0.1), (20, 0.3), (40, 0.33), (60, 0.36)], 100) == "given up"
    assert not rule("min ModelSize constraint Accuracy > 0.5").given_up(flat, 100)


@pytest.mark.parametrize(
    ("qualities", "ended"),
    [
        ((0.39, 0.37, 0.38), "given up"),
        ((0.39, 0.38), ""),
        ((0.39, 0.37, 0.40), ""),
        ((0.42, 0.40, 0.41), ""),
        ((0.51, 0.40, 0.45), "bound met"),
    ],
    ids=["hopeless", "too few tests", "it gains", "less than two standard errors are missing", "just met"],
)
def test_what_a_third_of_the_steps_has_not_made_better_is_left_as_it_was(qualities, ended):
    """Of 0.5 on 96 images, a standard error is 0.05."""
    end = rule("min ModelSize constraint Accuracy >= 0.5", gives_up=True, images=96)
    curve = tuple((20 * i, quality) for i, quality in enumerate(qualities))
    assert end.given_up(curve, 120) == ended
    assert not end.given_up(curve, 121), "before a third of the steps"
    assert not end.given_up(curve, 120, tests_all=False)
    assert not replace(end, gives_up=False).given_up(curve, 120)


def test_what_a_third_of_the_steps_has_not_made_better_may_be_an_error():
    end = rule("min ModelSize constraint OutputError <= 0.1", gives_up=True)
    assert end.given_up(((0, 0.2), (20, 0.3), (40, 0.21)), 100) == "given up"
    assert not end.given_up(((0, 0.2), (20, 0.3), (40, 0.19)), 100)


@pytest.mark.parametrize("curve", [((0, 0.2),), ((0, 0.2), (50, 0.2), (100, 0.2))])
@pytest.mark.parametrize("steps", [0, 100])
def test_after_the_last_step_there_is_nothing_to_give_up(curve, steps):
    end = rule("min ModelSize constraint Accuracy >= 0.5", gives_up=True)
    assert not end.given_up(tuple(test for test in curve if test[0] <= steps), steps)


def test_that_a_bound_is_just_met_takes_tests_of_all_images():
    solver = Solver(type=SolverType.SGD, base_lr=0.1, lr_policy="fixed", max_iter=100, batch_size=8)
    just_met, missed = ([(0, 0.4), (20, q), (40, 0.45), (60, q)] for q in (0.46, 0.4))
    end = rule("min ModelSize constraint Accuracy > 0.455", gives_up=True, images=96)
    for curve, ended in ((just_met, "bound met"), (missed, "")):
        assert given_up(end, curve, solver) == ended
    few = replace(solver, test_iter=2)
    assert given_up(end, just_met, few) == ""
    assert given_up(end, [(0, 0.4), (20, 0.4), (40, 0.4), (60, 0.4)], few) == "given up"


def test_the_rule_is_told_apart_by_its_text():
    texts = {
        str(rule(f"min ModelSize constraint Accuracy > {bound}", gives_up=g, images=n))
        for bound in (0.5, 0.6)
        for g in (0, 1)
        for n in (0, 40)
    }
    assert len(texts) == 8
