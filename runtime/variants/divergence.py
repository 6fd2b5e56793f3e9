"""How far the outputs of a variant are from those of the full network, summed up batch by batch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Protocol

import numpy as np

from wootz.passes.analysis.class_scores import ScoreKind, score_kind
from wootz.passes.ir.model import Model, Tensor
from wootz.passes.ir.shapes import infer_shapes


class Divergence(Protocol):
    """A sum over images; infinite where one of the outputs is not a number."""

    def add(self, full: np.ndarray, variant: np.ndarray) -> None:
        """Adds the images of a batch: the outputs of both for them, images along the first axis."""

    @property
    def value(self) -> float: ...


@dataclass
class KullbackLeibler:
    """KL(full || variant) of the classes' probabilities in nats, averaged over images.

    Scores that aren't logits are normalised, so that those of a Sigmoid are probabilities beside each other, too.
    """

    kind: ScoreKind
    total: float = 0.0
    images: int = 0

    def add(self, full: np.ndarray, variant: np.ndarray) -> None:
        own, others = (log_probabilities(scores, self.kind) for scores in (full, variant))
        self.total += _finite_or_infinite(np.sum(np.exp(own) * (own - others)))
        self.images += len(full)

    @property
    def value(self) -> float:
        return self.total / self.images


@dataclass
class RelativeSquaredError:
    """The squared difference over the square of the full network's output, both summed over all elements."""

    difference: float = 0.0
    square: float = 0.0

    def add(self, full: np.ndarray, variant: np.ndarray) -> None:
        own = full.astype(np.float64)
        self.difference += _finite_or_infinite(np.sum((own - variant) ** 2))
        self.square += float(np.sum(own**2))

    @property
    def value(self) -> float:
        return relative(self.difference, self.square)


def divergences_for(model: Model) -> dict[str, Callable[[], Divergence]]:
    """For each output that of scores for classes, where it is that for each image; else of any numbers."""
    return {output.name: _divergence_for(output) for output in infer_shapes(model).graph.outputs}


def _divergence_for(output: Tensor) -> Callable[[], Divergence]:
    if output.shape is None or len(output.shape) < 2 or any(extent != 1 for extent in output.shape[2:]):
        return RelativeSquaredError
    return partial(KullbackLeibler, score_kind(output))


def log_probabilities(scores: np.ndarray, kind: ScoreKind) -> np.ndarray:
    """Of each class, float64 [n, classes]. A probability that is 0 in float32 counts as the smallest that isn't."""
    scores = scores.reshape(len(scores), -1).astype(np.float64)
    if kind == "probabilities":
        scores = np.log(np.maximum(scores, np.finfo(np.float32).tiny))
    shifted = scores - scores.max(axis=1, keepdims=True)
    return np.asarray(shifted - np.log(np.sum(np.exp(shifted), axis=1, keepdims=True)))


def relative(difference: float, scale: float) -> float:
    """The quotient; of a difference from what doesn't vary, infinite."""
    if scale:
        return difference / scale
    return float("inf") if difference else 0.0


def _finite_or_infinite(value: float) -> float:
    return float(value) if np.isfinite(value) else float("inf")
