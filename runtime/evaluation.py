"""What is measured of a network: accuracy on a split, latency."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np

from wootz.passes.ir.model import Model
from wootz.passes.plan.transform import InputTransform
from wootz.runtime.batches import ordered_batches
from wootz.runtime.data.dataset import Split
from wootz.runtime.session import CPU, Device, InferenceSession

EVALUATION_BATCH = 100
LATENCY_REPETITIONS = 30


def accuracy(
    predict: Callable[[np.ndarray], np.ndarray], split: Split, transform: InputTransform, limit: int = 0
) -> float:
    """The share of images whose largest output is their label: exact, over all images or the first `limit`.

    `predict` maps float32 [n, c, h, w] to scores [n, classes]. Scores of which one is NaN are wrong.
    """
    if limit:
        split = split.part(slice(limit))
    correct = 0
    for batch in ordered_batches(split, transform, EVALUATION_BATCH):
        scores = predict(batch.data).reshape(len(batch.labels), -1)
        found = np.where(np.isnan(scores).any(axis=1), -1, np.argmax(scores, axis=1))
        correct += int(np.sum(found == batch.labels))
    return correct / len(split)


def latency(model: Model, image_shape: tuple[int, int, int], device: Device = CPU) -> float:
    """The median time of one image through the network, in milliseconds."""
    session = InferenceSession(model, device)
    image = np.zeros((1, *image_shape), np.float32)
    times = []
    for _ in range(LATENCY_REPETITIONS):
        begin = time.perf_counter()
        session.run(image)
        times.append(time.perf_counter() - begin)
    return 1000 * float(np.median(times))
