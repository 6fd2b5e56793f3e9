"""Every operator in each form that it had: converted models compute what ONNX Runtime computes of the original."""

from __future__ import annotations

import itertools
import re
from dataclasses import dataclass

import numpy as np
import onnx
import onnx.parser
import onnx.reference
import onnxruntime
import pytest

from wootz.passes.ir.model import NEWEST_OPSET, OLDEST_OPSET, OPSET
from wootz.passes.ir.opset import convert_to_opset, since
from wootz.passes.ir.versions.rewriting import Unconvertible
from wootz.passes.ir.versions.upgrades import UPGRADES

TOLERANCE = 1e-5
"""max|a - b| / max|b|, float32."""
NEWEST_OF_RUNTIME = 21
"""ONNX Runtime 1.19 runs models up to this opset."""


@dataclass(frozen=True)
class Case:
    """A model `nodes` over the float input `x` in each of `opsets`, the first and the last that have this form."""

    name: str
    opsets: tuple[int, int]
    nodes: str
    shape: str = "2,3,4,5"
    weights: str = ""
    output: str = "float[] y"
    header: str = ""
    functions: str = ""

    def model(self, opset: int) -> onnx.ModelProto:
        weights = f"<{self.weights}>" if self.weights else ""
        return onnx.parser.parse_model(
            f'<ir_version: 8, opset_import: ["" : {opset}{self.header}]> '
            f"g (float[{self.shape}] x) => ({self.output}) {weights} {{ {self.nodes} }} {self.functions}"
        )


BN = "float[3] s = {1,2,3}, float[3] b = {1,0,-1}, float[3] m = {0.5,-0.5,0}, float[3] v = {1,2,4}"
ACTIVATION = ", ".join(
    f"float[3,2] {name} = {{{values}}}"
    for name, values in {
        "s": "1,2,3,4,5,6",
        "b": "1,0,-1,2,1,0",
        "m": "0.5,-0.5,0,1,2,3",
        "v": "1,2,4,1,3,2",
    }.items()
)
IMAGES = "1,2,5,6"
LINEAR_SCALES = "float[4] scales = {1,1,2,1.5}"


def _reductions():
    for op in ("L1", "L2", "LogSum", "LogSumExp", "Max", "Mean", "Min", "Prod", "SumSquare", "Sum"):
        last = 12 if op == "Sum" else 17
        positive = "z = Abs(x)"
        yield Case(f"Reduce{op}", (7, last), f"{positive} y = Reduce{op}<axes=[1,3]>(z)")
        yield Case(f"Reduce{op}-all", (7, last), f"{positive} y = Reduce{op}<keepdims=0>(z)")
        yield Case(f"Reduce{op}-negative", (11, last), f"{positive} y = Reduce{op}<axes=[-1],keepdims=0>(z)")


def _softmaxes():
    for op in ("Softmax", "LogSoftmax", "Hardmax"):
        yield Case(f"{op}-default", (7, 12), f"y = {op}(x)")
        yield Case(f"{op}-first", (7, 12), f"y = {op}<axis=0>(x)")
        yield Case(f"{op}-last", (7, 12), f"y = {op}<axis=3>(x)")
        yield Case(f"{op}-negative", (11, 12), f"y = {op}<axis=-2>(x)")
        yield Case(f"{op}-matrix", (7, 12), f"y = {op}(x)", shape="2,5")
        yield Case(f"{op}-places", (7, 12), f"y = {op}(x)", shape="2,5,1,1")
        yield Case(f"{op}-symbolic", (7, 12), f"y = {op}<axis=2>(x)", shape="N,C,H,5")
        yield Case(f"{op}-unknown", (7, 12), f"s = Shape(x) u = Reshape(x, s) y = {op}(u)", shape="N,3,4,5")
        yield Case(f"{op}-13", (13, 21), f"y = {op}<axis=1>(x)")
        yield Case(f"{op}-13-default", (13, 21), f"y = {op}(x)")


