"""Sees a pruned network work: executes it beside the original in which the removed channels are masked.

A filter is removed when the operators that sum over channels (convolutions, matrix products) read zeros in its place.
So the masked original is the unpruned graph with those operands masked; nothing in it comes from the materialiser. The
outputs of both networks and of every layer have to be equal, within rounding (see `wootz.passes.equivalence`). Modules
that the plan leaves out are left out of the original, too.

Operators that decide (TopK, Round, Greater, …) turn a rounding error into another result, and some draw random numbers:
what they read is compared, and then the pruned network is given what they gave in the original.
"""

from __future__ import annotations

import functools
import re
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import onnx

from wootz.passes.analysis.channels import ChannelAnalysis, analyse_channels
from wootz.passes.analysis.cost import macs
from wootz.passes.analysis.index_maps import varying_axes
from wootz.passes.analysis.static_shapes import static_shapes
from wootz.passes.base import Evaluator
from wootz.passes.equivalence import first_difference, random_inputs, rounding_noise
from wootz.passes.errors import WootzError
from wootz.passes.ir.builder import Builder
from wootz.passes.ir.model import Constant, Model, Node, Tensor, constants
from wootz.passes.ir.rewrite import erase_nodes, rewriting
from wootz.passes.plan.pruning import PruningPlan
from wootz.passes.pruning.skipping import leave_out

SUMS = {
    *("Conv", "ConvTranspose", "DeformConv", "Gemm", "MatMul", "Einsum"),
    *("ReduceSum", "ReduceL1", "ReduceL2", "ReduceSumSquare"),
}
"""Operators that may sum over channels: a removed channel is a zero there."""
DECISIONS = {
    *("ArgMax", "ArgMin", "Hardmax", "TopK", "NonMaxSuppression", "NonZero", "Unique"),
    *("Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual", "Not", "Sign"),
    *("Ceil", "Floor", "Mod", "Round", "QuantizeLinear", "DynamicQuantizeLinear"),
    *("Bernoulli", "Multinomial", "RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike"),
}
"""Operators whose results jump, or are drawn."""
FLOAT_TYPES = frozenset(onnx.TensorProto.DataType.Value(name) for name in ("FLOAT", "DOUBLE", "FLOAT16", "BFLOAT16"))
SIZES = ((2, 64), (1, 64), (1, 224), (1, 299))
"""What the symbolic dimensions are, the first of an input and the others: the first sizes that the network runs on."""
LARGEST_WORK = 50_000_000_000
"""Multiply-accumulates of one evaluation from which on nothing is executed: some ten seconds on one core."""
LARGEST_NETWORK = 1_000_000_000
"""Elements of all tensors together from which on nothing is executed: 4 GB, if none were freed on the way."""
LARGEST_MODEL = 2_000_000_000
"""Bytes of weights that ONNX Runtime takes at once."""
LARGEST_RESULTS = 64_000_000
"""Elements of layers' outputs that are compared, the first ones of the graph; outputs of the network always are."""


@dataclass(frozen=True)
class Check:
    """`compared` tensors were equal within rounding; or nothing was executed, for the reason in `skipped`.

    The shapes of all tensors were right in either case.
    """

    compared: int = 0
    skipped: str = ""
    seconds: float = 0.0


def check_pruned(
    original: Model,
    pruned: Model,
    plan: PruningPlan,
    evaluate: Evaluator,
    analysis: ChannelAnalysis | None = None,
) -> Check:
    """Whether `pruned` computes what `original` does without the filters and modules that `plan` removes.

    Both are run on random inputs, in float32 whatever floats they have: that is what other floats round, and what ONNX
    Runtime has all operators for. `analysis`, of `original`, saves analysing it again.
    Raises WootzError, which names the first tensor that differs, for a network that can't be run or computes something
    else. A network that the evaluator can't run unpruned is not executed.
    """
    start = time.perf_counter()
    analysis = analysis or analyse_channels(original)
    comparison = _Comparison(original, pruned, plan, analysis)
    comparison.check_shapes()
    skipped = comparison.obstacle()
    compared = 0
    if not skipped:
        try:
            compared = _Comparison(_in_float32(original), _in_float32(pruned), plan, analysis).run(evaluate)
        except _NotRunnable as error:
            skipped = str(error)
    return Check(compared, skipped, time.perf_counter() - start)


