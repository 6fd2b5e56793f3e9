"""The gradient of Resize."""

from __future__ import annotations

import numpy as np
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from wootz.passes.ir.model import OPSET, Constant
from wootz.passes.training.rules.rule import Backward, Gradients, NoRule, static


def resize(b: Backward) -> Gradients:
    """Resize is linear and separable, y = R₁ x R₂ᵀ with a matrix for rows and one for columns: dx = R₁ᵀ dy R₂."""
    x, y = b.operand(0), b.result()
    if b.attribute("axes") or b.attribute("coordinate_transformation_mode") == "tf_crop_and_resize":
        raise NoRule("axes and tf_crop_and_resize are not supported")
    if x.rank != 4 or x.shape[:2] != y.shape[:2]:
        raise NoRule("only height and width of an operand N,C,H,W can be resized")
    height, width = static(x.shape[2:], "height and width")
    rows, columns = static(y.shape[2:], "height and width")
    dx = b.gradient()
    if rows != height:
        dx = dx.constant(_interpolation(b, height, rows, 2).T) @ dx
    if columns != width:
        dx = dx @ dx.constant(_interpolation(b, width, columns, 3))
    return [dx]


def _interpolation(b: Backward, size: int, resized: int, axis: int) -> np.ndarray:
    """The matrix [resized, size] of the node's interpolation along one axis: what it makes of the unit vectors."""
    if b.attribute("antialias", 0) or b.attribute("keep_aspect_ratio_policy", "stretch") != "stretch":
        raise NoRule("antialias and keep_aspect_ratio_policy are not supported")
    scales = b.x[2].tensor if len(b.x) > 2 and b.x[2] is not None else None
    if isinstance(scales, Constant) and scales.values.size:
        inputs, wanted = ["unit", "", "wanted"], np.asarray([1, 1, scales.values[axis]], np.float32)
    else:
        inputs, wanted = ["unit", "", "", "wanted"], np.asarray([size, 1, resized], np.int64)
    node = helper.make_node("Resize", inputs, ["image"], **b.node.attrs)
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
