"""How long networks take for one image, measured side by side."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from wootz.passes.ir.model import Model
from wootz.runtime.inputs import Data
from wootz.runtime.session import CPU, Device, InferenceSession

WARM_UP = 5
"""Runs before the first one that counts."""
MOST_ROUNDS, LEAST_ROUNDS = 200, 20
SECONDS_A_NETWORK = 2.0
"""Rounds end when so much time was spent, for each network."""
QUARTILES = (25, 50, 75)


@dataclass(frozen=True)
class Latency:
    """The median of milliseconds for one image, and the quartiles below and above it."""

    low_ms: float
    median_ms: float
    high_ms: float


def latencies(models: Sequence[Model], image: Data, device: Device = CPU) -> tuple[Latency, ...]:
    """The latency of each network for one `image`, or other sample, at a time.

    They take turns, so that what slows the machine down for a while slows down all of them.
    """
    return side_by_side([partial(InferenceSession(model, device).run, image) for model in models])


def side_by_side(runs: Sequence[Callable[[], object]], images: int = 1) -> tuple[Latency, ...]:
    """The latency of each run, which is of so many images at once, for one image."""
    for run in runs:
        for _ in range(WARM_UP):
            run()
    rounds: list[list[float]] = []
    end = time.perf_counter() + SECONDS_A_NETWORK * len(runs)
    while len(rounds) < LEAST_ROUNDS or (len(rounds) < MOST_ROUNDS and time.perf_counter() < end):
        rounds.append([_milliseconds(run) / images for run in runs])
    return tuple(Latency(*map(float, np.percentile(times, QUARTILES))) for times in zip(*rounds, strict=True))


def _milliseconds(run: Callable[[], object]) -> float:
    begin = time.perf_counter()
    run()
    return 1000 * (time.perf_counter() - begin)
