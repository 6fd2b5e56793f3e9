"""Networks in 8-bit integers, by the quantiser that ONNX Runtime brings, and what that costs each of their nodes."""

from __future__ import annotations

import contextlib
import importlib
import io
import logging
import math
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from types import ModuleType
from typing import Any

import numpy as np
import onnx

from wootz.passes.errors import WootzError
from wootz.passes.ir.model import Model, Node, Tensor, constants, producer
from wootz.passes.ir.shapes import inferred_types
from wootz.passes.transforms.int8 import Quantization, quantizable
from wootz.runtime.session import without_torch

QUANTISED = (
    "Conv", "Gemm", "MatMul", "Add", "Mul", "Relu", "LeakyRelu", "Clip", "MaxPool", "AveragePool", "GlobalAveragePool",
    "Concat", "Split", "Pad", "Resize", "Reshape", "Flatten", "Squeeze", "Unsqueeze", "Transpose",
)  # fmt: skip
"""Operators that compute with integers, or between those that do. Softmax and Sigmoid are not among them: few bits are
left of what they give."""
CLIPS = ("Relu", "Clip")
SOFTMAX = "Softmax"
FLOAT_RESULTS = ("Gemm", "MatMul")
"""Operators whose results stay float32: those of the last one are the scores."""
BATCH = 32
"""Images that are looked at together: all that is computed of them is held at once."""
BEST_RATIO = 50.0
"""The ratio of signal to noise, in decibels, that 8 bits can have."""
LARGEST_BIAS = 2**30
CALIBRATIONS = {"minmax": "MinMax", "percentile": "Percentile", "entropy": "Entropy"}
TYPES = {"int8": "QInt8", "uint8": "QUInt8"}
PREPARED = {"onnx.quant.pre_process": "onnxruntime.quant"}
"""Metadata of a network that has been simplified: without it the quantiser asks for that, in a warning."""


def quantize(model: Model, feeds: Mapping[str, np.ndarray], asked: Quantization) -> Model:
    """The network in integers (a `Quantizer`). Raises WootzError where ONNX Runtime can't quantise it."""
    tool = quantiser()
    is_symmetric = asked.activations == "int8"
    with TemporaryDirectory(prefix="wootz-int8-") as folder:
        source, target = Path(folder) / "float.onnx", Path(folder) / "int8.onnx"
        _write(model, source)
        with _quiet(f"the network can't be quantised with {asked.calibration}"):
            tool.quantize_static(
                str(source),
                str(target),
                _reader(tool, feeds),
                quant_format=tool.QuantFormat.QDQ,
                op_types_to_quantize=[*QUANTISED, SOFTMAX],  # else it fails where it comes to one
                nodes_to_exclude=[*asked.keep, *(node.name for node in model.graph.nodes if node.op == SOFTMAX)],
                per_channel=True,
                activation_type=getattr(tool.QuantType, TYPES[asked.activations]),
                weight_type=getattr(tool.QuantType, TYPES[asked.weights]),
                calibrate_method=getattr(tool.CalibrationMethod, CALIBRATIONS[asked.calibration]),
                extra_options={
                    "ActivationSymmetric": is_symmetric,
                    "CalibStridedMinMax": 1,
                    "OpTypesToExcludeOutputQuantization": list(FLOAT_RESULTS),
                },
            )
        return _with_whole_biases(model, Model.from_proto(onnx.load(target)))


def quantiser() -> ModuleType:
    """ONNX Runtime's package `quantization`. Raises WootzError where that, or what it needs, is not installed."""
    try:
        with without_torch():
            return importlib.import_module("onnxruntime.quantization")
    except ImportError as missing:
        raise WootzError(
            f"int8: ONNX Runtime's quantiser can't be imported ({missing}): install what it names, or leave int8 out"
        ) from missing


def _write(model: Model, file: Path) -> None:
    proto = model.to_proto()
    onnx.helper.set_model_props(proto, {**model.metadata, **PREPARED})
    onnx.save(proto, file)


def _reader(tool: ModuleType, feeds: Mapping[str, np.ndarray]) -> Any:
    """A `CalibrationDataReader` of the images, a batch at a time."""
    size = len(next(iter(feeds.values())))
    batches = [{name: values[i : i + BATCH] for name, values in feeds.items()} for i in range(0, size, BATCH)]

    class Reader(tool.CalibrationDataReader):  # type: ignore[name-defined]
        def __init__(self) -> None:
            self.left = iter(batches)

        def __len__(self) -> int:
            return len(batches)

        def set_range(self, start_index: int, end_index: int) -> None:
            self.left = iter(batches[start_index:end_index])

        def get_next(self) -> Mapping[str, np.ndarray] | None:
            return next(self.left, None)

    return Reader()


@contextlib.contextmanager
def _quiet(what: str) -> Iterator[None]:
    """The quantiser prints, warns and logs as it goes; what it raises becomes a WootzError that says `what`."""
    before = logging.root.manager.disable
    logging.disable(logging.ERROR)
    try:
        with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except WootzError:
        raise
    except Exception as error:  # whatever it stumbles over: it raises ValueError, RuntimeError, KeyError and others
        raise WootzError(f"{what}: {type(error).__name__}: {error}") from error
    finally:
        logging.disable(before)


