"""Shapes of blobs, some of whose dimensions are symbolic.

A dimension is an integer or a `Symbol`: a multiple of a size that is known when the graph runs, in most networks the
number N of images in a batch. Shapes are otherwise as Caffe computes them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

BATCH = "N"


@dataclass(frozen=True)
class Symbol:
    """`factor · name`."""

    name: str = BATCH
    factor: int = 1

    def __str__(self) -> str:
        return self.name if self.factor == 1 else f"{self.factor}{self.name}"


Dim = int | Symbol
Shape = tuple[Dim, ...]


class SizeMustBeFixed(Exception):
    """The network computes something that has no shape for every batch size."""


def static(dim: Dim) -> int:
    """`dim` as a number."""
    if isinstance(dim, Symbol):
        raise SizeMustBeFixed(f"a number is needed where the dimension {dim} stands")
    return dim


def static_shape(shape: Sequence[Dim]) -> tuple[int, ...]:
    return tuple(static(d) for d in shape)


def is_symbolic(shape: Sequence[Dim]) -> bool:
    return any(isinstance(d, Symbol) for d in shape)


def count(dims: Sequence[Dim]) -> Dim:
    """The product of the dimensions."""
    symbols = [d for d in dims if isinstance(d, Symbol)]
    factor = math.prod(d.factor if isinstance(d, Symbol) else d for d in dims)
    if len(symbols) > 1:
        raise SizeMustBeFixed(f"the dimensions {symbols[0]} and {symbols[1]} are multiplied")
    return Symbol(symbols[0].name, factor) if symbols else factor


def elements(dims: Sequence[Dim]) -> int:
    """The number of elements where every symbol is 1."""
    return math.prod(d.factor if isinstance(d, Symbol) else d for d in dims)


def quotient(dividend: Dim, divisor: Dim) -> Dim | None:
    """`dividend / divisor`; None where that is no dimension."""
    size = dividend.factor if isinstance(dividend, Symbol) else dividend
    if isinstance(divisor, Symbol):
        if not isinstance(dividend, Symbol) or dividend.name != divisor.name:
            raise SizeMustBeFixed(f"{dividend} is divided by {divisor}")
        return None if size % divisor.factor else size // divisor.factor
    if divisor == 0 or size % divisor:
        return None
    return Symbol(dividend.name, size // divisor) if isinstance(dividend, Symbol) else size // divisor


def total(dims: Sequence[Dim]) -> Dim:
    """The sum of the dimensions; one of different symbols gets a name of its own."""
    if not is_symbolic(dims):
        return sum(static(d) for d in dims)
    names = {d.name if isinstance(d, Symbol) else "" for d in dims}
    if len(names) == 1:
        return Symbol(names.pop(), sum(d.factor for d in dims if isinstance(d, Symbol)))
    if BATCH in names:
        raise SizeMustBeFixed(f"{' and '.join(map(str, dims))} are added")
    return Symbol("+".join(map(str, dims)))


def annotation(shape: Sequence[Dim]) -> list[int | str]:
    """The shape as ONNX writes it; multiples have no form there, they are names of their own."""
    return [str(d) if isinstance(d, Symbol) else d for d in shape]


def text(shape: Sequence[Dim]) -> str:
    return "×".join(str(d) for d in shape) or "scalar"
