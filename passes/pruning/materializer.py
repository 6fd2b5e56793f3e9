"""Makes the pruned network of a plan: slices the constants, and writes anew what states a number of channels."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np

from wootz.passes.analysis.channel_layouts import Permutation
from wootz.passes.analysis.channel_walk import ParameterUse, ShapeUse
from wootz.passes.analysis.channels import ChannelAnalysis, analyse_channels
from wootz.passes.analysis.index_maps import first_along, varying_axes
from wootz.passes.analysis.static_shapes import static_shapes
from wootz.passes.errors import WootzError
from wootz.passes.ir.builder import Builder
from wootz.passes.ir.model import Constant, Graph, Model, Node, Tensor, constants, is_constant, producer
from wootz.passes.plan.pruning import PruningPlan, stored_keep_sets, with_keep_sets
from wootz.passes.pruning.map_table import MapTable


def materialize(model: Model, plan: PruningPlan) -> Model:
    """The pruned network: `model` without the filters that `plan` removes, and without everything that hung on them.

    Tensors keep their names. Arrays that nothing is removed from are shared with `model`. The keep-sets are stored in
    the metadata.
    Raises WootzError for a plan that doesn't fit the model.
    """
    return Materializer.of(model).materialize(plan)


@dataclass(frozen=True, eq=False)
class Materializer:
    """Prunes one model by many plans: it is analysed once, and equal slices of a weight are made once and shared."""

    model: Model
    analysis: ChannelAnalysis
    _slices: dict[tuple[int | bytes, ...], np.ndarray] = field(default_factory=dict, repr=False)

    @staticmethod
    def of(model: Model, analysis: ChannelAnalysis | None = None) -> Materializer:
        """The materializer for `model`; `analysis` saves analysing it again."""
        return Materializer(model, analysis or analyse_channels(model))

    def materialize(self, plan: PruningPlan) -> Model:
        """See the function `materialize`."""
        kept = kept_atoms(self.analysis, plan)
        lossy = self._table.lossy(kept)
        pruned = self.model.copy()
        surgery = _Surgery(pruned.graph, self.analysis, self._masks(lossy))
        surgery.replace_parameters(self._sliced_parameters(kept, lossy))
        surgery.replace_permutations()
        surgery.restate_shapes()
        surgery.annotate()
        if surgery.has_computed_shapes:
            self._check_computed_shapes(pruned, kept)
        keep_sets = plan.keep_sets(stored_keep_sets(self.model.metadata))
        return replace(pruned, metadata=with_keep_sets(pruned.metadata, keep_sets))

    @cached_property
    def _table(self) -> MapTable:
        return MapTable.of(self.analysis)

    @cached_property
    def _constants(self) -> Mapping[str, np.ndarray]:
        return constants(self.model.graph)

    def _masks(self, lossy: Mapping[int, np.ndarray]) -> dict[str, np.ndarray]:
        """What stays of the tensors that lose something, shaped as their maps."""
        maps = self.analysis.maps
        return {n: lossy[row].reshape(maps[n].shape) for n, row in self._table.of_tensors.items() if row in lossy}

    def _check_computed_shapes(self, pruned: Model, kept: np.ndarray) -> None:
        """Shapes that the network computes as it runs have to come out as the channels that are left."""
        shapes = static_shapes(pruned).shapes
        for name, labels in self.analysis.maps.items():
            shape = shapes.get(name)
            for axis in varying_axes(labels):
                count = len(_kept_along(kept[labels], axis))
                if shape is not None and shape[axis] != count:
                    raise WootzError(
                        f"{name!r} is given {shape[axis]} channels by a computed shape where {count} are left "
                        f"(fold-constants may help)"
                    )

    def _sliced_parameters(self, kept: np.ndarray, lossy: Mapping[int, np.ndarray]) -> dict[int, np.ndarray]:
        """The new values of the parameter uses (by position) that lose something."""
        content = {row: mask.tobytes() for row, mask in lossy.items()}
        sliced: dict[int, np.ndarray] = {}
        for i, rows in enumerate(self._table.of_parameters):
            if lossy.keys().isdisjoint(rows):
                continue
            key: tuple[int | bytes, ...] = (i, *(content.get(row, b"") for row in rows))
            if key not in self._slices:
                use = self.analysis.parameters[i]
                masks = [kept[labels] for labels in use.maps]
                self._slices[key] = slice_parameter(self._constants[use.constant], use, masks)
            sliced[i] = self._slices[key]
        return sliced


def kept_atoms(analysis: ChannelAnalysis, plan: PruningPlan) -> np.ndarray:
    """bool[atoms + 1]: the atoms that `plan` keeps; the last one, for NO_ATOM, is True.

    Raises WootzError when the plan doesn't fit the model.
    """
    layers = {layer.name: layer for layer in analysis.layers}
    kept = np.ones(len(analysis.channel_of) + 1, bool)
    for entry in plan.layers:
        layer = layers.get(entry.layer)
        if layer is None:
            raise WootzError(f"the plan prunes a layer {entry.layer!r} that the model doesn't have")
        if layer.size != entry.filters:
            raise WootzError(f"the plan is for {entry.filters} filters in {entry.layer!r}; the model has {layer.size}")
        if entry.is_pruned:
            kept[layer.atoms] = False
            kept[layer.atoms[entry.indices]] = True
    _check_channels(analysis, kept[:-1])
    return kept


def _check_channels(analysis: ChannelAnalysis, kept: np.ndarray) -> None:
    torn = np.flatnonzero(kept != kept[analysis.channel_of])
    if torn.size:
        one, other = (_owner(analysis, int(a)) for a in (torn[0], analysis.channel_of[torn[0]]))
        raise WootzError(f"the plan keeps a filter of {one!r} and removes one of {other!r} that is tied to it")
    lost = np.flatnonzero(~kept & analysis.locked)
    if lost.size:
        reason = analysis.locks[int(analysis.channel_of[lost[0]])]
        raise WootzError(f"the plan removes a locked filter of {_owner(analysis, int(lost[0]))!r}: {reason}")


def _owner(analysis: ChannelAnalysis, atom: int) -> str:
    return next(layer.name for layer in analysis.layers if layer.atoms[0] <= atom <= layer.atoms[-1])


def slice_parameter(values: np.ndarray, use: ParameterUse, masks: Iterable[np.ndarray]) -> np.ndarray:
    """The part of a parameter that stays."""
    if use.groups > 1:
        return _slice_grouped(values, use.groups, *masks)
    for mask in masks:
        for axis in varying_axes(mask):
            values = np.take(values, _kept_along(mask, axis), axis)
    return values


def _slice_grouped(values: np.ndarray, groups: int, first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Slices the first two axes of a grouped weight; each group has keep-sets of its own, of equal size."""
    blocks = values.reshape(groups, -1, *values.shape[1:])
    rows, columns = _kept_in_rows(first), _kept_in_rows(second)
    chosen = blocks[np.arange(groups)[:, None, None], rows[:, :, None], columns[:, None, :]]
    return chosen.reshape(groups * rows.shape[1], columns.shape[1], *values.shape[2:])


