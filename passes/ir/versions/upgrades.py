"""How operators are written in the next newer version: from (operator, version) to the rule that brings it there.

Versions that aren't listed changed nothing that a valid node of the version before could have said: they allow more
types, negative axes, broadcasting, or attributes with a default that means what was so before.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from wootz.passes.ir.versions.rewriting import Rewriting, padding_beyond_last_window

Rule = Callable[[Rewriting, int], None]
"""Places what a node becomes in the opset."""

LARGEST_FLOAT = float(np.finfo(np.float32).max)


def _attributes_to_operands(*names: str) -> Rule:
    """Integer attributes become operands behind the first."""

    def rule(node: Rewriting, opset: int) -> None:
        values = [node.take(name) for name in names]
        operands = ["" if v is None else node.constant(np.reshape(v, -1).astype(np.int64)) for v in values]
        while operands and not operands[-1]:
            operands.pop()
        node.inputs = [*node.inputs[:1], *operands]
        node.keep()

    return rule


def _slice(node: Rewriting, opset: int) -> None:
    """Without axes, the first ones are meant."""
    if node.get("axes") is None:
        node.put(axes=list(range(len(node.get("starts", [])))))
    _attributes_to_operands("starts", "ends", "axes")(node, opset)


def _over_trailing_axes(node: Rewriting, opset: int) -> None:
    """Softmax, LogSoftmax and Hardmax before opset 13 are over all dimensions from `axis` on.

    The result has the operand's shape: where exporters compute shapes, that of an output of the network is known alone.
    """
    axis, shape = node.take("axis", 1), node.shape(node.input(0))
    if shape is None:
        shape = node.shape(node.outputs[0])
    if shape is not None and set(shape[axis:][1:]) <= {1}:
        node.put(axis=axis)
        node.keep()
        return
    flat = node.op("Flatten", node.input(0), axis=axis)
    result = node.op(node.node.op_type, flat, axis=-1)
    node.op("Reshape", result, node.op("Shape", node.input(0)), outputs=node.outputs)


def _batch_normalization_per_activation(node: Rewriting, opset: int) -> None:
    """With `spatial` = 0 every place of an image has a mean, variance, scale and bias of its own.

    MXNet's exporter said so of channels, too: parameters of one dimension can't be anything else.
    """
    if node.take("spatial", 1) == 1 or node.known_rank(node.input(1)) == 1:
        node.keep()
        return
    if any(node.is_read(i) for i in range(1, 5)):
        node.refuse("gives the statistics of a batch, with spatial=0: there is no such operator any more")
    x, scale, bias, mean, variance = node.inputs
    deviation = node.op("Sqrt", node.op("Add", variance, node.scalar(node.get("epsilon", 1e-5), scale)))
    normalized = node.op("Div", node.op("Sub", x, mean), deviation)
    node.op("Add", node.op("Mul", normalized, scale), bias, outputs=node.outputs[:1])


def _batch_normalization_results(node: Rewriting, opset: int) -> None:
    """Five results, of which the last two are said to speed up gradients, mean that it trains."""
    while node.outputs and not node.outputs[-1]:
        node.outputs.pop()
    if len(node.outputs) > 1:
        if node.is_read(3) or node.is_read(4):
            node.refuse(f"gives the saved statistics of a batch, which opset {opset} lacks")
        node.put(training_mode=1)
        del node.outputs[3:]
    node.keep()


def _dropout(node: Rewriting, opset: int) -> None:
    """The ratio becomes an operand. What the mask holds in inference was not said: it must not be read."""
    if node.is_read(1):
        node.refuse("has a mask that is read, and which is undefined in inference before opset 12")
    ratio = node.take("ratio", 0.5)
    node.inputs = [node.input(0), node.constant(ratio)]
    del node.outputs[1:]
    node.keep()


def _clip(node: Rewriting, opset: int) -> None:
    """The bounds become operands of the same type; those that are float32's largest numbers bound nothing."""
    low, high = node.take("min", -LARGEST_FLOAT), node.take("max", LARGEST_FLOAT)
    operands = [node.input(0)]
    operands.append(node.scalar(low, operands[0]) if low > -LARGEST_FLOAT else "")
    operands.append(node.scalar(high, operands[0]) if high < LARGEST_FLOAT else "")
    while not operands[-1]:
        operands.pop()
    node.inputs = operands
    node.keep()