def _resizes():
    scales = {"up": "1,1,2,3", "down": "1,1,0.5,0.4", "mixed": "1,1,0.6,2.5", "fraction": "1,1,1.3,1.7"}
    for name, values in scales.items():
        weights = f"float[4] scales = {{{values}}}"
        for mode in ("nearest", "linear"):
            yield Case(f"Resize-10-{mode}-{name}", (10, 10), f'y = Resize<mode="{mode}">(x, scales)', IMAGES, weights)
        computed = 'k = Mul(scales, one) y = Resize<mode="nearest">(x, k)'
        yield Case(f"Resize-10-computed-{name}", (10, 10), computed, IMAGES, f"{weights}, float[1] one = {{1}}")
        for coordinates in ("half_pixel", "pytorch_half_pixel", "align_corners", "asymmetric"):
            for rounding in ("round_prefer_floor", "round_prefer_ceil", "floor", "ceil"):
                attributes = f'coordinate_transformation_mode="{coordinates}", nearest_mode="{rounding}"'
                nodes = f"y = Resize<{attributes}>(x, roi, scales)"
                weights_ = f"{weights}, float[0] roi = {{}}"
                yield Case(f"Resize-{coordinates}-{rounding}-{name}", (11, 12), nodes, IMAGES, weights_)
            for mode in ("linear", "cubic"):
                attributes = f'coordinate_transformation_mode="{coordinates}", mode="{mode}"'
                nodes = f"y = Resize<{attributes}>(x, roi, scales)"
                yield Case(f"Resize-{coordinates}-{mode}-{name}", (11, 12), nodes, IMAGES, weights_)
        if name != "down":
            attributes = 'coordinate_transformation_mode="tf_half_pixel_for_nn", nearest_mode="floor"'
            yield Case(f"Resize-tf-{name}", (11, 11), f"y = Resize<{attributes}>(x, roi, scales)", IMAGES, weights_)
    sizes = "float[0] none = {}, int64[4] sizes = {1,2,7,9}"
    yield Case("Resize-sizes", (11, 12), "y = Resize(x, none, none, sizes)", IMAGES, sizes)
    yield Case("Resize-sizes-13", (13, 18), "y = Resize(x, , , sizes)", IMAGES, sizes)
    crop = 'y = Resize<coordinate_transformation_mode="tf_crop_and_resize", mode="linear">(x, roi, scales)'
    roi = "float[8] roi = {0,0,0.2,0.3,1,1,0.8,0.9}, float[4] scales = {1,1,1.5,2}"
    yield Case("Resize-crop", (11, 18), crop, IMAGES, roi)
    for mode in ("nearest", "linear"):
        yield Case(f"Upsample-7-{mode}", (7, 8), f'y = Upsample<mode="{mode}", scales=[1.0,1.0,2.0,1.5]>(x)', IMAGES)
        yield Case(f"Upsample-9-{mode}", (9, 9), f'y = Upsample<mode="{mode}">(x, scales)', IMAGES, LINEAR_SCALES)


def _recurrent():
    gates = {"RNN": 1, "GRU": 3, "LSTM": 4}
    for op, count in gates.items():
        rng = np.random.default_rng(count)

        def values(*shape, rng=rng):
            flat = ",".join(f"{v:.3f}" for v in rng.normal(size=shape).ravel())
            return f"[{','.join(map(str, shape))}]", f"{{{flat}}}"

        weights = ", ".join(
            f"float{shape} {name} = {text}"
            for name, (shape, text) in {
                "w": values(1, 2 * count, 3),
                "r": values(1, 2 * count, 2),
                "c": values(1, 4 * count),
            }.items()
        )
        yield Case(op, (7, 21), f"h, y = {op}<hidden_size=2>(x, w, r, c)", "4,2,3", weights)


