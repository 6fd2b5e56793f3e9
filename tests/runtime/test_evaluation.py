import numpy as np
import pytest

from wootz.passes.plan.transform import InputTransform
from wootz.runtime.data.dataset import Split
from wootz.runtime.quality import measuring
from wootz.runtime.quality.measuring import measured
from wootz.runtime.quality.quality import ACCURACY

AS_THEY_ARE = InputTransform(channel_order="RGB")


@pytest.mark.parametrize("batch", [1, 3, 7, 10, 100])
def test_the_accuracy_counts_each_image_once_whatever_the_last_batch_has(monkeypatch, batch):
    """Image i shows its scores; those of 3 of 10 are wrong, and all of them lie in what may be a ragged last batch."""
    monkeypatch.setattr(measuring, "EVALUATION_BATCH", batch)
    labels = np.arange(10) % 4
    images = np.eye(4, dtype=np.float32)[labels].reshape(10, 4, 1, 1)
    images[7:] = np.roll(images[7:], 1, axis=1)
    seen = []

    def predict(data):
        seen.append(len(data))
        return {"scores": data}

    assert measured(ACCURACY, predict, Split(images, labels), AS_THEY_ARE) == 0.7
    assert sum(seen) == 10
    assert measured(ACCURACY, predict, Split(images, labels), AS_THEY_ARE, limit=8) == 7 / 8
    assert measured(ACCURACY, predict, Split(images, labels), AS_THEY_ARE, limit=80) == 0.7


def test_scores_that_are_no_numbers_are_never_correct():
    """argmax would take the first NaN for the largest score."""
    scores = np.array([[np.nan, np.nan], [np.nan, 1.0], [0.0, np.nan], [1.0, 0.0]], np.float32)
    split = Split(scores[..., None, None], np.array([0, 0, 1, 0]))
    assert measured(ACCURACY, lambda data: {"scores": data}, split, AS_THEY_ARE) == 0.25