def _kept_in_rows(mask: np.ndarray) -> np.ndarray:
    counts = mask.sum(1)
    if (counts != counts[0]).any():
        raise WootzError("the plan keeps unequal numbers of channels in the groups of a grouped convolution")
    return np.nonzero(mask)[1].reshape(len(mask), -1)


def _kept_along(mask: np.ndarray, axis: int) -> np.ndarray:
    """The indices along `axis` at which anything is kept."""
    if mask.size == mask.shape[axis]:
        return np.flatnonzero(mask)
    others = tuple(a for a in range(mask.ndim) if a != axis)
    return np.flatnonzero(mask.any(axis=others))


class _Surgery:
    """The changes to one graph, a copy of the one that was analysed: its nodes are in the same order."""

    def __init__(self, graph: Graph, analysis: ChannelAnalysis, masks: Mapping[str, np.ndarray]):
        """`masks` say what stays of each tensor that loses something."""
        self.graph = graph
        self.analysis = analysis
        self.masks = masks
        self.nodes = list(graph.nodes)
        self.replaced: set[int] = set()
        self.has_computed_shapes = False

    def value(self, tensor: Tensor) -> np.ndarray:
        """The value of a shape operand that the analysis knew."""
        return tensor.values if isinstance(tensor, Constant) else self.analysis.values[tensor.name]

    def count(self, tensor: str, axis: int) -> int:
        return len(_kept_along(self.masks[tensor], axis))

    def replace_parameters(self, sliced: Mapping[int, np.ndarray]) -> None:
        """A constant is changed in place when all that read it agree; otherwise each of them gets a copy."""
        direct: dict[str, list[tuple[Node, int, np.ndarray]]] = {}
        for i, values in sliced.items():
            use = self.analysis.parameters[i]
            node = self.nodes[use.node]
            if node.op == "Transpose":
                node.outputs[0].shape = None  # of a weight, which has no index map: inferred anew
            tensor = node.inputs[use.operand]
            if isinstance(tensor, Constant):
                direct.setdefault(tensor.name, []).append((node, use.operand, values))
            else:  # behind an Identity, which made the name
                node.inputs[use.operand] = Constant(tensor.name, values)
                self._remove_if_unused(tensor)
        for uses in direct.values():
            self._replace_constant(uses)

    def _replace_constant(self, uses: Sequence[tuple[Node, int, np.ndarray]]) -> None:
        """Gives the operands that are one constant their new values."""
        node, operand, values = uses[0]
        tensor = node.inputs[operand]
        if len(tensor.outputs) == len(uses) and all(np.array_equal(values, other) for *_, other in uses[1:]):
            tensor.values = values
            return
        for node, operand, values in uses:
            node.inputs[operand] = Constant(self._fresh(tensor.name), values)

    @cached_property
    def _builder(self) -> Builder:
        return Builder(self.graph)

    def _fresh(self, hint: str) -> str:
        return self._builder.fresh(hint)

    def replace_permutations(self) -> None:
        """Shuffles whose rows lose different columns become a Gather."""
        for permutation in self.analysis.permutations:
            if permutation.entry in self.masks and not self._keeps_boxes(permutation):
                self._replace_by_gather(permutation)
                self.replaced |= permutation.nodes

    def _keeps_boxes(self, permutation: Permutation) -> bool:
        """Whether every tensor on the way stays a box, and no Reshape on it computes its shape."""
        computes = any(
            self.nodes[i].op == "Reshape" and not is_constant(self.nodes[i].inputs[1]) for i in permutation.nodes
        )
        masks = (self.masks[name] for name in permutation.inner)
        return not computes and all(
            mask.sum() == np.prod([len(_kept_along(mask, axis)) for axis in range(mask.ndim)]) for mask in masks
        )

    def _replace_by_gather(self, permutation: Permutation) -> None:
        tensors = self.graph.tensors()
        entry, exit_ = tensors[permutation.entry], tensors[permutation.exit]
        mask = first_along(self.masks[permutation.entry], permutation.axis)
        taken = permutation.positions[mask[permutation.positions]]
        indices = (np.cumsum(mask) - 1)[taken].astype(np.int64)
        last = producer(exit_)
        assert last is not None, "the exit of a permutation is computed"
        place = next(i for i, node in enumerate(self.graph.nodes) if node is last)
        last.outputs.clear()
        builder = self._builder
        operands = [entry, builder.constant(indices, f"{exit_.name}_channels")]
        gather = Node("Gather", builder.fresh(f"{exit_.name}_gather"), {"axis": permutation.axis}, operands, [exit_])
        self.graph.nodes.insert(place, gather)
        self._remove(last)

    def _remove(self, node: Node) -> None:
        """Removes a node whose results aren't used, and those that computed for it alone."""
        self.graph.nodes = [n for n in self.graph.nodes if n is not node]
        operands = list(node.inputs)
        node.inputs.clear()
        node.outputs.clear()
        for operand in operands:
            self._remove_if_unused(operand)

    def _remove_if_unused(self, tensor: Tensor) -> None:
        node = producer(tensor)
        is_output = any(tensor is t for t in self.graph.outputs)
        if node is not None and not is_output and not any(t.outputs for t in node.outputs):
            self._remove(node)

    def restate_shapes(self) -> None:
        """Writes shape operands and attributes with the new numbers of channels."""
        for use in self.analysis.shape_uses:
            node = self.nodes[use.node]
            touched = {t.name for t in [*node.inputs, *node.outputs]} & self.masks.keys()
            if touched and use.node not in self.replaced:
                _RESTATEMENTS[use.kind](self, node, use)

    def set_shape_operand(self, node: Node, operand: int, values: np.ndarray, hint: str) -> None:
        values = np.asarray(values, np.int64)
        while len(node.inputs) <= operand:
            node.inputs.append(Constant(self._fresh(hint), values))
        tensor = node.inputs[operand]
        if isinstance(tensor, Constant) and len(tensor.outputs) == 1:
            tensor.values = values
        else:
            node.inputs[operand] = Constant(self._fresh(hint), values)
            self._remove_if_unused(tensor)

    def annotate(self) -> None:
        """States the new extents in the annotated shapes."""
        for tensor in (t for node in self.graph.nodes for t in node.outputs):
            if tensor.name in self.masks and tensor.shape is not None:
                for axis in varying_axes(self.masks[tensor.name]):
                    if isinstance(tensor.shape[axis], int):
                        tensor.shape[axis] = self.count(tensor.name, axis)