CASES = [
    Case("BatchNormalization", (7, 21), "y = BatchNormalization<epsilon=0.01>(x, s, b, m, v)", weights=BN),
    Case("BatchNormalization-spatial", (7, 8), "y = BatchNormalization<spatial=1>(x, s, b, m, v)", weights=BN),
    Case(
        "BatchNormalization-activation",
        (7, 8),
        "y = BatchNormalization<spatial=0, epsilon=0.1>(x, s, b, m, v)",
        "4,3,2",
        ACTIVATION,
    ),
    Case("BatchNormalization-matrix", (7, 8), "y = BatchNormalization<spatial=0>(x, s, b, m, v)", "4,3", BN),
    Case("BatchNormalization-mxnet", (7, 8), "y = BatchNormalization<spatial=0>(x, s, b, m, v)", weights=BN),
    Case("BatchNormalization-results", (7, 13), "y, a, c, d, e = BatchNormalization(x, s, b, m, v)", weights=BN),
    Case("ImageScaler", (7, 9), "y = ImageScaler<bias=[0.5,-1.0,2.0], scale=0.3>(x)"),
    Case("Affine", (7, 9), "y = Affine<alpha=2.0, beta=0.5>(x)"),
    Case("ScaledTanh", (7, 9), "y = ScaledTanh<alpha=2.0, beta=0.5>(x)"),
    Case("ParametricSoftplus", (7, 9), "y = ParametricSoftplus<alpha=2.0, beta=0.5>(x)"),
    Case("ThresholdedRelu", (7, 21), "y = ThresholdedRelu<alpha=0.4>(x)"),
    Case("Crop", (7, 9), "y = Crop<border=[1,0,2,1]>(x)"),
    Case("Crop-size", (7, 9), "y = Crop<border=[1,2,0,0], scale=[2,3]>(x)"),
    Case("Dropout", (7, 11), "y = Dropout<ratio=0.3>(x)"),
    Case("Dropout-mask", (7, 11), "y, mask = Dropout(x)"),
    Case("Clip", (7, 10), "y = Clip<min=-0.5, max=0.7>(x)"),
    Case("Clip-low", (7, 10), "y = Clip<min=0.1>(x)"),
    Case("Clip-high", (7, 10), "y = Clip<max=0.1>(x)"),
    Case("Clip-free", (7, 10), "y = Clip(x)"),
    Case("Clip-lowest", (7, 10), "y = Clip<min=-3.4028234663852886e+38, max=0.5>(x)"),
    Case("Clip-operands", (11, 21), "y = Clip(x, low, high)", weights="float low = {-0.5}, float high = {0.7}"),
    Case("Clip-operand", (12, 21), "y = Clip(x, , high)", weights="float high = {0.7}"),
    Case("Pad", (7, 10), "y = Pad<pads=[0,0,1,2,0,0,2,1], value=0.5>(x)"),
    Case("Pad-zeros", (7, 10), "y = Pad<pads=[0,0,1,2,0,0,-1,1]>(x)"),
    Case("Pad-reflect", (7, 10), 'y = Pad<mode="reflect", pads=[0,0,1,2,0,0,2,1]>(x)'),
    Case("Pad-edge", (7, 10), 'y = Pad<mode="edge", pads=[0,0,1,2,0,0,2,1], value=3.0>(x)'),
    Case("Pad-13", (13, 21), "y = Pad(x, p, c)", weights="int64[8] p = {0,0,1,2,0,0,2,1}, float c = {0.5}"),
    Case("Pad-axes", (18, 21), "y = Pad(x, p, , a)", weights="int64[4] p = {1,2,0,1}, int64[2] a = {-1,1}"),
    Case("Squeeze", (7, 12), "y = Squeeze<axes=[1,3]>(x)", "2,1,4,1"),
    Case("Squeeze-all", (7, 12), "y = Squeeze(x)", "2,1,4,1"),
    Case("Squeeze-negative", (11, 12), "y = Squeeze<axes=[-1]>(x)", "2,1,4,1"),
    Case("Squeeze-13", (13, 21), "y = Squeeze(x, a)", "2,1,4,1", "int64[1] a = {-1}"),
    Case("Unsqueeze", (7, 12), "y = Unsqueeze<axes=[0,3]>(x)"),
    Case("Unsqueeze-negative", (11, 12), "y = Unsqueeze<axes=[-1]>(x)"),
    Case("Unsqueeze-13", (13, 21), "y = Unsqueeze(x, a)", weights="int64[2] a = {0,-1}"),
    *_reductions(),
    Case("ReduceMean-18", (18, 21), "y = ReduceMean(x, a)", weights="int64[2] a = {2,3}"),
    Case("ReduceSum-13", (13, 21), "y = ReduceSum<keepdims=0>(x, a)", weights="int64[2] a = {2,-1}"),
    *_softmaxes(),
    Case("Slice", (7, 9), "y = Slice<axes=[1,3], starts=[1,-3], ends=[3,9223372036854775807]>(x)"),
    Case("Slice-without-axes", (7, 9), "y = Slice<starts=[0,1], ends=[1,-1]>(x)"),
    Case("Slice-10", (10, 21), "y = Slice(x, s, e, a)", weights="int64[1] s = {1}, int64[1] e = {9}, int64[1] a = {3}"),
    Case(
        "Slice-steps",
        (10, 21),
        "y = Slice(x, s, e, a, t)",
        weights="int64[1] s = {4}, int64[1] e = {-9}, int64[1] a = {-1}, int64[1] t = {-2}",
    ),
    Case("TopK", (7, 9), "y, i = TopK<k=2, axis=3>(x)"),
    Case("TopK-10", (10, 21), "y, i = TopK<axis=1>(x, k)", weights="int64[1] k = {2}"),
    Case("TopK-smallest", (11, 21), "y, i = TopK<axis=-1, largest=0>(x, k)", weights="int64[1] k = {2}"),
    Case("Split", (7, 12), "a, b = Split<axis=3, split=[2,3]>(x) y = Concat<axis=3>(b, a)"),
    Case("Split-equal", (7, 12), "a, b = Split<axis=2>(x) y = Concat<axis=3>(b, a)"),
    Case("Split-first", (7, 12), "a, b = Split(x) y = Concat<axis=1>(b, a)"),
    Case("Split-13", (13, 21), "a, b = Split<axis=-1>(x, s) y = Concat<axis=-1>(b, a)", weights="int64[2] s = {2,3}"),
    Case("Split-equal-13", (13, 17), "a, b = Split<axis=-2>(x) y = Concat<axis=1>(b, a)"),
    Case("Split-unequal", (18, 21), "a, b = Split<axis=-1, num_outputs=2>(x) y = Concat<axis=-1>(b, a)"),
    *_resizes(),
    Case(
        "Gemm",
        (7, 21),
        "y = Gemm<alpha=0.5, beta=2.0, transB=1>(x, w, c)",
        "4,3",
        "float[2,3] w = {1,2,3,4,5,6}, float[2] c = {1,2}",
    ),
    Case("Gemm-two", (11, 21), "y = Gemm(x, w)", "4,3", "float[3,2] w = {1,2,3,4,5,6}"),
    Case(
        "Scatter",
        (9, 10),
        "y = Scatter<axis=0>(x, i, u)",
        "3,2",
        "int64[1,2] i = {2,0}, float[1,2] u = {7,8}",
    ),
    Case(
        "ScatterElements",
        (11, 21),
        "y = ScatterElements<axis=0>(x, i, u)",
        "3,2",
        "int64[1,2] i = {2,0}, float[1,2] u = {7,8}",
    ),
    Case(
        "RoiAlign",
        (10, 15),
        "y = RoiAlign<output_height=2, output_width=3, spatial_scale=0.5>(x, r, i)",
        "1,2,6,6",
        "float[2,4] r = {0,0,8,9,2,3,7,7}, int64[2] i = {0,0}",
    ),
    Case(
        "RoiAlign-16",
        (16, 21),
        'y = RoiAlign<output_height=2, output_width=3, coordinate_transformation_mode="output_half_pixel">(x, r, i)',
        "1,2,6,6",
        "float[2,4] r = {0,0,8,9,2,3,7,7}, int64[2] i = {0,0}",
    ),
    *(
        Case(
            f"ConvTranspose-{name}",
            (7, 21),
            f"y = ConvTranspose<strides=[2,2], {attributes}>(x, w)",
            "1,1,3,4",
            "float[1,2,3,3] w = {1,2,3,4,5,6,7,8,9,9,8,7,6,5,4,3,2,1}",
        )
        for name, attributes in {
            "upper": 'auto_pad="SAME_UPPER"',
            "lower": 'auto_pad="SAME_LOWER"',
            "shape": "output_shape=[6,9]",
            "pads": "pads=[1,0,1,1], output_padding=[1,0]",
        }.items()
    ),
    Case("AveragePool", (7, 21), "y = AveragePool<kernel_shape=[3,3], pads=[1,1,1,1], strides=[2,2]>(x)"),
    Case("AveragePool-pad", (7, 21), "y = AveragePool<kernel_shape=[3,3], pads=[1,1,1,1], count_include_pad=1>(x)"),
    Case("AveragePool-upper", (7, 21), 'y = AveragePool<kernel_shape=[2,2], strides=[2,2], auto_pad="SAME_UPPER">(x)'),
    Case("AveragePool-ceil", (10, 21), "y = AveragePool<kernel_shape=[2,2], strides=[2,2], ceil_mode=1>(x)"),
    Case("MaxPool", (7, 21), "y = MaxPool<kernel_shape=[3,3], pads=[1,1,1,1], strides=[2,2]>(x)"),
    Case(
        "MaxPool-indices",
        (8, 21),
        "y, i = MaxPool<kernel_shape=[2,2], storage_order=1>(x)",
        output="float[] y, int64[] i",
    ),
    Case("MaxPool-dilated", (10, 21), "y = MaxPool<kernel_shape=[2,2], dilations=[2,2], ceil_mode=1>(x)"),
    Case("LpPool", (7, 21), "y = LpPool<kernel_shape=[2,2], p=3>(x)"),
    *_recurrent(),
    Case("PRelu", (7, 21), "y = PRelu(x, s)", weights="float[3,1,1] s = {0.1,0.2,0.3}"),
    Case("LRN", (7, 21), "y = LRN<size=3, alpha=0.1>(x)"),
    Case(
        "InstanceNormalization", (7, 21), "y = InstanceNormalization(x, s, b)", weights=BN.partition(", float[3] m")[0]
    ),
    Case("MeanVarianceNormalization", (9, 21), "y = MeanVarianceNormalization<axes=[0,2,3]>(x)"),
    Case("Sum", (7, 21), "z = Relu(x) y = Sum(x, z, x)"),
    Case("Max", (7, 21), "z = Neg(x) y = Max(x, z)"),
    Case("Min-broadcast", (8, 21), "y = Min(x, c)", weights="float[5] c = {0,0.5,-0.5,1,-1}"),
    Case("ArgMax", (7, 21), "y = ArgMax<axis=1, keepdims=0>(x)", output="int64[] y"),
    Case("ArgMin-negative", (11, 21), "y = ArgMin<axis=-1>(x)", output="int64[] y"),
    Case("Concat-negative", (11, 21), "y = Concat<axis=-2>(x, x)"),
    Case("Flatten", (7, 21), "y = Flatten<axis=2>(x)"),
    Case("Gather", (7, 21), "y = Gather<axis=1>(x, i)", weights="int64[2] i = {2,0}"),
    Case("Reshape", (7, 21), "y = Reshape(x, s)", weights="int64[3] s = {0,-1,5}"),
    Case("Expand", (8, 21), "y = Expand(x, s)", "2,1,4", "int64[3] s = {2,3,4}"),
    Case(
        "OneHot",
        (9, 21),
        "i = ArgMax<axis=1, keepdims=0>(x) y = OneHot(i, d, v)",
        "2,3",
        "int64[1] d = {4}, float[2] v = {-1,2}",
    ),
    Case("DepthToSpace", (7, 21), "y = DepthToSpace<blocksize=2>(x)", "1,8,2,3"),
    Case("DepthToSpace-crd", (11, 21), 'y = DepthToSpace<blocksize=2, mode="CRD">(x)', "1,8,2,3"),
    Case("SpaceToDepth", (7, 21), "y = SpaceToDepth<blocksize=2>(x)", "1,2,4,6"),
    Case("Constant", (7, 21), "c = Constant<value = float[2] {1,2}>() y = Mul(x, c)", "3,2"),
    Case("Constant-float", (12, 21), "c = Constant<value_float = 2.5>() y = Mul(x, c)"),
    Case("Constant-ints", (12, 21), "c = Constant<value_ints = [-1, 5]>() y = Reshape(x, c)"),
    Case("Shape-part", (15, 21), "s = Shape<start=1, end=-1>(x) y = Cast<to=1>(s)"),
    Case("HardSwish", (14, 21), "y = HardSwish(x)"),
    Case("LayerNormalization", (17, 21), "y = LayerNormalization(x, s)", weights="float[5] s = {1,2,3,4,5}"),
    *(
        Case(
            f"GridSample-{name}",
            opsets,
            f"t = Tanh(x) g = Slice(t, start, end, axes) y = GridSample{attributes}(x, g)",
            weights="int64[1] start = {0}, int64[1] end = {2}, int64[1] axes = {3}",
        )
        for name, opsets, attributes in (
            ("default", (16, 21), ""),
            ("cubic", (16, 19), '<mode="bicubic", padding_mode="border", align_corners=1>'),
            ("linear", (16, 19), '<mode="bilinear", padding_mode="reflection">'),
            ("nearest", (16, 21), '<mode="nearest">'),
            ("cubic-20", (20, 21), '<mode="cubic", padding_mode="border", align_corners=1>'),
            ("linear-20", (20, 21), '<mode="linear", padding_mode="reflection">'),
        )
    ),
    Case("DFT", (17, 19), "y = DFT<axis=2>(x)", "2,3,4,2"),
    Case("DFT-default", (17, 19), "y = DFT<onesided=1>(x)", "2,3,4,1"),
    Case("DFT-20", (20, 21), "y = DFT(x, , a)", "2,3,4,2", "int64 a = {-3}"),
    Case("DFT-20-default", (20, 21), "y = DFT<inverse=1>(x)", "2,3,4,2"),
    Case("Gelu", (20, 21), "y = Gelu(x)"),
    Case("Gelu-tanh", (20, 21), 'y = Gelu<approximate="tanh">(x)'),
    Case(
        "QuantizeLinear",
        (10, 21),
        "q = QuantizeLinear(x, s, z) y = DequantizeLinear(q, s, z)",
        weights="float s = {0.1}, uint8 z = {120}",
    ),
    Case(
        "QuantizeLinear-axis",
        (13, 21),
        "q = QuantizeLinear<axis=1>(x, s, z) y = DequantizeLinear<axis=1>(q, s, z)",
        weights="float[3] s = {0.1,0.2,0.3}, int8[3] z = {1,2,3}",
    ),
    Case(
        "QuantizeLinear-asked",
        (21, 21),
        "q = QuantizeLinear<output_dtype=3>(x, s) y = DequantizeLinear(q, s)",
        weights="float s = {0.1}",
    ),
    Case(
        "GroupNormalization-21",
        (21, 21),
        "y = GroupNormalization<num_groups=2>(x, s, b)",
        "2,4,3",
        "float[4] s = {1,2,3,4}, float[4] b = {4,3,2,1}",
    ),
    Case("Cast", (7, 21), "i = Cast<to=7>(x) y = Cast<to=1>(i)"),
    Case("Erf", (9, 21), "y = Erf(x)"),
    Case(
        "NonMaxSuppression",
        (10, 21),
        "s = Transpose<perm=[0,2,1]>(x) y = NonMaxSuppression(x, s, k)",
        "1,4,4",
        "int64 k = {2}",
        "int64[] y",
    ),
    Case(
        "If",
        (11, 12),
        "c = Greater(l, z) y = If(c) <then_branch = a () => (float t) { t = Squeeze<axes=[1]>(x) }, "
        "else_branch = b () => (float e) { r = ReduceSum<axes=[1], keepdims=0>(x) e = Softmax<axis=0>(r) }>",
        "2,1,4",
        "float l = {1}, float z = {2}",
    ),
    Case(
        "Loop",
        (11, 12),
        "y = Loop(n, , x) <body = b (int64 i, bool c, float[2,3] v) => (bool d, float[2,3] w) "
        "{ d = Identity(c) p = Unsqueeze<axes=[0]>(v) q = Squeeze<axes=[0]>(p) w = Clip(q, , h) }>",
        "2,3",
        "int64 n = {3}, float h = {0.5}",
    ),
    Case("custom-domain", (7, 12), "z = com.microsoft.Gelu(x) y = Softmax(z)", header=', "com.microsoft" : 1'),
    Case(
        "function",
        (11, 12),
        "y = own.Flat(x)",
        header=', "own" : 1',
        functions='<domain: "own", opset_import: ["" : 11]> '
        "Flat (a) => (f) { s = Softmax<axis=2>(a) u = Unsqueeze<axes=[0]>(s) f = Squeeze<axes=[0]>(u) }",
    ),
    Case(
        "function-with-attribute",
        (13, 21),
        "y = own.Flat<by=2>(x)",
        header=', "own" : 1',
        functions='<domain: "own", opset_import: ["" : 13]> Flat <by>(a) => (f) { f = Softmax<axis: int = @by>(a) }',
    ),
]


