"""The rules of the channel analysis, one an operator: how index maps go through it.

A rule reads the maps of a node's inputs and sets those of its outputs. It ties atoms that have to be kept or removed
together, locks atoms that can't be removed with a reason, and notes which parameters are indexed by which atoms.
Operators without a rule lock what they read.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from wootz.passes.analysis.channel_walk import ChannelWalk
from wootz.passes.analysis.index_maps import (
    NO_ATOM,
    aligned,
    along,
    empty_map,
    expanded,
    first_along,
    reshaped,
    varying_axes,
)
from wootz.passes.ir.model import Node

Rule = Callable[[ChannelWalk, Node], None]


def walk_node(walk: ChannelWalk, node: Node) -> None:
    """Applies the rule for `node`; a node that reads no atoms needs none unless it makes them."""
    rule = RULES.get(node.op) if node.domain in (None, "", "ai.onnx") else None
    reads_atoms = any(walk.is_labelled(t) for t in node.inputs)
    if node.op in ("Shape", "Size") or walk.is_shape_computation(node):
        walk.note_shape_computation(node)
        return
    walk.lock_shape_sources(node, set(range(len(node.inputs))) - SHAPE_OPERANDS.get(node.op, set()))
    if rule is None:
        walk.lock_inputs(node, f"{walk.where(node)}: no rule says what becomes of channels there")
    elif reads_atoms or node.op in MAKES_ATOMS:
        unknown = [t.name for t in [*node.inputs, *node.outputs] if not t.is_empty() and walk.shape(t) is None]
        if unknown:
            walk.lock_inputs(node, f"{walk.where(node)}: the shape of {unknown[0]!r} is not known")
        else:
            rule(walk, node)


# Layers


def convolution(walk: ChannelWalk, node: Node) -> None:
    """Conv and ConvTranspose: new atoms along axis 1; weights are indexed by them and by the input's."""
    data, weight = node.inputs[0], node.inputs[1]
    constant = walk.parameter(weight)
    if constant is None:
        walk.lock_inputs(node, f"{walk.where(node)} has a computed weight {weight.name!r} (try fold-constants)")
        return
    shape, groups, is_transposed = constant.shape, node.attrs.get("group", 1), node.op == "ConvTranspose"
    inputs = walk.channels(data, 1)
    size = shape[1] * groups if is_transposed else shape[0]
    is_depthwise = groups > 1 and groups == len(inputs)
    kind = "depthwise" if is_depthwise else "convolution"
    outputs = walk.new_layer(node, size, constant, 1 if is_transposed else 0, kind, groups)
    rank = len(shape)
    if is_depthwise:
        _depthwise(walk, node, inputs, outputs, rank, is_transposed)
    elif groups > 1:
        _grouped(walk, node, inputs, outputs, groups, is_transposed)
    else:
        walk.use(
            node,
            1,
            along(outputs, 1 if is_transposed else 0, rank),
            along(inputs, 0 if is_transposed else 1, rank),
        )
    if len(node.inputs) > 2 and not node.inputs[2].is_empty():
        walk.use(node, 2, outputs)
    walk.set_map(node.outputs[0], along(outputs, 1, rank))


def _depthwise(
    walk: ChannelWalk, node: Node, inputs: np.ndarray, outputs: np.ndarray, rank: int, is_transposed: bool
) -> None:
    multiplier = len(outputs) // len(inputs)
    reason = f"{walk.where(node)} filters a channel that can't be removed"
    walk.tie(outputs.reshape(-1, multiplier), inputs[:, None], reason)
    walk.use(node, 1, along(inputs if is_transposed else outputs, 0, rank))
    walk.note_shape(node, "group")


def _grouped(
    walk: ChannelWalk, node: Node, inputs: np.ndarray, outputs: np.ndarray, groups: int, is_transposed: bool
) -> None:
    of_inputs, of_outputs = inputs.reshape(groups, -1), outputs.reshape(groups, -1)
    walk.use(node, 1, *((of_inputs, of_outputs) if is_transposed else (of_outputs, of_inputs)), groups=groups)
    walk.partitions.append(of_outputs)
    if (inputs < 0).any():
        walk.lock(inputs, f"{walk.where(node)} has groups over channels that can't be removed")
    else:
        walk.partitions.append(of_inputs)


