"""Models of newer opsets compute what they did, and can be trained."""

from __future__ import annotations

import re

import numpy as np
import onnx.parser
import onnx.reference
import pytest

from wootz.passes.errors import WootzError
from wootz.passes.ir.model import Model
from wootz.passes.ir.verifier import verify
from wootz.passes.training.attach_loss import AttachLoss
from wootz.passes.training.build_gradients import BuildGradients


def parse(opset, body, shape="2,4,6", weights=""):
    header = f'<ir_version: 9, opset_import: ["" : {opset}]>'
    return onnx.parser.parse_model(f"{header} g (float[{shape}] x) => (float[{shape}] y) {weights} {{ {body} }}")


WEIGHTS = "<float[4] s = {1, 2, 3, 4}, float[4] b = {5, 6, 7, 8}>"
MODELS = {
    "gelu": parse(20, "y = Gelu(x)"),
    "gelu-tanh": parse(20, 'y = Gelu<approximate="tanh">(x)'),
    "two": parse(20, "z = Gelu(x) y = Gelu(z)"),
    "group-normalization": parse(21, "y = GroupNormalization<num_groups=2>(x, s, b)", weights=WEIGHTS),
    "group-normalization-2d": parse(
        21, "y = GroupNormalization<num_groups=4, epsilon=0.1>(x, s, b)", "2,4,3,5", WEIGHTS
    ),
}


def read(proto):
    """The IR; the model itself stays as it is."""
    copied = onnx.ModelProto()
    copied.CopyFrom(proto)
    return Model.from_proto(copied)


@pytest.mark.parametrize("name", MODELS)
def test_the_meaning_is_kept(name):
    proto = MODELS[name]
    model = read(proto)
    verify(model)
    shape = [d.dim_value for d in proto.graph.input[0].type.tensor_type.shape.dim]
    feeds = {"x": np.random.default_rng(0).normal(size=shape).astype(np.float32)}
    (expected,) = onnx.reference.ReferenceEvaluator(proto).run(None, feeds)
    (found,) = onnx.reference.ReferenceEvaluator(model.to_proto()).run(None, feeds)
    assert np.abs(found - expected).max() <= 1e-5 * np.abs(expected).max()


def test_the_scale_of_a_channel_is_a_parameter_and_the_ones_are_not():
    model = AttachLoss(loss="mse").apply(read(MODELS["group-normalization"])).model
    graph = BuildGradients().apply(model).model.graph
    assert [t.name for t in graph.outputs] == ["loss", "s.grad", "b.grad"]


def test_an_average_that_is_not_dilated_loses_the_attribute():
    model = Model.from_proto(parse(19, "y = AveragePool<kernel_shape=[1], dilations=[1]>(x)"))
    assert "dilations" not in model.graph.nodes[0].attrs


@pytest.mark.parametrize(
    ("proto", "reason"),
    [
        (
            parse(19, "y = AveragePool<kernel_shape=[2], dilations=[2], pads=[1,1]>(x)"),
            "AveragePool node that computes 'y' has the attribute dilations, which opset 18 lacks",
        ),
        (
            parse(19, 'y = Pad<mode="wrap">(x, p)', weights="<int64[6] p = {0,0,1,0,0,-1}>"),
            "Pad node that computes 'y' has the mode wrap, which opset 18 lacks",
        ),
    ],
    ids=["dilations", "wrap"],
)
def test_what_the_older_form_lacks_is_refused(proto, reason):
    message = f"the model has opset 19 and can't be converted to 18: {reason}"
    with pytest.raises(WootzError, match=f"^{re.escape(message)}$"):
        Model.from_proto(proto)
