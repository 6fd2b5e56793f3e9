"""Small models as text with random weights, and what runs and checks them."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Sequence

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto
from onnx.inliner import inline_local_functions
from onnx.reference import ReferenceEvaluator
from onnx.reference.op_run import OpRun

from wootz.passes.ir.builder import Builder
from wootz.passes.ir.model import Constant, Model, Node, Variable, constants
from wootz.passes.ir.rewrite import erase_dead_nodes, replace_all_uses
from wootz.passes.ir.shapes import infer_shapes
from wootz.passes.ir.text import parse_text
from wootz.passes.training.build_gradients import BuildGradients
from wootz.passes.training.distill import DISTILLATION
from wootz.passes.training.interface import TrainingInterface
from wootz.passes.training.lowerings.native import uses_native
from wootz.passes.transforms.teacher_student import TEACHER
from wootz.runtime.kernels import library

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


def _session(graph: Model) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3  # every state with an initial value is warned about
    if uses_native(graph.graph):
        options.register_custom_ops_library(str(library().file))
    return onnxruntime.InferenceSession(
        graph.to_proto().SerializeToString(), options, providers=["CPUExecutionProvider"]
    )


def _run(graph: Model, feeds: Arrays) -> Arrays:
    session = _session(graph)
    return dict(zip((o.name for o in session.get_outputs()), session.run(None, feeds), strict=True))


class ConvTranspose(OpRun):
    """ConvTranspose for the reference evaluator, whose own one mixes up the groups."""

    def _run(self, x, w, bias=None, *, strides=None, dilations=None, pads=None, output_padding=None, group=1, **others):
        axes = w.ndim - 2
        strides, dilations = strides or [1] * axes, dilations or [1] * axes
        extra = output_padding or [0] * axes
        windows = _Windows(x.shape[2:], w.shape[2:], strides, dilations)
        per_group = w.shape[1]
        full = np.zeros((len(x), per_group * group, *np.add(windows.span, extra)), x.dtype)
        for g, (inputs, kernel) in enumerate(zip(np.split(x, group, 1), np.split(w, group), strict=True)):
            for tap, place in windows.taps():
                part = np.einsum("nc...,cm->nm...", inputs, kernel[(..., *tap)])
                full[(slice(None), slice(g * per_group, (g + 1) * per_group), *place)] += part
        cropped = full[(..., *self._inside(full.shape[2:], x.shape[2:], strides, pads, **others))]
        return (cropped if bias is None else cropped + _column(bias, axes),)

    def _inside(self, full, positions, strides, pads, auto_pad=None, output_shape=None, **_):
        """What is left when the pads are cut off; they follow from the size where that is given."""
        axes = len(full)
        begin, size = (
            (pads or [0] * 2 * axes)[:axes],
            np.subtract(full, np.reshape(pads or [0] * 2 * axes, [2, -1]).sum(0)),
        )
        if output_shape or auto_pad in ("SAME_UPPER", "SAME_LOWER"):
            size = output_shape[-axes:] if output_shape else np.multiply(positions, strides)
            total = np.subtract(full, size)
            begin = total // 2 if auto_pad == "SAME_UPPER" else total - total // 2
        return tuple(slice(b, b + n) for b, n in zip(begin, size, strict=True))


class Conv(OpRun):
    """Conv for the reference evaluator, whose own one fails on groups with strides."""

    def _run(self, x, w, bias=None, *, strides=None, dilations=None, pads=None, group=1, auto_pad=None, **_):
        axes = w.ndim - 2
        strides, dilations = strides or [1] * axes, dilations or [1] * axes
        pads = np.reshape(pads or [0] * 2 * axes, [2, -1])
        extent = np.multiply(np.subtract(w.shape[2:], 1), dilations) + 1
        if auto_pad in ("SAME_UPPER", "SAME_LOWER"):
            count = -(-np.array(x.shape[2:]) // strides)
            total = np.maximum((count - 1) * strides + extent - x.shape[2:], 0)
            pads = np.stack([total // 2, total - total // 2])[:: 1 if auto_pad == "SAME_UPPER" else -1]
        x = np.pad(x, [(0, 0), (0, 0), *pads.T])
        windows = _Windows((np.array(x.shape[2:]) - extent) // strides + 1, w.shape[2:], strides, dilations)
        outputs = [
            sum(
                np.einsum("nc...,mc->nm...", inputs[(..., *place)], kernel[(..., *tap)])
                for tap, place in windows.taps()
            )
            for inputs, kernel in zip(np.split(x, group, 1), np.split(w, group), strict=True)
        ]
        y = np.concatenate(outputs, axis=1)
        return (y if bias is None else y + _column(bias, axes),)


@dataclasses.dataclass(frozen=True)
class _Windows:
    """The places that each tap of a kernel sees, at `count` positions an axis."""

    count: Sequence[int]
    kernel: Sequence[int]
    strides: Sequence[int]
    dilations: Sequence[int]

    @property
    def span(self):
        reach = zip(self.count, self.kernel, self.strides, self.dilations, strict=True)
        return [(n - 1) * s + (k - 1) * d + 1 for n, k, s, d in reach]

    def taps(self):
        for tap in np.ndindex(*self.kernel):
            axes = zip(tap, self.count, self.strides, self.dilations, strict=True)
            yield tap, tuple(slice(i * d, i * d + (n - 1) * s + 1, s) for i, n, s, d in axes)


def _column(bias, axes):
    return bias.reshape([-1, *[1] * axes])


class Pad(OpRun):
    """Pad for the reference evaluator, whose own one can't cut off."""

    def _run(self, x, pads, value=None, axes=None, *, mode="constant"):
        begin, end = np.zeros(x.ndim, int), np.zeros(x.ndim, int)
        where = np.arange(x.ndim) if axes is None else axes
        begin[where], end[where] = np.reshape(pads, [2, -1])
        kept = tuple(slice(max(-b, 0), n - max(-e, 0)) for b, e, n in zip(begin, end, x.shape, strict=True))
        width = np.maximum(np.stack([begin, end], 1), 0)
        options = {"constant_values": 0 if value is None else value} if mode == "constant" else {}
        return (np.pad(x[kept], width, mode, **options),)


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
    evaluator = ReferenceEvaluator(inlined, new_ops=[Conv, ConvTranspose, LRN, MeanVarianceNormalization, Pad])
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
            replace_all_uses(double.graph, tensor, Constant(tensor.name, tensor.values.astype(np.float64)))
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