class _NotRunnable(Exception):
    """The unpruned network can't be run, for the reason that is the message."""


class _Comparison:
    """One pruned network beside the original without the modules that are left out.

    `layers` are the tensors that layers give.
    """

    def __init__(self, original: Model, pruned: Model, plan: PruningPlan, analysis: ChannelAnalysis):
        self.layers = {original.graph.nodes[layer.node].outputs[0].name for layer in analysis.layers}
        self.original = _without_skipped(original, plan)
        self.pruned = pruned
        self.analysis = analysis
        self.kept = _kept_atoms(analysis, plan)

    @cached_property
    def masks(self) -> dict[str, np.ndarray]:
        """What stays of each tensor that loses channels: bool, broadcastable to its shape."""
        flags = {name: self.kept[labels] for name, labels in self.analysis.maps.items()}
        return {name: mask for name, mask in flags.items() if not mask.all()}

    def check_shapes(self) -> None:
        """Infers the pruned network anew, with values. Raises WootzError for other numbers of channels than planned."""
        try:
            shapes = static_shapes(self.pruned).shapes
        except WootzError as error:
            raise _fault(_first_error(str(error))) from error
        for name in self.analysis.maps:
            shape = shapes.get(name)
            before = self.analysis.shapes.get(name)
            if shape is None or before is None or not self._is_box(name):
                continue
            expected = _kept_shape(before, self.masks.get(name))
            if shape != expected:
                raise _fault(f"{name!r} has shape {_times(shape)} where {_times(expected)} is left")

    def obstacle(self) -> str:
        """Why the networks aren't executed; empty if they can be."""
        work = macs(self.original)
        if work > LARGEST_WORK:
            return f"one image takes {work / 1e9:,.0f} billion multiply-accumulates, more than {LARGEST_WORK / 1e9:.0f}"
        elements = sum(int(np.prod(shape, dtype=np.int64)) for shape in self.analysis.shapes.values() if shape)
        if elements > LARGEST_NETWORK:
            return f"its tensors have {elements / 1e9:.1f} billion elements, more than {LARGEST_NETWORK / 1e9:.0f}"
        weights = constants(self.original.graph).values()
        if sum(values.nbytes for values in weights) > LARGEST_MODEL:
            return "its weights are more than 2 GB"
        return ""

    def run(self, evaluate: Evaluator) -> int:
        """The number of tensors that were compared. Raises WootzError, or _NotRunnable."""
        masked, decided = self._masked_original()
        feeds, expected = _first_run(masked, evaluate)
        given = {name: self._part(name, expected[name]) for name in decided}
        try:
            found = evaluate(_with_inputs(_with_outputs(self.pruned, self._compared), given), {**feeds, **given})
        except WootzError as error:
            raise _fault(f"it can't be run: {error}") from error
        wanted = {name: self._part(name, expected[name]) for name in found}

        @functools.cache
        def noise() -> Mapping[str, float]:
            return rounding_noise(masked, feeds, expected, evaluate)

        if difference := first_difference(found, wanted, found, noise):
            raise _fault(f"{difference.tensor!r} is the first tensor that differs: {difference}")
        return len(found)

    def _masked_original(self) -> tuple[Model, tuple[str, ...]]:
        """The original in which sums read zeros for removed channels, and the names of what decisions give there.

        It has all that is compared as outputs.
        """
        masked = self.original.copy()
        builder = Builder(masked.graph, "mask/")
        zeroed: dict[str, Tensor] = {}
        for node in rewriting(masked.graph):
            for i, tensor in enumerate(node.inputs if node.op in SUMS else ()):
                if tensor.name in self.masks:
                    if tensor.name not in zeroed:
                        zeroed[tensor.name] = _zeroed(builder, node, tensor, self.masks[tensor.name])
                    node.inputs[i] = zeroed[tensor.name]
        decided = tuple(t.name for node in self._decisions for t in node.outputs if t.outputs and not t.is_empty())
        return _with_outputs(masked, dict.fromkeys([*self._compared, *decided])), decided

    @cached_property
    def _decisions(self) -> tuple[Node, ...]:
        """The nodes of the original that decide about data, and are in the pruned network too."""
        live = {t.name for t in self.original.graph.inputs}
        tensors = self.pruned.graph.tensors()
        found = []
        for node in self.original.graph.nodes:
            draws = node.op.startswith("Random")
            if not draws and not any(t.name in live for t in node.inputs):
                continue
            if node.outputs[0].name not in self.analysis.values:
                live.update(t.name for t in node.outputs)
                is_there = all(t.name in tensors and self._is_box(t.name) for t in node.outputs if not t.is_empty())
                if _decides(node) and is_there:
                    found.append(node)
        return tuple(found)

    @cached_property
    def _compared(self) -> tuple[str, ...]:
        """The tensors that are compared, in the graph's order: what layers give, what decisions read, the outputs that
        aren't decided themselves."""
        decided = {t.name for node in self._decisions for t in node.outputs}
        outputs = {t.name for t in self.original.graph.outputs}
        wanted = outputs | {t.name for node in self._decisions for t in node.inputs}
        there = self.pruned.graph.tensors()
        left, names = LARGEST_RESULTS, []
        for name in (t.name for node in self.original.graph.nodes for t in node.outputs if not t.is_empty()):
            if name in decided or name not in there or not self._is_box(name) or name in self.analysis.values:
                continue
            size = int(np.prod(self.analysis.shapes.get(name) or (0,), dtype=np.int64))
            if name in wanted or (name in self.layers and size and (left := left - size) >= 0):
                names.append(name)
        return tuple(names)

    def _is_box(self, name: str) -> bool:
        """Whether what stays of a tensor is a tensor: every row loses the same columns."""
        mask = self.masks.get(name)
        return mask is None or mask.sum() == np.prod([len(_kept_along(mask, axis)) for axis in range(mask.ndim)])

    def _part(self, name: str, values: np.ndarray) -> np.ndarray:
        """What stays of a tensor of the original."""
        mask = self.masks.get(name)
        if mask is not None:
            for axis in varying_axes(mask):
                values = np.take(values, _kept_along(mask, axis), axis)
        return values


