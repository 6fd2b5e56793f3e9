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
    """Applies the rule for `node`; a node that reads no atoms needs none unless it makes them.

    What is known from shapes alone has no atoms: the number of channels that it was computed from stays what it was
    (`materializer` sees to that).
    """
    note_uniform_axes(walk, node)
    if node.op in ("Shape", "Size") or walk.is_shape_computation(node):
        return
    rule = RULES.get(node.op) if node.domain in (None, "", "ai.onnx") else None
    reads_atoms = any(walk.is_labelled(t) for t in node.inputs)
    if rule is None:
        walk.lock_inputs(node, f"{walk.where(node)}: no rule says what becomes of channels there")
    elif reads_atoms or node.op in MAKES_ATOMS:
        unknown = [t.name for t in [*node.inputs, *node.outputs] if not t.is_empty() and walk.shape(t) is None]
        empty = [t.name for t in node.inputs if not t.is_empty() and 0 in (walk.shape(t) or ())]
        if unknown:
            walk.lock_inputs(node, f"{walk.where(node)}: the shape of {unknown[0]!r} is not known")
        elif empty and node.op in MAKES_ATOMS:
            walk.lock_inputs(node, f"{walk.where(node)}: {empty[0]!r} has no elements")
        else:
            rule(walk, node)


def note_uniform_axes(walk: ChannelWalk, node: Node) -> None:
    """Along which axes the result is the same everywhere: what is filled or expanded, and what is made of that."""
    if node.op not in SPREADS or not node.outputs or node.domain not in (None, "", "ai.onnx"):
        return
    shape = walk.shape(node.outputs[0])
    operands = [t for t in node.inputs if not t.is_empty()]
    if node.op in ("ConstantOfShape", "Expand"):
        operands = operands[:1] if node.op == "Expand" else []
    if shape is None or any(walk.shape(t) is None for t in operands):
        return
    axes = set(range(len(shape)))
    for tensor in operands:
        extents = walk.shape(tensor) or ()
        lead = len(shape) - len(extents)
        own = walk.uniform_axes(tensor)
        axes &= {a for a in axes if a < lead or extents[a - lead] == 1 or a - lead in own}
    if axes:
        walk.uniform[node.outputs[0].name] = frozenset(axes)


# Layers


def convolution(walk: ChannelWalk, node: Node) -> None:
    """Conv and ConvTranspose: new atoms along axis 1; weights are indexed by them and by the input's."""
    data, weight = node.inputs[0], node.inputs[1]
    constant = walk.parameter(weight)
    if constant is None:
        walk.lock_inputs(node, f"{walk.where(node)} has a computed weight {weight.name!r} (try fold-constants)")
        return
    shape, groups, is_transposed = constant.shape, node.attrs.get("group", 1), node.op == "ConvTranspose"
    inputs = walk.channels(node, data, 1)
    size = shape[1] * groups if is_transposed else shape[0]
    if groups < 1 or len(inputs) % groups or size % groups:
        walk.lock_inputs(node, f"{walk.where(node)} has {groups} groups of {len(inputs)} channels and {size} filters")
        return
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
    if matrix is None:
        walk.lock_inputs(node, f"{walk.where(node)} multiplies by something else than a constant matrix from the right")
        return
    holder, operand, constant, is_transposed = matrix
    filter_axis = 0 if bool(node.attrs.get("transB", 0)) != is_transposed else 1
    inputs = walk.channels(node, node.inputs[0], 0 if node.attrs.get("transA", 0) else 1)
    outputs = walk.new_layer(node, constant.shape[filter_axis], constant, filter_axis, "linear")
    walk.use(holder, operand, along(outputs, filter_axis, 2), along(inputs, 1 - filter_axis, 2))
    labels = along(outputs, 1, 2)
    if len(node.inputs) > 2 and not node.inputs[2].is_empty():
        labels = _join_operand(walk, node, 2, labels, walk.shape(node.outputs[0]) or ())
    walk.set_map(node.outputs[0], labels)