WITHOUT_A_WAY_BACK = {
    "BatchNormalization-results",  # the newer form says `training_mode`
    "Resize-10-nearest-mixed",  # two nodes, of operands that are computed
    *(f"Resize-10-computed-{name}" for name in ("up", "down", "mixed", "fraction")),
    "ThresholdedRelu",  # an experiment before opset 10, which ONNX Runtime still has
    "custom-domain",  # the rank of its result isn't known any more
}


def converted_to(model: onnx.ModelProto, opset: int) -> onnx.ModelProto:
    converted = onnx.ModelProto()
    converted.CopyFrom(model)
    convert_to_opset(converted, opset)
    return converted


def run(model: onnx.ModelProto, feeds: dict[str, np.ndarray]) -> list[np.ndarray]:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return session.run(None, feeds)


def check(model: onnx.ModelProto) -> None:
    """ONNX's own checker takes GroupNormalization of opset 18 for no operator: newer ones deprecate it."""
    if not any(node.op_type == "GroupNormalization" for node in model.graph.node):
        checked = onnx.ModelProto()
        checked.CopyFrom(model)
        for output in checked.graph.output:
            output.type.tensor_type.shape.SetInParent()  # it wants one
        onnx.checker.check_model(checked)


def feeds_of(case: Case, model: onnx.ModelProto) -> dict[str, np.ndarray]:
    dims = model.graph.input[0].type.tensor_type.shape.dim
    shape = [d.dim_value or {"N": 2, "C": 3, "H": 4}[d.dim_param] for d in dims]
    return {"x": np.random.default_rng(0).normal(size=shape).astype(np.float32)}