def gemm(walk: ChannelWalk, node: Node) -> None:
    """Gemm with a constant right operand: a fully connected layer."""
    matrix = walk.matrix(node, 1)
    if matrix is None or node.attrs.get("transA", 0):
        walk.lock_inputs(node, f"{walk.where(node)} multiplies by something else than a constant matrix from the right")
        return
    holder, operand, constant, is_transposed = matrix
    filter_axis = 0 if bool(node.attrs.get("transB", 0)) != is_transposed else 1
    inputs = walk.channels(node.inputs[0], 1)
    outputs = walk.new_layer(node, constant.shape[filter_axis], constant, filter_axis, "linear")
    walk.use(holder, operand, along(outputs, filter_axis, 2), along(inputs, 1 - filter_axis, 2))
    labels = along(outputs, 1, 2)
    if len(node.inputs) > 2 and not node.inputs[2].is_empty():
        labels = _join_operand(walk, node, 2, labels, walk.shape(node.outputs[0]) or ())
    walk.set_map(node.outputs[0], labels)


def matmul(walk: ChannelWalk, node: Node) -> None:
    """MatMul by a constant matrix: a fully connected layer along the last axis."""
    rank = len(walk.shape(node.inputs[0]) or ())
    matrix = walk.matrix(node, 1)
    if matrix is None or rank < 2:
        walk.lock_inputs(node, f"{walk.where(node)} multiplies by something else than a constant matrix from the right")
        return
    holder, operand, constant, is_transposed = matrix
    filter_axis = 0 if is_transposed else 1
    inputs = walk.channels(node.inputs[0], rank - 1)
    kind = "linear" if rank < 4 else "convolution"  # channels-last 1x1 convolutions are exported as MatMul
    outputs = walk.new_layer(node, constant.shape[filter_axis], constant, filter_axis, kind)
    walk.use(holder, operand, along(outputs, filter_axis, 2), along(inputs, 1 - filter_axis, 2))
    walk.set_map(node.outputs[0], along(outputs, rank - 1, rank))


# Element by element


def elementwise(walk: ChannelWalk, node: Node) -> None:
    """Operands are broadcast together; atoms that meet are tied."""
    shape = walk.shape(node.outputs[0]) or ()
    order = sorted(range(len(node.inputs)), key=lambda i: -walk.map(node.inputs[i]).size)
    order.sort(key=lambda i: not walk.is_labelled(node.inputs[i]))
    labels = empty_map(len(shape))
    for operand in order:
        if not node.inputs[operand].is_empty():
            labels = _join_operand(walk, node, operand, labels, shape)
    walk.set_map(node.outputs[0], labels)


def _join_operand(walk: ChannelWalk, node: Node, operand: int, labels: np.ndarray, shape: Sequence[int]) -> np.ndarray:
    """The map of the result so far, with one more operand. Labelled operands come first, the largest map before."""
    tensor = node.inputs[operand]
    rank = len(shape)
    extents = (1,) * (rank - len(walk.shape(tensor) or ())) + tuple(walk.shape(tensor) or ())
    if not walk.is_labelled(tensor):
        shared = [a for a in varying_axes(labels) if extents[a] > 1]
        if shared and walk.parameter(tensor) is not None:
            walk.use(node, operand, _own_axes(labels, shared, rank - len(walk.shape(tensor) or ())))
        elif shared:
            walk.lock(labels, f"{walk.where(node)} combines them with {tensor.name!r}, which can't be pruned")
        return labels
    mine = aligned(walk.map(tensor), rank)
    if not (labels >= 0).any():
        return mine
    if any(mine.shape[a] > 1 and labels.shape[a] == 1 for a in range(rank)):
        walk.lock(labels, f"{walk.where(node)} combines channels along different axes")
        walk.lock(mine, f"{walk.where(node)} combines channels along different axes")
        return empty_map(rank)
    if any(extents[a] == 1 for a in varying_axes(labels)):
        walk.lock(mine, f"{walk.where(node)} spreads one channel over several")
        return labels
    walk.tie(labels, mine, f"{walk.where(node)} combines them with a channel that can't be removed")
    wide, also_wide = np.broadcast_arrays(labels, mine)
    return np.where(wide >= 0, wide, also_wide)


def _own_axes(labels: np.ndarray, axes: Sequence[int], lead: int) -> np.ndarray:
    """The map restricted to `axes` (index 0 elsewhere), without the first `lead` axes."""
    index = tuple(slice(None) if a in axes else slice(0, 1) for a in range(labels.ndim))
    part = labels[index]
    return part.reshape(part.shape[lead:])