def _run_gradient_graph_builder(lossy: Model, parameters: set[str], feeds: Arrays) -> Arrays:
    """The gradients of the output `loss` that onnxruntime-training derives itself, by parameter.

    Raises RuntimeError for an operator that its builder has no gradient of.
    """
    from onnxruntime.capi._pybind_state import GradientGraphBuilder

    lossy = lossy.copy()
    _prepare_for_the_builder(lossy)
    proto = lossy.to_proto()
    for initializer in proto.graph.initializer:
        if initializer.name in parameters:
            dimensions = list(initializer.dims)
            proto.graph.input.append(
                onnx.helper.make_tensor_value_info(initializer.name, TensorProto.FLOAT, dimensions)
            )
    for info in proto.graph.input:
        if info.name in feeds:  # its pooling gradients need fixed shapes
            for dimension, size in zip(info.type.tensor_type.shape.dim, feeds[info.name].shape, strict=True):
                dimension.dim_value = size
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    builder = GradientGraphBuilder(proto.SerializeToString(), {"loss"}, parameters, "loss", options)
    builder.build()
    session = onnxruntime.InferenceSession(builder.get_model(), options, providers=["CPUExecutionProvider"])
    wanted = {i.name for i in session.get_inputs()}
    given = {n: v for n, v in (feeds | {"loss_grad": np.array(1.0, np.float32)}).items() if n in wanted}
    outputs = dict(zip((o.name for o in session.get_outputs()), session.run(None, given), strict=True))
    return {name: outputs[f"{name}_grad"] for name in parameters}