def assert_equal(found: list[np.ndarray], expected: list[np.ndarray]) -> None:
    assert len(found) == len(expected)
    for a, b in zip(found, expected, strict=True):
        assert a.shape == b.shape
        assert a.dtype == b.dtype
        assert np.abs(a - b).max(initial=0) <= TOLERANCE * np.abs(b).max(initial=0)


def as_meant(model: onnx.ModelProto) -> onnx.ModelProto:
    """ONNX Runtime refuses what MXNet wrote: one-dimensional parameters, which are those of channels."""
    del model.graph.node[0].attribute[:]
    return model


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_form_of_an_operator_keeps_its_meaning(case):
    first, last = case.opsets
    changes = {first, last} | {v for v in range(first, last + 1) if any(since(op, v) == v for op in _operators(case))}
    for opset in sorted(changes - {OPSET}):
        model = case.model(opset)
        feeds = feeds_of(case, model)
        expected = run(as_meant(model) if case.name == "BatchNormalization-mxnet" else model, feeds)
        converted = converted_to(case.model(opset), OPSET)
        check(converted)
        assert_equal(run(converted, feeds), expected)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_form_of_an_operator_comes_back(case):
    """From the pinned opset to all that ONNX Runtime runs, right or refused; to its own opsets not refused."""
    first, last = case.opsets
    newest = converted_to(case.model(last), OPSET)
    feeds = feeds_of(case, newest)
    expected = run(newest, feeds)
    refused = {}
    for opset in {*range(OLDEST_OPSET, NEWEST_OF_RUNTIME + 1)} - {OPSET}:
        try:
            converted = converted_to(newest, opset)
        except Unconvertible as error:
            refused[opset] = str(error)
            continue
        check(converted)
        assert_equal(run(converted, feeds), expected)
    if case.name not in WITHOUT_A_WAY_BACK:
        assert not refused.keys() & {*range(first, last + 1)}, refused


