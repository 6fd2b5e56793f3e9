"""The answers of a classifier on a split."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from wootz.passes.plan.transform import InputTransform
from wootz.runtime.batches import ordered_batches
from wootz.runtime.data.dataset import Split
from wootz.runtime.inputs import Data

EVALUATION_BATCH = 100


def answers(predict: Callable[[Data], np.ndarray], split: Split, transform: InputTransform) -> np.ndarray:
    """The class with the largest score for each image, int64 [n]; -1 where a score is NaN."""
    found = []
    for batch in ordered_batches(split, transform, EVALUATION_BATCH):
        found.append(chosen_classes(predict(batch.data)))
    return np.concatenate(found)


def chosen_classes(scores: np.ndarray) -> np.ndarray:
    """The class with the largest of `scores` [n, classes] for each image, int64 [n]; -1 where one is NaN."""
    scores = scores.reshape(len(scores), -1)
    return np.where(np.isnan(scores).any(axis=1), -1, np.argmax(scores, axis=1))
