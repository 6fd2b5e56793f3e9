"""What a network computes of its input, channel by channel, before its first layer: a normalisation in the graph."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from wootz.passes.analysis.computed_constants import ComputedConstants
from wootz.passes.ir.evaluate import evaluate_node
from wootz.passes.ir.model import Constant, Model, Node, Tensor, tensor_shape

PASSED_ON = frozenset(("Identity", "Cast", "Dropout"))
MOVING = frozenset(("Gather", "Slice", "Split", "Concat", "Identity"))
"""Of which exporters make another order of channels."""
MOST_MOVING = 8
ARITHMETIC: dict[str, Callable[[np.ndarray, np.ndarray], np.ndarray]] = {
    "Add": np.add,
    "Sub": np.subtract,
    "Mul": np.multiply,
    "Div": np.divide,
}


@dataclass(frozen=True)
class InputNormalization:
    """`factor * input + offset`, a number a channel, by the `operators`, in their order. Where nodes reverse the
    channels, too, the numbers are those of the input's.

    Where a BatchNormalization follows, `expected` is the mean and the variance a channel of what it reads, as they were
    in training.
    """

    factor: np.ndarray
    offset: np.ndarray
    operators: tuple[str, ...] = ()
    expected: tuple[np.ndarray, np.ndarray] | None = None


def input_normalization(model: Model) -> InputNormalization | None:
    """That of a network with images [N, channels, height, width] as its only input; None where there is none."""
    tensor, *others = model.graph.inputs
    shape = tensor_shape(tensor)
    if others or shape is None or len(shape) != 4 or not isinstance(shape[1], int):
        return None
    constants = ComputedConstants(model.graph)
    found = InputNormalization(np.ones(shape[1]), np.zeros(shape[1]))
    is_reversed = False
    while found.expected is None:
        if (reversed_ := _reversed_channels(tensor, shape[1], constants)) is not None:
            tensor, found, is_reversed = reversed_, _with_reversed_channels(found), not is_reversed
            continue
        if len(tensor.outputs) != 1:
            break
        (node,) = tensor.outputs
        following = _after(node, tensor, found, constants)
        if following is None:
            break
        tensor, found = node.outputs[0], following
    if is_reversed:
        found = _with_reversed_channels(found)
    changes = bool(np.any(found.factor != 1) or np.any(found.offset != 0))
    return found if changes or found.expected is not None else None


def _with_reversed_channels(found: InputNormalization) -> InputNormalization:
    """With the channels from the last to the first."""
    expected = found.expected and (found.expected[0][::-1], found.expected[1][::-1])
    return replace(found, factor=found.factor[::-1], offset=found.offset[::-1], expected=expected)


def _reversed_channels(tensor: Tensor, channels: int, constants: ComputedConstants) -> Tensor | None:
    """What has the channels of `tensor` from the last to the first, where nodes make that of it and nothing else."""
    numbers = np.arange(channels, dtype=np.float32).reshape(1, -1, 1, 1)
    tensors, values, done = [tensor], {tensor.name: numbers}, list[Node]()
    for _ in range(MOST_MOVING):
        node = next((n for t in tensors for n in t.outputs if n.op in MOVING and not _is_in(n, done)), None)
        if node is None:
            return None
        known = [constants.constant(operand) for operand in node.inputs]
        operands = [
            values.get(operand.name) if constant is None else constant.values
            for operand, constant in zip(node.inputs, known, strict=True)
        ]
        try:
            results = evaluate_node(node, operands)
        except ValueError:
            return None
        done.append(node)
        tensors += node.outputs
        values |= {output.name: result for output, result in zip(node.outputs, results, strict=False)}
        read = [t for t in tensors if any(not _is_in(n, done) for n in t.outputs)]
        if len(read) == 1 and channels > 1 and np.array_equal(values[read[0].name], numbers[:, ::-1]):
            return read[0]
    return None


def _is_in(node: Node, nodes: list[Node]) -> bool:
    return any(node is other for other in nodes)


def _after(
    node: Node, read: Tensor, before: InputNormalization, constants: ComputedConstants
) -> InputNormalization | None:
    """The normalisation up to the output of `node`, or up to what a BatchNormalization reads; None: not a part."""
    if node.op in PASSED_ON:
        return before
    operators = (*before.operators, node.op)
    if node.op == "BatchNormalization":
        mean, variance = (constants.constant(operand) for operand in node.inputs[3:5])
        if mean is None or variance is None:
            return None
        return replace(before, operators=operators, expected=(_numbers(mean), _numbers(variance)))
    if node.op not in ARITHMETIC or len(node.inputs) != 2:
        return None
    image_first = node.inputs[0] is read
    operand = constants.constant(node.inputs[1] if image_first else node.inputs[0])
    values = None if operand is None else _by_channel(operand, len(before.factor))
    if values is None or (node.op == "Div" and (not image_first or not np.all(values))):
        return None
    compute = ARITHMETIC[node.op]
    if node.op in ("Mul", "Div"):
        factor, offset = compute(before.factor, values), compute(before.offset, values)
    elif image_first:
        factor, offset = before.factor, compute(before.offset, values)
    else:
        factor, offset = (1 if node.op == "Add" else -1) * before.factor, compute(values, before.offset)
    return replace(before, factor=factor, offset=offset, operators=operators)


def _by_channel(operand: Constant, channels: int) -> np.ndarray | None:
    """Its values a channel, if it has one number, or one a channel of [N, channels, height, width]."""
    values = _numbers(operand)
    if values.size == 1:
        return np.full(channels, values.item())
    by_channel = values.ndim >= 3 and values.shape[-3:] == (channels, 1, 1) and values.size == channels
    return values.reshape(channels) if by_channel else None


def _numbers(constant: Constant) -> np.ndarray:
    values: np.ndarray = constant.values.astype(np.float64)
    return values