def unary(walk: ChannelWalk, node: Node) -> None:
    """Every output of the shape of the first input carries its atoms."""
    labels = walk.map(node.inputs[0])
    for output in node.outputs:
        if not output.is_empty() and walk.shape(output) == walk.shape(node.inputs[0]):
            walk.set_map(output, labels)


def quantize(walk: ChannelWalk, node: Node) -> None:
    """QuantizeLinear and DequantizeLinear: scale and zero point, one a channel or one for all."""
    labels = walk.map(node.inputs[0])
    axis = node.attrs.get("axis", 1) % max(1, labels.ndim)
    for operand in range(1, len(node.inputs)):
        if np.prod(walk.shape(node.inputs[operand]) or (1,)) > 1 and labels.shape[axis] > 1:
            walk.use(node, operand, walk.channels(node.inputs[0], axis))
    walk.set_map(node.outputs[0], labels)


# One channel at a time


def per_channel(walk: ChannelWalk, node: Node) -> None:
    """Each channel (axis 1) is computed from itself alone: pooling, InstanceNormalization, BatchNormalization."""
    data = node.inputs[0]
    atoms = walk.channels(data, 1)
    if node.op in PARAMETERS_A_CHANNEL:
        for operand in range(1, len(node.inputs)):
            walk.use(node, operand, atoms)
    walk.set_map(node.outputs[0], along(atoms, 1, len(walk.shape(node.outputs[0]) or ())))
    for output in node.outputs[1:]:
        if output.is_empty() or not (output.outputs or output in walk.graph.outputs):
            continue
        if walk.shape(output) == (len(atoms),):
            walk.set_map(output, atoms)  # running statistics
        else:
            walk.lock(atoms, f"{walk.where(node)} numbers the channels in {output.name!r}")


def resize(walk: ChannelWalk, node: Node) -> None:
    """Resize and Upsample of spatial axes; a stated output size has the channel count in it."""
    before, after = walk.shape(node.inputs[0]) or (), walk.shape(node.outputs[0]) or ()
    if before[1] != after[1]:
        walk.lock_inputs(node, f"{walk.where(node)} resizes the channel axis")
        return
    per_channel(walk, node)
    if len(node.inputs) > 3 and not node.inputs[3].is_empty():
        walk.note_shape(node, "Resize", (1,))


def region_pooling(walk: ChannelWalk, node: Node) -> None:
    """RoiAlign, MaxRoiPool, GridSample: the regions are no channels."""
    for tensor in node.inputs[1:]:
        if walk.is_labelled(tensor):
            walk.lock(walk.map(tensor), f"{walk.where(node)} reads coordinates from them")
    walk.set_map(node.outputs[0], along(walk.channels(node.inputs[0], 1), 1, len(walk.shape(node.outputs[0]) or ())))


# Operators along axes


def _axes(walk: ChannelWalk, node: Node, rank: int) -> tuple[int, ...] | None:
    """The axes of a reduction, from its attribute or operand; all when none are stated, None when unknown."""
    if "axes" in node.attrs:
        axes = node.attrs["axes"]
    elif len(node.inputs) > 1 and not node.inputs[1].is_empty():
        axes = walk.value(node.inputs[1])
    else:
        axes = () if node.attrs.get("noop_with_empty_axes", 0) else range(rank)
    return None if axes is None else tuple(int(a) % rank for a in axes)


def reduction(walk: ChannelWalk, node: Node) -> None:
    """Reductions over other axes than the channels'; a sum over channels is one that removal leaves exact."""
    labels = walk.map(node.inputs[0])
    axes = _axes(walk, node, labels.ndim)
    if axes is None or (node.op != "ReduceSum" and any(labels.shape[a] > 1 for a in axes)):
        walk.lock_inputs(node, f"{walk.where(node)} reduces over channels")
        return
    if any(labels.shape[a] > 1 for a in axes):
        return
    keep = node.attrs.get("keepdims", 1)
    walk.set_map(node.outputs[0], labels if keep else np.squeeze(labels, axes))


def coupling_along_axis(walk: ChannelWalk, node: Node) -> None:
    """Softmax, TopK, ArgMax, …: every element along the axis depends on all others."""
    labels = walk.map(node.inputs[0])
    axis = node.attrs.get("axis", DEFAULT_AXIS.get(node.op, -1)) % labels.ndim
    if node.op == "CumSum":
        value = walk.value(node.inputs[1])
        axis = None if value is None else int(value.reshape(-1)[0]) % labels.ndim
    if axis is None or labels.shape[axis] > 1:
        walk.lock_inputs(node, f"{walk.where(node)} couples the channels of a position")
        return
    for output in node.outputs:
        if not output.is_empty():
            rank = len(walk.shape(output) or ())
            walk.set_map(output, labels if rank == labels.ndim else np.squeeze(labels, axis))