def _without_skipped(model: Model, plan: PruningPlan) -> Model:
    """The model, or a copy without the modules that the plan leaves out."""
    if plan.skipped:
        model = model.copy()
        leave_out(model.graph, plan.skipped)
    return model


def _with_outputs(model: Model, names: Iterable[str]) -> Model:
    """A copy with other outputs."""
    result = model.copy()
    tensors = result.graph.tensors()
    result.graph.outputs = [tensors[name] for name in names]
    return result


def _with_inputs(model: Model, given: Mapping[str, np.ndarray]) -> Model:
    """A copy in which the `given` tensors are inputs, and the nodes that computed them gone."""
    result = model.copy()
    tensors = result.graph.tensors()
    erase_nodes(result.graph, [node for name in given for node in tensors[name].inputs])
    for name, values in given.items():
        tensors[name].dtype, tensors[name].shape = values.dtype, list(values.shape)
        result.graph.inputs.append(tensors[name])
    return result


def _in_float32(model: Model) -> Model:
    """The same network in float32, where it has other floats."""
    tensors = model.graph.tensors().values()
    if not any(_is_other_float(t.dtype) for t in tensors):
        return model
    result = model.copy()
    for tensor in result.graph.tensors().values():
        if _is_other_float(tensor.dtype):
            if isinstance(tensor, Constant):
                tensor.values = tensor.values.astype(np.float32)
            else:
                tensor.dtype = np.dtype(np.float32)
    for node in result.graph.nodes:
        for attribute in ("to", "dtype"):
            if node.attrs.get(attribute) in FLOAT_TYPES:
                node.attrs[attribute] = onnx.TensorProto.FLOAT
        filler = node.attrs.get("value")
        if isinstance(filler, Constant) and _is_other_float(filler.dtype):
            node.attrs["value"] = Constant(filler.name, filler.values.astype(np.float32))
    return result


