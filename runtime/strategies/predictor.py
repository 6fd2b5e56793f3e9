"""What accuracy a network will have once it is fine-tuned, predicted from what is known before that.

Ridge regression with an intercept b that is not penalised, features z standardised over all n observations:

    minimise over w, b   sum_i (y_i - b - w·z_i)² + n·λ·|w|²

With its hat matrix H, which takes the observed y to the fitted ones, an observation left out is missed by
(y_i - ŷ_i) / (1 - H_ii) (Allen's PRESS): that needs no second fit. λ is the one of `PENALTIES` that misses least.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

PENALTIES = tuple(10.0**k for k in range(-4, 3))
FEWEST_FOR_REGRESSION = 4
"""Observations; of fewer, only the mean offset from the first feature is taken."""


@dataclass(frozen=True)
class Predictor:
    """`intercept + weights · features`. `leave_one_out_error` is the root of the mean square of what each observation
    is missed by when the others predict it; infinite without observations."""

    weights: tuple[float, ...]
    intercept: float
    leave_one_out_error: float

    def predict(self, features: np.ndarray) -> np.ndarray:
        """The accuracies of networks with these features [networks, features]; beyond 0 and 1 where it extrapolates."""
        return np.asarray(features, np.float64) @ np.array(self.weights) + self.intercept


def fit(features: np.ndarray, accuracies: np.ndarray) -> Predictor:
    """The predictor of finite `accuracies` [networks] from finite `features` [networks, features].

    The first feature is an accuracy itself, that without training: it and a mean offset are what is predicted from less
    than `FEWEST_FOR_REGRESSION` observations, and from more where no regression misses less.
    """
    features, accuracies = np.asarray(features, np.float64), np.asarray(accuracies, np.float64)
    offset = _mean_offset(features, accuracies)
    if len(accuracies) < FEWEST_FOR_REGRESSION:
        return offset
    return min(offset, *_regressions(features, accuracies), key=lambda predictor: predictor.leave_one_out_error)


def _mean_offset(features: np.ndarray, accuracies: np.ndarray) -> Predictor:
    weights = (1.0, *(0.0,) * (features.shape[1] - 1))
    count = len(accuracies)
    if not count:
        return Predictor(weights, 0.0, np.inf)
    offsets = accuracies - features[:, 0]
    mean = float(offsets.mean())
    missed = (offsets - mean) * count / (count - 1) if count > 1 else offsets
    return Predictor(weights, mean, _root_mean_square(missed))


def _regressions(features: np.ndarray, accuracies: np.ndarray) -> Iterator[Predictor]:
    """One for each penalty, all from one singular value decomposition."""
    count = len(accuracies)
    centre, scale = features.mean(axis=0), features.std(axis=0)
    scale = np.where(scale > 1e-12 * np.abs(features).max(axis=0), scale, 1.0)
    mean = accuracies.mean()
    left, singular, right = np.linalg.svd((features - centre) / scale, full_matrices=False)
    projected = left.T @ (accuracies - mean)
    for penalty in PENALTIES:
        kept = singular**2 / (singular**2 + count * penalty)
        leverages = 1 / count + left**2 @ kept
        missed = (accuracies - mean - left @ (kept * projected)) / (1 - leverages)
        weights = right.T @ (singular / (singular**2 + count * penalty) * projected) / scale
        yield Predictor(tuple(weights.tolist()), float(mean - weights @ centre), _root_mean_square(missed))


def _root_mean_square(values: np.ndarray) -> float:
    return float(np.sqrt(np.mean(values**2)))
