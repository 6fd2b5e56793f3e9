"""How operators are written in the next older version: from (operator, version) to the rule that brings it from there.

Versions that aren't listed are left like a node of the older version if it lacks nothing: see `opset`.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from onnx import helper, numpy_helper

from wootz.passes.ir.versions.rewriting import Rewriting, non_negative, padding_beyond_last_window
from wootz.passes.ir.versions.upgrades import LARGEST_FLOAT, Rule

# Operators that came with an opset, in terms of others


def _gelu(node: Rewriting, opset: int) -> None:
    """x/2 (1 + erf(x/√2)), or with approximate="tanh" x/2 (1 + tanh(√(2/π) (x + 0.044715 x³)))."""
    x = node.input(0)
    if node.get("approximate", "none") == "tanh":
        share = node.op("Mul", node.op("Mul", x, x), node.scalar(0.044715, x))
        bent = node.op("Mul", x, node.op("Add", share, node.scalar(1.0, x)))
        curve = node.op("Tanh", node.op("Mul", bent, node.scalar(math.sqrt(2 / math.pi), x)))
    else:
        curve = node.op("Erf", node.op("Div", x, node.scalar(math.sqrt(2), x)))
    product = node.op("Mul", x, node.op("Add", curve, node.scalar(1.0, x)))
    node.op("Mul", product, node.scalar(0.5, x), outputs=node.outputs)


def _swish(node: Rewriting, opset: int) -> None:
    """x · sigmoid(αx)."""
    x, alpha = node.input(0), node.get("alpha", 1.0)
    scaled = x if alpha == 1 else node.op("Mul", x, node.scalar(alpha, x))
    node.op("Mul", x, node.op("Sigmoid", scaled), outputs=node.outputs)


def _hard_swish(node: Rewriting, opset: int) -> None:
    """x · max(0, min(1, x/6 + 1/2))."""
    gate = node.op("HardSigmoid", node.input(0), alpha=1 / 6, beta=0.5)
    node.op("Mul", node.input(0), gate, outputs=node.outputs)


def _rms_normalization(node: Rewriting, opset: int) -> None:
    """x / √(mean x² + ε) · scale, the mean over all dimensions from `axis` on, computed in `stash_type`."""
    x, stash = node.input(0), node.get("stash_type", 1)
    rank, axis = node.known_rank(x), node.get("axis", -1)
    element = node.element_type(x)
    axes = node.constant(list(range(axis % rank, rank)))
    wide = x if element == stash else node.op("Cast", x, to=stash)
    mean = node.op("ReduceMean", node.op("Mul", wide, wide), axes)
    epsilon = node.constant(node.get("epsilon", 1e-5), helper.tensor_dtype_to_np_dtype(stash))
    normalized = node.op("Div", wide, node.op("Sqrt", node.op("Add", mean, epsilon)))
    scale = node.input(1)
    if element != stash:
        if element is None:
            node.refuse("has an operand whose type can't be inferred")
        normalized = node.op("Cast", normalized, to=element)
    node.op("Mul", normalized, scale, outputs=node.outputs)


# Attributes and modes


def _group_normalization(node: Rewriting, opset: int) -> None:
    """Scale and bias are those of channels: a product and a sum behind one that has ones and zeros a group.

    These are computed: they are no parameters that could be trained.
    """
    x, scale, bias = node.inputs
    stash = node.take("stash_type", 1)
    element = node.element_type(x)
    if element is None:
        node.refuse("has an operand whose type can't be inferred")
    if element != stash:  # a mean in float16 is another one
        x = node.op("Cast", x, to=stash)
    groups = node.get("num_groups")
    count = node.constant(np.array([groups]))
    dtype = helper.tensor_dtype_to_np_dtype(stash)
    ones, zeros = (
        node.op("ConstantOfShape", count, value=numpy_helper.from_array(np.full(1, v, dtype))) for v in (1.0, 0.0)
    )
    plain = node.op("GroupNormalization", x, ones, zeros, num_groups=groups, epsilon=node.get("epsilon", 1e-5))
    if element != stash:
        plain = node.op("Cast", plain, to=element)
    axes = node.constant(np.arange(1, node.known_rank(node.input(0)) - 1))
    scaled = node.op("Mul", plain, node.op("Unsqueeze", scale, axes))
    node.op("Add", scaled, node.op("Unsqueeze", bias, axes), outputs=node.outputs)


def _grid_sample(node: Rewriting, opset: int) -> None:
    """Modes have other names, and images two dimensions."""
    rank = node.rank(node.input(0))
    if rank is not None and rank != 4:
        node.refuse(f"samples images of {rank - 2} dimensions, and in opset {opset} of 2")
    names = {"linear": "bilinear", "cubic": "bicubic"}
    mode = node.get("mode", "linear")
    node.put(mode=names.get(mode, mode))
    node.keep()


def _dft(node: Rewriting, opset: int) -> None:
    """The axis, by default the last of the image, becomes an attribute. Real results need an operator of their own."""
    axis = int(node.known_value(2, "axis")) if node.input(2) else -2
    if node.get("inverse", 0) and node.get("onesided", 0):
        node.refuse(f"gives real numbers (inverse and onesided), which it doesn't in opset {opset}")
    node.put(axis=non_negative([axis], node.known_rank(node.input(0)))[0])
    node.inputs = node.inputs[:2] if node.input(1) else node.inputs[:1]
    node.keep()


def _without_mode(attribute: str, mode: str) -> Rule:
    """The attribute knew fewer values."""

    def rule(node: Rewriting, opset: int) -> None:
        if node.get(attribute) == mode:
            node.refuse(f"has the {attribute} {mode}, which opset {opset} lacks")
        node.keep()

    return rule


def _cast(node: Rewriting, opset: int) -> None:
    """`saturate` is about 8-bit floats, which the older form has not."""
    node.take("saturate")
    node.keep()


def _quantize(node: Rewriting, opset: int) -> None:
    """The type of the result is that of the zero point."""
    if node.take("block_size", 0):
        node.refuse(f"quantizes by blocks, which opset {opset} lacks")
    asked = node.take("output_dtype", 0)
    if asked and not node.input(2):
        shape = node.shape(node.input(1))
        if shape is None or None in shape:
            node.refuse("has a scale whose shape can't be inferred")
        zeros = np.zeros([d or 0 for d in shape], helper.tensor_dtype_to_np_dtype(asked))
        node.inputs = [*node.inputs[:2], node.constant(zeros)]
    node.keep()


def _dequantize(node: Rewriting, opset: int) -> None:
    """The type of the result is that of the scale."""
    asked = node.take("output_dtype", 0)
    if asked and asked != node.element_type(node.input(1)):
        node.refuse(f"has the attribute output_dtype, which opset {opset} lacks")
    node.keep()


def _range(node: Rewriting, opset: int) -> None:
    """`stash_type` is about 16-bit floats, which the older form has not."""
    node.take("stash_type")
    node.keep()


def _pool(node: Rewriting, opset: int) -> None:
    """With `ceil_mode`, newer forms leave out a last window that lies in the padding: older ones get less of it."""
    surplus = padding_beyond_last_window(node)
    if any(surplus):
        pads = list(node.get("pads", [0] * 2 * len(surplus)))
        for axis, count in enumerate(surplus, len(surplus)):
            pads[axis] -= count
        if min(pads) < 0:
            node.refuse(f"has windows that begin behind the image, which opset {opset} doesn't leave out")
        node.take("auto_pad")
        node.put(pads=pads)
    node.keep()


# Operands that were attributes


def _operands_to_attributes(*names: str, scalar: bool = False) -> Rule:
    """Operands behind the first become attributes; they have to be constants."""

    def rule(node: Rewriting, opset: int) -> None:
        for i, name in enumerate(names, 1):
            if node.input(i):
                value = node.known_value(i, name).reshape(-1).tolist()
                node.put(**{name: value[0] if scalar else value})
        node.inputs = node.inputs[:1]
        node.keep()

    return rule


def _reduction(node: Rewriting, opset: int) -> None:
    """The axes become an attribute; without any, and with noop_with_empty_axes, nothing is reduced."""
    axes = node.known_value(1, "axes").tolist() if node.input(1) else []
    if node.take("noop_with_empty_axes", 0) and not axes:
        node.refuse(f"reduces nothing, which opset {opset} can't say")
    if axes:
        node.put(axes=axes)
    node.inputs = node.inputs[:1]
    node.keep()


def _split(node: Rewriting, opset: int) -> None:
    """Parts that may be unequal are listed."""
    parts = node.take("num_outputs")
    if parts is not None:
        shape, axis = node.shape(node.input(0)), node.get("axis", 0)
        extent = None if shape is None else shape[axis]
        if extent is None:
            node.refuse("needs the extent that it splits, which can't be inferred")
        each = -(-extent // parts)
        sizes = [max(0, min(each, extent - i * each)) for i in range(parts)]
        node.inputs = [node.input(0), node.constant(sizes)]
    node.keep()


def _pad_axes(node: Rewriting, opset: int) -> None:
    """Pads of some axes become those of all."""
    if node.input(3):
        rank = node.known_rank(node.input(0))
        axes = non_negative(node.known_value(3, "axes").tolist(), rank)
        some = node.known_value(1, "pads").tolist()
        pads = [0] * 2 * rank
        for i, axis in enumerate(axes):
            pads[axis], pads[rank + axis] = some[i], some[len(axes) + i]
        node.inputs[1] = node.constant(pads)
    node.inputs = node.inputs[:3] if node.input(2) else node.inputs[:2]
    node.keep()


def _pad(node: Rewriting, opset: int) -> None:
    if node.input(2):
        node.put(value=float(node.known_value(2, "value").item()))
    node.put(pads=node.known_value(1, "pads").tolist())
    node.inputs = node.inputs[:1]
    node.keep()


def _clip(node: Rewriting, opset: int) -> None:
    for i, (name, free) in enumerate((("min", -LARGEST_FLOAT), ("max", LARGEST_FLOAT)), 1):
        if node.input(i):
            bound = float(node.known_value(i, name).item())
            node.put(**{name: max(-LARGEST_FLOAT, min(bound, LARGEST_FLOAT)) if math.isinf(bound) else bound or 0.0})
        else:
            node.put(**{name: free})
    node.inputs = node.inputs[:1]
    node.keep()


def _dropout(node: Rewriting, opset: int) -> None:
    """The ratio becomes an attribute; training, and the mask, have no older form."""
    if node.input(2) and node.known_value(2, "training_mode").any():
        node.refuse("drops values (training_mode), which it doesn't in opset 11")
    if node.is_read(1):
        node.refuse("has a mask that is read, and which is undefined in inference before opset 12")
    if node.input(1):
        node.put(ratio=float(node.known_value(1, "ratio").item()))
    node.take("seed")
    node.inputs, node.outputs = node.inputs[:1], node.outputs[:1]
    node.keep()


def _slice(node: Rewriting, opset: int) -> None:
    if node.input(4) and (node.known_value(4, "steps") != 1).any():
        node.refuse(f"has steps, which opset {opset} lacks")
    _operands_to_attributes("starts", "ends", "axes")(node, opset)


def _top_k(node: Rewriting, opset: int) -> None:
    _operands_to_attributes("k", scalar=True)(node, opset)


# Forms that were others


def _over_one_axis(node: Rewriting, opset: int) -> None:
    """Softmax, LogSoftmax and Hardmax before opset 13 are over all dimensions from `axis` on: the last one."""
    x, axis, rank = node.input(0), node.get("axis", -1), node.rank(node.input(0))
    if axis in (-1, None if rank is None else rank - 1):
        node.put(axis=axis)
        node.keep()
        return
    rank = node.known_rank(x)
    order = [i for i in range(rank) if i != axis % rank] + [axis % rank]
    moved = node.op("Transpose", x, perm=order)
    result = node.op(node.node.op_type, moved, axis=rank - 1)
    node.op("Transpose", result, perm=np.argsort(order).tolist(), outputs=node.outputs)


def _shape(node: Rewriting, opset: int) -> None:
    """A part of a shape is a slice of it."""
    start, end = node.take("start", 0), node.take("end")
    if start == 0 and end is None:
        node.keep()
        return
    bounds = node.constant([start]), node.constant([np.iinfo(np.int64).max if end is None else end])
    node.op("Slice", node.op("Shape", node.input(0)), *bounds, outputs=node.outputs)


def _resize_operands(node: Rewriting, opset: int) -> None:
    """What is left out was empty."""
    for i in (1, 2):
        if not node.input(i):
            node.inputs[i] = node.constant(np.zeros(0, np.float32))
    node.keep()


def _resize(node: Rewriting, opset: int) -> None:
    """Before opset 11, pixel i comes from i / scale, rounded down where enlarged and up where reduced."""
    if node.input(3):
        node.refuse(f"has sizes, which opset {opset} lacks")
    scales = node.known_value(2, "scales")
    nearest = node.get("mode", "nearest") == "nearest"
    rounding = "floor" if (scales >= 1).all() else "ceil" if (scales <= 1).all() else ""
    if (
        node.get("mode") == "cubic"
        or node.take("coordinate_transformation_mode", "half_pixel") != "asymmetric"
        or (nearest and node.take("nearest_mode", "round_prefer_floor") != rounding)
    ):
        node.refuse(f"places pixels in a way that opset {opset} lacks")
    for name in ("cubic_coeff_a", "exclude_outside", "extrapolation_value", "nearest_mode"):
        node.take(name)
    node.inputs = [node.input(0), node.input(2)]
    node.keep()


def _upsample(node: Rewriting, opset: int) -> None:
    if (node.known_value(1, "scales") < 1).any():
        node.refuse(f"reduces an image, which opset {opset} can't")
    node.keep("Upsample")


def _roi_align(node: Rewriting, opset: int) -> None:
    if node.take("coordinate_transformation_mode", "half_pixel") != "output_half_pixel":
        node.refuse(f"has the coordinate_transformation_mode half_pixel, which opset {opset} lacks")
    node.keep()


def _scatter(node: Rewriting, opset: int) -> None:
    node.keep("Scatter")


def _gemm(node: Rewriting, opset: int) -> None:
    """The third operand was required."""
    if not node.input(2):
        node.inputs = [*node.inputs[:2], node.scalar(0.0, node.input(0))]
    node.keep()


def _constant(node: Rewriting, opset: int) -> None:
    """What isn't a tensor becomes one."""
    kinds: dict[str, Any] = {
        "value_int": np.int64,
        "value_ints": np.int64,
        "value_float": np.float32,
        "value_floats": np.float32,
    }
    for name in [name for name in node.attributes if name != "value"]:
        if name not in kinds:
            node.refuse(f"has the attribute {name}, which opset {opset} lacks")
        node.put(value=numpy_helper.from_array(np.asarray(node.take(name), kinds[name])))
    node.keep()


