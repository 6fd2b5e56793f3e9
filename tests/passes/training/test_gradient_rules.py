"""Every gradient rule against finite differences in float64 and, legalised, against itself in float32.

A case is one operator between a tensor that depends on a parameter (`a`) and the output (`y`). The gradient is
projected on random directions v: (L(p + h v) - L(p - h v)) / 2h must equal <gradient, v>.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import pytest

from wootz.passes.training.build_gradients import BuildGradients
from wootz.passes.training.gradient_rules import RULES
from wootz.passes.training.legalize import Legalize
from wootz.passes.training.training_mode import TrainingMode

STEP = 1e-5


@dataclass(frozen=True)
class Case:
    """`y` computed from `a`, which has `shape`; `weights` are further parameters."""

    operator: str
    body: str
    shape: tuple[int, ...] = (2, 4, 7, 6)
    weights: dict[str, object] = field(default_factory=dict)
    note: str = ""
    training: bool = False
    positive: bool = False

    def __str__(self) -> str:
        return f"{self.operator}{'-' if self.note else ''}{self.note}"


IMAGE = (2, 4, 7, 6)
CASES = [
    Case("Identity", "y = Identity(a)"),
    Case("Relu", "y = Relu(a)"),
    Case("PRelu", "y = PRelu(a, slope)", weights={"slope": (4, 1, 1)}),
    Case("Add", "y = Add(a, w)", weights={"w": (4, 1, 1)}, note="channel"),
    Case("Add", "y = Add(a, w)", weights={"w": (2, 1, 7, 1)}, note="inner"),
    Case("Sub", "v = Mul(w, w) y = Sub(v, a)", weights={"w": (6,)}),
    Case("Mul", "y = Mul(a, w)", weights={"w": (1, 4, 1, 1)}, note="channel"),
    Case("Mul", "y = Mul(a, a)", note="square"),
    Case("Div", "v = Mul(w, w) y = Div(v, a)", weights={"w": IMAGE}, positive=True),
    Case("Conv", "y = Conv<pads=[1,1,1,1]>(a, w, b)", weights={"w": (3, 4, 3, 3), "b": (3,)}),
    Case("Conv", "y = Conv(a, w)", weights={"w": (6, 4, 1, 1)}, note="1x1"),
    Case("Conv", "y = Conv<strides=[2,2]>(a, w)", weights={"w": (6, 4, 1, 1)}, note="1x1-strided"),
    Case("Conv", "y = Conv<group=2, strides=[2,3], pads=[1,0,2,1]>(a, w)", weights={"w": (6, 2, 3, 2)}, note="group"),
    Case(
        "Conv", "y = Conv<group=4, strides=[2,1], pads=[1,1,1,1]>(a, w)", weights={"w": (8, 1, 3, 3)}, note="depthwise"
    ),
    Case("Conv", "y = Conv<dilations=[2,3], pads=[2,3,2,2]>(a, w)", weights={"w": (3, 4, 3, 2)}, note="dilated"),
    Case("Conv", "y = Conv<dilations=[2,2], strides=[3,2]>(a, w)", weights={"w": (3, 4, 2, 2)}, note="dilated-strided"),
    Case(
        "Conv", 'y = Conv<auto_pad="SAME_UPPER", strides=[2,2]>(a, w)', weights={"w": (3, 4, 3, 3)}, note="same-upper"
    ),
    Case(
        "Conv", 'y = Conv<auto_pad="SAME_LOWER", strides=[2,2]>(a, w)', weights={"w": (3, 4, 3, 3)}, note="same-lower"
    ),
    Case("Gemm", "y = Gemm(a, w, b)", (5, 4), {"w": (4, 3), "b": (3,)}),
    Case("Gemm", "y = Gemm<transB=1, alpha=0.5, beta=2.0>(a, w, b)", (5, 4), {"w": (3, 4), "b": (1, 3)}, note="transB"),
    Case("Gemm", "y = Gemm<transA=1>(a, w)", (4, 5), {"w": (4, 3)}, note="transA"),
    Case("Gemm", "y = Gemm<transA=1, transB=1>(a, w, b)", (4, 5), {"w": (3, 4), "b": (5, 1)}, note="both"),
    Case("MatMul", "y = MatMul(a, w)", (5, 4), {"w": (4, 3)}),
    Case("MatMul", "y = MatMul(a, w)", (2, 5, 4), {"w": (4, 3)}, note="rows"),
    Case("MatMul", "y = MatMul(w, a)", (2, 3, 5, 4), {"w": (3, 2, 5)}, note="batch"),
    Case("MatMul", "y = MatMul(a, w)", (2, 1, 5, 4), {"w": (1, 3, 4, 2)}, note="broadcast"),
    Case("MaxPool", "y = MaxPool<kernel_shape=[3,2], strides=[2,2], pads=[1,0,1,1]>(a)"),
    Case("MaxPool", "y = MaxPool<kernel_shape=[2,2], strides=[2,2], ceil_mode=1>(a)", note="ceil"),
    Case("AveragePool", "y = AveragePool<kernel_shape=[3,2], strides=[2,2], pads=[1,0,1,1]>(a)"),
    Case("AveragePool", "y = AveragePool<kernel_shape=[3,3], pads=[1,1,1,1], count_include_pad=1>(a)", note="pads"),
    Case("AveragePool", "y = AveragePool<kernel_shape=[2,2], strides=[3,3]>(a)", note="gaps"),
    Case("GlobalAveragePool", "y = GlobalAveragePool(a)"),
    Case(
        "BatchNormalization",
        "y = BatchNormalization<epsilon=0.001>(a, scale, bias, mean, variance)",
        weights={"scale": (4,), "bias": (4,), "mean": (4,), "variance": (4,)},
        note="inference",
    ),
    Case(
        "BatchNormalization",
        "y = BatchNormalization<epsilon=0.001>(a, scale, bias, mean, variance)",
        weights={"scale": (4,), "bias": (4,), "mean": (4,), "variance": (4,)},
        note="training",
        training=True,
    ),
    Case("LRN", "y = LRN<size=3, alpha=0.5, beta=0.75, bias=2.0>(a)"),
    Case("Softmax", "y = Softmax<axis=1>(a)"),
    Case("LogSoftmax", "y = LogSoftmax(a)", (3, 5)),
    Case("SoftmaxCrossEntropyLoss", "y = SoftmaxCrossEntropyLoss(a, labels)", (3, 5), {"labels": np.array([0, 4, 2])}),
    Case(
        "SoftmaxCrossEntropyLoss",
        "y = SoftmaxCrossEntropyLoss(a, labels, class_weights)",
        (3, 5),
        {"labels": np.array([0, 4, 2]), "class_weights": np.array([0.5, 1.0, 2.0, 1.0, 3.0])},
        note="weighted",
    ),
    Case("Reshape", "y = Reshape(a, s)", weights={"s": np.array([2, -1, 3])}),
    Case("Flatten", "y = Flatten(a)"),
    Case("Squeeze", "y = Squeeze(a)", (3, 1, 4)),
    Case("Unsqueeze", "y = Unsqueeze(a, s)", (3, 4), {"s": np.array([1])}),
    Case("Concat", "v = Mul(w, w) y = Concat<axis=1>(a, v, a)", weights={"w": (2, 3, 7, 6)}),
    Case("ReduceMean", "y = ReduceMean<keepdims=0>(a, s)", weights={"s": np.array([2, 3])}),
    Case("ReduceMean", "y = ReduceMean(a)", note="all"),
    Case("ReduceSum", "y = ReduceSum(a, s)", weights={"s": np.array([1, -1])}),
    Case("Dropout", "y = Dropout(a, ratio)", weights={"ratio": np.array(0.5)}, note="inference"),
]


def declaration(name: str, given: object) -> str:
    shape = given.shape if isinstance(given, np.ndarray) else given
    kind = "int64" if isinstance(given, np.ndarray) and given.dtype.kind == "i" else "float"
    return f"{kind}[{','.join(map(str, shape))}] {name}"


@pytest.fixture
def forward(case, make_model, with_projected_loss):
    weights = {"p": case.shape, **case.weights}
    if case.positive:
        weights["p"] = np.random.default_rng(1).uniform(1.0, 2.0, case.shape)
    declared = ", ".join(declaration(n, g) for n, g in weights.items())
    shape = ",".join(map(str, case.shape))
    text = f"g (float[{shape}] x) => (y) <{declared}> {{ a = Add(x, p) {case.body} }}"
    return with_projected_loss(make_model(text, **weights))


@pytest.fixture
def feeds(case, forward):
    rng = np.random.default_rng(3)
    shapes = {t.name: t.shape for t in forward.graph.inputs}
    return {
        name: rng.normal(size=shape) * (0 if case.positive and name == "x" else 1) for name, shape in shapes.items()
    }


def gradients(outputs):
    return {name.removesuffix(".grad"): value for name, value in outputs.items() if name.endswith(".grad")}


@pytest.mark.parametrize("case", CASES, ids=str)
def test_equals_finite_differences(case, forward, feeds, in_double_precision, run_reference):
    if case.training:
        forward = TrainingMode().apply(forward).model
    double = in_double_precision(forward)
    found = gradients(run_reference(BuildGradients().apply(double).model, feeds))
    rng = np.random.default_rng(4)
    for parameter, gradient in found.items():
        direction = rng.normal(size=gradient.shape)

        def loss(step, parameter=parameter, direction=direction):
            moved = double.copy()
            tensor = moved.graph.tensors()[parameter]
            tensor.values = tensor.values + step * direction
            return float(run_reference(moved, feeds)["loss"])

        expected = (loss(STEP) - loss(-STEP)) / (2 * STEP)
        assert np.sum(gradient * direction) == pytest.approx(expected, rel=2e-6, abs=2e-8), parameter
    assert {"p", *(n for n, g in case.weights.items() if isinstance(g, tuple))} - set(found) <= {"mean", "variance"}


@pytest.mark.parametrize("case", CASES, ids=str)
@pytest.mark.parametrize("target", ["onnx"])
def test_legalized_in_single_precision_equals_double_precision(
    case, target, forward, feeds, in_double_precision, run_reference, run
):
    if case.training:
        forward = TrainingMode().apply(forward).model
    expected = gradients(run_reference(BuildGradients().apply(in_double_precision(forward)).model, feeds))
    legal = Legalize(target=target).apply(BuildGradients().apply(forward).model).model
    assert not legal.graph.functions
    found = gradients(run(legal, {name: np.asarray(value, np.float32) for name, value in feeds.items()}))
    for parameter, gradient in expected.items():
        assert np.abs(found[parameter] - gradient).max() <= 1e-5 * np.abs(gradient).max(), parameter


def test_every_rule_has_a_case():
    assert set(RULES) == {case.operator for case in CASES}
