"""Whether a network that came with its weights only guesses: its pixels are hardly those that it was trained on."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from wootz.runtime.uncertainty import PERHAPS, Share


def guessing_note(validation: Share, labels: np.ndarray, classes: Sequence[str]) -> str:
    """A warning where `validation` isn't clearly above the share of the most frequent label [images]; or nothing."""
    counts = np.bincount(labels, minlength=len(classes))
    likeliest = Share(float(counts.max() / len(labels)), len(labels))
    if validation.above(likeliest) >= PERHAPS or validation.accuracy >= 0.5:
        return ""
    answer = classes[int(counts.argmax())]
    return (
        f"The full network scores {validation.accuracy:.4f} on the validation images, no better than the answer "
        f"{answer!r} to each of them ({likeliest.accuracy:.4f}): if it was trained, it was on other pixels (--mean, "
        f"--scale and --channel-order say how they become its input) or on classes in another order."
    )
