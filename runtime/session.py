"""The one place that knows ONNX Runtime: inference, evaluation with exchangeable weights, and training steps."""

from __future__ import annotations

import contextlib
import functools
import io
import math
import os
import platform
import re
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Literal

import numpy as np

from wootz.passes.errors import WootzError
from wootz.passes.ir.initial_values import without_initial_values
from wootz.passes.ir.merge import merge
from wootz.passes.ir.model import OPSET, Constant, Graph, Model, constants, has_subgraphs, tensor_shape
from wootz.passes.ir.text import parse_text
from wootz.passes.training.block_convolutions import BLOCKS, BlockConvolutions
from wootz.passes.training.blocked_layout import BlockedLayout
from wootz.passes.training.fuse_elementwise import FuseElementwise
from wootz.passes.training.interface import TrainingInterface
from wootz.passes.training.legalize import Target, with_lowerings
from wootz.passes.training.lowerings.native import uses_native
from wootz.passes.training.lowerings.sums import PRODUCTS
from wootz.passes.training.symmetric_pads import SymmetricPads, pads_may_differ
from wootz.passes.training.thread_dependence import nodes_depending_on_threads
from wootz.runtime.data.dataset import Targets, differ_by_ones
from wootz.runtime.inputs import Data, Inputs, feeds, twice
from wootz.runtime.kernels import Library, library
from wootz.runtime.machine import gpu_memory


@contextlib.contextmanager
def without_torch() -> Iterator[None]:
    """Hides PyTorch from imports, unless it was imported already."""
    hidden = "torch" not in sys.modules
    if hidden:
        sys.modules["torch"] = None  # type: ignore[assignment]
    try:
        yield
    finally:
        if hidden:
            del sys.modules["torch"]


try:
    with without_torch():  # onnxruntime-training imports it for its ORTModule, which takes ten times as long
        import onnxruntime
except ImportError as missing:  # three packages provide it, and none is a hard dependency
    raise WootzError(
        "ONNX Runtime is not installed: install one of wootz[training], wootz[cpu], wootz[cuda]"
    ) from missing

Arrays = dict[str, np.ndarray]

DRAWS_RANDOM_NUMBERS = frozenset(
    {"Dropout", "RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike", "Bernoulli", "Multinomial"}
)


@dataclass(frozen=True)
class Device:
    """Where graphs run. `threads` is the number of CPU threads of one session; 0 takes all cores.

    On CUDA `tf32` lets convolutions and matrix products round their float32 operands to 10 bits of mantissa, which a
    convolution that cuDNN has no other kernel for does without it, too. `cuda_graphs` captures a training step once and
    starts it as a whole afterwards. `index` is the GPU's number among those that CUDA shows. On the CPU none of the
    three has a meaning.
    """

    kind: Literal["cpu", "cuda"] = "cpu"
    threads: int = 0
    tf32: bool = False
    cuda_graphs: bool = False
    index: int = 0

    def providers(self, capture: bool = False, half: bool = False) -> list[str | tuple[str, dict[str, str]]]:
        """ONNX Runtime's names, with options. Raises WootzError when this build has no CUDA.

        ONNX Runtime uses TF32 unless told otherwise. Without it, it keeps tensor cores from float16 convolutions, too:
        graphs with `half` precision have it. cuDNN chooses the kernel of a convolution anew whenever shapes change; its
        other heuristic (EXHAUSTIVE since ONNX Runtime 1.20) takes far longer for about the same choice.
        """
        if self.kind == "cpu":
            return ["CPUExecutionProvider"]
        if "CUDAExecutionProvider" not in onnxruntime.get_available_providers():
            raise WootzError("this ONNX Runtime has no CUDA provider: install wootz[cuda], or run on the CPU")
        options = {
            "device_id": str(self.index),
            "use_tf32": str(int(self.tf32 or half)),
            "cudnn_conv_algo_search": "HEURISTIC",
        }
        if capture:
            options["enable_cuda_graph"] = "1"
        return [("CUDAExecutionProvider", options), "CPUExecutionProvider"]

    @property
    def numerics(self) -> str:
        """What of it, of the machine and of ONNX Runtime rounds results otherwise: the provider, TF32, the version and
        build, and on the CPU how many channels lie side by side and whether products and sums are fused, which follow
        from its vector instructions. Captured graphs change nothing, and threads what `order_of_sums` says.
        """
        if self.kind == "cuda":
            return ", ".join(["cuda", *(["tf32"] if self.tf32 else []), runtime_version()])
        rounding = "fused" if _fuses_products() else "rounded"
        return f"cpu {platform.machine()}, blocks of {channel_block()}, products {rounding}, {runtime_version()}"

    @property
    def numerics_threads(self) -> int:
        """The number of threads that may divide sums: on a GPU 1."""
        return (self.threads or available_threads()) if self.kind == "cpu" else 1

    def order_of_sums(self, graph: Model, batch_size: int) -> str:
        """The number of threads, where the training graph gives other bits on so many than on one; else empty."""
        threads = self.numerics_threads
        if threads == 1:
            return ""
        native_block = _native_block() if uses_native(graph.graph) else 0
        depending = nodes_depending_on_threads(graph, threads, batch_size, channel_block(), native_block)
        return f"{threads} threads" if depending else ""


