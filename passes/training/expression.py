"""Arithmetic on tensors of a graph: `a * b + 1` appends the nodes that compute it.

It lets a gradient rule or an optimizer be written as its formula. Numbers become constants of the element type of
the tensor beside them, so one rule serves float16, float32 and float64.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx

from wootz.passes.ir.builder import Builder
from wootz.passes.ir.model import Tensor


class UnknownShape(Exception):
    """A shape is needed that inference could not find."""


@dataclass(frozen=True, eq=False)
class Expression:
    """A tensor, the builder that appends what is computed from it, and its element type."""

    tensor: Tensor
    builder: Builder
    dtype: np.dtype

    @staticmethod
    def of(tensor: Tensor, builder: Builder) -> Expression:
        """`tensor` as an operand. Its element type must be known."""
        return Expression(tensor, builder, np.dtype(tensor.dtype))

    @property
    def shape(self) -> tuple[int | str, ...]:
        """The annotated shape; what was just appended has none. Raises UnknownShape."""
        if self.tensor.shape is None:
            raise UnknownShape(f"the shape of {self.tensor.name} is not known")
        return tuple(self.tensor.shape)

    @property
    def rank(self) -> int:
        return len(self.shape)

    def constant(self, values: Any) -> Expression:
        """A constant of the same element type."""
        return self._same_type(self.builder.constant(values, dtype=self.dtype))

    def integers(self, values: Sequence[int] | np.ndarray | int) -> Expression:
        """An int64 constant: axes, a shape."""
        return Expression(self.builder.constant(np.asarray(values, np.int64)), self.builder, np.dtype(np.int64))

    def op(self, op_type: str, *others: Expression | float | None, **attributes: Any) -> Expression:
        """The first output of a standard operator whose first operand is this tensor, of the same element type."""
        operands = [o if o is None else self._operand(o).tensor for o in others]
        return self._same_type(self.builder.op(op_type, self.tensor, *operands, **attributes))

    def call(self, function: str, *others: Expression | None, count: int = 1, **attributes: Any) -> list[Expression]:
        """The outputs of the ONNX function `wootz.function` applied to this tensor and `others`."""
        operands = [None if o is None else o.tensor for o in others]
        outputs = self.builder.ops(function, self.tensor, *operands, count=count, domain="wootz", **attributes)
        return [self._same_type(t) for t in outputs]

    def cast(self, like: Expression) -> Expression:
        return self.as_type(like.dtype)

    def as_type(self, dtype: np.dtype) -> Expression:
        if self.dtype == dtype:
            return self
        cast = self.builder.op("Cast", self.tensor, to=np_to_onnx_type(dtype))
        cast.dtype, cast.shape = dtype, self.tensor.shape
        return Expression(cast, self.builder, dtype)

    def sum(self, axes: Sequence[int] | None = None, keepdims: bool = True) -> Expression:
        return self.op("ReduceSum", None if axes is None else self.integers(axes), keepdims=int(keepdims))

    def mean(self, axes: Sequence[int] | None = None, keepdims: bool = True) -> Expression:
        return self.op("ReduceMean", None if axes is None else self.integers(axes), keepdims=int(keepdims))

    def reshape(self, shape: Sequence[int] | Expression) -> Expression:
        return self.op("Reshape", shape if isinstance(shape, Expression) else self.integers(shape))

    def transpose(self, *permutation: int) -> Expression:
        return self.op("Transpose", perm=list(permutation))

    def shape_tensor(self) -> Expression:
        """The shape as an int64 tensor, known when the graph runs."""
        return Expression(self.builder.op("Shape", self.tensor), self.builder, np.dtype(np.int64))

    def size(self) -> Expression:
        """The number of elements as an int64 scalar."""
        return Expression(self.builder.op("Size", self.tensor), self.builder, np.dtype(np.int64))

    def greater(self, other: Expression | float) -> Expression:
        return self._boolean("Greater", other)

    def less(self, other: Expression | float) -> Expression:
        return self._boolean("Less", other)

    def equal(self, other: Expression | float) -> Expression:
        return self._boolean("Equal", other)

    def where(self, condition: Expression, otherwise: Expression | float = 0.0) -> Expression:
        """This tensor where `condition` holds, `otherwise` elsewhere."""
        chosen = self.builder.op("Where", condition.tensor, self.tensor, self._operand(otherwise).tensor)
        return self._same_type(chosen)

    def __add__(self, other: Expression | float) -> Expression:
        return self.op("Add", other)

    def __radd__(self, other: float) -> Expression:
        return self + other

    def __sub__(self, other: Expression | float) -> Expression:
        return self.op("Sub", other)

    def __rsub__(self, other: float) -> Expression:
        return self.constant(other) - self

    def __mul__(self, other: Expression | float) -> Expression:
        return self.op("Mul", other)

    def __rmul__(self, other: float) -> Expression:
        return self * other

    def __truediv__(self, other: Expression | float) -> Expression:
        return self.op("Div", other)

    def __rtruediv__(self, other: float) -> Expression:
        return self.constant(other) / self

    def __pow__(self, other: Expression | float) -> Expression:
        return self.op("Pow", other)

    def __neg__(self) -> Expression:
        return self.op("Neg")

    def __matmul__(self, other: Expression) -> Expression:
        return self.op("MatMul", other)

    def _operand(self, value: Expression | float) -> Expression:
        return value if isinstance(value, Expression) else self.constant(value)

    def _same_type(self, tensor: Tensor) -> Expression:
        return Expression(tensor, self.builder, self.dtype)

    def _boolean(self, op_type: str, other: Expression | float) -> Expression:
        compared = self.builder.op(op_type, self.tensor, self._operand(other).tensor)
        return Expression(compared, self.builder, np.dtype(np.bool_))


def np_to_onnx_type(dtype: np.dtype) -> int:
    """The number that ONNX has for an element type."""
    return int(onnx.helper.np_dtype_to_tensor_dtype(dtype))
