"""The prediction of accuracies, against fits that are done again without each observation."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from wootz.runtime.strategies.predictor import PENALTIES, fit

SHARES = st.floats(0, 1)


def observations(least=0, most=8):
    return st.tuples(st.integers(least, most), st.integers(1, 4)).flatmap(
        lambda shape: st.tuples(
            arrays(np.float64, shape, elements=SHARES), arrays(np.float64, shape[0], elements=SHARES)
        )
    )


def ridge(features, accuracies, scale, penalty):
    """A function that predicts, by the normal equations with the intercept as a further, unpenalised weight."""
    design = np.column_stack([features / scale, np.ones(len(features))])
    penalties = np.diag([penalty] * features.shape[1] + [0.0])
    weights = np.linalg.solve(design.T @ design + penalties, design.T @ accuracies)
    return lambda row: np.append(row / scale, 1) @ weights


def refitted_errors(features, accuracies):
    """The leave-one-out error of the mean offset and of each penalty, by a fit without each observation."""
    scale = features.std(axis=0)
    errors = []
    for penalty in (None, *PENALTIES):
        missed = []
        for i in range(len(accuracies)):
            x, y = np.delete(features, i, axis=0), np.delete(accuracies, i)
            if penalty is None:
                predicted = features[i, 0] + np.mean(y - x[:, 0])
            else:
                predicted = ridge(x, y, scale, penalty * len(accuracies))(features[i])
            missed.append(accuracies[i] - predicted)
        errors.append(np.sqrt(np.mean(np.square(missed))))
    return errors


@pytest.mark.parametrize("count", [4, 5, 12, 40])
@pytest.mark.parametrize("noise", [0.0, 0.05, 1.0])
def test_the_error_is_that_of_fits_without_each_observation(count, noise):
    random = np.random.default_rng(count)
    features = random.uniform(0, 1, (count, 3)) * [1, 1e-4, 1e7]
    accuracies = 0.5 + features @ [0.3, 1e3, -1e-8] + noise * random.normal(size=count)
    predictor = fit(features, accuracies)
    errors = refitted_errors(features, accuracies)
    assert predictor.leave_one_out_error == pytest.approx(min(errors), rel=1e-6)
    best = int(np.argmin(errors))
    if best:
        again = ridge(features, accuracies, features.std(axis=0), PENALTIES[best - 1] * count)
        assert predictor.predict(features) == pytest.approx([again(row) for row in features], rel=1e-6)


def test_what_is_linear_is_found():
    random = np.random.default_rng(0)
    features = random.uniform(0, 1, (30, 2))
    accuracies = 0.8 + 0.1 * features[:, 0] - 0.05 * features[:, 1]
    predictor = fit(features, accuracies)
    assert predictor.predict(np.array([[0.5, 0.5]])) == pytest.approx([0.825], abs=1e-4)
    assert predictor.leave_one_out_error < 1e-4


def test_few_observations_shift_the_accuracy_without_training():
    assert fit(np.zeros((0, 2)), np.zeros(0)).predict(np.array([[0.4, 7.0]])) == pytest.approx([0.4])
    one = fit(np.array([[0.5, 3.0]]), np.array([0.7]))
    assert one.predict(np.array([[0.4, 7.0]])) == pytest.approx([0.6])
    assert one.leave_one_out_error == pytest.approx(0.2)
    two = fit(np.array([[0.5, 3.0], [0.6, 1.0]]), np.array([0.7, 0.9]))
    assert two.predict(np.array([[0.4, 7.0]])) == pytest.approx([0.65])
    assert two.leave_one_out_error == pytest.approx(0.1), "each is predicted by the offset of the other"


@settings(deadline=None)
@given(observations())
def test_it_is_never_not_a_number(observed):
    features, accuracies = observed
    predictor = fit(features, accuracies)
    assert np.isfinite(predictor.predict(features)).all()
    assert np.isfinite(predictor.leave_one_out_error) or not len(accuracies)


@settings(deadline=None)
@given(observations(least=4))
def test_it_misses_no_more_than_the_offset_alone(observed):
    features, accuracies = observed
    offsets = accuracies - features[:, 0]
    alone = np.sqrt(np.mean(((offsets - offsets.mean()) * len(offsets) / (len(offsets) - 1)) ** 2))
    assert fit(features, accuracies).leave_one_out_error <= alone
