"""Small models as text with random weights, and what runs and checks them."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np
import onnxruntime
import pytest
from onnx import TensorProto
from onnx.inliner import inline_local_functions
from onnx.reference import ReferenceEvaluator
from onnx.reference.op_run import OpRun

from wootz.passes.ir.builder import Builder
from wootz.passes.ir.model import Constant, Model, Variable, constants, replace_uses
from wootz.passes.ir.shapes import infer_shapes
from wootz.passes.ir.text import parse_text

HEADER = '<ir_version: 8, opset_import: ["" : 18]>\n'
Arrays = dict[str, np.ndarray]


def _make_model(text: str, seed: int = 0, **weights: object) -> Model:
    parsed = parse_text(HEADER + text)
    rng = np.random.default_rng(seed)
    tensors = parsed.graph.tensors()
    for name, given in weights.items():
        values = np.asarray(given if isinstance(given, np.ndarray) else rng.normal(size=given) * 0.5)
        if name.endswith("variance"):
            values = np.abs(values) + 0.5
        tensors[name].to_constant(values.astype(np.float32) if values.dtype.kind == "f" else values)
    return parsed


def _run(graph: Model, feeds: Arrays) -> Arrays:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3  # every state with an initial value is warned about
    session = onnxruntime.InferenceSession(
        graph.to_proto().SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    return dict(zip((o.name for o in session.get_outputs()), session.run(None, feeds), strict=True))


class ConvTranspose(OpRun):
    """ConvTranspose for the reference evaluator, whose own one mixes up the groups."""

    def _run(self, x, w, bias=None, *, strides=None, dilations=None, pads=None, output_padding=None, group=1, **_):
        strides, dilations, pads = strides or [1, 1], dilations or [1, 1], pads or [0, 0, 0, 0]
        output_padding = output_padding or [0, 0]
        n, _channels, rows, columns = x.shape
        per_group, (height, width) = w.shape[1], w.shape[2:]
        size = [
            (count - 1) * s + (k - 1) * d + 1
            for count, s, k, d in zip((rows, columns), strides, (height, width), dilations, strict=True)
        ]
        full = np.zeros((n, per_group * group, size[0] + output_padding[0], size[1] + output_padding[1]), x.dtype)
        for g, (inputs, kernel) in enumerate(zip(np.split(x, group, 1), np.split(w, group), strict=True)):
            channels = slice(g * per_group, (g + 1) * per_group)
            for i, j in np.ndindex(height, width):
                top, left = i * dilations[0], j * dilations[1]
                bottom, right = top + (rows - 1) * strides[0] + 1, left + (columns - 1) * strides[1] + 1
                part = np.einsum("nchw,cm->nmhw", inputs, kernel[:, :, i, j])
                full[:, channels, top : bottom : strides[0], left : right : strides[1]] += part
        bottom, right = full.shape[2] - pads[2], full.shape[3] - pads[3]
        cropped = full[:, :, pads[0] : bottom, pads[1] : right]
        return (cropped if bias is None else cropped + bias[None, :, None, None],)


class Conv(OpRun):
    """Conv for the reference evaluator, whose own one fails on groups with strides."""

    def _run(self, x, w, bias=None, *, strides=None, dilations=None, pads=None, group=1, auto_pad=None, **_):
        strides, dilations, pads = strides or [1, 1], dilations or [1, 1], list(pads or [0, 0, 0, 0])
        extent = [(k - 1) * d + 1 for k, d in zip(w.shape[2:], dilations, strict=True)]
        if auto_pad in ("SAME_UPPER", "SAME_LOWER"):
            for axis in range(2):
                count = -(-x.shape[2 + axis] // strides[axis])
                total = max((count - 1) * strides[axis] + extent[axis] - x.shape[2 + axis], 0)
                pads[axis], pads[2 + axis] = total // 2, total - total // 2
                if auto_pad == "SAME_LOWER":
                    pads[axis], pads[2 + axis] = pads[2 + axis], pads[axis]
        x = np.pad(x, ((0, 0), (0, 0), (pads[0], pads[2]), (pads[1], pads[3])))
        rows, columns = ((n - e) // s + 1 for n, e, s in zip(x.shape[2:], extent, strides, strict=True))
        outputs = []
        for inputs, kernel in zip(np.split(x, group, 1), np.split(w, group), strict=True):
            total = 0.0
            for i, j in np.ndindex(*w.shape[2:]):
                top, left = i * dilations[0], j * dilations[1]
                bottom, right = top + (rows - 1) * strides[0] + 1, left + (columns - 1) * strides[1] + 1
                seen = inputs[:, :, top : bottom : strides[0], left : right : strides[1]]
                total = total + np.einsum("nchw,mc->nmhw", seen, kernel[:, :, i, j])
            outputs.append(total)
        y = np.concatenate(outputs, axis=1)
        return (y if bias is None else y + bias[None, :, None, None],)


class LRN(OpRun):
    """LRN for the reference evaluator, whose own one sums over the wrong channels."""

    def _run(self, x, *, size, alpha, beta, bias):
        total = np.zeros_like(x)
        for c in range(x.shape[1]):
            window = x[:, max(0, c - (size - 1) // 2) : c + size // 2 + 1]
            total[:, c] = (window**2).sum(axis=1)
        return (x / (bias + alpha / size * total) ** beta,)


def _run_reference(graph: Model, feeds: Arrays) -> Arrays:
    inlined = inline_local_functions(graph.to_proto())  # new_ops are not passed on to functions
    evaluator = ReferenceEvaluator(inlined, new_ops=[Conv, ConvTranspose, LRN, MeanVarianceNormalization])
    return dict(zip(evaluator.output_names, evaluator.run(None, feeds), strict=True))


class MeanVarianceNormalization(OpRun):
    """The reference evaluator's own one is a function with float32 constants."""

    def _run(self, x, *, axes=(0, 2, 3)):
        axes = tuple(axes)
        return ((x - x.mean(axes, keepdims=True)) / (x.std(axes, keepdims=True) + 1e-9),)


