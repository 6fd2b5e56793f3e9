"""Sums whose order doesn't depend on the number of threads, for the CPU provider of ONNX Runtime.

What it divides over the threads (release 1.19: sgemm.cpp and convolve.cpp of MLAS, reduction_ops.h):

- A product of matrices gives each thread some columns of the result, where that has more columns than rows, else some
  rows. The inner axis is added up in panels of 128, but in longer ones where a thread has 64 columns or fewer; and a
  thread that has one row rounds products before it adds them, where others fuse the two. A left operand that lies
  transposed has neither. A result of one column has a kernel of its own, too, which tells rows by their number.
- A sum over batch and space is taken channel by channel if there are as many channels as threads.
- Square roots of float32 are taken by fours, and one by one, rounded otherwise, where a thread's part ends.

`wootz.passes.training.thread_dependence` says which nodes are left.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from wootz.passes.ir.builder import Builder
from wootz.passes.ir.model import Constant, Node, Tensor, is_fixed
from wootz.passes.training.expression import Expression
from wootz.passes.training.lowerings import Lowering

MOST_THREADS = 16
"""Up to as many threads are provided for."""

PANEL = 128
"""As many products are added up before the sum is added to the result."""

NARROWEST = 64
"""With so many columns or fewer, a thread's panels are longer."""

DEALT_OUT = 16
"""Columns go to a thread by so many."""

WIDE = MOST_THREADS * (NARROWEST + DEALT_OUT)
"""From so many columns on each of the threads has more than the narrowest."""

ONE_THREAD_PRODUCTS = 1 << 16
"""ONNX Runtime takes another thread for as many products."""

ONE_THREAD_ROOTS = 1 << 15
"""So many square roots are taken on one thread: measured, twice as many are."""


def outer_product(left: Expression, right: Expression, rows: int, columns: int) -> Expression:
    """left · rightᵀ, [rows, columns], of [rows, n] and [columns, n].

    A product packs its right operand, which therefore is the smaller one. ONNX Runtime would exchange the two to get
    rid of the Transpose behind it, but leaves a Gemm with a third operand as it is. A beta other than 0 and 1 keeps
    single rows from their kernel.
    """
    if rows < columns:
        if columns >= WIDE:
            return left.op("Gemm", right, transB=1)
        return outer_product(right, left, columns, rows).transpose(1, 0)
    return left.op("Gemm", right, left.constant(np.zeros(1)), transB=1, beta=2.0)


def product(node: Node, builder: Builder) -> list[Tensor] | None:
    """A Gemm, or a MatMul of matrices, whose left operand is transposed first where that fixes the order of sums.

    The Reshapes keep ONNX Runtime from undoing that. Constant right operands are packed before, in panels of 256.
    """
    if node.op == "MatMul" and any(t.shape is None or len(t.shape) != 2 for t in node.inputs):
        return None
    left, right = (Expression.of(t, builder) for t in node.inputs[:2])
    if is_fixed(right.tensor, builder.graph) or left.dtype != np.float32 or node.attrs.get("transA", 0):
        return None
    if right.tensor.shape is None:
        return None
    depth, columns = right.shape if not node.attrs.get("transB", 0) else right.shape[::-1]
    if not isinstance(depth, int) or not isinstance(columns, int) or not _may_be_divided(depth, columns):
        return None
    others = [Expression.of(t, builder) for t in node.inputs[2:] if not t.is_empty()]
    if columns == 1:
        column = left.op("Gemm", right, left.constant(np.zeros(1)), **{**node.attrs, "beta": 2.0})
        return [(column + others[0] * node.attrs.get("beta", 1.0) if others else column).tensor]
    turned = left.reshape([-1, depth, 1]).transpose(1, 2, 0).reshape([depth, -1])
    return [turned.op("Gemm", right, *others, **{**node.attrs, "transA": 1}).tensor]


def _may_be_divided(depth: int, columns: int) -> bool:
    """Whether the order of sums may depend on threads, whatever the number of rows: by columns, or for a thread with
    one row, which wants that two threads are taken for three rows."""
    has_lone_rows = columns == 1 or 3 * depth * columns >= ONE_THREAD_PRODUCTS
    return columns < WIDE and ((depth > PANEL and columns > DEALT_OUT) or has_lone_rows)


def reduction(node: Node, builder: Builder) -> list[Tensor] | None:
    """A sum or mean over batch and space in two steps: first the last axes, then the first ones.

    That is faster, too; on CUDA, ONNX Runtime has kernels of its own for each step, and takes cuDNN's, which is far
    slower, for both together.
    """
    data = Expression.of(node.inputs[0], builder)
    axes = node.inputs[1] if len(node.inputs) > 1 else None
    if not isinstance(axes, Constant) or node.inputs[0].shape is None:
        return None
    reduced = sorted(int(a) % data.rank for a in axes.values)
    first = [a for i, a in enumerate(reduced) if a == i]
    last = reduced[len(first) :]
    if not first or not last or last != list(range(last[0], data.rank)):
        return None
    keepdims = node.attrs.get("keepdims", 1)
    inner = data.op(node.op, data.integers(last), keepdims=keepdims)
    return [inner.op(node.op, data.integers(first), keepdims=keepdims).tensor]


def channel_sum(x: Expression, axes: list[int]) -> Expression:
    """Σ x over the batch and the axes of space, which `axes` are: a vector."""
    planes = x.sum(axes[1:], keepdims=False) if len(axes) > 1 else x
    return planes.sum([0], keepdims=False)


def square_root(node: Node, builder: Builder) -> list[Tensor] | None:
    """√x of a large tensor in float64, where both ways of ONNX Runtime give the same."""
    x = Expression.of(node.inputs[0], builder)
    extents = node.inputs[0].shape
    if x.dtype != np.float32 or extents is None or not all(isinstance(n, int) for n in extents):
        return None
    if math.prod(int(n) for n in extents) < ONE_THREAD_ROOTS:
        return None
    return [x.as_type(np.dtype(np.float64)).op("Sqrt").as_type(x.dtype).tensor]


PRODUCTS: Mapping[str, Lowering] = {"Gemm": product, "MatMul": product}
"""What programs that evaluate need: their weights are inputs, too."""