CPU = Device()


def cuda_obstacle() -> str:
    """Why this machine can't compute on CUDA, as a clause; empty where it can. Nothing is printed.

    A session is tried only where there is a GPU: ONNX Runtime writes to the terminal when it finds none.
    """
    if "CUDAExecutionProvider" not in onnxruntime.get_available_providers():
        return "this ONNX Runtime has no CUDA provider (wootz[cuda] brings one)"
    if gpu_memory() is None:
        return "there is no NVIDIA GPU, or no driver for it"
    silent = 4
    onnxruntime.set_default_logger_severity(silent)
    try:
        InferenceSession(parse_text(_SMALLEST_MODEL), Device("cuda")).run(np.zeros(1, np.float32))
    except WootzError as error:
        return str(error)
    finally:
        onnxruntime.set_default_logger_severity(LOG_SEVERITY)
    return ""


_SMALLEST_MODEL = """<ir_version: 8, opset_import: ["" : 18]> g (float[1] x) => (float[1] y) { y = Neg(x) }"""
LOG_SEVERITY = 2
"""ONNX Runtime's default: warnings and errors."""


def available_threads() -> int:
    """The number of cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def runtime_version() -> str:
    """ONNX Runtime's version and the commit that it was built from, as they belong into the key of a stored result."""
    commit = re.search(r"git-commit-id=(\w+)", onnxruntime.get_build_info())
    return f"onnxruntime {onnxruntime.__version__}{f' ({commit[1]})' if commit else ''}"


class ExactSession:
    """Runs a model as it is written: optimisations that change results are off. All graph outputs are given, by name.

    `opset` is that of the ONNX model that is run, `inputs` name what it takes. Raises WootzError for a model that ONNX
    Runtime can't run.
    """

    def __init__(self, model: Model, device: Device = CPU, opset: int = OPSET):
        self._session = _open(model, device, exact=True, opset=opset)
        self.inputs = tuple(value.name for value in self._session.get_inputs())
        self._names = [output.name for output in self._session.get_outputs()]

    def run(self, feeds: Mapping[str, np.ndarray]) -> Arrays:
        with _reported():
            return dict(zip(self._names, self._session.run(self._names, dict(feeds)), strict=True))


def evaluate(model: Model, feeds: Mapping[str, np.ndarray], device: Device = CPU, opset: int = OPSET) -> Arrays:
    """All graph outputs of `model` for `feeds`, once, by an `ExactSession`."""
    return ExactSession(model, device, opset).run(feeds)