def _prepare_for_the_builder(model: Model) -> None:
    """It knows BatchNormalization in training mode as BatchNormInternal only, wants the optional results that it uses,
    and names the gradients of an operand that a node has twice alike."""
    graph = model.graph
    graph.outputs = [t for t in graph.outputs if t.name == "loss"]
    erase_dead_nodes(graph)
    for place, node in reversed(list(enumerate(graph.nodes))):
        if node.op == "BatchNormalization" and node.attrs.get("training_mode", 0):
            node.op, node.domain = "BatchNormInternal", "com.microsoft"
            node.outputs = [node.outputs[0], *(Variable(f"{node.name}.result_{i}") for i in range(4))]
        results = {"LayerNormalization": 3, "SoftmaxCrossEntropyLoss": 2}.get(node.op, len(node.outputs))
        node.outputs += [Variable(f"{node.name}.result_{i}") for i in range(len(node.outputs), results)]
        if len(node.inputs) == 2 and node.inputs[0] is node.inputs[1]:
            twin = Variable(f"{node.inputs[0].name}.twin")
            graph.nodes.insert(place, Node("Identity", inputs=[node.inputs[0]], outputs=[twin]))
            node.inputs = [node.inputs[0], twin]


def _skip_unless_run_here(target: str) -> None:
    if target == "ort-training" and not hasattr(onnxruntime.capi._pybind_state, "GradientGraphBuilder"):
        pytest.skip("the kernels are in onnxruntime-training only")
    if target == "native" and library() is None:
        pytest.skip("the operators of domain wootz.native were not built")


@pytest.fixture(scope="session")
def skip_unless_run_here() -> Callable[[str], None]:
    """Skips the test where this build of ONNX Runtime lacks the kernels of a target."""
    return _skip_unless_run_here


@pytest.fixture(scope="session")
def run_gradient_graph_builder(skip_unless_run_here) -> Callable[[Model, set[str], Arrays], Arrays]:
    """Gradients by onnxruntime-training's own builder. Skips where it is not there."""
    skip_unless_run_here("ort-training")
    return _run_gradient_graph_builder


@pytest.fixture(scope="session")
def make_model() -> Callable[..., Model]:
    """The model of a text; a keyword gives a constant its shape (values are random) or its values."""
    return _make_model


@pytest.fixture(scope="session")
def run() -> Callable[[Model, Arrays], Arrays]:
    """All outputs by name, computed by ONNX Runtime on one thread."""
    return _run


def _run_steps(graph: Model, batches: Sequence[tuple[np.ndarray, np.ndarray]], rate: float) -> list[float]:
    """Makes a step with each batch of data and labels; gives the losses."""
    interface = TrainingInterface.of(graph)
    state = {t.name: t.values for t in graph.graph.inputs if isinstance(t, Constant)}
    session = _session(graph)
    names = [o.name for o in session.get_outputs()]
    losses = []
    for data, labels in batches:
        feeds = {interface.data: data, interface.labels: labels, interface.learning_rate: np.array(rate, np.float32)}
        outputs = dict(zip(names, session.run(None, feeds | state), strict=True))
        losses.append(float(outputs[interface.losses[0]]))
        state = {slot.input: outputs[slot.output] for slot in interface.slots}
    return losses


@pytest.fixture(scope="session")
def run_steps() -> Callable[[Model, Sequence[tuple[np.ndarray, np.ndarray]], float], list[float]]:
    """The losses of one step of a training graph with each batch, at a learning rate."""
    return _run_steps


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


@pytest.fixture
def check_gradients() -> Callable[[Model, Arrays, Iterable[str]], None]:
    """Compares the gradients of a distillation loss with finite differences along random directions."""

    def check(lossy: Model, feeds: Arrays, parameters: Iterable[str]) -> None:
        found = _run_reference(BuildGradients(frozen=(TEACHER,)).apply(lossy).model, feeds)
        random = np.random.default_rng(3)
        for parameter in parameters:
            gradient = found[f"{parameter}.grad"]
            direction = random.normal(size=gradient.shape)

            def loss(step: float, parameter: str = parameter, direction: np.ndarray = direction) -> float:
                moved = lossy.copy()
                tensor = moved.graph.tensors()[parameter]
                tensor.values = tensor.values + step * direction
                return float(_run_reference(moved, feeds)[DISTILLATION])

            expected = (loss(1e-6) - loss(-1e-6)) / 2e-6
            assert np.sum(gradient * direction) == pytest.approx(expected, rel=1e-5, abs=1e-9), parameter

    return check