@pytest.mark.parametrize(
    ("opset", "nodes", "reason"),
    [
        (7, "y = Upsample<scales=[1.0,2.0,2.0]>(x, s)", "has 2 operands, which isn't what it has in opset 7"),
        (7, "y = Upsample(x)", "Upsample node that computes 'y' lacks the attribute scales"),
        (7, "y = ImageScaler(x)", "ImageScaler node that computes 'y' lacks the attribute bias"),
        (9, "y = Clip<min=[1.0]>(x)", "has an attribute min of another type than that of opset 9"),
        (8, "y = Scan<num_scan_inputs=1, body = b (float[3] i) => (float[3] o) { o = Relu(i) }>(, x)", "a batch dim"),
        (9, "z, a, c, d, e = BatchNormalization(x, s, s, s, s) y = Add(z, d)", "the saved statistics of a batch"),
        (11, "z, m = Dropout(x) f = Cast<to=1>(m) y = Mul(z, f)", "a mask that is read"),
        (
            11,
            'y = Resize<coordinate_transformation_mode="tf_half_pixel_for_nn">(x, s, s)',
            "tf_half_pixel_for_nn, and doesn't round down",
        ),
        (19, "y = DeformConv(x, s, s)", "DeformConv node that computes 'y' can't be expressed in opset 18"),
        (20, "y = GridSample(x, s)", "images of 1 dimensions"),
        (21, "y = QuantizeLinear<block_size=2, axis=1>(x, s)", "quantizes by blocks"),
        (22, "b = Cast<to=16>(x) y = Conv(b, b)", "'b' of type bfloat16, which it doesn't know in opset 18"),
        (24, "t = TensorScatter(x, x) y = Relu(t)", "TensorScatter node that computes 't' can't be expressed"),
    ],
)
def test_what_has_no_other_form_is_refused(opset, nodes, reason):
    case = Case("", (opset, opset), nodes, "1,3,4", "float[3] s = {1,2,3}")
    with pytest.raises(Unconvertible, match=re.escape(reason)):
        converted_to(case.model(opset), OPSET)