@functools.cache
def runs_opset(opset: int) -> bool:
    """Whether this ONNX Runtime runs models of that opset: 1.19 knows those up to 21."""
    identity = """<ir_version: 8, opset_import: ["" : 18]> g (float[1] x) => (float[1] y) { y = Identity(x) }"""
    try:
        _open(parse_text(identity), CPU, exact=True, opset=opset)
    except WootzError:
        return False
    return True


def check_loadable(model: Model) -> None:
    """Raises WootzError for a model that ONNX Runtime refuses to load. Nothing is run."""
    _open(model, CPU, exact=True)


LARGEST_MERGED = 1 << 29
"""Bytes of weights of models that run together: a program has to be smaller than 2 GiB, and all are in memory."""


class InferenceSession:
    """Runs one model on many batches. Its first graph input takes images, its first output is given back."""

    def __init__(self, model: Model, device: Device = CPU):
        self._session = _open(model, device)
        self._input = self._session.get_inputs()[0].name
        self._outputs = [output.name for output in self._session.get_outputs()]

    def run(self, data: Data) -> np.ndarray:
        with _reported():
            result: np.ndarray = self._session.run(self._outputs[:1], dict(feeds(data, self._input)))[0]
        return result

    def outputs(self, data: Data) -> Arrays:
        """All graph outputs, by name."""
        with _reported():
            found = self._session.run(self._outputs, dict(feeds(data, self._input)))
        return dict(zip(self._outputs, found, strict=True))


class MergedSession:
    """Runs several models that take the same data. What they begin with alike is computed once, as far as they have
    neither If, Loop nor Scan, nor draw random numbers, and LARGEST_MERGED has room for their weights."""

    def __init__(self, models: Sequence[Model], device: Device = CPU):
        parts = map(merge, _mergeable(models))
        self._parts = [(InferenceSession(part.model, device), part.outputs) for part in parts]

    def outputs(self, data: Data) -> list[Arrays]:
        """All outputs of each model, by name."""
        found = ((session.outputs(data), outputs) for session, outputs in self._parts)
        return [{own: arrays[name] for own, name in names.items()} for arrays, outputs in found for names in outputs]


def _mergeable(models: Sequence[Model]) -> list[list[Model]]:
    """The models, in order, by what is run together."""
    parts: list[list[Model]] = []
    room = 0
    for model in models:
        held = sum(values.nbytes for values in constants(model.graph).values())
        if parts and held <= room and _may_be_merged(model) and _may_be_merged(parts[-1][0]):
            parts[-1].append(model)
        else:
            parts.append([model])
            room = LARGEST_MERGED
        room -= held
    return parts


def _may_be_merged(model: Model) -> bool:
    """Whether equal nodes give equal results, and all of them can be seen."""
    return not has_subgraphs(model.graph) and not any(n.op in DRAWS_RANDOM_NUMBERS for n in model.graph.nodes)


class TensorSession:
    """Runs a part of a network, of which there are many in a process: tensors by name go in and come out, and stay on
    the device. `on_device` and `on_host` bring them there and back.

    Such sessions share the memory for results, and their threads don't wait for the next run in a loop.
    """

    def __init__(self, model: Model, device: Device = CPU):
        self._session = _open(model, device, is_one_of_many=True)
        self._device = device
        self._inputs = [t.name for t in self._session.get_inputs()]
        self._outputs = [t.name for t in self._session.get_outputs()]
        self._options = onnxruntime.RunOptions()
        if device.kind == "cuda":  # no allocator is shared there: what a run doesn't leave behind is given back
            self._options.add_run_config_entry("memory.enable_memory_arena_shrinkage", f"gpu:{device.index}")

    def run(self, tensors: Mapping[str, Any]) -> dict[str, Any]:
        """The outputs; of `tensors`, those that it has no input for are left alone."""
        binding = self._session.io_binding()
        for name in self._inputs:
            binding.bind_ortvalue_input(name, tensors[name])
        for name in self._outputs:
            binding.bind_output(name, self._device.kind, self._device.index if self._device.kind == "cuda" else 0)
        with _reported():
            self._session.run_with_iobinding(binding, self._options)
        return dict(zip(self._outputs, binding.get_outputs(), strict=True))