def is_scales(tensor: Constant) -> bool:
    """Resize takes its scales in float32 only."""
    return any(node.op == "Resize" for node in tensor.outputs)


def _in_double_precision(model: Model) -> Model:
    double = model.copy()
    for tensor in double.graph.tensors().values():
        if isinstance(tensor, Constant) and tensor.dtype == np.float32 and not is_scales(tensor):
            replace_uses(double.graph, tensor, Constant(tensor.name, tensor.values.astype(np.float64)))
        elif isinstance(tensor, Variable) and tensor.dtype == np.float32:
            tensor.dtype = np.dtype(np.float64)
    for node in double.graph.nodes:
        if node.op == "Cast" and node.attrs["to"] == TensorProto.FLOAT:
            node.attrs["to"] = TensorProto.DOUBLE
    for tensor in double.graph.inputs:
        if tensor.dtype == np.float32:
            tensor.dtype = np.dtype(np.float64)
    return double


def _with_projected_loss(model: Model) -> Model:
    """The scalar Σ output · projection in place of the only output; `projection` is a new input."""
    result = infer_shapes(model)
    (output,) = result.graph.outputs
    projection = Variable("projection", output.dtype, output.shape)
    result.graph.inputs.append(projection)
    builder = Builder(result.graph)
    loss = builder.op("ReduceSum", builder.op("Mul", output, projection), keepdims=0)
    loss.name, loss.dtype, loss.shape = "loss", output.dtype, ()
    result.graph.outputs = [loss]
    return dataclasses.replace(result)


def _skip_unless_run_here(target: str) -> None:
    if target == "ort-training" and not hasattr(onnxruntime.capi._pybind_state, "GradientGraphBuilder"):
        pytest.skip("the kernels are in onnxruntime-training only")


@pytest.fixture(scope="session")
def skip_unless_run_here() -> Callable[[str], None]:
    """Skips the test where this build of ONNX Runtime lacks the kernels of a target."""
    return _skip_unless_run_here


@pytest.fixture(scope="session")
def make_model() -> Callable[..., Model]:
    """The model of a text; a keyword gives a constant its shape (values are random) or its values."""
    return _make_model


@pytest.fixture(scope="session")
def run() -> Callable[[Model, Arrays], Arrays]:
    """All outputs by name, computed by ONNX Runtime on one thread."""
    return _run


@pytest.fixture(scope="session")
def run_reference() -> Callable[[Model, Arrays], Arrays]:
    """All outputs by name, computed by ONNX's reference evaluator."""
    return _run_reference


@pytest.fixture(scope="session")
def in_double_precision() -> Callable[[Model], Model]:
    """The same model with float64 for float32."""
    return _in_double_precision


@pytest.fixture(scope="session")
def with_projected_loss() -> Callable[[Model], Model]:
    return _with_projected_loss


@pytest.fixture(scope="session")
def values_of() -> Callable[[Model], Arrays]:
    """The constants of a model, by name."""
    return lambda model: constants(model.graph)
