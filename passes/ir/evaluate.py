"""Computes single nodes on known operands, for constants and shapes; no runtime is needed."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import onnx

from wootz.passes.ir.model import Constant, Graph, Node

Attributes = Mapping[str, Any]

UNRELIABLE = {"LRN", "ConvTranspose"}
"""`onnx.reference` 1.23 gives wrong results for these."""
RANDOM = {"RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike", "Bernoulli", "Multinomial"}


def can_evaluate(node: Node) -> bool:
    """Whether `evaluate_node` gives the node's result: a deterministic standard operator with one output."""
    return (
        node.domain in (None, "", "ai.onnx")
        and len(node.outputs) == 1
        and node.op not in UNRELIABLE | RANDOM
        and not any(isinstance(a, Graph) for a in node.attrs.values())
    )


def evaluate_node(node: Node, operands: Sequence[np.ndarray | None]) -> list[np.ndarray]:
    """The outputs of `node` on `operands` (None: omitted), by ONNX's reference implementation.

    Raises ValueError for operands that don't fit, and where it doesn't know the operator.
    """
    try:
        if node.op in DIRECT:
            return [np.asarray(DIRECT[node.op](node.attrs, *operands))]
        return _by_reference(node, operands)
    except Exception as error:  # it checks nothing itself
        raise ValueError(f"{node.op} node {node.name!r} can't be computed: {error}") from error


def _by_reference(node: Node, operands: Sequence[np.ndarray | None]) -> list[np.ndarray]:
    from onnx.reference import ReferenceEvaluator  # slow to import, and most models need it never

    names = [f"x{i}" if o is not None else "" for i, o in enumerate(operands)]
    attributes = {key: _attribute(value) for key, value in node.attrs.items()}
    proto = onnx.helper.make_node(node.op, names, [f"y{i}" for i in range(len(node.outputs))], **attributes)
    feeds = {name: o for name, o in zip(names, operands, strict=True) if o is not None}
    return [np.asarray(result) for result in ReferenceEvaluator(proto).run(None, feeds)]


def of_type_alone(node: Node, index: int) -> np.ndarray | None:
    """An operand of which only the element type counts, empty, where that is known: the second one of CastLike."""
    dtype = node.inputs[index].dtype if node.op == "CastLike" and index == 1 else None
    return None if dtype is None else np.zeros(0, dtype)


def _divide(attrs: Attributes, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Integers are divided towards zero, as in C."""
    if a.dtype.kind == "f":
        return a / b
    return np.sign(a) * np.sign(b) * (np.abs(a) // np.abs(b))


def _cast(attrs: Attributes, a: np.ndarray) -> np.ndarray:
    to = attrs["to"]
    return a.astype(onnx.helper.tensor_dtype_to_np_dtype(to) if isinstance(to, int) else to)


def _unsqueeze(attrs: Attributes, a: np.ndarray, axes: np.ndarray) -> np.ndarray:
    return np.expand_dims(a, tuple(axes.tolist()))


def _squeeze(attrs: Attributes, a: np.ndarray, axes: np.ndarray | None = None) -> np.ndarray:
    return np.squeeze(a, None if axes is None else tuple(axes.tolist()))


DIRECT: dict[str, Callable[..., np.ndarray]] = {
    "Add": lambda attrs, a, b: a + b,
    "Sub": lambda attrs, a, b: a - b,
    "Mul": lambda attrs, a, b: a * b,
    "Div": _divide,
    "Cast": _cast,
    "CastLike": lambda attrs, a, like: a.astype(like.dtype),
    "Concat": lambda attrs, *parts: np.concatenate(parts, attrs["axis"]),
    "Gather": lambda attrs, a, indices: np.take(a, indices, attrs.get("axis", 0)),
    "Identity": lambda attrs, a: a,
    "Squeeze": _squeeze,
    "Transpose": lambda attrs, a: a.transpose(attrs.get("perm")),
    "Unsqueeze": _unsqueeze,
}
"""What shapes are computed with, and weights rearranged by: the reference implementation takes milliseconds each."""


def _attribute(value: Any) -> Any:
    if isinstance(value, Constant):
        return onnx.numpy_helper.from_array(np.asarray(value.values))
    if isinstance(value, type | np.dtype):
        return onnx.helper.np_dtype_to_tensor_dtype(np.dtype(value))
    return value