def _restate_group(surgery: _Surgery, node: Node, use: ShapeUse) -> None:
    node.attrs["group"] = surgery.count(node.inputs[0].name, 1)


def _restate_shape(surgery: _Surgery, node: Node, use: ShapeUse) -> None:
    """Reshape and Expand: the dimensions that are stated; 0, -1 and 1 follow by themselves."""
    output = node.outputs[0].name
    if not isinstance(node.inputs[1], Constant):
        surgery.has_computed_shapes = True
        return
    if output not in surgery.masks:
        return
    stated = node.inputs[1].values.copy()
    offset = len(stated) - surgery.masks[output].ndim
    for axis in use.axes:
        if axis + offset >= 0 and stated[axis + offset] > 1:
            stated[axis + offset] = surgery.count(output, axis)
    surgery.set_shape_operand(node, 1, stated, f"{output}_shape")


def _restate_sizes(surgery: _Surgery, node: Node, use: ShapeUse) -> None:
    """Resize: the channel count in its output size."""
    if "axes" in node.attrs or not isinstance(node.inputs[3], Constant):
        return
    sizes = node.inputs[3].values.copy()
    sizes[1] = surgery.count(node.inputs[0].name, 1)
    surgery.set_shape_operand(node, 3, sizes, f"{node.outputs[0].name}_sizes")


