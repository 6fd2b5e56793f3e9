"""The gradient of Clip without the casts of its bounds that the function has."""

from __future__ import annotations

from wootz.passes.ir.builder import Builder
from wootz.passes.ir.model import Node, Tensor
from wootz.passes.training.expression import Expression


def clip_grad(call: Node, builder: Builder) -> list[Tensor]:
    dy, y = (Expression.of(t, builder) for t in call.inputs)
    return [dy.where(y.greater(call.attrs["low"])).where(y.less(call.attrs["high"])).tensor]
