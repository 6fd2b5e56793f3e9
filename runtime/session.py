"""The one place that knows ONNX Runtime: inference, evaluation with exchangeable weights, and training steps."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from wootz.passes.errors import WootzError
from wootz.passes.ir.model import Constant, Graph, Model, to_variable
from wootz.passes.training.interface import TrainingInterface

try:
    import onnxruntime
except ImportError as missing:  # three packages provide it, and none is a hard dependency
    raise WootzError(
        "ONNX Runtime is not installed: install one of wootz[training], wootz[cpu], wootz[cuda]"
    ) from missing

Arrays = dict[str, np.ndarray]


@dataclass(frozen=True)
class Device:
    """Where graphs run. `threads` is the number of CPU threads of one session; 0 takes all cores."""

    kind: Literal["cpu", "cuda"] = "cpu"
    threads: int = 0

    def providers(self) -> list[str]:
        """ONNX Runtime's names. Raises WootzError when this build has no CUDA."""
        if self.kind == "cpu":
            return ["CPUExecutionProvider"]
        if "CUDAExecutionProvider" not in onnxruntime.get_available_providers():
            raise WootzError("this ONNX Runtime has no CUDA provider: install wootz[cuda], or run on the CPU")
        return ["CUDAExecutionProvider", "CPUExecutionProvider"]


CPU = Device()


def available_threads() -> int:
    """The number of cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def runtime_version() -> str:
    """ONNX Runtime's version and build, as it belongs into the key of a stored result."""
    return f"onnxruntime {onnxruntime.__version__}"


def evaluate(model: Model, feeds: Mapping[str, np.ndarray], device: Device = CPU) -> Arrays:
    """All graph outputs of `model` for `feeds`, by name. Optimisations that change results are off."""
    session = _open(model, device, exact=True)
    names = [o.name for o in session.get_outputs()]
    return dict(zip(names, session.run(names, dict(feeds)), strict=True))


class InferenceSession:
    """Runs one model on many batches. Its first graph input takes the data, its first output is given back."""

    def __init__(self, model: Model, device: Device = CPU):
        self._session = _open(model, device)
        self._input = self._session.get_inputs()[0].name
        self._output = self._session.get_outputs()[0].name

    def run(self, data: np.ndarray) -> np.ndarray:
        result: np.ndarray = self._session.run([self._output], {self._input: data})[0]
        return result


class TrainingSession:
    """Runs a training graph step by step and keeps its slots.

    ONNX Runtime does not update in place, so every slot has two buffers: one step reads the first and writes the
    second, the next one the other way round.
    """

    def __init__(self, graph: Model, device: Device = CPU):
        self.interface = TrainingInterface.of(graph)
        program, initial = without_initial_values(graph, [s.input for s in self.interface.slots])
        self._session = _open(program, device, frees_early=True)
        self._buffers = tuple(
            {s.input: _on_device(initial[s.input], device) for s in self.interface.slots} for _ in range(2)
        )
        self._losses = [
            onnxruntime.OrtValue.ortvalue_from_numpy(np.zeros((), np.float32)) for _ in self.interface.losses
        ]
        self._bindings = [self._bind(self._buffers[i], self._buffers[1 - i]) for i in range(2)]
        self._current = 0

    def step(self, data: np.ndarray, labels: np.ndarray | None, learning_rate: float) -> np.ndarray:
        """One step on a batch: float32 data, int64 labels. Gives the losses before the step, one a loss output."""
        binding = self._bindings[self._current]
        binding.bind_cpu_input(self.interface.data, np.ascontiguousarray(data, np.float32))
        binding.bind_cpu_input(self.interface.learning_rate, np.asarray(learning_rate, np.float32))
        if self.interface.labels is not None:
            binding.bind_cpu_input(self.interface.labels, np.ascontiguousarray(labels, np.int64))
        self._session.run_with_iobinding(binding)
        self._current = 1 - self._current
        return np.array([value.numpy() for value in self._losses])

    def weights(self) -> Arrays:
        """Copies of the parameters and running statistics as they are now, by name."""
        kept = [s.input for s in self.interface.slots if s.kind != "optimizer"]
        return {name: np.array(self._buffers[self._current][name].numpy()) for name in kept}

    def _bind(self, read: Mapping[str, Any], written: Mapping[str, Any]) -> Any:
        binding = self._session.io_binding()
        for slot in self.interface.slots:
            binding.bind_ortvalue_input(slot.input, read[slot.input])
            binding.bind_ortvalue_output(slot.output, written[slot.input])
        for name, value in zip(self.interface.losses, self._losses, strict=True):
            binding.bind_ortvalue_output(name, value)
        return binding


class WeightedSession:
    """Runs an inference model whose weights come with each call: one session for all steps of a training."""

    def __init__(self, model: Model, names: Iterable[str], device: Device = CPU):
        program, self._weights = without_initial_values(_with_inputs(model, set(names)), list(names))
        self._session = _open(program, device)
        self._input = self._session.get_inputs()[0].name
        self._output = self._session.get_outputs()[0].name

    def set_weights(self, weights: Mapping[str, np.ndarray]) -> None:
        self._weights = {name: weights[name] for name in self._weights}

    def run(self, data: np.ndarray) -> np.ndarray:
        result: np.ndarray = self._session.run([self._output], {self._input: data, **self._weights})[0]
        return result


def without_initial_values(graph: Model, names: Sequence[str]) -> tuple[Model, Arrays]:
    """The model with the graph inputs `names` free of initial values, and these values."""
    program = graph.copy()
    wanted = set(names)
    initial: Arrays = {}
    for tensor in program.graph.inputs:
        if tensor.name in wanted and isinstance(tensor, Constant):
            initial[tensor.name] = tensor.values
            to_variable(tensor)
    return program, initial


def _with_inputs(model: Model, names: set[str]) -> Model:
    program = model.copy()
    graph: Graph = program.graph
    graph.inputs = [*graph.inputs, *(t for name, t in graph.tensors().items() if name in names)]
    return program


def _on_device(values: np.ndarray, device: Device) -> Any:
    # ONNX Runtime may borrow the memory of an array on the CPU: every buffer gets a copy of its own.
    return onnxruntime.OrtValue.ortvalue_from_numpy(np.array(values), device.kind, 0)


def _open(model: Model, device: Device, exact: bool = False, frees_early: bool = False) -> Any:
    """A session. With `frees_early` it gives memory back as soon as a result isn't needed: half as much is held in a
    training graph, at the same speed. Else ONNX Runtime keeps buffers for results of equal shape, and one more block
    of the size of all results."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = device.threads or available_threads()
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    options.use_deterministic_compute = True
    options.enable_mem_pattern = options.enable_mem_reuse = not frees_early
    if exact:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    try:
        return onnxruntime.InferenceSession(model.to_proto().SerializeToString(), options, providers=device.providers())
    except onnxruntime.capi.onnxruntime_pybind11_state.Fail as error:
        raise WootzError(f"ONNX Runtime refuses the model: {' '.join(str(error).split())}") from error