def on_device(values: np.ndarray, device: Device) -> Any:
    """A tensor for `TensorSession`, which may use the array where it is."""
    return _value_on(device, np.ascontiguousarray(values))


def on_host(tensor: Any) -> np.ndarray:
    """A copy of what a tensor of a `TensorSession` holds."""
    return np.asarray(tensor.numpy())


@dataclass(frozen=True)
class FileInput:
    """An input of a network as ONNX Runtime describes it: `type` is as `tensor(float)`, extents without a number are
    names or None."""

    name: str
    type: str
    shape: tuple[int | str | None, ...]


class FileSession:
    """Runs a network in a file, or its content, as it is: its first input takes images, whatever its type and layout,
    and its first output is given back, or all of them.

    Raises WootzError for a network that ONNX Runtime can't run, and where `device` is CUDA and that can't be started.
    """

    def __init__(self, program: str | bytes, device: Device = CPU):
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = device.threads or available_threads()
        options.log_severity_level = 3
        options.add_session_config_entry("session.force_spinning_stop", "1")  # else it slows down the next one's run
        self._session = _started(program, options, device, device.providers())
        self.inputs = tuple(FileInput(t.name, t.type, tuple(t.shape)) for t in self._session.get_inputs())
        self._outputs = [output.name for output in self._session.get_outputs()]

    def run(self, data: Data) -> np.ndarray:
        return self.run_on(feeds(data, self.inputs[0].name))

    def outputs(self, data: Data) -> Arrays:
        """All outputs, by name."""
        with _reported():
            found = self._session.run(self._outputs, dict(feeds(data, self.inputs[0].name)))
        return dict(zip(self._outputs, found, strict=True))

    def run_on(self, feeds: Mapping[str, np.ndarray]) -> np.ndarray:
        """The first output, where the network has several inputs."""
        with _reported():
            result: np.ndarray = self._session.run(self._outputs[:1], dict(feeds))[0]
        return result


class DeviceWeights:
    """Weights where a session keeps them: they hold until its next step, and needn't leave the device."""

    def __init__(self, values: Mapping[str, Any]):
        self.values = dict(values)