def _restate_split(surgery: _Surgery, node: Node, use: ShapeUse) -> None:
    (axis,) = use.axes
    shapes = surgery.analysis.shapes
    sizes = [
        surgery.count(t.name, axis) if t.name in surgery.masks else (shapes[t.name] or ())[axis] for t in node.outputs
    ]
    node.attrs.pop("num_outputs", None)
    surgery.set_shape_operand(node, 1, np.asarray(sizes), f"{node.outputs[0].name}_sizes")


def _restate_slice(surgery: _Surgery, node: Node, use: ShapeUse) -> None:
    """The bounds along channel axes, counted in channels that stay."""
    starts, ends = (surgery.value(t).copy() for t in node.inputs[1:3])
    axes = surgery.value(node.inputs[3]) if len(node.inputs) > 3 else np.arange(len(starts))
    mask = surgery.masks[node.inputs[0].name]
    for i, axis in enumerate(a % mask.ndim for a in axes):
        if axis in use.axes:
            line = np.asarray(mask.any(axis=tuple(a for a in range(mask.ndim) if a != axis)))
            before = np.concatenate([[0], np.cumsum(line)])
            start, end, _ = slice(int(starts[i]), int(ends[i])).indices(len(line))
            starts[i], ends[i] = before[start], before[max(start, end)]
    surgery.set_shape_operand(node, 1, starts, f"{node.outputs[0].name}_starts")
    surgery.set_shape_operand(node, 2, ends, f"{node.outputs[0].name}_ends")


def _restate_gather(surgery: _Surgery, node: Node, use: ShapeUse) -> None:
    (axis,) = use.axes
    mask = first_along(surgery.masks[node.inputs[0].name], axis)
    indices = surgery.value(node.inputs[1]) % len(mask)
    kept = indices[mask[indices]] if indices.ndim else indices
    surgery.set_shape_operand(node, 1, (np.cumsum(mask) - 1)[kept], f"{node.outputs[0].name}_channels")


_RESTATEMENTS = {
    "group": _restate_group,
    "Reshape": _restate_shape,
    "Expand": _restate_shape,
    "Resize": _restate_sizes,
    "Split": _restate_split,
    "Slice": _restate_slice,
    "Gather": _restate_gather,
}