def test_versions_without_a_rule_only_allow_more():
    """Between two versions of an operator without a rule, what a node of the older could say means the same."""
    versions: dict[str, dict[int, onnx.defs.OpSchema]] = {}
    for schema in onnx.defs.get_all_schemas_with_history():
        if schema.domain == "":
            versions.setdefault(schema.name, {})[schema.since_version] = schema
    for op, schemas in versions.items():
        oldest = max((v for v in schemas if v <= OLDEST_OPSET), default=0)
        for old, new in itertools.pairwise(sorted(v for v in schemas if oldest <= v <= NEWEST_OPSET)):
            if (op, new) not in UPGRADES:
                _assert_allows_more(schemas[old], schemas[new])


def _assert_allows_more(old: onnx.defs.OpSchema, new: onnx.defs.OpSchema) -> None:
    where = f"{old.name} {old.since_version} to {new.since_version}"
    assert not new.deprecated or old.name == "GroupNormalization", where
    for name, attribute in old.attributes.items():
        assert name in new.attributes, f"{where}: {name}"
        assert str(attribute.default_value) == str(new.attributes[name].default_value), f"{where}: {name}"
    assert new.min_input <= old.min_input <= old.max_input <= new.max_input, where
    assert new.min_output <= old.min_output <= old.max_output <= new.max_output, where