class TrainingSession:
    """Runs a training graph run by run and keeps its slots on the device.

    ONNX Runtime does not update in place, so every slot has two buffers: one run reads the first and writes the
    second, the next one the other way round. All inputs and outputs are bound once to buffers of their own, whose
    contents alone change: a run of a graph that makes its batches itself copies nothing from or to the host.

    A CUDA graph is captured for either direction, each in a session of ONNX Runtime of its own. One session can keep
    several (`gpu_graph_id`), but until onnxruntime's pull request 32121 a capture took over host memory that replays
    of the one before still read (Concat, Split, batched MatMul).
    """

    def __init__(self, graph: Model, device: Device = CPU, batch_size: int = 0):
        """With `batch_size` all batches have this size, and shapes are static: CUDA graphs need that. A graph that
        makes its batches itself has its own size."""
        self.interface = TrainingInterface.of(graph)
        self._given = {t.name: t for t in graph.graph.inputs}
        self._device = device
        self._captures = captures = device.kind == "cuda" and device.cuda_graphs
        if captures:
            _check_capturable(graph)
        program, initial = without_initial_values(graph, [s.input for s in self.interface.slots])
        fixed = _batch_dimension(graph, batch_size)
        first = _open(program, device, frees_early=True, capture=captures, fixed=fixed)
        second = _open(program, device, frees_early=True, capture=captures, fixed=fixed) if captures else first
        self._buffers = tuple(
            {s.input: _on_device(initial[s.input], device) for s in self.interface.slots} for _ in range(2)
        )
        self._inputs: dict[str, Any] = {}
        self._losses = [_on_device(np.zeros((), np.float32), device) for _ in self.interface.losses]
        self._sessions = (first, second)
        self._bindings = [
            self._bind(session, self._buffers[i], self._buffers[1 - i]) for i, session in enumerate(self._sessions)
        ]
        self._current = 0

    def step(
        self,
        data: Data | Mapping[str, np.ndarray],
        labels: Targets | None,
        learning_rate: float,
        teacher: Mapping[str, np.ndarray] = MappingProxyType({}),
    ) -> np.ndarray:
        """One run on a batch: float32 data, and int64 labels or float32 targets, as the graph has them.

        The data of a network with several inputs are given by their names, each of the input's type, and the targets of
        several outputs by the names of these. `teacher` is what the full network gives for the data, by the names of
        the inputs, where the graph has such.
        Gives the losses before the step, one a loss output."""
        if isinstance(data, np.ndarray):
            self.put(self.interface.data, np.asarray(data, np.float32))
        else:
            arrays = data.arrays if isinstance(data, Inputs) else data
            for name in (self.interface.data, *self.interface.more_data):
                self.put(name, arrays[name])
        self.put(self.interface.learning_rate, np.asarray(learning_rate, np.float32))
        for name, values in self.interface.targets_by_input(labels):
            self.put(name, self.in_form(name, values))
        for name in self.interface.teacher:
            self.put(name, np.asarray(teacher[name], self._given[name].dtype))
        self.run()
        return np.array([value.numpy() for value in self._losses])

    def in_form(self, name: str, values: np.ndarray) -> np.ndarray:
        """Values [n, …] in the type of a graph input, and with its axes of extent 1."""
        given = self._given[name]
        wanted, found = tensor_shape(given), np.asarray(values, given.dtype)
        return found.reshape(len(found), *wanted[1:]) if wanted and differ_by_ones(found.shape, wanted) else found

    def put(self, name: str, values: np.ndarray) -> None:
        """Sets a graph input that is no slot, for this run and those to come."""
        known = self._inputs.get(name)
        if known is not None and tuple(known.shape()) == values.shape:
            known.update_inplace(np.asarray(values, order="C"))
            return
        if known is not None and self._captures:
            raise WootzError(
                f"{name} had shape {tuple(known.shape())}, has {values.shape}: a CUDA graph takes one shape"
            )
        self._inputs[name] = _on_device(values, self._device)
        for binding in self._bindings:
            binding.bind_ortvalue_input(name, self._inputs[name])

    def put_whole(self, name: str, values: np.ndarray) -> None:
        """`put` for a large array that doesn't change: on the CPU it is used where it is."""
        held = np.ascontiguousarray(values)
        self._inputs[name] = _value_on(self._device, held)
        for binding in self._bindings:
            binding.bind_ortvalue_input(name, self._inputs[name])

    def run(self) -> None:
        """One run on the inputs as they were put."""
        with _reported():
            self._sessions[self._current].run_with_iobinding(self._bindings[self._current])
        self._current = 1 - self._current

    def read_slot(self, name: str) -> np.ndarray:
        """A copy of what the slot holds now."""
        return np.array(self._buffers[self._current][name].numpy())

    def write_slot(self, name: str, values: np.ndarray) -> None:
        """Sets what the next run reads from the slot."""
        self._buffers[self._current][name].update_inplace(np.asarray(values, order="C"))

    def weights(self) -> Arrays:
        """Copies of the parameters and running statistics as they are now, by name."""
        return {name: self.read_slot(name) for name in self._weight_names()}

    def device_weights(self) -> DeviceWeights:
        """The same without a copy."""
        current = self._buffers[self._current]
        return DeviceWeights({name: current[name] for name in self._weight_names()})

    def _weight_names(self) -> list[str]:
        return [s.input for s in self.interface.slots if s.kind in ("parameter", "statistic")]

    def _bind(self, session: Any, read: Mapping[str, Any], written: Mapping[str, Any]) -> Any:
        binding = session.io_binding()
        for slot in self.interface.slots:
            binding.bind_ortvalue_input(slot.input, read[slot.input])
            binding.bind_ortvalue_output(slot.output, written[slot.input])
        for name, value in zip(self.interface.losses, self._losses, strict=True):
            binding.bind_ortvalue_output(name, value)
        return binding


