"""Shapes that follow from what a graph computes of small constants, as PyTorch's exporters write them."""

from __future__ import annotations

import numpy as np
import pytest

from wootz.passes.ir.shapes import infer_shapes
from wootz.passes.ir.text import parse_text
from wootz.runtime.session import evaluate

HEADER = '<ir_version: 8, opset_import: ["" : 18]> '
SCALES = 'scales = Concat<axis=0>(ones, fours) y = Resize<mode="nearest">(x, , scales)'
AXES = "axes = Reshape(last, flat) y = ReduceMax<keepdims=0>(x, axes)"
AMOUNT = "k = Reshape(three, flat) y, i = TopK(x, k)"
SIZES = """s = Shape(filled) sizes = ConstantOfShape<value=int64[1] {3}>(s)
           minus = Mul(sizes, negative)
           is_open = Equal(filled, minus)
           target = Where(is_open, sizes, filled) e = Expand(one, target) y = Add(e, e)"""
CONSTANTS = """float[2] ones = {1, 1}, float[2] fours = {4, 2},
               int64[1] flat = {-1}, int64 last = {3}, int64 three = {3}, int64[4] filled = {2, -3, 1, 1},
               int64 negative = {-1}, float[1,1,1,1] one = {1}"""


@pytest.mark.parametrize(
    ("body", "wanted"),
    [(SCALES, [24, 10]), (AXES, [6]), (AMOUNT, [6, 3]), (SIZES, [1, 1])],
    ids=["scales", "axes", "amount", "sizes"],
)
def test_operands_that_are_computed_of_constants_are_known(body: str, wanted: list[int]) -> None:
    model = parse_text(f"{HEADER}g (float[N,2,6,5] x) => (y) <{CONSTANTS}> {{ {body} }}")
    (output,) = infer_shapes(model).graph.outputs
    assert output.shape[-len(wanted) :] == wanted
    found = evaluate(model, {"x": np.zeros((3, 2, 6, 5), np.float32)})["y"]
    extents = zip(output.shape, found.shape, strict=True)
    assert all(known == extent for known, extent in extents if isinstance(known, int))