def _operators(case: Case) -> set[str]:
    operators: set[str] = set()

    def visit(nodes):
        for node in nodes:
            operators.add(node.op_type)
            for attribute in node.attribute:
                visit(attribute.g.node)

    model = case.model(case.opsets[1])
    visit(model.graph.node)
    for function in model.functions:
        visit(function.node)
    return operators


@pytest.mark.parametrize("op", ["MaxPool", "AveragePool", "LpPool"])
@pytest.mark.parametrize("extents", ["2,2", "4,5", "3,7", "6,2"])
@pytest.mark.parametrize(
    "window",
    [
        "kernel_shape=[3,3], strides=[3,3], pads=[1,1,1,1]",
        "kernel_shape=[3,2], strides=[2,3], pads=[1,0,1,1]",
        "kernel_shape=[3,3], strides=[2,2], pads=[0,0,1,1]",
        "kernel_shape=[2,2], strides=[2,2]",
    ],
)
def test_windows_that_begin_in_the_padding_are_left_out(op, extents, window):
    """Since opset 22, by ONNX's reference implementation; before that ONNX Runtime had them."""
    case = Case("", (22, 22), f"y = {op}<{window}, ceil_mode=1>(x)", f"1,2,{extents}")
    model = case.model(22)
    feeds = feeds_of(case, model)
    converted = converted_to(model, OPSET)
    found = run(converted, feeds)
    if op != "LpPool":  # the reference implementation takes a window that sticks out for a mean
        assert_equal(found, onnx.reference.ReferenceEvaluator(model).run(None, feeds))
    inferred = onnx.shape_inference.infer_shapes(model).graph.output[0].type.tensor_type.shape.dim
    assert [d.dim_value for d in inferred] == list(found[0].shape)


def test_windows_behind_the_image_have_no_other_form():
    mixed = Case("", (22, 22), "y = MaxPool<kernel_shape=[1,1], strides=[2,2], ceil_mode=1>(x)", "1,1,2,2")
    with pytest.raises(Unconvertible, match="windows that begin behind the image"):
        converted_to(mixed.model(22), OPSET)
    unknown = Case("", (22, 22), mixed.nodes, "1,1,H,W")
    with pytest.raises(Unconvertible, match="the extents of the images"):
        converted_to(unknown.model(22), OPSET)
    old = Case(
        "", (18, 18), "y = MaxPool<kernel_shape=[3,3], strides=[3,3], pads=[1,1,1,1], ceil_mode=1>(x)", "1,1,2,2"
    )
    with pytest.raises(Unconvertible, match="windows that lie in the padding"):
        converted_to(old.model(18), 22)