class WeightedSession:
    """Runs an inference model whose weights are exchangeable: one session for all steps of a training."""

    def __init__(self, model: Model, names: Iterable[str], device: Device = CPU):
        program, initial = without_initial_values(_with_inputs(model, set(names)), list(names))
        if device.kind == "cpu":
            program = with_lowerings(program, PRODUCTS)
        self._session = _open(program, device)
        self._names = list(initial)
        self._device = device
        self._binding = self._session.io_binding()
        self._input = self._session.get_inputs()[0].name
        self._outputs = [output.name for output in self._session.get_outputs()]
        self.set_weights(initial)

    def set_weights(self, weights: Mapping[str, np.ndarray] | DeviceWeights) -> None:
        """The weights of the runs to come. Those of a training session hold until its next step."""
        if isinstance(weights, DeviceWeights):
            self._bound = {name: weights.values[name] for name in self._names}
        else:
            self._bound = {name: _on_device(weights[name], self._device) for name in self._names}
        for name, value in self._bound.items():
            self._binding.bind_ortvalue_input(name, value)

    def run(self, data: Data) -> np.ndarray:
        """The first output."""
        return self.outputs(data)[self._outputs[0]]

    def outputs(self, data: Data) -> Arrays:
        """All outputs, by name."""
        if len(data) == 1 and self._device.kind == "cpu":  # the products of one image would be divided over the threads
            return {name: values[:1] for name, values in self.outputs(twice(data)).items()}
        given = {name: np.ascontiguousarray(values) for name, values in feeds(data, self._input).items()}
        for name, values in given.items():
            self._binding.bind_cpu_input(name, values)
        for name in self._outputs:
            self._binding.bind_output(name)
        with _reported():
            self._session.run_with_iobinding(self._binding)
        return dict(zip(self._outputs, self._binding.copy_outputs_to_cpu(), strict=True))


def _with_inputs(model: Model, names: set[str]) -> Model:
    program = model.copy()
    graph: Graph = program.graph
    graph.inputs = [*graph.inputs, *(t for name, t in graph.tensors().items() if name in names)]
    return program


def _on_device(values: np.ndarray, device: Device) -> Any:
    # ONNX Runtime may borrow the memory of an array on the CPU: every buffer gets a copy of its own.
    return _value_on(device, np.array(values, order="C"))


def _value_on(device: Device, values: np.ndarray) -> Any:
    return onnxruntime.OrtValue.ortvalue_from_numpy(values, device.kind, device.index if device.kind == "cuda" else 0)


def _batch_dimension(graph: Model, size: int) -> dict[str, int]:
    """The value of the symbolic first dimension of the data; none where it has no symbol or `size` is 0."""
    data = next(t for t in graph.graph.inputs if t.name == TrainingInterface.of(graph).data)
    symbol = data.shape[0] if data.shape else None
    return {symbol: size} if size and isinstance(symbol, str) else {}


def _check_capturable(graph: Model) -> None:
    """Raises WootzError for what a captured CUDA graph would do wrong."""
    for node in graph.graph.nodes:
        if node.op in DRAWS_RANDOM_NUMBERS:
            raise WootzError(
                f"{node.op} node {node.name!r} draws random numbers, and a CUDA graph would repeat them in every step: "
                f"train without --cuda-graphs"
            )


LARGE_NETWORK = 8_000_000
"""Numbers (weights, and an optimizer's state) from which on the nodes of a graph take so long that waking a thread for
each costs next to nothing: 2 % of a ResNet-50's step, but 17 % of a ResNet-20's. Threads that wait for the next node in
a loop instead take the time of others where cores are shared."""