def matmul(walk: ChannelWalk, node: Node) -> None:
    """MatMul by a constant matrix: a fully connected layer along the last axis. Other products are contractions."""
    rank = len(walk.shape(node.inputs[0]) or ())
    matrix = walk.matrix(node, 1)
    if matrix is None or rank < 2:
        ranks = [len(walk.shape(t) or ()) for t in node.inputs]
        if min(ranks) < 2:
            walk.lock_inputs(node, f"{walk.where(node)} multiplies by a vector")
            return
        batch = "abcdefgh"[: max(ranks) - 2]
        left, right = (batch[len(batch) - rank + 2 :] for rank in ranks)
        contraction(walk, node, (f"{left}mk", f"{right}kn"), f"{batch}mn")
        return
    holder, operand, constant, is_transposed = matrix
    filter_axis = 0 if is_transposed else 1
    inputs = walk.channels(node, node.inputs[0], rank - 1)
    kind = "linear" if rank < 4 else "convolution"  # channels-last 1x1 convolutions are exported as MatMul
    outputs = walk.new_layer(node, constant.shape[filter_axis], constant, filter_axis, kind)
    walk.use(holder, operand, along(outputs, filter_axis, 2), along(inputs, 1 - filter_axis, 2))
    walk.set_map(node.outputs[0], along(outputs, rank - 1, rank))


def einsum(walk: ChannelWalk, node: Node) -> None:
    """Einsum with an explicit result, where no operand has a letter twice."""
    terms, arrow, result = str(node.attrs["equation"]).replace(" ", "").partition("->")
    operands = terms.split(",")
    if not arrow or "." in terms or any(len(set(term)) < len(term) for term in (*operands, result)):
        walk.lock_inputs(node, f"{walk.where(node)}: the equation {node.attrs['equation']} can't be followed")
        return
    contraction(walk, node, operands, result)


def contraction(walk: ChannelWalk, node: Node, terms: Sequence[str], result: str) -> None:
    """A product of operands, summed over the letters that the result hasn't got.

    Channels that are summed over are tied to each other (removing them is exact); for the others it is a product
    element by element.
    """
    for tensor in node.inputs:
        if not varying_axes(walk.map(tensor)):
            walk.lock(walk.map(tensor), f"{walk.where(node)} spreads one channel over several")
    maps = [_summed(walk, node, walk.map(t), term, result) for t, term in zip(node.inputs, terms, strict=True)]
    for letter in sorted(set("".join(terms)) - set(result)):
        _tie_summed(walk, node, maps, terms, letter)
    rank = len(result)
    order = sorted(range(len(maps)), key=lambda i: -maps[i].size)
    order.sort(key=lambda i: not _kept_axes(maps[i], terms[i], result))
    labels = empty_map(rank)
    for i in order:
        extents = [(walk.shape(node.inputs[i]) or ())[terms[i].index(x)] if x in terms[i] else 1 for x in result]
        if _kept_axes(maps[i], terms[i], result):
            placed = _placed(maps[i], terms[i], result)
            if (labels >= 0).any() and any(extents[a] == 1 for a in varying_axes(labels)):
                placed, labels = _apart(walk, node, placed, labels)
            labels = _join_maps(walk, node, labels, placed, extents)
        else:
            labels = _join_unlabelled(walk, node, i, terms[i], labels, result, extents)
    walk.set_map(node.outputs[0], labels)