def layer_normalization(walk: ChannelWalk, node: Node) -> None:
    """Normalises over the axes from `axis` on; channels among them are coupled.

    They go on behind it, so that what is tied to them there is locked for this reason.
    """
    labels = walk.map(node.inputs[0])
    axis = node.attrs.get("axis", -1) % labels.ndim
    if any(extent > 1 for extent in labels.shape[axis:]):
        walk.lock_inputs(node, f"{walk.where(node)} normalises over channels: removing one isn't zeroing it")
    walk.set_map(node.outputs[0], labels)


def mean_variance(walk: ChannelWalk, node: Node) -> None:
    labels = walk.map(node.inputs[0])
    if any(labels.shape[a] > 1 for a in node.attrs.get("axes", (0, 2, 3)) if a < labels.ndim):
        walk.lock_inputs(node, f"{walk.where(node)} normalises over channels")
        return
    walk.set_map(node.outputs[0], labels)


def coupling(walk: ChannelWalk, node: Node) -> None:
    walk.lock_inputs(node, f"{walk.where(node)} couples neighbouring channels: removing one isn't zeroing it")


# Movements


def transpose(walk: ChannelWalk, node: Node) -> None:
    labels = walk.map(node.inputs[0])
    walk.set_map(node.outputs[0], labels.transpose(node.attrs.get("perm", range(labels.ndim)[::-1])))


def reshape(walk: ChannelWalk, node: Node) -> None:
    """Reshape, Flatten, Squeeze, Unsqueeze: corresponding runs of axes are split and joined."""
    source, target = walk.shape(node.inputs[0]) or (), walk.shape(node.outputs[0]) or ()
    labels = reshaped(walk.map(node.inputs[0]), source, target)
    if labels is None:
        walk.lock_inputs(node, f"{walk.where(node)} reshapes {source} to {target}, which can't be followed")
        return
    walk.set_map(node.outputs[0], labels)
    if node.op == "Reshape" and varying_axes(labels):
        walk.note_shape(node, "Reshape", varying_axes(labels))


def move(walk: ChannelWalk, node: Node, labels: np.ndarray) -> np.ndarray | None:
    """What a movement does to any map of its input."""
    if node.op == "Transpose":
        return labels.transpose(node.attrs.get("perm", range(labels.ndim)[::-1]))
    if node.op == "Identity":
        return labels
    return reshaped(labels, walk.shape(node.inputs[0]) or (), walk.shape(node.outputs[0]) or ())


def concat(walk: ChannelWalk, node: Node) -> None:
    """Along the channel axis maps are concatenated; along another one channels at equal positions are tied."""
    shape = walk.shape(node.outputs[0]) or ()
    axis = node.attrs["axis"] % len(shape)
    maps = [walk.map(t) for t in node.inputs]
    others = {a for labels in maps for a in varying_axes(labels)} - {axis}
    is_along_channels = any(labels.shape[axis] > 1 for labels in maps) or not others
    if not is_along_channels:
        joined = maps[0]
        for labels in maps[1:]:
            walk.tie(joined, labels, f"{walk.where(node)} joins them with a tensor that can't be pruned")
            joined = np.where(*np.broadcast_arrays(joined >= 0, joined, labels))
        walk.set_map(node.outputs[0], joined)
        return
    wide = [expanded(labels, axis, (walk.shape(t) or ())[axis]) for labels, t in zip(maps, node.inputs, strict=True)]
    extents = [max(labels.shape[a] for labels in wide) for a in range(len(shape))]
    wide = [np.broadcast_to(w, [w.shape[a] if a == axis else extents[a] for a in range(w.ndim)]) for w in wide]
    walk.set_map(node.outputs[0], np.concatenate(wide, axis))


def split(walk: ChannelWalk, node: Node) -> None:
    labels = walk.map(node.inputs[0])
    axis = node.attrs.get("axis", 0) % labels.ndim
    if labels.shape[axis] == 1:
        for output in node.outputs:
            walk.set_map(output, labels)
        return
    start = 0
    for output in node.outputs:
        extent = (walk.shape(output) or ())[axis]
        part = np.take(labels, range(start, start + extent), axis)
        start += extent
        walk.set_map(output, part)
        walk.never_empty.append(first_along(part, axis))
    walk.note_shape(node, "Split", (axis,))