def _is_other_float(dtype: Any) -> bool:
    """Whether a type (of NumPy, or one of ONNX's numbers) is a float, and not float32."""
    if isinstance(dtype, int):
        return dtype in FLOAT_TYPES
    return dtype is not None and np.dtype(dtype).name in ("float16", "bfloat16", "float64")


def _first_run(model: Model, evaluate: Evaluator) -> tuple[dict[str, np.ndarray], Mapping[str, np.ndarray]]:
    """Random inputs of the first sizes that the network can be run on, and what it gives. Raises _NotRunnable."""
    is_fixed = all(isinstance(d, int) and d > 0 for t in model.graph.inputs for d in t.shape or ())
    reasons = []
    for batch, extent in SIZES[:1] if is_fixed else SIZES:
        try:
            feeds = random_inputs(model, 0, batch, extent)
            return feeds, evaluate(model, feeds)
        except WootzError as error:
            reasons.append(str(error))
    raise _NotRunnable(f"the unpruned network can't be run on random inputs: {reasons[0]}")


def _fault(what: str) -> WootzError:
    return WootzError(
        f"the pruned network is not the original without the removed filters: {what} (a fault of wootz; --no-check "
        f"gives the network all the same)"
    )


def _first_error(message: str) -> str:
    """The first node that ONNX's inference complains of, instead of all of them."""
    found = re.search(r"\(op_type:(\w+), node name: (.*?)\): \[\w+\] (.*?)(?= \(op_type:|$)", message)
    return f"{found[1]} {found[2]!r}: {found[3]}" if found else message


def _kept_atoms(analysis: ChannelAnalysis, plan: PruningPlan) -> np.ndarray:
    """bool[atoms + 1]: the atoms of channels that `plan` keeps; the last one, for NO_ATOM, is True."""
    kept = np.ones(len(analysis.channel_of), bool)
    layers = {layer.name: layer for layer in analysis.layers}
    for entry in plan.layers:
        if entry.is_pruned:
            kept[analysis.channel_of[np.delete(layers[entry.layer].atoms, entry.keep)]] = False
    return np.append(kept[analysis.channel_of], True)


def _zeroed(builder: Builder, reader: Node, tensor: Tensor, mask: np.ndarray) -> Tensor:
    """`tensor` with zeros where `mask` is False, for a node that reads it."""
    types = [t.values.dtype for t in reader.inputs if isinstance(t, Constant) and t.values.dtype.kind == "f"]
    zero: Tensor
    if tensor.dtype is not None or types:
        zero = builder.constant(np.zeros((), tensor.dtype or types[0]), "zero")
    else:
        zero = builder.op("CastLike", builder.constant(0.0, "zero"), tensor)
    return builder.op("Where", builder.constant(mask, "kept"), tensor, zero)


def _decides(node: Node) -> bool:
    """Whether rounding may give the node another result."""
    if node.op == "Dropout":
        return len(node.inputs) > 2
    if node.op == "Cast":
        return node.attrs["to"] not in FLOAT_TYPES
    return node.op in DECISIONS and not node.domain


def _kept_along(mask: np.ndarray, axis: int) -> np.ndarray:
    """The indices along `axis` at which anything is kept."""
    return np.flatnonzero(mask.any(axis=tuple(a for a in range(mask.ndim) if a != axis)))


def _kept_shape(shape: Sequence[int], mask: np.ndarray | None) -> tuple[int, ...]:
    if mask is None:
        return tuple(shape)
    return tuple(len(_kept_along(mask, a)) if mask.shape[a] > 1 else n for a, n in enumerate(shape))


def _times(shape: Sequence[int]) -> str:
    return "x".join(map(str, shape)) or "()"