def _apart(walk: ChannelWalk, node: Node, mine: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Two operands with channels along different axes of the result: an element would belong to both."""
    for part in (mine, labels):
        walk.lock(part, f"{walk.where(node)} multiplies channels along different axes")
    return np.full_like(mine, NO_ATOM), np.full_like(labels, NO_ATOM)


def _summed(walk: ChannelWalk, node: Node, labels: np.ndarray, term: str, result: str) -> np.ndarray:
    """The map of an operand whose channels lie along one letter that is summed over, or along others."""
    over = [a for a in varying_axes(labels) if term[a] not in result]
    if not over:
        return labels
    others = [a for a in varying_axes(labels) if a != over[0]]
    return walk.collapse(labels, others, f"{walk.where(node)} sums over channels") if others else labels


def _tie_summed(walk: ChannelWalk, node: Node, maps: Sequence[np.ndarray], terms: Sequence[str], letter: str) -> None:
    lines = {i: first_along(m, terms[i].index(letter)) for i, m in enumerate(maps) if letter in terms[i]}
    lines = {i: line for i, line in lines.items() if len(line) > 1}
    if not lines:
        return
    first = next(iter(lines.values()))
    reason = f"{walk.where(node)} sums them with a channel that can't be removed"
    for i, term in enumerate(terms):
        axis = term.find(letter)
        tensor = node.inputs[i]
        if axis < 0 or (walk.shape(tensor) or ())[axis] == 1:
            continue
        if i in lines:
            walk.tie(first, lines[i], reason)
        elif walk.parameter(tensor) is not None:
            walk.use(node, i, along(first, axis, len(term)))
        else:
            walk.lock(first, f"{walk.where(node)} sums them with {tensor.name!r}, which can't be pruned")


def _kept_axes(labels: np.ndarray, term: str, result: str) -> list[int]:
    """The axes of the result along which an operand has channels."""
    return [result.index(term[a]) for a in varying_axes(labels) if term[a] in result]


def _placed(labels: np.ndarray, term: str, result: str) -> np.ndarray:
    """The map of an operand with the axes of the result; it doesn't vary along those that it loses."""
    kept = [a for a, letter in enumerate(term) if letter in result]
    first = labels[tuple(slice(None) if a in kept else 0 for a in range(labels.ndim))]
    shape = [labels.shape[term.index(letter)] if letter in term else 1 for letter in result]
    return first.transpose(np.argsort([result.index(term[a]) for a in kept], kind="stable")).reshape(shape)


def _join_unlabelled(
    walk: ChannelWalk, node: Node, operand: int, term: str, labels: np.ndarray, result: str, extents: Sequence[int]
) -> np.ndarray:
    """The map of a product with an operand that has no channels along the axes of the result."""
    shared = [a for a in varying_axes(labels) if extents[a] > 1]
    tensor = node.inputs[operand]
    if shared and walk.parameter(tensor) is not None:
        kept = [result.index(letter) for letter in term if letter in result]
        part = labels[tuple(slice(None) if a in shared else slice(0, 1) for a in range(labels.ndim))]
        shape = [part.shape[result.index(letter)] if letter in result else 1 for letter in term]
        lost = tuple(a for a in range(len(result)) if a not in kept)
        walk.use(node, operand, np.squeeze(part, lost).transpose(np.argsort(np.argsort(kept))).reshape(shape))
    elif shared:
        reason = f"{walk.where(node)} multiplies them with {tensor.name!r}, which can't be pruned"
        labels = walk.collapse(labels, shared, reason)
    return labels


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
    lead = rank - len(walk.shape(tensor) or ())
    extents = (1,) * lead + tuple(walk.shape(tensor) or ())
    if not walk.is_labelled(tensor):
        shared = [a for a in varying_axes(labels) if extents[a] > 1]
        if shared and walk.parameter(tensor) is not None:
            walk.use(node, operand, _own_axes(labels, shared, lead))
        elif shared and {a - lead for a in shared} <= walk.uniform_axes(tensor):
            walk.use_uniform(node, operand, _own_axes(labels, shared, lead), tuple(a - lead for a in shared))
        elif shared:
            reason = f"{walk.where(node)} combines them with {tensor.name!r}, which can't be pruned"
            first = walk.collapse(labels, shared, reason)
            return first if varying_axes(first) else labels
        return labels
    return _join_maps(walk, node, labels, aligned(walk.map(tensor), rank), extents)


def _join_maps(
    walk: ChannelWalk, node: Node, labels: np.ndarray, mine: np.ndarray, extents: Sequence[int]
) -> np.ndarray:
    """The map of the result so far, with that of an operand whose extents, broadcast, are `extents`."""
    if not (labels >= 0).any():
        return mine
    if any(mine.shape[a] > 1 and labels.shape[a] == 1 for a in range(labels.ndim)):
        walk.lock(labels, f"{walk.where(node)} combines channels along different axes")
        walk.lock(mine, f"{walk.where(node)} combines channels along different axes")
        return empty_map(labels.ndim)
    if any(extents[a] == 1 for a in varying_axes(labels)):
        walk.lock(mine, f"{walk.where(node)} spreads one channel over several")
        return labels
    if varying_axes(labels) and not varying_axes(mine):
        walk.lock(labels, f"{walk.where(node)} combines several channels with one that was repeated")
        walk.lock(mine, f"{walk.where(node)} combines several channels with one that was repeated")
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
            walk.use(node, operand, walk.channels(node, node.inputs[0], axis))
    walk.set_map(node.outputs[0], labels)


# One channel at a time


def per_channel(walk: ChannelWalk, node: Node) -> None:
    """Each channel (axis 1) is computed from itself alone: pooling, InstanceNormalization, BatchNormalization."""
    data = node.inputs[0]
    atoms = walk.channels(node, data, 1)
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
    walk.set_map(
        node.outputs[0], along(walk.channels(node, node.inputs[0], 1), 1, len(walk.shape(node.outputs[0]) or ()))
    )


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
    """Reductions: channels that lie along other axes, too, are tied along those reduced over.

    A sum over all channels is one that removal leaves exact.
    """
    labels = walk.map(node.inputs[0])
    axes = _axes(walk, node, labels.ndim)
    if axes is None:
        walk.lock_inputs(node, f"{walk.where(node)} reduces over axes that are computed")
        return
    over = [a for a in axes if labels.shape[a] > 1]
    if over and len(over) == len(varying_axes(labels)) and node.op == "ReduceSum":
        return
    if over:
        labels = walk.collapse(labels, over, f"{walk.where(node)} reduces over channels")
    keep = node.attrs.get("keepdims", 1)
    walk.set_map(node.outputs[0], labels if keep else np.squeeze(labels, axes))


def coupling_along_axis(walk: ChannelWalk, node: Node) -> None:
    """Softmax, TopK, ArgMax, …: every element along the axis depends on all others.

    Channels that lie along another axis, too (a softmax over branches), are tied along this one.
    """
    labels = walk.map(node.inputs[0])
    axis = node.attrs.get("axis", DEFAULT_AXIS.get(node.op, -1)) % labels.ndim
    if node.op == "CumSum":
        value = walk.value(node.inputs[1])
        axis = None if value is None else int(value.reshape(-1)[0]) % labels.ndim
    if axis is None:
        walk.lock_inputs(node, f"{walk.where(node)} couples them along an axis that is computed")
        return
    if labels.shape[axis] > 1:
        labels = walk.collapse(labels, [axis], f"{walk.where(node)} couples the channels of a position")
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


def group_normalization(walk: ChannelWalk, node: Node) -> None:
    """GroupNormalization: the channels of a group are tied; scale and bias have one value a group (opset 18)."""
    atoms = walk.channels(node, node.inputs[0], 1)
    if node.attrs["num_groups"] < 1 or len(atoms) % node.attrs["num_groups"]:
        walk.lock_inputs(node, f"{walk.where(node)} has {node.attrs['num_groups']} groups of {len(atoms)} channels")
        return
    groups = atoms.reshape(node.attrs["num_groups"], -1)
    walk.tie(groups, groups[:, :1], f"{walk.where(node)} normalises them with a channel that can't be removed")
    for operand in (1, 2):
        walk.use(node, operand, groups[:, 0])
    walk.set_map(node.outputs[0], along(atoms, 1, len(walk.shape(node.outputs[0]) or ())))
    walk.note_shape(node, "GroupNormalization", (1,))


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
    if node.op == "Squeeze" and "axes" not in node.attrs and len(node.inputs) < 2:
        walk.note_shape(node, "Squeeze", tuple(a for a, extent in enumerate(source) if extent == 1))


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
        walk.set_map(node.outputs[0], _joined_along_another_axis(walk, node))
        return
    if not others:
        maps = [_map_of_part(walk, node, operand, axis) for operand in range(len(node.inputs))]
    wide = [expanded(labels, axis, (walk.shape(t) or ())[axis]) for labels, t in zip(maps, node.inputs, strict=True)]
    extents = [max(labels.shape[a] for labels in wide) for a in range(len(shape))]
    wide = [np.broadcast_to(w, [w.shape[a] if a == axis else extents[a] for a in range(w.ndim)]) for w in wide]
    walk.set_map(node.outputs[0], np.concatenate(wide, axis))


def _joined_along_another_axis(walk: ChannelWalk, node: Node) -> np.ndarray:
    """The map of a Concat of positions: the channels of its operands are tied."""
    reason = f"{walk.where(node)} joins them with a tensor that can't be pruned"
    order = sorted(range(len(node.inputs)), key=lambda i: not walk.is_labelled(node.inputs[i]))
    joined = walk.map(node.inputs[order[0]])
    for i in order[1:]:
        tensor = node.inputs[i]
        axes = varying_axes(joined)
        if walk.is_labelled(tensor):
            labels = walk.map(tensor)
            walk.tie(joined, labels, reason)
            joined = np.where(*np.broadcast_arrays(joined >= 0, joined, labels))
        elif walk.parameter(tensor) is not None:
            walk.use(node, i, joined)
        elif set(axes) <= walk.uniform_axes(tensor):
            walk.use_uniform(node, i, joined, axes)
        else:
            walk.lock(joined, reason)
    return joined


def _map_of_part(walk: ChannelWalk, node: Node, operand: int, axis: int) -> np.ndarray:
    """The map of an operand of a Concat along channels. Constant channels and filled ones get atoms of their own."""
    tensor = node.inputs[operand]
    extents = walk.shape(tensor) or ()
    if walk.is_labelled(tensor) or not extents or extents[axis] == 0:
        return walk.map(tensor)
    is_uniform = axis in walk.uniform_axes(tensor) or extents[axis] == 1
    if walk.parameter(tensor) is None and axis not in walk.uniform_axes(tensor):
        return walk.map(tensor)
    labels = along(walk.new_atoms(extents[axis]), axis, len(extents))
    if is_uniform:
        walk.use_uniform(node, operand, labels, (axis,))
    else:
        walk.use(node, operand, labels)
    return labels


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
    if axes is not None and all(labels.shape[a] == 1 for a in axes):
        walk.set_map(node.outputs[0], labels)
        return
    if any(v is None and not o for v, o in zip(values, omitted, strict=True)) or starts is None or ends is None:
        walk.lock_inputs(node, f"{walk.where(node)} has computed bounds")
        return
    axes = np.arange(len(starts)) if axes is None else axes % labels.ndim
    steps = np.ones_like(starts) if steps is None else steps
    cut = [i for i, a in enumerate(axes) if labels.shape[a] > 1]
    if any(steps[i] != 1 for i in cut) and len(axes) > 1:
        walk.lock_inputs(node, f"{walk.where(node)} takes every n-th channel, and cuts along other axes too")
        return
    for i in cut:
        bounds = slice(int(starts[i]), int(ends[i]), int(steps[i])).indices(labels.shape[axes[i]])
        labels = np.take(labels, [*range(*bounds)], axes[i])
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


def gather_nd(walk: ChannelWalk, node: Node) -> None:
    """GatherND of whole slices along the first axis, by a list of them: what indexing with a list is exported as."""
    labels = walk.map(node.inputs[0])
    indices = walk.value(node.inputs[1])
    if indices is None or indices.ndim != 2 or indices.shape[1] != 1 or node.attrs.get("batch_dims", 0):
        walk.lock_inputs(node, f"{walk.where(node)} picks single elements")
    elif labels.shape[0] == 1:
        walk.set_map(node.outputs[0], labels)
    else:
        taken = np.take(labels, indices[:, 0] % labels.shape[0], 0)
        walk.never_empty.append(taken.ravel())
        walk.set_map(node.outputs[0], taken)
        walk.note_shape(node, "GatherND", (0,))


def expand(walk: ChannelWalk, node: Node) -> None:
    shape = walk.shape(node.outputs[0]) or ()
    labels = aligned(walk.map(node.inputs[0]), len(shape))
    if varying_axes(labels):
        walk.set_map(node.outputs[0], labels)
        walk.note_shape(node, "Expand", varying_axes(labels))
    else:
        walk.lock(labels, f"{walk.where(node)} spreads one channel over several")


def tile(walk: ChannelWalk, node: Node) -> None:
    labels = walk.map(node.inputs[0])
    before, after = walk.shape(node.inputs[0]) or (), walk.shape(node.outputs[0]) or ()
    repeats = [a // b if extent > 1 else 1 for a, b, extent in zip(after, before, labels.shape, strict=True)]
    walk.set_map(node.outputs[0], np.tile(labels, repeats))


def pad(walk: ChannelWalk, node: Node) -> None:
    """Padding along the channel axis adds constant channels, with atoms of their own; a negative one crops."""
    labels = walk.map(node.inputs[0])
    before, after = walk.shape(node.inputs[0]) or (), walk.shape(node.outputs[0]) or ()
    widths = _pad_widths(walk, node, labels.ndim)
    if widths is None:
        padded = [a for a in varying_axes(labels) if before[a] != after[a]]
    else:
        padded = [a for a in varying_axes(labels) if widths[a] != (0, 0)]
    if padded and (widths is None or node.attrs.get("mode", "constant") != "constant"):
        walk.lock_inputs(node, f"{walk.where(node)} pads the channel axis")
        return
    if padded and len(varying_axes(labels)) > 1:
        walk.lock_inputs(node, f"{walk.where(node)} pads one of several axes along which channels lie")
        return
    for axis in padded:
        low, high = widths[axis] if widths else (0, 0)
        labels = np.take(labels, range(max(0, -low), labels.shape[axis] - max(0, -high)), axis)
        new = [along(walk.new_atoms(max(0, width)), axis, labels.ndim) for width in (low, high)]
        labels = np.concatenate([new[0], labels, new[1]], axis)
        walk.note_shape(node, "Pad", (axis,))
    walk.set_map(node.outputs[0], labels)


def _pad_widths(walk: ChannelWalk, node: Node, rank: int) -> list[tuple[int, int]] | None:
    """What a Pad adds before and behind each axis; None when it isn't known."""
    pads = walk.value(node.inputs[1])
    axes: np.ndarray | None = np.arange(rank)
    if len(node.inputs) > 3 and not node.inputs[3].is_empty():
        axes = walk.value(node.inputs[3])
    if pads is None or axes is None:
        return None
    widths = [(0, 0)] * rank
    for i, axis in enumerate(axes.tolist()):
        widths[axis % rank] = int(pads[i]), int(pads[i + len(axes)])
    return widths


def depth_to_space(walk: ChannelWalk, node: Node) -> None:
    """The bs² channels that make one output channel are tied (operator specification, modes DCR and CRD)."""
    atoms, block = walk.channels(node, node.inputs[0], 1), node.attrs["blocksize"] ** 2
    blocks = atoms.reshape(block, -1) if node.attrs.get("mode", "DCR") == "DCR" else atoms.reshape(-1, block).T
    walk.tie(blocks, blocks[:1], f"{walk.where(node)} joins them with a channel that can't be removed")
    walk.set_map(node.outputs[0], along(blocks[0], 1, 4))


def space_to_depth(walk: ChannelWalk, node: Node) -> None:
    atoms = walk.channels(node, node.inputs[0], 1)
    walk.set_map(node.outputs[0], along(np.tile(atoms, node.attrs["blocksize"] ** 2), 1, 4))


def no_channels(walk: ChannelWalk, node: Node) -> None:
    """Reads a shape only."""


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
SPREADS = {*_ELEMENTWISE.split(), *_UNARY.split(), "ConstantOfShape", "Expand"} - {"Dropout"}
"""Operators through which what is the same along an axis is so in the result."""

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
    "Einsum": einsum,
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
    "GroupNormalization": group_normalization,
    "Transpose": transpose,
    **dict.fromkeys(("Reshape", "Flatten", "Squeeze", "Unsqueeze"), reshape),
    "Concat": concat,
    "Split": split,
    "Slice": slice_,
    "Gather": gather,
    "GatherND": gather_nd,
    "Expand": expand,
    "Tile": tile,
    "Pad": pad,
    "DepthToSpace": depth_to_space,
    "SpaceToDepth": space_to_depth,
    "Shape": no_channels,
    "Size": no_channels,
    "ConstantOfShape": no_channels,
}