def _open(
    model: Model,
    device: Device,
    exact: bool = False,
    frees_early: bool = False,
    capture: bool = False,
    fixed: Mapping[str, int] | None = None,
    opset: int = OPSET,
    is_one_of_many: bool = False,
) -> Any:
    """A session. With `frees_early` it gives memory back as soon as a result isn't needed: half as much is held in a
    training graph, at the same speed. Else ONNX Runtime keeps buffers for results of equal shape, and one more block
    of the size of all results. `fixed` gives symbolic dimensions a value. One of many leaves memory and cores to the
    others."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = device.threads or available_threads()
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    options.use_deterministic_compute = device.kind == "cpu"  # on CUDA it turns the fast reductions off
    if is_one_of_many:
        _make_shared_allocator()
        options.add_session_config_entry("session.use_env_allocators", "1")
    if is_one_of_many or _held_numbers(model.graph) > LARGE_NETWORK:
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.enable_mem_pattern = options.enable_mem_reuse = not frees_early
    for symbol, extent in (fixed or {}).items():
        options.add_free_dimension_override_by_name(symbol, extent)
    if uses_native(model.graph):
        options.register_custom_ops_library(str(_native_library().file))
    if exact:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    providers = device.providers(capture=capture, half=_has_half_precision(model.graph))
    program = model if exact else _for_kernels(model, device)
    session = _started(program.to_proto(opset).SerializeToString(), options, device, providers)
    session._model_bytes = None  # a copy that it keeps to fall back
    return session


def _started(program: str | bytes, options: Any, device: Device, providers: Sequence[Any]) -> Any:
    """ONNX Runtime's session, which never falls back on the CPU. Raises WootzError where it can't be started."""
    said = _load_cuda_libraries() if device.kind == "cuda" else ""
    with _reported():
        session = onnxruntime.InferenceSession(program, options, providers=providers)
    session.disable_fallback()
    if device.kind == "cuda" and "CUDAExecutionProvider" not in session.get_providers():
        raise WootzError(
            f"ONNX Runtime could not start CUDA{said and f' ({said})'}: is there an NVIDIA GPU, and are CUDA and cuDNN "
            f"installed? pip install 'onnxruntime-gpu[cuda,cudnn]' brings the two"
        )
    return session


def fastest_target(device: Device) -> Target:
    """That of the training graphs which run fastest on the device."""
    if device.kind == "cuda":
        return "onnx-cuda"
    found = library()
    return "native" if found is not None and found.lanes == channel_block() else "onnx"


def native_numerics() -> str:
    """What of the operators of domain `wootz.native` rounds results otherwise. Raises WootzError without them."""
    return _native_library().numerics


def _native_library() -> Library:
    found = library()
    if found is None:
        raise WootzError("the operators of domain wootz.native were not built: use --target onnx")
    return found


@functools.cache
def _make_shared_allocator() -> None:
    """Makes one memory on the CPU for results of all sessions that ask for it.

    Without any arena, runs would take up to half as long again; and in onnxruntime-training the first session of a
    process decides for all whether they have one.
    """
    memory = onnxruntime.OrtMemoryInfo(
        "Cpu", onnxruntime.OrtAllocatorType.ORT_ARENA_ALLOCATOR, 0, onnxruntime.OrtMemType.DEFAULT
    )
    as_requested = 1
    onnxruntime.create_and_register_allocator(memory, onnxruntime.OrtArenaCfg({"arena_extend_strategy": as_requested}))


def _for_kernels(model: Model, device: Device) -> Model:
    """The same in a form for which the device has kernels, or faster ones."""
    if device.kind == "cuda":
        _check_average_pools(model.graph)
        return SymmetricPads().apply(model).model
    if uses_native(model.graph):
        joined = FuseElementwise().apply(model).model
        block = _native_block()
        return BlockedLayout(channels=block).apply(joined).model if block else joined
    block = channel_block()
    return BlockConvolutions(channels=block).apply(model).model if block in BLOCKS else model


def _native_block() -> int:
    """How many channels lie side by side in graphs of the target `native`; 0 where these stay in the usual layout."""
    block = channel_block()
    return block if block in BLOCKS and block == _native_library().lanes else 0


def _check_average_pools(graph: Graph) -> None:
    """Raises WootzError for averages that the CUDA provider computed wrong before onnxruntime's pull request 29631: it
    took the pads behind an axis to be those before it."""
    if tuple(int(n) for n in onnxruntime.__version__.split(".")[:2]) >= (1, 31):
        return
    for node in graph.nodes:
        overhang = node.attrs.get("ceil_mode", 0) and node.attrs.get("count_include_pad", 0)
        if node.op == "AveragePool" and (overhang or pads_may_differ(node)):
            raise WootzError(
                f"AveragePool node {node.name!r}: ONNX Runtime {onnxruntime.__version__} computes it wrong on CUDA; "
                f"install onnxruntime-gpu 1.31 or newer, or run on the CPU"
            )


@functools.cache
def _fuses_products() -> bool:
    """Whether this machine's kernel for products of matrices adds a product before it is rounded."""
    product = parse_text("""<ir_version: 8, opset_import: ["" : 18]>
        g (float[2,2] a, float[2,2] b) => (float[2,2] y) { y = MatMul(a, b) }""")
    factor = 1 + 2.0**-12
    a = np.tile(np.array([-(1 + 2.0**-11), factor], np.float32), (2, 1))
    b = np.tile(np.array([[1], [factor]], np.float32), 2)
    return bool(evaluate(product, {"a": a, "b": b}, Device(threads=1))["y"].all())