def slice_(walk: ChannelWalk, node: Node) -> None:
    labels = walk.map(node.inputs[0])
    values = [None if t.is_empty() else walk.value(t) for t in node.inputs[1:]]
    omitted = [t.is_empty() for t in node.inputs[1:]] + [True] * (4 - len(values))
    values += [None] * (4 - len(values))
    starts, ends, axes, steps = values
    if any(v is None and not o for v, o in zip(values, omitted, strict=True)) or starts is None or ends is None:
        walk.lock_inputs(node, f"{walk.where(node)} has computed bounds")
        return
    axes = np.arange(len(starts)) if axes is None else axes % labels.ndim
    steps = np.ones_like(starts) if steps is None else steps
    cut = [i for i, a in enumerate(axes) if labels.shape[a] > 1]
    if any(steps[i] != 1 for i in cut):
        walk.lock_inputs(node, f"{walk.where(node)} takes every n-th channel")
        return
    if len(cut) < len(axes) and cut and not all(walk.parameter(t) is not None for t in node.inputs[1:3]):
        walk.lock_inputs(node, f"{walk.where(node)} has computed bounds along other axes than the channels'")
        return
    for i in cut:
        labels = np.take(labels, range(*slice(int(starts[i]), int(ends[i])).indices(labels.shape[axes[i]])), axes[i])
        walk.never_empty.append(labels.ravel())
    walk.set_map(node.outputs[0], labels)
    if cut:
        walk.note_shape(node, "Slice", tuple(int(axes[i]) for i in cut))


def gather(walk: ChannelWalk, node: Node) -> None:
    labels = walk.map(node.inputs[0])
    axis = node.attrs.get("axis", 0) % max(1, labels.ndim)
    indices = walk.value(node.inputs[1])
    if walk.is_labelled(node.inputs[1]) or (labels.shape[axis] > 1 and indices is None):
        walk.lock_inputs(node, f"{walk.where(node)} has computed indices")
        return
    rank = len(walk.shape(node.inputs[1]) or ())
    if labels.shape[axis] == 1:
        shape = (*labels.shape[:axis], *(1,) * rank, *labels.shape[axis + 1 :])
        walk.set_map(node.outputs[0], labels.reshape(shape))
        return
    taken = np.take(labels, np.asarray(indices) % labels.shape[axis], axis)
    if rank != 1:
        walk.lock(taken, f"{walk.where(node)} picks single channels")
    walk.never_empty.append(taken.ravel())
    walk.set_map(node.outputs[0], taken)
    walk.note_shape(node, "Gather", (axis,))


def expand(walk: ChannelWalk, node: Node) -> None:
    shape = walk.shape(node.outputs[0]) or ()
    labels = aligned(walk.map(node.inputs[0]), len(shape))
    walk.set_map(node.outputs[0], labels)
    if varying_axes(labels):
        walk.note_shape(node, "Expand", varying_axes(labels))


