"""Whether two models compute the same, on random inputs, and how far rounding alone moves what a model computes.

Rounding is a backward error: what an operator gives is exactly what it would give for operands that differ by a few
units in the last place (Higham, "Accuracy and Stability of Numerical Algorithms", chapter 3). So a network with all
weights and inputs moved at random by that much shows how far apart two correct evaluations may lie: little in a
shallow network, much behind a BatchNormalization of tiny variance or a difference of large numbers.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from wootz.passes.base import Evaluator
from wootz.passes.errors import WootzError
from wootz.passes.ir.model import Constant, Model, Variable

BATCH, EXTENT = 2, 32
"""What symbolic dimensions are on random inputs: the first of each input, and the others."""
EQUAL = {"float64": 1e-5, "float32": 1e-5, "float16": 1e-2, "bfloat16": 5e-2}
"""The largest max|a - b| / max|b| of equal floats, where rounding doesn't explain more; integers are equal or not."""
UNITS = 4
"""By how many units in the last place weights and inputs are moved, at most."""
ROUNDING_FACTOR = 8
"""How many times what that moves two evaluations may differ."""

Arrays = Mapping[str, np.ndarray]


@dataclass(frozen=True)
class Difference:
    """max|a - b| / max|b| of a tensor, and what it may be."""

    tensor: str
    relative: float
    allowed: float

    def __str__(self) -> str:
        return f"max|a-b|/max|b| is {self.relative:.2g}, above {self.allowed:.2g}"


def random_inputs(model: Model, seed: int = 0, batch: int = BATCH, extent: int = EXTENT) -> dict[str, np.ndarray]:
    """Random values by input name; symbolic dimensions are `batch`, the first of an input, and `extent`.

    Floats are standard normal, bytes are 0 to 255 (images), other integers and truth values 0 and 1.
    """
    generator = np.random.default_rng(seed)
    feeds = {}
    for tensor in model.graph.inputs:
        if not isinstance(tensor, Variable) or tensor.shape is None or tensor.dtype is None:
            raise WootzError(f"input {tensor.name!r} has no shape or type: random values can't be made for it")
        bounds = [batch] + [extent] * len(tensor.shape)
        shape = [d if isinstance(d, int) and d > 0 else bound for d, bound in zip(tensor.shape, bounds, strict=False)]
        try:
            dtype = np.dtype(tensor.dtype)
        except TypeError:
            raise WootzError(
                f"input {tensor.name!r} has a type that NumPy doesn't have: random values can't be made"
            ) from None
        is_integer = dtype.kind in "iub"
        values = (
            generator.integers(0, 256 if dtype == np.uint8 else 2, shape)
            if is_integer
            else generator.standard_normal(shape)
        )
        feeds[tensor.name] = np.asarray(values, dtype)
    return feeds


def first_difference(
    a: Arrays, b: Arrays, order: Iterable[str], noise: Callable[[], Mapping[str, float]]
) -> Difference | None:
    """The first tensor of `order` in which `a` and `b` differ by more than rounding; None where there is none.

    `noise` says for each tensor what rounding may make of max|a - b| / max|b|; it is asked only when something differs
    by more than EQUAL.
    """
    for name in order:
        relative, allowed = relative_difference(a[name], b[name]), EQUAL.get(b[name].dtype.name, 0.0)
        if relative > allowed and np.isfinite(relative) and np.isfinite(rounding := noise()[name]):
            allowed = max(allowed, ROUNDING_FACTOR * rounding)
        if relative > allowed:
            return Difference(name, relative, allowed)
    return None


def model_difference(a: Model, b: Model, evaluate: Evaluator, seed: int = 0) -> Difference | None:
    """The first output in which `b` differs from `a` by more than rounding."""
    feeds = random_inputs(a, seed)
    left, right = evaluate(b, feeds), evaluate(a, feeds)
    if other := left.keys() ^ right.keys():
        return Difference(min(other), np.inf, 0.0)
    return first_difference(left, right, right, functools.cache(lambda: rounding_noise(a, feeds, right, evaluate)))


def rounding_noise(model: Model, feeds: Arrays, results: Arrays, evaluate: Evaluator) -> dict[str, float]:
    """max|a - b| / max|b| between `results`, those of `model` on `feeds`, and what it gives when all weights and inputs
    of floats are moved at random by up to UNITS units in the last place; but for scales of Resize, which make shapes.
    """
    generator = np.random.default_rng(1)
    moved = model.copy()
    for tensor in moved.graph.tensors().values():
        if isinstance(tensor, Constant) and not any(node.op == "Resize" for node in tensor.outputs):
            tensor.values = _moved(tensor.values, generator)
    others = evaluate(moved, {name: _moved(values, generator) for name, values in feeds.items()})
    return {name: relative_difference(others[name], values) for name, values in results.items()}


def _moved(values: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """Each number times 1 + u, |u| up to UNITS spacings at 1; single numbers, which are settings, stay."""
    if values.dtype.name not in EQUAL or values.size < 2:
        return values
    wide = values.astype(np.float64)
    step = UNITS * _spacing(values.dtype)
    return np.asarray(wide * (1 + step * generator.uniform(-1, 1, values.shape)), values.dtype)


def _spacing(dtype: np.dtype) -> float:
    """From 1 to the next number."""
    return 2.0**-7 if dtype.name == "bfloat16" else float(np.finfo(dtype).eps)


def relative_difference(a: np.ndarray, b: np.ndarray) -> float:
    """max|a - b| / max|b|. NaN and infinities are infinitely different, unless both have them in the same places."""
    if a.shape != b.shape:
        return np.inf
    if a.dtype.kind in "OSUb":
        return 0.0 if np.array_equal(a, b) else np.inf
    wide_a, wide_b = a.astype(np.float64), b.astype(np.float64)
    finite = np.isfinite(wide_b)
    if not np.array_equal(wide_a[~finite], wide_b[~finite], equal_nan=True) or not np.isfinite(wide_a[finite]).all():
        return np.inf
    distance = np.max(np.abs(wide_a[finite] - wide_b[finite]), initial=0.0)
    largest = max(np.max(np.abs(wide_b[finite]), initial=0.0), np.finfo(np.float32).tiny)
    return 0.0 if distance == 0 else float(distance / largest)
