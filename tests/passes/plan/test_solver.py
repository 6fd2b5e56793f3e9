"""Each learning-rate policy against its formula (caffe.proto, SolverParameter.lr_policy), step by step."""

from __future__ import annotations

from math import cos, exp, pi

import pytest

from wootz.passes.plan.solver import Solver

STEPS = range(20)
POLICIES = {
    "fixed": (Solver(lr_policy="fixed"), [0.01] * 20),
    "step": (
        Solver(lr_policy="step", gamma=0.5, stepsize=8),
        [0.01] * 8 + [0.005] * 8 + [0.0025] * 4,
    ),
    "multistep": (
        Solver(lr_policy="multistep", gamma=0.1, stepvalue=(3, 5)),
        [0.01] * 3 + [0.001] * 2 + [0.0001] * 15,
    ),
    "exp": (Solver(lr_policy="exp", gamma=0.9), [0.01 * 0.9**t for t in STEPS]),
    "inv": (Solver(lr_policy="inv", gamma=0.1, power=0.75), [0.01 * (1 + 0.1 * t) ** -0.75 for t in STEPS]),
    "poly": (Solver(lr_policy="poly", power=2.0, max_iter=20), [0.01 * (1 - t / 20) ** 2 for t in STEPS]),
    "sigmoid": (
        Solver(lr_policy="sigmoid", gamma=-0.5, stepsize=10),
        [0.01 / (1 + exp(0.5 * (t - 10))) for t in STEPS],
    ),
    "cosine": (Solver(lr_policy="cosine", max_iter=20), [0.005 * (1 + cos(pi * t / 20)) for t in STEPS]),
}


@pytest.mark.parametrize("policy", POLICIES)
def test_policy_is_its_formula(policy):
    solver, expected = POLICIES[policy]
    assert solver.lr_policy == policy
    assert [solver.learning_rate(t) for t in STEPS] == pytest.approx(expected, rel=1e-12)


def test_a_sigmoid_ends_at_zero():
    solver = Solver(lr_policy="sigmoid", gamma=-0.05, stepsize=5000)
    assert solver.learning_rate(19_200) == pytest.approx(0.01 * exp(-710), rel=1e-12)
    assert solver.learning_rate(1_000_000) == 0.0


def test_a_warm_up_rises_to_the_base_rate_and_the_cosine_spans_the_rest():
    solver = Solver(base_lr=0.2, lr_policy="cosine", max_iter=14, warmup_iter=4)
    warm_up = [0.05, 0.1, 0.15, 0.2]
    cosine = [0.1 * (1 + cos(pi * t / 10)) for t in range(10)]
    assert [solver.learning_rate(t) for t in range(14)] == pytest.approx(warm_up + cosine)


@pytest.mark.parametrize("policy", POLICIES)
def test_a_warm_up_does_not_shift_the_other_policies(policy):
    if policy == "cosine":
        pytest.skip("it spans the steps behind the warm-up")
    solver, expected = POLICIES[policy]
    warmed = Solver(**{**vars(solver), "warmup_iter": 4})
    assert [warmed.learning_rate(t) for t in range(4, 20)] == pytest.approx(expected[4:], rel=1e-12)
