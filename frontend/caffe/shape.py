"""Shapes of blobs, whose batch dimension may be symbolic.

A dimension is an integer, or a `Batch`: a multiple of the number N of images in a batch. Shapes are otherwise as
Caffe computes them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

BATCH_SYMBOL = "N"


@dataclass(frozen=True)
class Batch:
    """`factor · N`."""

    factor: int = 1

    def __str__(self) -> str:
        return BATCH_SYMBOL if self.factor == 1 else f"{self.factor}{BATCH_SYMBOL}"


Dim = int | Batch
Shape = tuple[Dim, ...]


class BatchMustBeFixed(Exception):
    """The network computes something that has no shape for every N: it is imported for its declared batch size."""


def static(dim: Dim) -> int:
    """`dim` as a number."""
    if isinstance(dim, Batch):
        raise BatchMustBeFixed(f"a number is needed where the batch dimension {dim} stands")
    return dim


def static_shape(shape: Sequence[Dim]) -> tuple[int, ...]:
    return tuple(static(d) for d in shape)


def count(dims: Sequence[Dim]) -> Dim:
    """The product of the dimensions."""
    batches = [d for d in dims if isinstance(d, Batch)]
    factor = math.prod(d.factor if isinstance(d, Batch) else d for d in dims)
    if len(batches) > 1:
        raise BatchMustBeFixed("two batch dimensions are multiplied")
    return Batch(factor) if batches else factor


def quotient(dividend: Dim, divisor: Dim) -> Dim | None:
    """`dividend / divisor`; None where that is no dimension."""
    if isinstance(divisor, Batch):
        if not isinstance(dividend, Batch):
            raise BatchMustBeFixed("a fixed size is divided by the batch")
        return dividend.factor // divisor.factor if dividend.factor % divisor.factor == 0 else None
    size = dividend.factor if isinstance(dividend, Batch) else dividend
    if divisor == 0 or size % divisor:
        return None
    return Batch(size // divisor) if isinstance(dividend, Batch) else size // divisor


def total(dims: Sequence[Dim]) -> Dim:
    """The sum of the dimensions."""
    if not any(isinstance(d, Batch) for d in dims):
        return sum(static(d) for d in dims)
    if not all(isinstance(d, Batch) for d in dims):
        raise BatchMustBeFixed("a fixed size is added to the batch")
    return Batch(sum(d.factor for d in dims if isinstance(d, Batch)))


def at_batch(shape: Sequence[Dim], size: int) -> tuple[int, ...]:
    """The shape for a batch of `size` images."""
    return tuple(d.factor * size if isinstance(d, Batch) else d for d in shape)


def annotation(shape: Sequence[Dim]) -> list[int | str]:
    """The shape as ONNX writes it. Multiples of N have no ONNX form: they are named after what they are."""
    return [str(d) if isinstance(d, Batch) else d for d in shape]


def text(shape: Sequence[Dim]) -> str:
    return "×".join(str(d) for d in shape) or "scalar"
