"""Whether two models compute the same, on random inputs."""

from __future__ import annotations

import numpy as np

from wootz.passes.base import Evaluator
from wootz.passes.errors import WootzError
from wootz.passes.ir.model import Model, Variable

BATCH, EXTENT = 2, 32
"""What symbolic dimensions are on random inputs: the first of each input, and the others."""


def random_inputs(model: Model, seed: int = 0) -> dict[str, np.ndarray]:
    """Standard normal floats, and zeros and ones for integers and truth values, by input name."""
    generator = np.random.default_rng(seed)
    feeds = {}
    for tensor in model.graph.inputs:
        if not isinstance(tensor, Variable) or tensor.shape is None or tensor.dtype is None:
            raise WootzError(f"input {tensor.name!r} has no shape or type: random values can't be made for it")
        shape = [d if isinstance(d, int) else BATCH if i == 0 else EXTENT for i, d in enumerate(tensor.shape)]
        dtype = np.dtype(tensor.dtype)
        values = generator.standard_normal(shape) if dtype.kind == "f" else generator.integers(0, 2, shape)
        feeds[tensor.name] = values.astype(dtype)
    return feeds


def largest_difference(a: Model, b: Model, evaluate: Evaluator, seed: int = 0) -> tuple[float, str]:
    """The largest max|a - b| / max|b| among the outputs, and that output's name; infinite where shapes differ."""
    feeds = random_inputs(a, seed)
    left, right = evaluate(a, feeds), evaluate(b, feeds)
    if left.keys() != right.keys():
        return np.inf, next(iter(left.keys() ^ right.keys()))
    return max((relative_difference(left[name], right[name]), name) for name in left)


def relative_difference(a: np.ndarray, b: np.ndarray) -> float:
    """max|a - b| / max|b|. NaN counts as infinitely different, unless both have it in the same places."""
    if a.shape != b.shape:
        return np.inf
    if not np.array_equal(np.isnan(a), np.isnan(b)):
        return np.inf
    wide_a, wide_b = np.nan_to_num(a.astype(np.float64)), np.nan_to_num(b.astype(np.float64))
    distance = np.max(np.abs(wide_a - wide_b), initial=0.0)
    return 0.0 if distance == 0 else float(distance / max(np.max(np.abs(wide_b)), np.finfo(np.float32).tiny))