@functools.cache
def channel_block() -> int:
    """How many channels lie side by side in this machine's blocked layout; 0 where ONNX Runtime has none."""
    reorder = parse_text("""<ir_version: 8, opset_import: ["" : 18, "com.microsoft.nchwc" : 1]>
        g (float[1,64,1,2] x) => (float[1,64,1,2] y) { y = com.microsoft.nchwc.ReorderInput(x) }""")
    try:
        session = onnxruntime.InferenceSession(
            reorder.to_proto().SerializeToString(), providers=["CPUExecutionProvider"]
        )
    except onnxruntime.capi.onnxruntime_pybind11_state.Fail:
        return 0
    (y,) = session.run(None, {"x": np.arange(128, dtype=np.float32).reshape(1, 64, 1, 2)})
    second_pixel = 1
    return int(np.flatnonzero(y == second_pixel)[0])


def _has_half_precision(graph: Graph) -> bool:
    return any(t.dtype is not None and np.dtype(t.dtype) == np.float16 for t in graph.tensors().values())


@contextlib.contextmanager
def _reported() -> Iterator[None]:
    """What ONNX Runtime refuses or fails at, as WootzError: a model, memory, a missing cuDNN."""
    state = onnxruntime.capi.onnxruntime_pybind11_state
    try:
        yield
    except (
        state.Fail,
        state.RuntimeException,
        state.EPFail,
        state.NotImplemented,
        state.InvalidGraph,
        state.InvalidArgument,
        state.InvalidProtobuf,
        state.NoSuchFile,
        RuntimeError,  # of run_with_iobinding
    ) as error:
        said = re.sub(r"\x1b\[[0-9;]*m", "", str(error))  # it colours its messages
        raise WootzError(f"ONNX Runtime: {' '.join(said.split())}") from error


def _held_numbers(graph: Graph) -> int:
    """How many numbers the constants and the inputs of known size hold."""
    held = [*(t for t in graph.tensors().values() if isinstance(t, Constant)), *graph.inputs]
    shapes = {t.name: t.shape for t in held if t.shape is not None and all(isinstance(n, int) for n in t.shape)}
    return sum(math.prod(shape) for shape in shapes.values())


def _load_cuda_libraries() -> str:
    """Loads CUDA and cuDNN from NVIDIA's Python packages, where they are (ONNX Runtime can since 1.21).

    Gives the first thing that it complains of; it would print that.
    """
    if not hasattr(onnxruntime, "preload_dlls"):
        return ""
    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        onnxruntime.preload_dlls()
    return said.getvalue().partition("\n")[0]