def _pad(node: Rewriting, opset: int) -> None:
    value = node.take("value", 0.0)
    node.inputs = [node.input(0), node.constant(np.asarray(node.take("pads"), np.int64))]
    if value and node.get("mode", "constant") == "constant":
        node.inputs.append(node.scalar(value, node.input(0)))
    node.keep()


def _split(node: Rewriting, opset: int) -> None:
    """Equal parts need their number."""
    if not node.input(1):
        node.put(num_outputs=len(node.outputs))
        node.inputs = node.inputs[:1]
    node.keep()


def _upsample_scales(node: Rewriting, opset: int) -> None:
    node.inputs = [node.input(0), node.constant(np.asarray(node.take("scales"), np.float32))]
    node.keep()


def _renamed(op_type: str) -> Rule:
    return lambda node, opset: node.keep(op_type)


def _upsample(node: Rewriting, opset: int) -> None:
    if node.get("mode", "nearest") == "bilinear":
        node.put(mode="linear")
    node.keep("Resize")


def _resize_asymmetric(node: Rewriting, opset: int) -> None:
    """Resize before opset 11: pixel i comes from i / scale, rounded down where enlarged and up where reduced."""
    x, scales = node.inputs
    roi = node.constant(np.zeros(0, np.float32))
    if node.get("mode", "nearest") != "nearest":
        node.put(coordinate_transformation_mode="asymmetric")
        node.inputs = [x, roi, scales]
        node.keep()
        return
    known = node.value(scales)
    mode = {"mode": "nearest", "coordinate_transformation_mode": "asymmetric"}
    if known is not None and (known >= 1).all():
        node.op("Resize", x, roi, scales, outputs=node.outputs, nearest_mode="floor", **mode)
    elif known is not None and (known <= 1).all():
        node.op("Resize", x, roi, scales, outputs=node.outputs, nearest_mode="ceil", **mode)
    else:
        one = node.constant(np.ones(1, np.float32))
        larger, smaller = node.op("Max", scales, one), node.op("Min", scales, one)
        enlarged = node.op("Resize", x, roi, larger, nearest_mode="floor", **mode)
        node.op("Resize", enlarged, roi, smaller, outputs=node.outputs, nearest_mode="ceil", **mode)


def _resize_one_size(node: Rewriting, opset: int) -> None:
    """Empty operands are left out; and tf_half_pixel_for_nn, where it rounds down, has another name."""
    if node.get("coordinate_transformation_mode") != "tf_crop_and_resize":
        node.inputs[1:2] = [""]
    if node.input(3):
        node.inputs[2] = ""
    if node.get("coordinate_transformation_mode") == "tf_half_pixel_for_nn":
        if node.get("mode", "nearest") != "nearest" or node.get("nearest_mode") != "floor":
            node.refuse("has the coordinate_transformation_mode tf_half_pixel_for_nn, and doesn't round down")
        node.put(coordinate_transformation_mode="half_pixel", nearest_mode="round_prefer_ceil")
    node.keep()


def _roi_align(node: Rewriting, opset: int) -> None:
    node.put(coordinate_transformation_mode="output_half_pixel")
    node.keep()


def _scan_of_batches(node: Rewriting, opset: int) -> None:
    node.refuse("is of opset 8 and has a batch dimension, which newer ones have not")


def _grid_sample(node: Rewriting, opset: int) -> None:
    names = {"bilinear": "linear", "bicubic": "cubic"}
    mode = node.get("mode", "bilinear")
    node.put(mode=names.get(mode, mode))
    node.keep()


def _dft(node: Rewriting, opset: int) -> None:
    node.inputs = [node.input(0), node.input(1), node.constant(node.take("axis", 1))]
    node.keep()


def _group_normalization(node: Rewriting, opset: int) -> None:
    """A scale and a bias a group become those of each of its channels."""
    shape = node.shape(node.input(0))
    if shape is None or len(shape) < 2 or shape[1] is None:
        node.refuse("needs the number of channels, which can't be inferred")
    each = shape[1] // node.get("num_groups")
    for i in (1, 2):
        column = node.op("Unsqueeze", node.input(i), node.constant([1]))
        spread = node.op("Expand", column, node.constant([1, each]))
        node.inputs[i] = node.op("Reshape", spread, node.constant([-1]))
    node.keep()