def _without_negative_axes(node: Rewriting, opset: int) -> None:
    """Axes that count from the end came with opset 11."""
    rank = None
    for name in ("axis", "axes"):
        value = node.get(name)
        axes = [value] if isinstance(value, int) else value or []
        if any(a < 0 for a in axes):
            rank = node.known_rank(node.input(0)) if rank is None else rank
            counted = non_negative(axes, rank)
            node.put(**{name: counted[0] if isinstance(value, int) else counted})
    node.keep()


def _equal_shapes(node: Rewriting, opset: int) -> None:
    """Operands of Max, Min, Mean and Sum weren't broadcast before opset 8."""
    shapes = [node.shape(name) for name in node.inputs]
    if any(s is None or None in s or s != shapes[0] for s in shapes):
        node.refuse(f"has operands whose shapes differ, or aren't known; opset {opset} doesn't broadcast them")
    node.keep()


_REDUCTIONS = ("L1", "L2", "LogSum", "LogSumExp", "Max", "Mean", "Min", "Prod", "SumSquare")
_WITH_AXES = ("ArgMax", "ArgMin", "Concat", "Flatten", "Gather", "Hardmax", "LogSoftmax", "Softmax", "Split", "Squeeze")
_NO_WRAP = _without_mode("mode", "wrap")

