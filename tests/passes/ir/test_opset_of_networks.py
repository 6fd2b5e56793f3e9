"""Random networks in old opsets, with the operators' forms of then, and more or less known of shapes."""

from __future__ import annotations

import numpy as np
import onnx
import onnx.parser
import onnxruntime
from hypothesis import given, settings
from hypothesis import strategies as st

from wootz.passes.ir.model import Model
from wootz.passes.ir.verifier import verify

TOLERANCE = 1e-5
"""max|a - b| / max|b|, float32."""
WEIGHTS = (
    "float[4] s = {1,2,0.5,1}, float[4] b = {0,1,0,-1}, float[4] m = {0,0.5,1,0}, float[4] v = {1,2,1,0.5}, "
    "float[4] scales = {1,1,2,1.5}, float[0] roi = {}, int64[5] groups = {0,2,2,0,-1}"
)
LAYERS = {
    "{y} = Clip<min=-0.5, max=1.5>({x})": (7, 10),
    "{y} = BatchNormalization({x}, s, b, m, v)": (7, 17),
    "{y} = Dropout<ratio=0.3>({x})": (7, 11),
    "{y} = ImageScaler<bias=[1.0,2.0,0.0,1.0], scale=0.5>({x})": (7, 9),
    "{y} = Pad<pads=[0,0,1,0,0,0,0,1]>({x})": (7, 10),
    "{y} = Softmax({x})": (7, 12),
    "{y} = LogSoftmax<axis=2>({x})": (7, 12),
    "{y} = Softmax<axis=3>({x})": (7, 12),
    "{y} = Upsample<scales=[1.0,1.0,2.0,2.0]>({x})": (7, 8),
    "{y} = Upsample({x}, scales)": (9, 9),
    "{y} = Resize({x}, scales)": (10, 10),
    '{y} = Resize<mode="linear">({x}, roi, scales)': (11, 17),
    "{y} = MaxPool<kernel_shape=[2,2], strides=[2,2], pads=[1,1,0,0]>({x})": (7, 17),
    "{y} = AveragePool<kernel_shape=[3,3], strides=[2,2], ceil_mode=1, pads=[1,1,1,1]>({x})": (10, 17),
    "{y} = Conv<pads=[1,1,1,1]>({x}, w)": (7, 17),
    "{y} = InstanceNormalization({x}, s, b)": (7, 17),
    "{y}a = ReduceSum<axes=[2,3], keepdims=0>({x}) {y}b = Unsqueeze<axes=[2,3]>({y}a) "
    "{y}c = Softmax({y}b) {y} = Mul({x}, {y}c)": (7, 12),
    "{y}a, {y}b = Split<axis=1, split=[2,2]>({x}) {y} = Concat<axis=1>({y}b, {y}a)": (7, 12),
    "{y}a = Slice<axes=[1], starts=[1], ends=[3]>({x}) {y} = Concat<axis=1>({y}a, {y}a)": (7, 9),
    "{y}a = Shape({x}) {y}b = Reshape({x}, groups) {y}c = Transpose<perm=[0,2,1,3,4]>({y}b) "
    "{y} = Reshape({y}c, {y}a)": (7, 17),
    "{y}a = GlobalAveragePool({x}) {y}b = Squeeze<axes=[2,3]>({y}a) {y}c = Unsqueeze<axes=[2,3]>({y}b) "
    "{y} = Add({x}, {y}c)": (7, 12),
    "{y}a = Hardmax<axis=1>({x}) {y} = Add({x}, {y}a)": (7, 12),
}
"""Nodes that compute {y} of {x}, and the first and last opset in which they have that form."""


@st.composite
def networks(draw: st.DrawFn) -> tuple[onnx.ModelProto, int]:
    opset = draw(st.integers(7, 17))
    forms = [form for form, (first, last) in LAYERS.items() if first <= opset <= last]
    chain = draw(st.lists(st.sampled_from(forms), min_size=1, max_size=7))
    names = ["x", *(f"h{i}" for i in range(len(chain) - 1)), "y"]
    nodes = [form.format(x=x, y=y) for form, x, y in zip(chain, names, names[1:], strict=False)]
    shape = draw(st.sampled_from(["2,4,6,8", "N,4,6,8", "N,4,H,W", "N,C,H,W"]))
    kernel = np.random.default_rng(draw(st.integers(0, 9))).normal(size=144) * 0.3
    weights = f"{WEIGHTS}, float[4,4,3,3] w = {{{','.join(f'{k:.3f}' for k in kernel)}}}"
    header = f'<ir_version: 8, opset_import: ["" : {opset}]>'
    text = f"{header} g (float[{shape}] x) => (float[] y) <{weights}> {{ {' '.join(nodes)} }}"
    return onnx.parser.parse_model(text), opset


def run(model: onnx.ModelProto, feeds: dict[str, np.ndarray]) -> np.ndarray:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    options.graph_optimization_level = (
        onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    )  # Pad and MaxPool, as one, fail
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return session.run(None, feeds)[0]


@settings(max_examples=80)
@given(networks())
def test_a_network_is_brought_to_the_pinned_opset_and_back(drawn):
    model, opset = drawn
    feeds = {"x": np.random.default_rng(0).normal(size=(2, 4, 6, 8)).astype(np.float32)}
    expected = run(model, feeds)
    read = Model.from_proto(model)
    verify(read)
    for found in (run(read.to_proto(), feeds), run(read.to_proto(opset), feeds)):
        assert found.shape == expected.shape
        assert np.abs(found - expected).max() <= TOLERANCE * np.abs(expected).max()
