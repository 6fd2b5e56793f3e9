"""Gradients of convolutions and matrix products."""

from __future__ import annotations

from typing import Any

from wootz.passes.training.expression import Expression
from wootz.passes.training.rules.geometry import Window
from wootz.passes.training.rules.rule import Backward, Gradients, NoRule, Rule, like, static, sum_to_shape


def conv(b: Backward) -> Gradients:
    """dx is the transposed convolution of dy; dw correlates x with dy; the bias sums dy over batch and space.

    Dumoulin & Visin, "A guide to convolution arithmetic for deep learning", section 4.
    """
    dy, x, w = b.gradient(), b.operand(0), b.operand(1)
    window = Window.of(b.node, x, b.result(), w.shape[2:])
    geometry: dict[str, Any] = {**window.attributes(), "group": b.attribute("group", 1)}
    dx = dw = db = None
    if b.wants(0):
        (dx,) = dy.call("ConvInputGrad", w, x, **(geometry | window.transposed()))
    if b.wants(1):
        (dw,) = x.call("ConvWeightGrad", dy, w, kernel_shape=list(window.kernel), **geometry)
    if b.wants(2):
        db = dy.sum([0, *range(2, x.rank)], keepdims=False)
    return [dx, dw, db]


def conv_transpose(b: Backward) -> Gradients:
    """The transposed convolution is the input gradient of a convolution: dx is that convolution of dy, and in its
    weight gradient dy is the image and x the gradient."""
    dy, x, w = b.gradient(), b.operand(0), b.operand(1)
    window = Window.of_transposed(b.node, x, b.result(), w.shape[2:])
    geometry: dict[str, Any] = {**window.attributes(), "group": b.attribute("group", 1)}
    dx = dw = db = None
    if b.wants(0):
        dx = dy.op("Conv", w, **geometry)
    if b.wants(1):
        (dw,) = dy.call("ConvWeightGrad", x, w, kernel_shape=list(window.kernel), **geometry)
    if b.wants(2):
        db = dy.sum([0, *range(2, x.rank)], keepdims=False)
    return [dx, dw, db]


def gemm(b: Backward) -> Gradients:
    """Y = alpha · A'B' + beta · C, where ' is the transposition that the attributes ask for."""
    dy, x, w = b.gradient(), b.operand(0), b.operand(1)
    alpha, beta = b.attribute("alpha", 1.0), b.attribute("beta", 1.0)
    x_turned, w_turned = b.attribute("transA", 0), b.attribute("transB", 0)
    dx = dw = dc = None
    if b.wants(0):
        dx = (
            w.op("Gemm", dy, alpha=alpha, transA=w_turned, transB=1)
            if x_turned
            else dy.op("Gemm", w, alpha=alpha, transB=1 - w_turned)
        )
    if b.wants(1):
        dw = (
            dy.op("Gemm", x, alpha=alpha, transA=1, transB=x_turned)
            if w_turned
            else x.op("Gemm", dy, alpha=alpha, transA=1 - x_turned)
        )
    if b.wants(2):
        dc = sum_to_shape(dy if beta == 1.0 else dy * beta, b.result(), b.operand(2))
    return [dx, dw, dc]


def matmul(b: Backward) -> Gradients:
    """dA = dY Bᵀ, dB = Aᵀ dY, summed over the batch axes that were broadcast."""
    dy, left, right = b.gradient(), b.operand(0), b.operand(1)
    if left.rank < 2 or right.rank < 2:
        raise NoRule("a vector as operand is not supported: unsqueeze it")
    dleft = sum_to_batch(dy @ _turned(right), left, b) if b.wants(0) else None
    if not b.wants(1):
        return [dleft, None]
    if right.rank == 2:  # one product over batch and rows instead of a batch of products to be summed
        rows = left.reshape([-1, *static(left.shape[-1:], "the rows' length")]) if left.rank > 2 else left
        columns = dy.reshape([-1, *static(right.shape[-1:], "the rows' length")]) if left.rank > 2 else dy
        return [dleft, rows.op("Gemm", columns, transA=1)]
    return [dleft, sum_to_batch(_turned(left) @ dy, right, b)]


def einsum(b: Backward) -> Gradients:
    """A sum of products: the gradient of an operand is the sum of dy and the others to the operand's indices."""
    equation = b.attribute("equation").replace(" ", "")
    operands, arrow, result = equation.partition("->")
    terms = operands.split(",")
    if not arrow or "." in equation or any(len(set(t)) < len(t) for t in terms):
        raise NoRule(f"the equation {equation} is not supported: without ... and repeated indices, and with -> it is")
    return [_einsum_gradient(b, terms, result, i) if b.wants(i) else None for i in range(len(terms))]


def _einsum_gradient(b: Backward, terms: list[str], result: str, index: int) -> Expression:
    others = [i for i in range(len(terms)) if i != index]
    known = [result, *(terms[i] for i in others)]
    if missing := set(terms[index]) - set("".join(known)):
        raise NoRule(f"operand {index} is summed over {', '.join(sorted(missing))} alone: use ReduceSum before")
    equation = f"{','.join(known)}->{terms[index]}"
    return b.gradient().op("Einsum", *(b.operand(i) for i in others), equation=equation)


def sum_to_batch(gradient: Expression, operand: Expression, b: Backward) -> Expression:
    """Sums over the batch axes along which `operand` was broadcast; its last two axes are its own."""
    leading = b.result().rank - operand.rank
    batch = b.result().shape[leading:-2]
    stretched = [
        leading + i for i, (d, n) in enumerate(zip(operand.shape[:-2], batch, strict=True)) if d == 1 and n != 1
    ]
    if not leading and not stretched:
        return gradient
    summed = gradient.sum([*range(leading), *stretched], keepdims=bool(stretched))
    return summed.reshape(like(operand)) if leading and stretched else summed


def _turned(matrix: Expression) -> Expression:
    axes = list(range(matrix.rank))
    return matrix.transpose(*axes[:-2], axes[-1], axes[-2])


LINEAR: dict[str, Rule] = {
    "Conv": conv,
    "ConvTranspose": conv_transpose,
    "Einsum": einsum,
    "Gemm": gemm,
    "MatMul": matmul,
}