def signal_to_noise(model: Model, quantized: Model, feeds: Mapping[str, np.ndarray]) -> dict[str, float]:
    """The ratio of signal to noise, in decibels, that quantization leaves each node of `quantizable`, by name.

    It is the lowest of its weights and of the activations that it reads and gives, as `model` computes them of `feeds`,
    and of each the mean over its channels: where one channel is large and another is lost in its steps, the tensor as a
    whole looks well.
    """
    debug = importlib.import_module("onnxruntime.quantization.qdq_loss_debug")
    with TemporaryDirectory(prefix="wootz-int8-") as folder, _quiet("what quantization costs can't be measured"):
        whole, integers, extended = (str(Path(folder) / f"{name}.onnx") for name in ("float", "int8", "extended"))
        _write(model, Path(whole))
        _write(quantized, Path(integers))
        debug.modify_model_output_intermediate_tensors(whole, extended)
        activations = debug.collect_activations(extended, _reader(quantiser(), feeds))
        weights = debug.create_weight_matching(whole, integers)
    ratios = {
        name: _mean_ratio(*(np.ravel(f[key])[None] for key in ("float", "dequantized"))) for name, f in weights.items()
    }
    shapes = inferred_types(model.graph)
    for node in quantized.graph.nodes:
        name = node.inputs[0].name
        if node.op == "QuantizeLinear" and name in activations:
            _, shape = shapes.get(name, (None, None))
            values = _by_channel(np.concatenate(activations[name]), shape or ())
            ratios[name] = _mean_ratio(values, _rounded(values, *(t.values for t in node.inputs[1:])))
    names = set(quantizable(model))
    around = {n.name: [*n.inputs, *n.outputs, *_clipped(n)] for n in model.graph.nodes if n.name in names}
    return {name: min(ratios.get(tensor.name, BEST_RATIO) for tensor in tensors) for name, tensors in around.items()}


def _clipped(node: Node) -> list[Tensor]:
    """What a Relu or Clip makes of the node's results: the quantiser takes that to be its result."""
    return [t for result in node.outputs for reader in result.outputs if reader.op in CLIPS for t in reader.outputs]


def _rounded(values: np.ndarray, scale: np.ndarray, zero: np.ndarray) -> np.ndarray:
    """What QuantizeLinear and DequantizeLinear make of numbers."""
    limits = np.iinfo(zero.dtype)
    steps = np.clip(np.round(values / scale) + zero, limits.min, limits.max)
    return ((steps - zero) * scale).astype(np.float32)


def _mean_ratio(before: np.ndarray, after: np.ndarray) -> float:
    """Signal to noise, [channels, numbers]: the mean over the channels that aren't 0, each at most that of 8 bits."""
    debug = importlib.import_module("onnxruntime.quantization.qdq_loss_debug")
    pairs = zip(before, after, strict=True)
    ratios = [debug.compute_signal_to_quantization_noice_ratio(b, a) for b, a in pairs if b.any()]
    return float(np.minimum(ratios or [BEST_RATIO], BEST_RATIO).mean())


def _by_channel(values: np.ndarray, shape: Sequence[int | str]) -> np.ndarray:
    """Activations of a tensor of that shape, [images, channels, …], from flat ones: [channels, numbers]."""
    inner = [extent for extent in shape[1:] if isinstance(extent, int)]
    if not inner or len(inner) != len(shape) - 1:
        return values[None]
    return values.reshape(-1, inner[0], math.prod(inner[1:])).swapaxes(0, 1).reshape(inner[0], -1)


def _with_whole_biases(model: Model, quantized: Model) -> Model:
    """The quantised network with larger scales for output channels whose biases are no 32-bit integers.

    A bias has the product of the scales of weights and input. Where all weights of a channel are next to zero, as
    folding leaves them of a channel that is never active, that is so small that in ONNX Runtime 1.19 the bias
    overflows, and is lost.
    """
    result, given = quantized.copy(), constants(model.graph)
    originals = {node.name: node for node in model.graph.nodes}
    for node in result.graph.nodes:
        sources = [source for t in node.inputs if (source := producer(t)) is not None]
        if node.op not in ("Conv", "Gemm") or [s.op for s in sources] != 3 * ["DequantizeLinear"]:
            continue
        weights, biases = (given.get(t.name) for t in originals[node.name].inputs[1:])
        (_, image_scale, *_), (whole, scale, zero), (whole_bias, bias_scale, *_) = (s.inputs for s in sources)
        if weights is None or biases is None or np.ndim(scale.values) != 1:
            continue
        least = np.abs(biases) / (LARGEST_BIAS * image_scale.values)
        if np.all(scale.values >= least):
            continue
        scale.values = np.maximum(scale.values, least).astype(np.float32)
        along = [-1 if axis == sources[1].attrs.get("axis", 1) else 1 for axis in range(weights.ndim)]
        limits = np.iinfo(whole.values.dtype)
        steps = np.round(weights / scale.values.reshape(along)) + zero.values.reshape(along)
        whole.values = np.clip(steps, limits.min, limits.max).astype(whole.values.dtype)
        bias_scale.values = (scale.values * image_scale.values).astype(np.float32)
        whole_bias.values = np.round(biases / bias_scale.values).astype(np.int32)
    return result
