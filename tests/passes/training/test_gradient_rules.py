"""Every gradient rule against finite differences in float64 and, legalised, against itself in float32.

A case is one operator between a tensor that depends on a parameter (`a`) and the output (`y`). The gradient is
projected on random directions v: (L(p + h v) - L(p - h v)) / 2h must equal <gradient, v>.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import pytest
from onnx.reference import ReferenceEvaluator

from wootz.passes.errors import PassError
from wootz.passes.ir.text import parse_text
from wootz.passes.training.build_gradients import BuildGradients
from wootz.passes.training.gradient_rules import RULES
from wootz.passes.training.legalize import Legalize
from wootz.passes.training.training_mode import TrainingMode


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
    step: float = 1e-5
    tolerance: float = 2e-6

    def __str__(self) -> str:
        return f"{self.operator}{'-' if self.note else ''}{self.note}"


IMAGE = (2, 4, 7, 6)
ZEROS = {"w3": np.array([[1.0, 1, 1, 1], [0, 1, 2, 0], [1, 1, 0, 1], [0, 0, 0, 0], [2, 1, 1, 3]]), "s": np.array([1])}
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
    Case("Abs", "y = Abs(a)"),
    Case("Cast", "f = Cast<to=11>(a) y = Cast<to=1>(f)"),
    Case("CastLike", "y = CastLike(a, w2)", weights={"w2": np.array([2.0])}),
    Case("Celu", "y = Celu<alpha=0.7>(a)"),
    Case("Clip", "y = Clip(a, low, high)", weights={"low": np.array(-0.5), "high": np.array(0.6)}),
    Case("Clip", "y = Clip(a, , high)", weights={"high": np.array(0.6)}, note="above"),
    Case("Cos", "y = Cos(a)"),
    Case("Elu", "y = Elu<alpha=1.3>(a)"),
    Case("Erf", "y = Erf(a)", step=3e-3, tolerance=1e-4),
    Case("Exp", "y = Exp(a)"),
    Case("HardSigmoid", "y = HardSigmoid<alpha=0.3, beta=0.4>(a)"),
    Case("HardSigmoid", "y = HardSigmoid(a)", note="defaults"),
    Case("HardSwish", "b = Add(a, a) c = Add(b, b) y = HardSwish(c)"),
    Case("LeakyRelu", "y = LeakyRelu<alpha=0.2>(a)"),
    Case("LeakyRelu", "y = LeakyRelu(a)", note="defaults"),
    Case("Log", "y = Log(a)", positive=True),
    Case("Max", "v = Mul(w, w) y = Max(a, v, a)", weights={"w": (4, 1, 1)}),
    Case("Mean", "v = Mul(w, w) y = Mean(a, v)", weights={"w": (1, 6)}),
    Case("Min", "v = Mul(w, w) y = Min(a, v)", weights={"w": (2, 4, 7, 6)}),
    Case("Mish", "y = Mish(a)"),
    Case("Neg", "y = Neg(a)"),
    Case("Pow", "y = Pow(a, w2)", weights={"w2": np.array([2.0])}, note="square"),
    Case("Pow", "v = Mul(w, w) y = Pow(a, v)", weights={"w": (6,)}, positive=True),
    Case("Pow", "y = Pow(a, w3)", weights={"w3": np.array([0.0, 1.0, 2.0, 3.0, 0.0, 1.0])}, note="powers"),
    Case("Reciprocal", "y = Reciprocal(a)", positive=True),
    Case("Selu", "y = Selu(a)"),
    Case("Sigmoid", "y = Sigmoid(a)"),
    Case("Sin", "y = Sin(a)"),
    Case("Softplus", "y = Softplus(a)"),
    Case("Softsign", "y = Softsign(a)"),
    Case("Sqrt", "y = Sqrt(a)", positive=True),
    Case("Sum", "v = Mul(w, w) y = Sum(a, v, a)", weights={"w": (1, 1, 6)}),
    Case("Tanh", "y = Tanh(a)"),
    Case("ThresholdedRelu", "y = ThresholdedRelu<alpha=0.3>(a)"),
    Case("Where", "v = Mul(w, w) c = Greater(a, v) y = Where(c, a, v)", weights={"w": (4, 1, 1)}),
    Case("ConvTranspose", "y = ConvTranspose(a, w, b)", weights={"w": (4, 3, 3, 2), "b": (3,)}),
    Case(
        "ConvTranspose",
        "y = ConvTranspose<group=2, strides=[2,3], pads=[1,0,0,1], output_padding=[1,0], dilations=[1,2]>(a, w)",
        weights={"w": (4, 3, 3, 2)},
        note="group",
    ),
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
    Case("Conv", 'y = Conv<auto_pad="VALID", strides=[2,2]>(a, w)', weights={"w": (3, 4, 3, 3)}, note="valid"),
    Case(
        "Conv",
        "y = Conv<group=2, strides=[2], pads=[1,2], dilations=[2]>(a, w, b)",
        (2, 4, 9),
        {"w": (6, 2, 3), "b": (6,)},
        note="1d",
    ),
    Case("Conv", 'y = Conv<auto_pad="SAME_LOWER", strides=[2]>(a, w)', (2, 4, 8), {"w": (3, 4, 3)}, note="1d-same"),
    Case(
        "Conv",
        "y = Conv<group=2, strides=[2,1,2], pads=[1,0,1,0,1,2], dilations=[1,2,1]>(a, w, b)",
        (2, 4, 5, 4, 6),
        {"w": (6, 2, 3, 2, 3), "b": (6,)},
        note="3d",
    ),
    Case("ConvTranspose", "y = ConvTranspose<strides=[2]>(a, w, b)", (2, 4, 5), {"w": (4, 3, 3), "b": (3,)}, note="1d"),
    Case(
        "ConvTranspose",
        "y = ConvTranspose<group=2, strides=[2,1,2], pads=[1,0,1,0,1,1], output_padding=[1,0,0]>(a, w, b)",
        (2, 4, 3, 4, 3),
        {"w": (4, 2, 3, 2, 3), "b": (4,)},
        note="3d",
    ),
    Case(
        "ConvTranspose",
        'y = ConvTranspose<auto_pad="SAME_UPPER", strides=[2,2]>(a, w)',
        weights={"w": (4, 3, 3, 5)},
        note="same-upper",
    ),
    Case(
        "ConvTranspose",
        'y = ConvTranspose<auto_pad="SAME_LOWER", strides=[2,2]>(a, w)',
        weights={"w": (4, 3, 3, 5)},
        note="same-lower",
    ),
    Case(
        "ConvTranspose",
        'y = ConvTranspose<auto_pad="VALID", strides=[2,2]>(a, w)',
        weights={"w": (4, 3, 3, 2)},
        note="valid",
    ),
    Case(
        "ConvTranspose",
        "y = ConvTranspose<strides=[2,2], output_shape=[14,11]>(a, w)",
        weights={"w": (4, 3, 3, 3)},
        note="output-shape",
    ),
    Case("Gemm", "y = Gemm(a, w, b)", (5, 4), {"w": (4, 3), "b": (3,)}),
    Case("Gemm", "y = Gemm<transB=1, alpha=0.5, beta=2.0>(a, w, b)", (5, 4), {"w": (3, 4), "b": (1, 3)}, note="transB"),
    Case("Gemm", "y = Gemm<transA=1>(a, w)", (4, 5), {"w": (4, 3)}, note="transA"),
    Case("Gemm", "y = Gemm<transA=1, transB=1>(a, w, b)", (4, 5), {"w": (3, 4), "b": (5, 1)}, note="both"),
    Case("MatMul", "y = MatMul(a, w)", (5, 4), {"w": (4, 3)}),
    Case("MatMul", "y = MatMul(a, w)", (2, 5, 4), {"w": (4, 3)}, note="rows"),
    Case("MatMul", "y = MatMul(w, a)", (2, 3, 5, 4), {"w": (3, 2, 5)}, note="batch"),
    Case("MatMul", "y = MatMul(a, w)", (2, 1, 5, 4), {"w": (1, 3, 4, 2)}, note="broadcast"),
    Case("MatMul", "y = MatMul(a, w)", (2, 3, 5, 4), {"w": (1, 4, 2)}, note="fewer-axes"),
    Case("Einsum", 'y = Einsum<equation="bhik,bhjk->bhij">(a, v)', (2, 3, 4, 5), {"v": (2, 3, 6, 5)}),
    Case("Einsum", 'y = Einsum<equation="nchw, oc -> nohw">(a, w)', weights={"w": (3, 4)}, note="weight"),
    Case("MaxPool", "y = MaxPool<kernel_shape=[3,2], strides=[2,2], pads=[1,0,1,1]>(a)"),
    Case("MaxPool", "y = MaxPool<kernel_shape=[2,2], strides=[2,2], ceil_mode=1>(a)", note="ceil"),
    Case("AveragePool", "y = AveragePool<kernel_shape=[3,2], strides=[2,2], pads=[1,0,1,1]>(a)"),
    Case("AveragePool", "y = AveragePool<kernel_shape=[3,3], pads=[1,1,1,1], count_include_pad=1>(a)", note="pads"),
    Case("AveragePool", "y = AveragePool<kernel_shape=[2,2], strides=[3,3]>(a)", note="gaps"),
    Case("AveragePool", "y = AveragePool<kernel_shape=[3,5], pads=[1,2,1,2]>(a)", note="borders"),
    Case("AveragePool", "y = AveragePool<kernel_shape=[3,2], pads=[1,0,0,1]>(a)", note="uneven"),
    Case("AveragePool", "y = AveragePool<kernel_shape=[4]>(a)", (2, 3, 9), note="1d-steps"),
    Case("MaxPool", "y = MaxPool<kernel_shape=[2,3], dilations=[3,1], strides=[1,2]>(a)", note="dilated"),
    Case("MaxPool", "y = MaxPool<kernel_shape=[3], strides=[2], pads=[1,0]>(a)", (2, 3, 9), note="1d"),
    Case("MaxPool", "y = MaxPool<kernel_shape=[2,3,2], strides=[1,2,2]>(a)", (2, 3, 4, 5, 6), note="3d"),
    Case("AveragePool", "y = AveragePool<kernel_shape=[2,3], strides=[2,2], ceil_mode=1>(a)", note="ceil"),
    Case(
        "AveragePool",
        "y = AveragePool<kernel_shape=[3,3], strides=[2,3], pads=[1,1,1,1], ceil_mode=1, count_include_pad=1>(a)",
        note="ceil-pads",
    ),
    Case("AveragePool", 'y = AveragePool<kernel_shape=[3,2], strides=[2,2], auto_pad="SAME_UPPER">(a)', note="same"),
    Case("AveragePool", "y = AveragePool<kernel_shape=[3], strides=[2], pads=[1,0]>(a)", (2, 3, 9), note="1d"),
    Case(
        "AveragePool",
        "y = AveragePool<kernel_shape=[2,3,2], strides=[1,2,2], pads=[0,1,0,1,1,0], count_include_pad=1>(a)",
        (2, 3, 4, 5, 6),
        note="3d",
    ),
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
    Case(
        "BatchNormalization",
        "y = BatchNormalization(a, scale, bias, mean, variance)",
        (2, 3, 28, 28),
        {"scale": (3,), "bias": (3,), "mean": (3,), "variance": (3,)},
        note="long-rows",
        training=True,
    ),
    Case("LRN", "y = LRN<size=3, alpha=0.5, beta=0.75, bias=2.0>(a)"),
    Case("LRN", "y = LRN<size=3, alpha=0.5>(a)", note="defaults"),
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
    Case("GlobalMaxPool", "y = GlobalMaxPool(a)"),
    Case("InstanceNormalization", "y = InstanceNormalization(a, s, b)", weights={"s": (4,), "b": (4,)}),
    Case(
        "InstanceNormalization",
        "y = InstanceNormalization<epsilon=0.5>(a, s, b)",
        weights={"s": (4,), "b": (4,)},
        note="epsilon",
    ),
    Case("LayerNormalization", "y = LayerNormalization(a, s, b)", weights={"s": (6,), "b": (6,)}),
    Case(
        "LayerNormalization",
        "y = LayerNormalization<epsilon=0.5>(a, s, b)",
        weights={"s": (6,), "b": (6,)},
        note="epsilon",
    ),
    Case("LayerNormalization", "y = LayerNormalization<axis=1>(a, s)", weights={"s": (4, 7, 6)}, note="axis"),
    Case("GroupNormalization", "y = GroupNormalization<num_groups=2>(a, s, b)", weights={"s": (2,), "b": (2,)}),
    Case(
        "GroupNormalization",
        "y = GroupNormalization<num_groups=2, epsilon=0.5>(a, s, b)",
        weights={"s": (2,), "b": (2,)},
        note="epsilon",
    ),
    Case("MeanVarianceNormalization", "y = MeanVarianceNormalization<axes=[2,3]>(a)"),
    Case("ReduceL1", "y = ReduceL1(a, s)", weights={"s": np.array([1])}),
    Case("ReduceL2", "y = ReduceL2<keepdims=0>(a, s)", weights={"s": np.array([1, 2])}),
    Case("ReduceLogSum", "y = ReduceLogSum(a, s)", weights={"s": np.array([1])}, positive=True),
    Case("ReduceLogSumExp", "y = ReduceLogSumExp<keepdims=0>(a, s)", weights={"s": np.array([-1])}),
    Case("ReduceMax", "y = ReduceMax<keepdims=0>(a, s)", weights={"s": np.array([2, 3])}),
    Case("ReduceMin", "y = ReduceMin(a, s)", weights={"s": np.array([1])}),
    Case("CumSum", "y = CumSum(a, s)", weights={"s": np.array(1)}),
    Case("CumSum", "y = CumSum<reverse=1, exclusive=1>(a, s)", weights={"s": np.array(-1)}, note="exclusive"),
    Case("ReduceProd", "y = ReduceProd<keepdims=0>(a, s)", weights={"s": np.array([1, 2])}),
    Case("ReduceProd", "z = Mul(a, w3) y = ReduceProd(z, s)", (5, 4), ZEROS, note="zeros"),
    Case("ReduceSumSquare", "y = ReduceSumSquare(a, s)", weights={"s": np.array([0])}),
    Case("DepthToSpace", "y = DepthToSpace<blocksize=2>(a)", (2, 8, 3, 2)),
    Case("DepthToSpace", 'y = DepthToSpace<blocksize=2, mode="CRD">(a)', (2, 8, 3, 2), note="CRD"),
    Case("SpaceToDepth", "y = SpaceToDepth<blocksize=2>(a)", (2, 3, 4, 6)),
    Case("Expand", "y = Expand(a, s)", (4, 1, 1), {"s": np.array([2, 4, 3, 1])}),
    Case("Gather", "y = Gather<axis=1>(a, s)", weights={"s": np.array([3, 0, -2])}),
    Case("Gather", "y = Gather<axis=2>(a, s)", weights={"s": np.array([3, 0, 3])}, note="repeated"),
    Case("Gather", "y = Gather<axis=1>(a, s)", weights={"s": np.array([[3, 0], [1, 1]])}, note="matrix"),
    Case("GatherElements", "y = GatherElements<axis=1>(a, s)", (3, 4), {"s": np.array([[3, 0], [1, 1], [-1, 2]])}),
    Case("GatherND", "y = GatherND(a, s)", (3, 4, 2), {"s": np.array([[2, 1], [0, 3], [2, 1]])}),
    Case("TopK", "y, w3 = TopK<axis=1>(a, s)", weights={"s": np.array([2])}),
    Case("TopK", "y, w4 = TopK<axis=-1, largest=0>(a, s)", weights={"s": np.array([3])}, note="least"),
    Case("TopK", "y, w4 = TopK(a, s)", weights={"s": np.array([2])}, note="defaults"),
    Case("Pad", "y = Pad(a, s)", weights={"s": np.array([0, 1, 2, 0, 0, 0, 1, 3])}),
    Case("Pad", "y = Pad(a, s, , x3)", weights={"s": np.array([2, -1, -2, 1]), "x3": np.array([-1, 1])}, note="cut"),
    Case("Pad", 'y = Pad<mode="edge">(a, s)', weights={"s": np.array([0, 0, 2, 1, 1, 0, 0, 8])}, note="edge"),
    Case("Pad", 'y = Pad<mode="reflect">(a, s)', weights={"s": np.array([0, 3, 2, 1, 0, 2, 0, 5])}, note="reflect"),
    Case(
        "Slice",
        "y = Slice(a, s, e, x3)",
        weights={"s": np.array([1, -4]), "e": np.array([3, 99]), "x3": np.array([1, 2])},
    ),
    Case(
        "Slice",
        "y = Slice(a, s, e, x3, t)",
        weights={"s": np.array([0, -1]), "e": np.array([99, -99]), "x3": np.array([-1, 2]), "t": np.array([2, -3])},
        note="steps",
    ),
    Case("Split", "y, z = Split<axis=1>(a, s)", weights={"s": np.array([1, 3])}),
    Case("Split", "u, z = Split<axis=1>(a, s) y = Concat<axis=1>(z, u)", weights={"s": np.array([1, 3])}, note="all"),
    Case("Split", "w4, y, z = Split<axis=-1, num_outputs=3>(a)", (3, 8), note="unequal"),
    Case("Gather", "y = Gather<axis=-1>(a, s)", weights={"s": np.array(-2)}, note="scalar"),
    Case("Expand", "y = Expand(a, s)", (3, 1), {"s": np.array([2, 1, 4])}, note="rank"),
    Case("Trilu", "y = Trilu(a)"),
    Case("Trilu", "y = Trilu<upper=0>(a, s)", weights={"s": np.array(-1)}, note="lower"),
    Case("Tile", "y = Tile(a, s)", (2, 3), {"s": np.array([2, 3])}),
    Case("Transpose", "y = Transpose<perm=[2,0,3,1]>(a)"),
    Case("Transpose", "y = Transpose(a)", note="reversed"),
    Case(
        "Resize",
        'y = Resize<mode="nearest", coordinate_transformation_mode="asymmetric", nearest_mode="floor">(a, , s)',
        weights={"s": np.array([1.0, 1.0, 2.0, 3.0])},
        note="nearest",
    ),
    Case(
        "Resize",
        'y = Resize<mode="linear", coordinate_transformation_mode="align_corners">(a, , , s)',
        weights={"s": np.array([2, 4, 10, 9])},
        note="align-corners",
    ),
    Case(
        "Resize",
        'y = Resize<mode="linear">(a, , s)',
        weights={"s": np.array([1.0, 1.0, 1.7, 0.5])},
        note="linear",
    ),
    Case(
        "Resize",
        'y = Resize<mode="cubic", coordinate_transformation_mode="asymmetric", cubic_coeff_a=-0.5>(a, , , s)',
        weights={"s": np.array([2, 4, 10, 3])},
        note="cubic",
    ),
    Case(
        "Resize",
        'y = Resize<mode="linear", antialias=1>(a, , , s)',
        weights={"s": np.array([2, 4, 3, 4])},
        note="antialias",
    ),
    Case(
        "Resize",
        'y = Resize<mode="linear", axes=[3,2], coordinate_transformation_mode="pytorch_half_pixel">(a, , s)',
        weights={"s": np.array([1.5, 2.0])},
        note="axes",
    ),
    Case("Resize", 'y = Resize<mode="linear">(a, , , s)', (2, 3, 5), {"s": np.array([2, 3, 8])}, note="1d"),
    Case(
        "Resize", 'y = Resize<mode="linear">(a, , s)', (1, 2, 3, 4, 2), {"s": np.array([1, 1, 2, 0.5, 1.5])}, note="3d"
    ),
    Case("Reshape", "y = Reshape(a, s)", weights={"s": np.array([2, -1, 3])}),
    Case("Flatten", "y = Flatten(a)"),
    Case("Squeeze", "y = Squeeze(a)", (3, 1, 4)),
    Case("Unsqueeze", "y = Unsqueeze(a, s)", (3, 4), {"s": np.array([1])}),
    Case("Concat", "v = Mul(w, w) y = Concat<axis=1>(a, v, a)", weights={"w": (2, 3, 7, 6)}),
    Case("ReduceMean", "y = ReduceMean<keepdims=0>(a, s)", weights={"s": np.array([2, 3])}),
    Case("ReduceMean", "y = ReduceMean(a)", note="all"),
    Case("ReduceSum", "y = ReduceSum(a, s)", weights={"s": np.zeros(0, np.int64)}, note="no-axes"),
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


OPERAND = ("p",)
"""What is added to the input: before a layer it might be a mean of pixels."""


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
    found = gradients(run_reference(BuildGradients(trained=OPERAND).apply(double).model, feeds))
    rng = np.random.default_rng(4)
    for parameter, gradient in found.items():
        assert gradient.shape == tuple(double.graph.tensors()[parameter].shape), parameter
        direction = rng.normal(size=gradient.shape)

        def loss(step, parameter=parameter, direction=direction):
            moved = double.copy()
            tensor = moved.graph.tensors()[parameter]
            tensor.values = tensor.values + step * direction
            return float(run_reference(moved, feeds)["loss"])

        expected = (loss(case.step) - loss(-case.step)) / (2 * case.step)
        assert np.sum(gradient * direction) == pytest.approx(expected, rel=case.tolerance, abs=0.01 * case.tolerance), (
            parameter
        )
    assert {"p", *(n for n, g in case.weights.items() if isinstance(g, tuple))} - set(found) <= {"mean", "variance"}


@pytest.mark.parametrize("case", CASES, ids=str)
@pytest.mark.parametrize("target", ["onnx", "onnx-cuda", "ort-training", "native"])
def test_legalized_in_single_precision_equals_double_precision(
    case, target, forward, feeds, in_double_precision, run_reference, run, skip_unless_run_here
):
    skip_unless_run_here(target)
    if case.training:
        forward = TrainingMode().apply(forward).model
    expected = gradients(
        run_reference(BuildGradients(trained=OPERAND).apply(in_double_precision(forward)).model, feeds)
    )
    legal = Legalize(target=target).apply(BuildGradients(trained=OPERAND).apply(forward).model).model
    assert not legal.graph.functions
    found = gradients(run(legal, {name: np.asarray(value, np.float32) for name, value in feeds.items()}))
    for parameter, gradient in expected.items():
        assert np.abs(found[parameter] - gradient).max() <= 1e-5 * np.abs(gradient).max(), parameter


# What PyTorch computes in a case: a(torch, functional, a, w) with w the constants by name.
PYTORCH = {
    "Relu": lambda t, f, a, w: f.relu(a),
    "PRelu": lambda t, f, a, w: f.prelu(a, w["slope"].flatten()),
    "LeakyRelu": lambda t, f, a, w: f.leaky_relu(a, 0.2),
    "Elu": lambda t, f, a, w: f.elu(a, 1.3),
    "Celu": lambda t, f, a, w: f.celu(a, 0.7),
    "Selu": lambda t, f, a, w: f.selu(a),
    "Mish": lambda t, f, a, w: f.mish(a),
    "HardSwish": lambda t, f, a, w: f.hardswish(4 * a),
    "Softplus": lambda t, f, a, w: f.softplus(a),
    "Softsign": lambda t, f, a, w: f.softsign(a),
    "Sigmoid": lambda t, f, a, w: t.sigmoid(a),
    "Tanh": lambda t, f, a, w: t.tanh(a),
    "Erf": lambda t, f, a, w: t.erf(a),
    "Clip": lambda t, f, a, w: t.clamp(a, -0.5, 0.6),
    "Abs": lambda t, f, a, w: t.abs(a),
    "Pow": lambda t, f, a, w: a ** (w["w"] * w["w"]),
    "Div": lambda t, f, a, w: w["w"] * w["w"] / a,
    "Max": lambda t, f, a, w: t.maximum(a, w["w"] * w["w"]),
    "Identity": lambda t, f, a, w: a.clone(),
    "Add-channel": lambda t, f, a, w: a + w["w"],
    "Add-inner": lambda t, f, a, w: a + w["w"],
    "Sub": lambda t, f, a, w: w["w"] ** 2 - a,
    "Mul-channel": lambda t, f, a, w: a * w["w"],
    "Mul-square": lambda t, f, a, w: a.square(),
    "Cast": lambda t, f, a, w: a.to(t.float64),
    "CastLike": lambda t, f, a, w: a.to(w["w2"].dtype),
    "GatherElements": lambda t, f, a, w: a.gather(1, w["s"] % 4),
    "GatherND": lambda t, f, a, w: a[[2, 0, 2], [1, 3, 1]],
    "TopK": lambda t, f, a, w: a.topk(2, 1).values,
    "TopK-least": lambda t, f, a, w: a.topk(3, -1, largest=False).values,
    "Einsum": lambda t, f, a, w: t.einsum("bhik,bhjk->bhij", a, w["v"]),
    "Einsum-weight": lambda t, f, a, w: t.einsum("nchw,oc->nohw", a, w["w"]),
    "CumSum": lambda t, f, a, w: a.cumsum(1),
    "CumSum-exclusive": lambda t, f, a, w: a.flip(-1).cumsum(-1).flip(-1) - a,
    "Trilu": lambda t, f, a, w: a.triu(),
    "Trilu-lower": lambda t, f, a, w: a.tril(-1),
    "Cos": lambda t, f, a, w: a.cos(),
    "Exp": lambda t, f, a, w: a.exp(),
    "HardSigmoid": lambda t, f, a, w: f.relu6(6 * (0.3 * a + 0.4)) / 6,
    "Log": lambda t, f, a, w: a.log(),
    "Mean": lambda t, f, a, w: (a + w["w"] ** 2) / 2,
    "Min": lambda t, f, a, w: t.minimum(a, w["w"] ** 2),
    "Neg": lambda t, f, a, w: -a,
    "Pow-square": lambda t, f, a, w: a**2,
    "Pow-powers": lambda t, f, a, w: a ** w["w3"],
    "Reciprocal": lambda t, f, a, w: a.reciprocal(),
    "Sin": lambda t, f, a, w: a.sin(),
    "Sqrt": lambda t, f, a, w: a.sqrt(),
    "Sum": lambda t, f, a, w: a + w["w"] ** 2 + a,
    "ThresholdedRelu": lambda t, f, a, w: f.threshold(a, 0.3, 0.0),
    "Where": lambda t, f, a, w: t.where(a > w["w"] ** 2, a, w["w"] ** 2),
    "Conv": lambda t, f, a, w: f.conv2d(a, w["w"], w["b"], padding=1),
    "Conv-1x1": lambda t, f, a, w: f.conv2d(a, w["w"]),
    "Conv-same-upper": lambda t, f, a, w: f.conv2d(f.pad(a, (0, 1, 1, 1)), w["w"], stride=2),
    "Conv-same-lower": lambda t, f, a, w: f.conv2d(f.pad(a, (1, 0, 1, 1)), w["w"], stride=2),
    "Conv-valid": lambda t, f, a, w: f.conv2d(a, w["w"], stride=2),
    "Conv-1d": lambda t, f, a, w: f.conv1d(f.pad(a, (1, 2)), w["w"], w["b"], stride=2, dilation=2, groups=2),
    "Conv-3d": lambda t, f, a, w: f.conv3d(
        f.pad(a, (1, 2, 0, 1, 1, 0)), w["w"], w["b"], stride=(2, 1, 2), dilation=(1, 2, 1), groups=2
    ),
    "ConvTranspose-group": lambda t, f, a, w: f.conv_transpose2d(
        a, w["w"], stride=(2, 3), output_padding=(1, 0), dilation=(1, 2), groups=2
    )[:, :, 1:, :-1],
    "ConvTranspose-1d": lambda t, f, a, w: f.conv_transpose1d(a, w["w"], w["b"], stride=2),
    "ConvTranspose-3d": lambda t, f, a, w: f.conv_transpose3d(
        a, w["w"], w["b"], stride=(2, 1, 2), output_padding=(1, 0, 0), groups=2
    )[:, :, 1:, :-1, 1:-1],
    "ConvTranspose-same-upper": lambda t, f, a, w: f.conv_transpose2d(a, w["w"], stride=2)[:, :, :-1, 1:-2],
    "ConvTranspose-same-lower": lambda t, f, a, w: f.conv_transpose2d(a, w["w"], stride=2)[:, :, 1:, 2:-1],
    "ConvTranspose-valid": lambda t, f, a, w: f.conv_transpose2d(a, w["w"], stride=2),
    "ConvTranspose-output-shape": lambda t, f, a, w: f.conv_transpose2d(a, w["w"], stride=2)[:, :, 1:, 1:-1],
    "Gemm-transA": lambda t, f, a, w: a.T @ w["w"],
    "Gemm-both": lambda t, f, a, w: a.T @ w["w"].T + w["b"],
    "MatMul": lambda t, f, a, w: a @ w["w"],
    "MatMul-rows": lambda t, f, a, w: a @ w["w"],
    "MatMul-batch": lambda t, f, a, w: w["w"] @ a,
    "MaxPool-dilated": lambda t, f, a, w: f.max_pool2d(a, (2, 3), stride=(1, 2), dilation=(3, 1)),
    "MaxPool-1d": lambda t, f, a, w: f.max_pool1d(f.pad(a, (1, 0), value=-t.inf), 3, 2),
    "MaxPool-3d": lambda t, f, a, w: f.max_pool3d(a, (2, 3, 2), (1, 2, 2)),
    "AveragePool-ceil": lambda t, f, a, w: f.avg_pool2d(a, (2, 3), 2, ceil_mode=True),
    "AveragePool-ceil-pads": lambda t, f, a, w: f.avg_pool2d(a, 3, (2, 3), 1, ceil_mode=True),
    "AveragePool-1d": lambda t, f, a, w: (
        f.avg_pool1d(f.pad(a, (1, 0)), 3, 2) / f.avg_pool1d(f.pad(t.ones_like(a), (1, 0)), 3, 2)
    ),
    "AveragePool-3d": lambda t, f, a, w: f.avg_pool3d(f.pad(a, (0, 0, 1, 1, 0, 1)), (2, 3, 2), (1, 2, 2)),
    "SoftmaxCrossEntropyLoss": lambda t, f, a, w: f.cross_entropy(a, w["labels"]),
    "SoftmaxCrossEntropyLoss-weighted": lambda t, f, a, w: f.cross_entropy(a, w["labels"], w["class_weights"]),
    "GroupNormalization": lambda t, f, a, w: f.group_norm(
        a, 2, w["s"].repeat_interleave(2), w["b"].repeat_interleave(2)
    ),
    "MeanVarianceNormalization": lambda t, f, a, w: f.instance_norm(a, eps=0.0),
    "LayerNormalization-axis": lambda t, f, a, w: f.layer_norm(a, (4, 7, 6), w["s"]),
    "ReduceL1": lambda t, f, a, w: a.abs().sum(1, keepdim=True),
    "ReduceLogSum": lambda t, f, a, w: a.sum(1, keepdim=True).log(),
    "ReduceMin": lambda t, f, a, w: a.amin(1, keepdim=True),
    "ReduceProd": lambda t, f, a, w: a.prod(2).prod(1),
    "ReduceProd-zeros": lambda t, f, a, w: (a * w["w3"]).prod(1, keepdim=True),
    "ReduceSumSquare": lambda t, f, a, w: a.square().sum(0, keepdim=True),
    "ReduceMean": lambda t, f, a, w: a.mean((2, 3)),
    "ReduceMean-all": lambda t, f, a, w: a.mean(),
    "ReduceSum": lambda t, f, a, w: a.sum((1, 3), keepdim=True),
    "ReduceSum-no-axes": lambda t, f, a, w: a.sum(),
    "SpaceToDepth": lambda t, f, a, w: a.reshape(2, 3, 2, 2, 3, 2).permute(0, 3, 5, 1, 2, 4).reshape(2, 12, 2, 3),
    "Expand": lambda t, f, a, w: a.expand(2, 4, 3, 1),
    "Expand-rank": lambda t, f, a, w: a.expand(2, 3, 4),
    "Gather": lambda t, f, a, w: a[:, [3, 0, -2]],
    "Gather-matrix": lambda t, f, a, w: a[:, w["s"]],
    "Gather-scalar": lambda t, f, a, w: a[..., -2],
    "Pad-edge": lambda t, f, a, w: f.pad(a, (1, 8, 2, 0), mode="replicate")[[0, 1, 1]],
    "Pad-reflect": lambda t, f, a, w: _reflected(f, a),
    "Slice": lambda t, f, a, w: a[:, 1:3, -4:],
    "Slice-steps": lambda t, f, a, w: a[..., ::2].flip(2)[:, :, ::3],
    "Split": lambda t, f, a, w: a.split([1, 3], 1)[0],
    "Split-all": lambda t, f, a, w: t.cat(a.split([1, 3], 1)[::-1], 1),
    "Split-unequal": lambda t, f, a, w: a.split(3, -1)[1],
    "Transpose-reversed": lambda t, f, a, w: a.permute(3, 2, 1, 0),
    "Reshape": lambda t, f, a, w: a.reshape(2, -1, 3),
    "Flatten": lambda t, f, a, w: a.flatten(1),
    "Squeeze": lambda t, f, a, w: a.squeeze(),
    "Unsqueeze": lambda t, f, a, w: a.unsqueeze(1),
    "Concat": lambda t, f, a, w: t.cat([a, w["w"] ** 2, a], 1),
    "Dropout-inference": lambda t, f, a, w: f.dropout(a, 0.5, training=False),
    "Resize-linear": lambda t, f, a, w: f.interpolate(
        a, scale_factor=(1.7, 0.5), mode="bilinear", recompute_scale_factor=False
    ),
    "Resize-axes": lambda t, f, a, w: f.interpolate(a, scale_factor=(2.0, 1.5), mode="bilinear"),
    "Resize-1d": lambda t, f, a, w: f.interpolate(a, 8, mode="linear"),
    "Resize-3d": lambda t, f, a, w: f.interpolate(a, scale_factor=(2, 0.5, 1.5), mode="trilinear"),
    "Conv-1x1-strided": lambda t, f, a, w: f.conv2d(a, w["w"], stride=2),
    "Conv-group": lambda t, f, a, w: f.conv2d(f.pad(a, (0, 1, 1, 2)), w["w"], stride=(2, 3), groups=2),
    "Conv-depthwise": lambda t, f, a, w: f.conv2d(a, w["w"], stride=(2, 1), padding=1, groups=4),
    "Conv-dilated": lambda t, f, a, w: f.conv2d(f.pad(a, (3, 2, 2, 2)), w["w"], dilation=(2, 3)),
    "Conv-dilated-strided": lambda t, f, a, w: f.conv2d(a, w["w"], dilation=2, stride=(3, 2)),
    "ConvTranspose": lambda t, f, a, w: f.conv_transpose2d(a, w["w"], w["b"]),
    "Gemm": lambda t, f, a, w: a @ w["w"] + w["b"],
    "Gemm-transB": lambda t, f, a, w: 0.5 * a @ w["w"].T + 2 * w["b"],
    "MatMul-broadcast": lambda t, f, a, w: a @ w["w"],
    "MaxPool": lambda t, f, a, w: f.max_pool2d(f.pad(a, (0, 1, 1, 1), value=-t.inf), (3, 2), 2),
    "MaxPool-ceil": lambda t, f, a, w: f.max_pool2d(a, 2, 2, ceil_mode=True),
    "AveragePool-pads": lambda t, f, a, w: f.avg_pool2d(a, 3, 1, 1),
    "AveragePool-gaps": lambda t, f, a, w: f.avg_pool2d(a, 2, 3),
    "AveragePool-borders": lambda t, f, a, w: f.avg_pool2d(a, (3, 5), 1, (1, 2), count_include_pad=False),
    "AveragePool-1d-steps": lambda t, f, a, w: f.avg_pool1d(a, 4, 1),
    "GlobalAveragePool": lambda t, f, a, w: f.adaptive_avg_pool2d(a, 1),
    "GlobalMaxPool": lambda t, f, a, w: f.adaptive_max_pool2d(a, 1),
    "BatchNormalization-training": lambda t, f, a, w: f.batch_norm(
        a, None, None, w["scale"], w["bias"], training=True, eps=0.001
    ),
    "BatchNormalization-inference": lambda t, f, a, w: f.batch_norm(
        a, w["mean"], w["variance"], w["scale"], w["bias"], eps=0.001
    ),
    "InstanceNormalization": lambda t, f, a, w: f.instance_norm(a, weight=w["s"], bias=w["b"]),
    "LayerNormalization": lambda t, f, a, w: f.layer_norm(a, (6,), w["s"], w["b"]),
    "LRN": lambda t, f, a, w: f.local_response_norm(a, 3, alpha=0.5, beta=0.75, k=2.0),
    "Softmax": lambda t, f, a, w: a.softmax(1),
    "LogSoftmax": lambda t, f, a, w: a.log_softmax(-1),
    "ReduceL2": lambda t, f, a, w: a.norm(dim=(1, 2)),
    "ReduceMax": lambda t, f, a, w: a.amax((2, 3)),
    "ReduceLogSumExp": lambda t, f, a, w: a.logsumexp(-1),
    "DepthToSpace-CRD": lambda t, f, a, w: f.pixel_shuffle(a, 2),
    "Gather-repeated": lambda t, f, a, w: a.index_select(2, t.tensor([3, 0, 3])),
    "Pad": lambda t, f, a, w: f.pad(a, (0, 3, 2, 1, 1, 0)),
    "Transpose": lambda t, f, a, w: a.permute(2, 0, 3, 1),
    "Tile": lambda t, f, a, w: a.tile(2, 3),
    "Resize-nearest": lambda t, f, a, w: f.interpolate(a, scale_factor=(2, 3), mode="nearest"),
    "Resize-align-corners": lambda t, f, a, w: f.interpolate(a, (10, 9), mode="bilinear", align_corners=True),
}


def _reflected(functional, a):
    """Three channels mirrored before the first, two after the last; two rows before, one column before, five after."""
    channels = functional.pad(a.permute(0, 2, 3, 1).flatten(1, 2), (3, 2), mode="reflect")
    return functional.pad(channels.reshape(2, 7, 6, 9).permute(0, 3, 1, 2), (1, 5, 2, 0), mode="reflect")


@pytest.mark.parametrize("case", [c for c in CASES if str(c) in PYTORCH], ids=str)
def test_equals_pytorch(case, forward, feeds, in_double_precision, run_reference, values_of):
    torch = pytest.importorskip("torch")
    if case.training:
        forward = TrainingMode().apply(forward).model
    double = in_double_precision(forward)
    found = gradients(run_reference(BuildGradients(trained=OPERAND).apply(double).model, feeds))
    constants = {name: torch.tensor(value) for name, value in values_of(double).items()}
    parameters = {name: constants[name].requires_grad_() for name in found}
    a = torch.tensor(feeds["x"]) + constants["p"]
    y = PYTORCH[str(case)](torch, torch.nn.functional, a, constants)
    (y * torch.tensor(feeds["projection"])).sum().backward()
    for name, parameter in parameters.items():
        difference = np.abs(found[name] - parameter.grad.numpy()).max()
        assert difference <= 1e-6 * np.abs(found[name]).max(), name


# The operators that the gradient builder of onnxruntime-training 1.19 has no gradient of, and where it is at fault.
NOT_IN_THE_BUILDER = frozenset(
    {
        "CastLike",
        "Celu",
        "DepthToSpace",
        "Einsum",
        "Elu",
        "GlobalMaxPool",
        "GroupNormalization",
        "HardSigmoid",
        "HardSwish",
        "LRN",
        "Mean",
    }
    | {"InstanceNormalization", "MeanVarianceNormalization", "Mish", "PRelu", "ReduceL1", "ReduceLogSum", "ReduceMax"}
    | {"ReduceMin", "ReduceProd", "ReduceSumSquare", "Selu", "Softplus", "Softsign", "SpaceToDepth", "Sum"}
    | {"CumSum", "ThresholdedRelu"}
)
NO_KERNEL_OF_THE_BUILDER = frozenset({"ConvTranspose", "Resize"})
FAULTS_OF_THE_BUILDER = {
    "AveragePool-3d": "counts the pads as if all were at the beginning",
    "AveragePool-ceil-pads": "counts what lies behind the pads",
    "AveragePool-same": "ignores auto_pad",
    "BatchNormalization-inference": "has no gradient for the inference mode",
    "Conv-1d-same": "ignores auto_pad",
    "Conv-same-lower": "ignores auto_pad",
    "Conv-same-upper": "ignores auto_pad",
    "Dropout-inference": "needs the mask",
    "LayerNormalization-axis": "needs the bias",
    "Pad-cut": "ignores the axes",
    "Pad-edge": "has no gradient for this mode",
    "Pad-reflect": "has no gradient for this mode",
    "Pow": "has no gradient of the exponent",
    "Split": "has no zeros for a part that is not used",
    "Split-unequal": "has no zeros for a part that is not used",
    "Where": "does not sum over what was broadcast",
}


def _fault_of_the_builder(case):
    return "has no kernel" if case.operator in NO_KERNEL_OF_THE_BUILDER else FAULTS_OF_THE_BUILDER.get(str(case))


@pytest.mark.parametrize("case", CASES, ids=str)
def test_equals_the_gradient_builder_of_onnxruntime(case, forward, feeds, run, run_gradient_graph_builder):
    if _fault_of_the_builder(case):
        pytest.skip(f"the builder {_fault_of_the_builder(case)}")
    if case.training:
        forward = TrainingMode().apply(forward).model
    feeds = {name: np.asarray(value, np.float32) for name, value in feeds.items()}
    found = gradients(run(Legalize().apply(BuildGradients(trained=OPERAND).apply(forward).model).model, feeds))
    if case.operator in NOT_IN_THE_BUILDER:
        with pytest.raises(RuntimeError, match=f"has not been registered: {case.operator} "):
            run_gradient_graph_builder(forward, set(found), feeds)
        return
    for name, gradient in run_gradient_graph_builder(forward, set(found), feeds).items():
        assert np.abs(found[name] - gradient).max() <= 1e-5 * np.abs(gradient).max(), name


def test_every_rule_has_its_oracles():
    """Each is checked against finite differences and PyTorch; a third opinion is onnxruntime-training."""
    cases = {str(case): case.operator for case in CASES}
    assert set(RULES) == set(cases.values()), "finite differences"
    assert set(PYTORCH) <= set(cases)
    assert set(RULES) == {cases[name] for name in PYTORCH}, "PyTorch"
    third = {c.operator for c in CASES if not _fault_of_the_builder(c)} - NOT_IN_THE_BUILDER
    without = {"ConvTranspose", "Dropout", "Resize", "Where"} | NOT_IN_THE_BUILDER
    assert set(RULES) == third | without, "onnxruntime-training"
    assert not third & without


def test_pads_that_the_graph_computes(make_model, run):
    """Each axis is cut or widened by what an input says."""
    text = """g (float[3,4] x, int64[4] pads, float[4,5] projection) => (y) <float[3,4] p> {
      a = Add(x, p)
      b = Pad(a, pads)
      c = Mul(b, projection)
      y = ReduceSum<keepdims=0>(c)
    }"""
    legal = Legalize().apply(BuildGradients().apply(make_model(text, p=(3, 4))).model).model
    projection = np.arange(20, dtype=np.float32).reshape(4, 5)
    feeds = {"x": np.zeros((3, 4), np.float32), "pads": np.array([2, -1, -1, 2]), "projection": projection}
    expected = np.zeros((3, 4))
    expected[:2, 1:] = projection[2:, :3]
    np.testing.assert_array_equal(run(legal, feeds)["p.grad"], expected)


def test_what_a_negative_pad_cuts_off_has_no_gradient(make_model, run):
    text = """g (float[2,3] x) => (y) <float[2,3] p, int64[4] pads> {
      a = Add(x, p)
      b = Pad(a, pads)
      y = ReduceSum<keepdims=0>(b)
    }"""
    forward = make_model(text, p=(2, 3), pads=np.array([1, -1, 0, 2]))
    legal = Legalize().apply(BuildGradients().apply(forward).model).model
    np.testing.assert_array_equal(run(legal, {"x": np.zeros((2, 3), np.float32)})["p.grad"], [[0, 1, 1], [0, 1, 1]])


@pytest.mark.parametrize("target", ["onnx", "onnx-cuda"])
@pytest.mark.parametrize("geometry", [(2, 2, 0), (3, 2, 1), (3, 1, 1), (3, 3, 0)])
def test_the_first_maximum_gets_the_gradient(geometry, target, make_model, with_projected_loss, run):
    torch = pytest.importorskip("torch")
    kernel, stride, pad = geometry
    body = f"MaxPool<kernel_shape=[{kernel},{kernel}], strides=[{stride},{stride}], pads=[{pad},{pad},{pad},{pad}]>(a)"
    text = f"g (float[2,3,8,7] x) => (y) <float[2,3,8,7] p> {{ a = Add(x, p) y = {body} }}"
    values = np.random.default_rng(0).integers(0, 3, (2, 3, 8, 7)).astype(np.float32)
    forward = with_projected_loss(make_model(text, p=values))
    legal = Legalize(target=target).apply(BuildGradients().apply(forward).model).model
    p = torch.tensor(values, requires_grad=True)
    y = torch.nn.functional.max_pool2d(p, kernel, stride, pad)
    projection = np.random.default_rng(1).normal(size=y.shape).astype(np.float32)
    (y * torch.tensor(projection)).sum().backward()
    found = run(legal, {"x": np.zeros_like(values), "projection": projection})["p.grad"]
    np.testing.assert_allclose(found, p.grad, rtol=1e-5, atol=1e-6)


RESIZES = {
    "scales": ("y = Resize<{0}>(a, , s)", np.array([1.0, 1, 2, 3])),
    "sizes": (
        "images = Shape<start=0, end=2>(a) sizes = Concat<axis=0>(images, s) y = Resize<{0}>(a, , , sizes)",
        np.array([14, 18]),
    ),
}


@pytest.mark.parametrize("axes", [(0,), (0, 2), (0, 1, 2)], ids=str)
def test_the_mean_over_a_batch_of_any_size(axes, make_model, with_projected_loss, run):
    text = (
        f"g (float[N,3,4] x) => (y) <float[3,4] p, int64[{len(axes)}] axes> {{ a = Mul(x, p) y = ReduceMean(a, axes) }}"
    )
    model = with_projected_loss(make_model(text, p=(3, 4), axes=np.array(axes)))
    x = np.random.default_rng(0).normal(size=(5, 3, 4)).astype(np.float32)
    projection = np.random.default_rng(1).normal(size=x.mean(axes, keepdims=True).shape).astype(np.float32)
    found = run(Legalize().apply(BuildGradients().apply(model).model).model, {"x": x, "projection": projection})
    count = np.prod([x.shape[axis] for axis in axes])
    np.testing.assert_allclose(found["p.grad"], (projection * x).sum(0) / count, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("mode", ["nearest", "bilinear", "bicubic"])
@pytest.mark.parametrize("stated", RESIZES)
def test_resize_of_a_batch_of_any_size(mode, stated, make_model, run, values_of):
    torch = pytest.importorskip("torch")
    attributes = {
        "nearest": 'mode="nearest", coordinate_transformation_mode="asymmetric", nearest_mode="floor"',
        "bilinear": 'mode="linear", coordinate_transformation_mode="half_pixel"',
        "bicubic": 'mode="cubic", coordinate_transformation_mode="half_pixel"',
    }[mode]
    body, operand = RESIZES[stated]
    declared = f"float[4,7,6] p, {declaration('s', operand)}"
    text = f"""g (float[N,4,7,6] x, float[N,4,14,18] projection) => (loss) <{declared}> {{
      a = Add(x, p)
      {body.format(attributes)}
      z = Mul(y, projection)
      loss = ReduceSum<keepdims=0>(z)
    }}"""
    forward = make_model(text, p=(4, 7, 6), s=operand)
    legal = Legalize().apply(BuildGradients().apply(forward).model).model
    rng = np.random.default_rng(0)
    feeds = {
        "x": rng.normal(size=(3, 4, 7, 6)).astype(np.float32),
        "projection": rng.normal(size=(3, 4, 14, 18)).astype(np.float32),
    }
    p = torch.tensor(values_of(forward)["p"], requires_grad=True)
    y = torch.nn.functional.interpolate(torch.tensor(feeds["x"]) + p, (14, 18), mode=mode)
    (y * torch.tensor(feeds["projection"])).sum().backward()
    np.testing.assert_allclose(run(legal, feeds)["p.grad"], p.grad, rtol=1e-4, atol=1e-4)


def refusal(make_model, body, shape, weights):
    """What build-gradients says of `body`, which computes `y` from `a`."""
    declared = ", ".join(declaration(n, g) for n, g in {"p": shape, **weights}.items())
    size = ",".join(map(str, shape))
    text = f"""g (float[{size}] x) => (loss) <{declared}> {{
      a = Add(x, p)
      {body}
      loss = ReduceSum<keepdims=0>(y)
    }}"""
    model = make_model(text, p=shape, **weights)
    with pytest.raises(PassError) as refused:
        BuildGradients().apply(model)
    return str(refused.value)


OPERANDS_WITHOUT_GRADIENT = {
    "Clip": ("m = ReduceMean<keepdims=0>(a) y = Clip(a, m)", {}, 1, "m"),
    "Clip-above": ("m = ReduceMean<keepdims=0>(a) y = Clip(x, , m)", {}, 2, "m"),
    "Pad": (
        "m = ReduceMean<keepdims=0>(a) y = Pad(a, s, m)",
        {"s": np.array([0, 0, 1, 1, 0, 0, 1, 1])},
        2,
        "m",
    ),
    "BatchNormalization": (
        "m = ReduceMean<keepdims=0>(a, axes) y = BatchNormalization(a, scale, bias, m, variance)",
        {"scale": (4,), "bias": (4,), "variance": (4,), "axes": np.array([0, 2, 3])},
        3,
        "m",
    ),
}


@pytest.mark.parametrize("name", OPERANDS_WITHOUT_GRADIENT)
def test_an_operand_without_gradient_must_not_depend_on_a_parameter(name, make_model):
    body, weights, index, operand = OPERANDS_WITHOUT_GRADIENT[name]
    assert refusal(make_model, body, IMAGE, weights) == (
        f"build-gradients: y: {name.partition('-')[0]}: there is no gradient for operand {index}, {operand}"
    )


@pytest.mark.parametrize("node", ["Range(m, one, one)", "OneHot(s, three, v)"], ids=["Range", "OneHot"])
def test_a_result_that_moves_with_an_operand_is_not_taken_for_a_constant(node, make_model):
    body = f"m = ReduceMean<keepdims=0>(a) v = Slice(a, z, t) y = {node}"
    weights = {
        "one": np.array(9.0),
        "s": np.array([0, 1]),
        "three": np.array(3),
        "z": np.array([0]),
        "t": np.array([2]),
    }
    used = {n: v for n, v in weights.items() if n in node or n in "zt"}
    operator = node.partition("(")[0]
    assert refusal(make_model, body, (4,), used) == f"build-gradients: y: there is no gradient rule for {operator}"


@pytest.mark.parametrize("entry", ["Add(n, m)", "Sub(m, i)"])
def test_a_gradient_enters_through_the_first_result(entry, make_model):
    body = f"n, m, i = LayerNormalization(a, s, b) y = {entry}"
    message = "build-gradients: n: LayerNormalization: a gradient that enters through result 1, m, is not supported"
    assert refusal(make_model, body, (3, 4), {"s": (4,), "b": (4,)}) == message


WITHOUT_INFLUENCE = {
    "bound": ("i = ArgMax(a) f = Cast<to=1>(i) m = ReduceMax<keepdims=0>(f) y = Clip(a, , m)", {}),
    "type": ("m = ReduceMean<keepdims=0>(a) y = CastLike(a, m)", {}),
    "condition": ("v = Mul(a, a) c = Greater(v, a) y = Where(c, a, v)", {}),
    "ratio": ("r = ReduceMean<keepdims=0>(a) q = Sigmoid(r) y = Dropout(a, q)", {}),
    "region": (
        'f = Flatten<axis=0>(a) r = Slice(f, s, t, u) y = Resize<mode="linear">(a, r, , z)',
        {"s": np.array([0]), "t": np.array([4]), "u": np.array([1]), "z": np.array([3, 9])},
    ),
    "value": ('m = ReduceMean<keepdims=0>(a) y = Pad<mode="edge">(a, s, m)', {"s": np.array([1, 0, 0, 1])}),
    "indices": ("i = Cast<to=7>(a) k = Clip(i, s, s) y = Gather(a, k)", {"s": np.array(0)}),
}


@pytest.mark.parametrize("name", WITHOUT_INFLUENCE)
def test_an_operand_without_influence_may_depend_on_a_parameter(name, make_model, with_projected_loss):
    body, constants = WITHOUT_INFLUENCE[name]
    declared = ", ".join(declaration(n, g) for n, g in {"p": (3, 4), **constants}.items())
    text = f"g (float[3,4] x) => (y) <{declared}> {{ a = Add(x, p) {body} }}"
    built = BuildGradients().apply(with_projected_loss(make_model(text, p=(3, 4), **constants))).model
    assert "p.grad" in {t.name for t in built.graph.outputs}


def test_running_statistics_may_depend_on_a_parameter(make_model, with_projected_loss):
    body = """m = ReduceMean<keepdims=0>(a, axes)
      y, mean, variance = BatchNormalization<training_mode=1, momentum=0.0>(a, scale, bias, m, v)"""
    weights = {"scale": (4,), "bias": (4,), "v": (4,), "axes": np.array([0, 2, 3])}
    declared = ", ".join(declaration(n, g) for n, g in {"p": IMAGE, **weights}.items())
    text = f"g (float[2,4,7,6] x) => (y) <{declared}> {{ a = Add(x, p) {body} }}"
    built = BuildGradients().apply(with_projected_loss(make_model(text, p=IMAGE, **weights))).model
    assert "p.grad" in {t.name for t in built.graph.outputs}


def test_bfloat16_is_a_type_of_real_numbers(make_model, run):
    text = """g (float[3] x) => (loss) <float[3] p> {
      a = Add(x, p)
      f = Cast<to=16>(a)
      z = Cast<to=1>(f)
      y = Add(z, a)
      loss = ReduceSum<keepdims=0>(y)
    }"""
    legal = Legalize().apply(BuildGradients().apply(make_model(text, p=(3,))).model).model
    np.testing.assert_array_equal(run(legal, {"x": np.zeros(3, np.float32)})["p.grad"], [2, 2, 2])


def test_bounds_that_float32_does_not_hold():
    """In float64 0.1 is less than in float32: what was cut off there mustn't pass."""
    text = """<ir_version: 8, opset_import: ["" : 18]>
      g (double[2] x) => (double loss) <double[2] w, double low, double high>
      { a = Mul(x, w)  b = Clip(a, low, high)  loss = ReduceSum<keepdims=0>(b) }"""
    model = parse_text(text)
    tensors = model.graph.tensors()
    for name, value in {"w": [1.0, 1.0], "low": -1.0, "high": 0.1}.items():
        tensors[name].to_constant(np.array(value))
    graph = BuildGradients().apply(model).model
    found = ReferenceEvaluator(graph.to_proto()).run(["w.grad"], {"x": np.array([0.05, 1.0])})[0]
    np.testing.assert_array_equal(found, [0.05, 0.0])


@pytest.mark.parametrize("operator", ["MaxPool", "AveragePool"])
@pytest.mark.parametrize(("size", "window"), [(6, "kernel_shape=[1,1]"), (3, "kernel_shape=[2,2], pads=[1,1,1,1]")])
def test_a_window_behind_the_operand_is_refused(operator, size, window, make_model):
    body = f"y = {operator}<{window}, strides=[2,2], ceil_mode=1>(a)"
    assert refusal(make_model, body, (2, 3, size, size), {}) == (
        f"build-gradients: y: {operator}: ceil_mode=1 adds a window that starts behind the operand: "
        "versions of ONNX Runtime differ there"
    )


@pytest.mark.parametrize("pads", [[0, 4, 0, 0], [3, 0, 0, 0], [0, 0, 0, 5]])
def test_a_reflection_is_smaller_than_its_axis(pads, make_model):
    message = "build-gradients: y: Pad: mode=reflect needs pads that are smaller than the axis"
    assert refusal(make_model, 'y = Pad<mode="reflect">(a, s)', (3, 4), {"s": np.array(pads)}) == message
