"""The gradient of Resize."""

from __future__ import annotations

import math

import numpy as np
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from wootz.passes.ir.model import OPSET, Constant
from wootz.passes.training.rules.rule import Backward, Gradients, NoRule, like, static


def resize(b: Backward) -> Gradients:
    """Resize is linear and separable: along each axis y = R x with a matrix R, so that dx = Rᵀ dy, axis by axis."""
    dx, x, y = b.gradient(), b.operand(0), b.result()
    if b.attribute("coordinate_transformation_mode") == "tf_crop_and_resize":
        raise NoRule("coordinate_transformation_mode=tf_crop_and_resize is not supported")
    if b.attribute("keep_aspect_ratio_policy", "stretch") != "stretch":
        raise NoRule("keep_aspect_ratio_policy is not supported: give the sizes or scales themselves")
    axes = [a % x.rank for a in b.attribute("axes", range(x.rank))]
    resized = sorted((a, place) for place, a in enumerate(axes) if x.shape[a] != y.shape[a])
    for axis, place in resized:
        size, count, *behind = static([x.shape[axis], *y.shape[axis:]], "a resized axis and those behind it")
        matrix = _interpolation(b, size, count, place)
        match x.rank - axis:
            case 1:
                dx = dx @ dx.constant(matrix)
            case 2:
                dx = dx.constant(matrix.T) @ dx
            case _:
                planes = dx.reshape([-1, count, math.prod(behind)])
                dx = (dx.constant(matrix.T) @ planes).reshape([-1, size, *behind])
    return [dx.reshape(like(x)) if any(axis < x.rank - 2 for axis, _ in resized) else dx]


def _interpolation(b: Backward, size: int, resized: int, place: int) -> np.ndarray:
    """The matrix [resized, size] of the node's interpolation along one axis: what it makes of the unit vectors.

    `place` is that of the axis among those that the operands with scales or sizes speak of.
    """
    scales = b.x[2].tensor if len(b.x) > 2 and b.x[2] is not None else None
    if isinstance(scales, Constant) and scales.values.size:
        inputs, wanted = ["unit", "", "wanted"], np.asarray([1, 1, scales.values[place]], np.float32)
    else:
        inputs, wanted = ["unit", "", "", "wanted"], np.asarray([size, 1, resized], np.int64)
    node = helper.make_node("Resize", inputs, ["image"], **{k: v for k, v in b.node.attrs.items() if k != "axes"})
    graph = helper.make_graph(
        [node],
        "interpolation",
        [helper.make_tensor_value_info("unit", TensorProto.DOUBLE, [size, 1, size])],
        [helper.make_tensor_value_info("image", TensorProto.DOUBLE, None)],
        [numpy_helper.from_array(wanted, "wanted")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)])
    (images,) = ReferenceEvaluator(model).run(None, {"unit": np.eye(size)[:, None]})
    return np.asarray(images)[:, 0].T