def _pool(node: Rewriting, opset: int) -> None:
    """With `ceil_mode`, older forms have a last window even where it lies in the padding."""
    if any(padding_beyond_last_window(node)):
        node.refuse(f"has windows that lie in the padding, which opset {opset} leaves out")
    node.keep()


# Operators that were experiments before opset 10, and that ONNX Runtime still has


def _image_scaler(node: Rewriting, opset: int) -> None:
    """x · scale + bias, a bias a channel."""
    if node.get("bias") is None:
        node.refuse("lacks the attribute bias")
    scaled = node.op("Mul", node.input(0), node.constant(node.get("scale", 1.0)))
    bias = np.asarray(node.get("bias"), np.float32).reshape(-1, 1, 1)
    node.op("Add", scaled, node.constant(bias), outputs=node.outputs)


def _affine(node: Rewriting, opset: int) -> None:
    """α x + β."""
    scaled = node.op("Mul", node.input(0), node.constant(node.get("alpha", 1.0)))
    node.op("Add", scaled, node.constant(node.get("beta", 0.0)), outputs=node.outputs)


def _scaled(inner: str) -> Rule:
    """α f(β x)."""

    def rule(node: Rewriting, opset: int) -> None:
        result = node.op(inner, node.op("Mul", node.input(0), node.constant(node.get("beta", 1.0))))
        node.op("Mul", result, node.constant(node.get("alpha", 1.0)), outputs=node.outputs)

    return rule


def _crop(node: Rewriting, opset: int) -> None:
    """Without borders (left, top, right, bottom), or what is as large as `scale` says behind the first two."""
    left, top, right, bottom = node.get("border", [0, 0, 0, 0])
    size = node.get("scale")
    last = np.iinfo(np.int64).max
    ends = [-bottom or last, -right or last] if size is None else [top + size[0], left + size[1]]
    node.op("Slice", node.input(0), outputs=node.outputs, axes=[2, 3], starts=[top, left], ends=ends)


EXPERIMENTS: dict[str, Rule] = {
    "Affine": _affine,
    "Crop": _crop,
    "ImageScaler": _image_scaler,
    "ParametricSoftplus": _scaled("Softplus"),
    "ScaledTanh": _scaled("Tanh"),
}
"""What is written in the same opset for operators that no version of ONNX has; they are of float32."""

_REDUCTIONS = ("L1", "L2", "LogSum", "LogSumExp", "Max", "Mean", "Min", "Prod", "SumSquare")

UPGRADES: dict[tuple[str, int], Rule] = {
    ("AveragePool", 22): _pool,
    ("BatchNormalization", 9): _batch_normalization_per_activation,
    ("BatchNormalization", 14): _batch_normalization_results,
    ("Clip", 11): _clip,
    ("DFT", 20): _dft,
    ("Dropout", 12): _dropout,
    ("GridSample", 20): _grid_sample,
    ("GroupNormalization", 21): _group_normalization,
    ("Hardmax", 13): _over_trailing_axes,
    ("LogSoftmax", 13): _over_trailing_axes,
    ("LpPool", 22): _pool,
    ("MaxPool", 22): _pool,
    ("Pad", 11): _pad,
    ("ReduceSum", 13): _attributes_to_operands("axes"),
    ("Resize", 11): _resize_asymmetric,
    ("Resize", 13): _resize_one_size,
    ("Resize", 18): _resize_one_size,
    ("RoiAlign", 16): _roi_align,
    ("Scan", 9): _scan_of_batches,
    ("Scatter", 11): _renamed("ScatterElements"),
    ("Slice", 10): _slice,
    ("Softmax", 13): _over_trailing_axes,
    ("Split", 13): _attributes_to_operands("split"),
    ("Split", 18): _split,
    ("Squeeze", 13): _attributes_to_operands("axes"),
    ("TopK", 10): _attributes_to_operands("k"),
    ("Unsqueeze", 13): _attributes_to_operands("axes"),
    ("Upsample", 9): _upsample_scales,
    ("Upsample", 10): _upsample,
    **{(f"Reduce{name}", 18): _attributes_to_operands("axes") for name in _REDUCTIONS},
}