def tile(walk: ChannelWalk, node: Node) -> None:
    labels = walk.map(node.inputs[0])
    before, after = walk.shape(node.inputs[0]) or (), walk.shape(node.outputs[0]) or ()
    repeats = [a // b if extent > 1 else 1 for a, b, extent in zip(after, before, labels.shape, strict=True)]
    walk.set_map(node.outputs[0], np.tile(labels, repeats))


def pad(walk: ChannelWalk, node: Node) -> None:
    """Padding along the channel axis adds elements that belong to no atom."""
    labels = walk.map(node.inputs[0])
    before, after = walk.shape(node.inputs[0]) or (), walk.shape(node.outputs[0]) or ()
    padded = [a for a in varying_axes(labels) if before[a] != after[a]]
    pads = walk.value(node.inputs[1])
    is_partial = len(node.inputs) > 3 and not node.inputs[3].is_empty()
    if padded and (pads is None or is_partial or node.attrs.get("mode", "constant") != "constant"):
        walk.lock_inputs(node, f"{walk.where(node)} pads the channel axis")
        return
    widths = [(0, 0)] * labels.ndim
    for a in padded:
        widths[a] = (int(pads[a]), int(pads[a + labels.ndim])) if pads is not None else (0, 0)
    if any(w < 0 for pair in widths for w in pair):
        walk.lock_inputs(node, f"{walk.where(node)} crops the channel axis")
        return
    walk.set_map(node.outputs[0], np.pad(labels, widths, constant_values=NO_ATOM))


def depth_to_space(walk: ChannelWalk, node: Node) -> None:
    """The bs² channels that make one output channel are tied (operator specification, modes DCR and CRD)."""
    atoms, block = walk.channels(node.inputs[0], 1), node.attrs["blocksize"] ** 2
    blocks = atoms.reshape(block, -1) if node.attrs.get("mode", "DCR") == "DCR" else atoms.reshape(-1, block).T
    walk.tie(blocks, blocks[:1], f"{walk.where(node)} joins them with a channel that can't be removed")
    walk.set_map(node.outputs[0], along(blocks[0], 1, 4))


def space_to_depth(walk: ChannelWalk, node: Node) -> None:
    atoms = walk.channels(node.inputs[0], 1)
    walk.set_map(node.outputs[0], along(np.tile(atoms, node.attrs["blocksize"] ** 2), 1, 4))


def no_channels(walk: ChannelWalk, node: Node) -> None:
    """Reads a shape only."""


SHAPE_OPERANDS = {
    "ConstantOfShape": {0},
    "Expand": {1},
    "Gather": {1},
    "Pad": {1, 3},
    "Range": {0, 1, 2},
    "Reshape": {1},
    "Resize": {1, 2, 3},
    "Slice": {1, 2, 3, 4},
    "Split": {1},
    "Tile": {1},
    "TopK": {1},
}
"""Operands that may be computed from shapes: pruning changes them as it should. Elsewhere a shape is data."""
MOVEMENTS = {"Transpose", "Reshape", "Flatten", "Squeeze", "Unsqueeze", "Identity"}
MAKES_ATOMS = {"Conv", "ConvTranspose", "Gemm", "MatMul"}
PARAMETERS_A_CHANNEL = {"BatchNormalization", "InstanceNormalization"}
DEFAULT_AXIS = {"ArgMax": 0, "ArgMin": 0}

_ELEMENTWISE = (
    "Add Sub Mul Div Pow Max Min Mean Sum Where PRelu Mod And Or Xor Equal Greater Less GreaterOrEqual LessOrEqual"
)
_UNARY = (
    "Abs Acos Acosh Asin Asinh Atan Atanh Cast CastLike Ceil Celu Clip Cos Cosh Dropout Elu Erf Exp Floor Gelu "
    "HardSigmoid HardSwish Identity IsInf IsNaN LeakyRelu Log Mish Neg Not Reciprocal Relu Round Selu Shrink Sigmoid "
    "Sign Sin Sinh Softplus Softsign Sqrt Tan Tanh ThresholdedRelu"
)
_PER_CHANNEL = (
    "AveragePool BatchNormalization GlobalAveragePool GlobalLpPool GlobalMaxPool InstanceNormalization LpPool MaxPool"
)
_REDUCTIONS = (
    "ReduceL1 ReduceL2 ReduceLogSum ReduceLogSumExp ReduceMax ReduceMean ReduceMin ReduceProd ReduceSum ReduceSumSquare"
)

_COUPLING = "Softmax LogSoftmax Hardmax TopK ArgMax ArgMin CumSum LpNormalization"

RULES: dict[str, Rule] = {
    "Conv": convolution,
    "ConvTranspose": convolution,
    "Gemm": gemm,
    "MatMul": matmul,
    **dict.fromkeys(_ELEMENTWISE.split(), elementwise),
    **dict.fromkeys(_UNARY.split(), unary),
    "QuantizeLinear": quantize,
    "DequantizeLinear": quantize,
    **dict.fromkeys(_PER_CHANNEL.split(), per_channel),
    "Resize": resize,
    "Upsample": resize,
    **dict.fromkeys(("RoiAlign", "MaxRoiPool", "GridSample"), region_pooling),
    **dict.fromkeys(_REDUCTIONS.split(), reduction),
    **dict.fromkeys(_COUPLING.split(), coupling_along_axis),
    "LayerNormalization": layer_normalization,
    "MeanVarianceNormalization": mean_variance,
    "LRN": coupling,
    "GroupNormalization": coupling,
    "Transpose": transpose,
    **dict.fromkeys(("Reshape", "Flatten", "Squeeze", "Unsqueeze"), reshape),
    "Concat": concat,
    "Split": split,
    "Slice": slice_,
    "Gather": gather,
    "Expand": expand,
    "Tile": tile,
    "Pad": pad,
    "DepthToSpace": depth_to_space,
    "SpaceToDepth": space_to_depth,
    "Shape": no_channels,
    "Size": no_channels,
    "ConstantOfShape": no_channels,
}