DOWNGRADES: dict[tuple[str, int], Rule] = {
    ("AveragePool", 22): _pool,
    ("Cast", 19): _cast,
    ("CastLike", 19): _cast,
    ("Clip", 11): _clip,
    ("Constant", 11): _constant,
    ("Constant", 12): _constant,
    ("DFT", 20): _dft,
    ("DequantizeLinear", 23): _dequantize,
    ("Dropout", 12): _dropout,
    ("Gelu", 20): _gelu,
    ("Gemm", 11): _gemm,
    ("GridSample", 20): _grid_sample,
    ("GroupNormalization", 21): _group_normalization,
    ("HardSwish", 14): _hard_swish,
    ("Hardmax", 13): _over_one_axis,
    ("LogSoftmax", 13): _over_one_axis,
    ("LpPool", 22): _pool,
    ("Max", 8): _equal_shapes,
    ("MaxPool", 22): _pool,
    ("Mean", 8): _equal_shapes,
    ("Min", 8): _equal_shapes,
    ("Pad", 11): _pad,
    ("Pad", 18): _pad_axes,
    ("Pad", 19): _NO_WRAP,
    ("QuantizeLinear", 21): _quantize,
    ("RMSNormalization", 23): _rms_normalization,
    ("Range", 27): _range,
    ("ReduceSum", 13): _reduction,
    ("Resize", 10): _upsample,
    ("Resize", 11): _resize,
    ("Resize", 13): _resize_operands,
    ("Resize", 19): _without_mode("coordinate_transformation_mode", "half_pixel_symmetric"),
    ("RoiAlign", 16): _roi_align,
    ("ScatterElements", 11): _scatter,
    ("Shape", 15): _shape,
    ("Slice", 10): _slice,
    ("Softmax", 13): _over_one_axis,
    ("Split", 13): _operands_to_attributes("split"),
    ("Split", 18): _split,
    ("Squeeze", 13): _operands_to_attributes("axes"),
    ("Sum", 8): _equal_shapes,
    ("Swish", 24): _swish,
    ("TopK", 10): _top_k,
    ("Unsqueeze", 13): _operands_to_attributes("axes"),
    ("Upsample", 9): _operands_to_attributes("scales"),
    **{(f"Reduce{name}", 18): _reduction for name in _REDUCTIONS},
    **{(f"Reduce{name}", 11): _without_negative_axes for name in (*_REDUCTIONS, "Sum")},
    **{(op, 11): _without_negative_axes for op in _WITH_AXES},
}
