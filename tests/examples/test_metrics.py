"""The metrics of the examples, beside slow ones that follow the definitions word by word."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("sklearn")
from wootz.examples.tasks.detection import NOTHING, mean_average_precision
from wootz.examples.tasks.segmentation import mean_iou
from wootz.examples.tasks.super_resolution import psnr

SEEDS = st.integers(0, 2**32 - 1)


@given(SEEDS)
def test_mean_iou_is_that_of_sets_of_pixels(seed: int) -> None:
    random = np.random.default_rng(seed)
    outputs = random.normal(size=(2, 4, 3, 3))
    targets = random.integers(0, random.integers(1, 5), (2, 3, 3))
    shares = []
    for kind in range(4):
        places = list(np.ndindex(targets.shape))
        answered = {p for p in places if np.argmax([outputs[p[0], c, p[1], p[2]] for c in range(4)]) == kind}
        wanted = {p for p in places if targets[p] == kind}
        if answered | wanted:
            shares.append(len(answered & wanted) / len(answered | wanted))
    assert mean_iou(outputs, targets) == pytest.approx(sum(shares) / len(shares))


def test_mean_iou_of_a_perfect_answer() -> None:
    targets = np.array([[[0, 1], [2, 0]]])
    assert mean_iou(np.eye(4)[targets].transpose(0, 3, 1, 2), targets) == 1.0


@given(SEEDS)
def test_psnr_is_that_of_all_pixels(seed: int) -> None:
    random = np.random.default_rng(seed)
    outputs, targets = random.normal(0.5, 0.5, (3, 2, 4, 4)), random.random((3, 2, 4, 4))
    errors = [(min(max(a, 0), 1) - b) ** 2 for a, b in zip(outputs.ravel(), targets.ravel(), strict=True)]
    assert psnr(outputs, targets) == pytest.approx(10 * math.log10(1 / (sum(errors) / len(errors))))


def overlap(a: np.ndarray, b: np.ndarray) -> float:
    """Intersection over union, by counting points of a grid of quarters."""
    points = np.arange(0, 12, 0.25) + 0.125
    inside = [{(x, y) for x in points if box[0] < x < box[2] for y in points if box[1] < y < box[3]} for box in (a, b)]
    return len(inside[0] & inside[1]) / len(inside[0] | inside[1])


def plain_average_precision(
    detections: list[tuple[float, int, np.ndarray]], objects: list[tuple[int, np.ndarray]]
) -> float:
    """Detections are (score, image, box), objects (image, box). For each number of the surest detections precision and
    recall are counted anew; the area is below the highest precision at any recall as high or higher."""
    detections = sorted(detections, key=lambda d: -d[0])
    points = []
    for count in range(1, len(detections) + 1):
        found: set[int] = set()
        right = 0
        for _, image, box in detections[:count]:
            overlaps = [(overlap(box, b), -i) for i, (of, b) in enumerate(objects) if of == image]
            if overlaps and max(overlaps)[0] >= 0.5 and -max(overlaps)[1] not in found:
                found.add(-max(overlaps)[1])
                right += 1
        points.append((right / len(objects), right / count))
    recalls = sorted({recall for recall, _ in points} | {0.0})
    return sum(
        (high - low) * max(precision for recall, precision in points if recall >= high)
        for low, high in itertools.pairwise(recalls)
    )


@settings(max_examples=25)
@given(SEEDS)
def test_mean_average_precision_is_the_area_below_precision_over_recall(seed: int) -> None:
    random = np.random.default_rng(seed)

    def boxes(*counts: int) -> np.ndarray:
        corners = random.integers(0, 6, (*counts, 2)) * 1.0
        return np.concatenate([corners, corners + random.integers(2, 6, (*counts, 2))], axis=-1)

    targets = np.full((3, 3, 5), NOTHING, np.float32)
    for image in targets:
        count = random.integers(1, 4)
        image[:count] = np.concatenate([random.integers(0, 2, (count, 1)), boxes(count)], axis=1)
    outputs = {"boxes": boxes(3, 5), "scores": random.random((3, 5, 3)) * random.integers(0, 2, (3, 5, 3))}
    for image, row in enumerate(targets):  # so that some of them are right
        outputs["boxes"][image, 0] = row[0, 1:]
    precisions = []
    for kind in range(3):
        objects = [(i, o[1:]) for i, image in enumerate(targets) for o in image if o[0] == kind]
        detections = [
            (outputs["scores"][i, j, kind], i, outputs["boxes"][i, j])
            for i, j in np.ndindex(3, 5)
            if outputs["scores"][i, j, kind] > 0
        ]
        if objects:
            precisions.append(plain_average_precision(detections, objects) if detections else 0.0)
    assert mean_average_precision(outputs, targets) == pytest.approx(sum(precisions) / len(precisions), abs=1e-9)


def test_a_second_detection_of_an_object_is_wrong() -> None:
    targets = np.array([[[0, 0, 0, 8, 8], [NOTHING] * 5]], np.float32)
    twice = {"boxes": np.array([[[0, 0, 8, 8], [0, 0, 8, 7]]]), "scores": np.zeros((1, 2, 3))}
    twice["scores"][0, :, 0] = 0.6, 0.9
    assert mean_average_precision(twice, targets) == 1.0
    both = np.array([[[0, 0, 0, 8, 8], [0, 20, 20, 28, 28]]], np.float32)
    assert mean_average_precision(twice, both) == 0.5
