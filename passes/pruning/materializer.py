"""Makes the pruned network of a plan: slices the constants, writes anew what states a number of channels, and leaves
modules out."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np

from wootz.passes.analysis.channel_layouts import Permutation
from wootz.passes.analysis.channel_walk import ParameterUse, ShapeUse
from wootz.passes.analysis.channels import ChannelAnalysis, analyse_channels
from wootz.passes.analysis.computed_constants import parameter_values
from wootz.passes.analysis.index_maps import first_along, varying_axes
from wootz.passes.analysis.static_shapes import StaticShapes, has_static_inputs, other_static_shapes
from wootz.passes.errors import WootzError
from wootz.passes.ir.builder import Builder
from wootz.passes.ir.model import (
    Constant,
    Graph,
    Model,
    Node,
    Tensor,
    Variable,
    captured_tensors,
    is_constant,
    producer,
)
from wootz.passes.ir.rewrite import compute_as, erase_nodes, erase_unread, insert_nodes, replace_node
from wootz.passes.plan.pruning import PruningPlan, stored_keep_sets, with_keep_sets
from wootz.passes.pruning.map_table import MapTable
from wootz.passes.pruning.skipping import leave_out, skip_fault


def materialize(model: Model, plan: PruningPlan) -> Model:
    """The pruned network: `model` without the filters that `plan` removes, and without everything that hung on them.

    An Identity stands for each module that the plan leaves out. Tensors keep their names. Arrays that nothing is
    removed from are shared with `model`. The keep-sets are stored in the metadata.
    Raises WootzError for a plan that doesn't fit the model.
    """
    return Materializer.of(model).materialize(plan)


OF_WEIGHTS = {"Transpose", "QuantizeLinear", "DequantizeLinear"}
"""Operators that weights lie behind as they do before."""


@dataclass(frozen=True, eq=False)
class Materializer:
    """Prunes one model by many plans: it is analysed once, and equal slices of a weight are made once and shared."""

    model: Model
    analysis: ChannelAnalysis
    maps: MapTable
    _slices: dict[tuple[int | bytes, ...], np.ndarray] = field(default_factory=dict, repr=False)

    @staticmethod
    def of(model: Model, analysis: ChannelAnalysis | None = None) -> Materializer:
        """The materializer for `model`; `analysis` saves analysing it again."""
        analysis = analysis or analyse_channels(model)
        return Materializer(model, analysis, MapTable.of(analysis))

    def with_weights(self, model: Model) -> Materializer:
        """The materializer for `model`, which differs in its weights alone."""
        return Materializer(model, self.analysis, self.maps)

    def materialize(self, plan: PruningPlan) -> Model:
        """See the function `materialize`."""
        kept = kept_atoms(self.analysis, plan)
        lossy = self.maps.lossy(kept)
        pruned = self.model.copy()
        surgery = _Surgery(pruned.graph, self.analysis, self._masks(lossy))
        surgery.replace_parameters(self._sliced_parameters(kept, lossy))
        surgery.cut_uniform_operands(kept)
        surgery.replace_permutations()
        surgery.restate_shapes()
        self._restate_computed(surgery)
        surgery.annotate()
        keep_sets = plan.keep_sets(stored_keep_sets(self.model.metadata))
        if plan.skipped:
            self._require_passable(plan, kept)
            leave_out(pruned.graph, plan.skipped)
            gone = surgery.erased_layers()
            keep_sets = {layer: keep for layer, keep in keep_sets.items() if layer not in gone}
        return replace(pruned, metadata=with_keep_sets(pruned.metadata, keep_sets))

    def _require_passable(self, plan: PruningPlan, kept: np.ndarray) -> None:
        """Raises WootzError where what goes into a module that is left out can't stand for what came out of it."""
        for module in plan.skipped:
            ends = (self.analysis.maps.get(tensor) for tensor in (module.entry, module.exit))
            entry, exit_ = np.broadcast_arrays(*(True if labels is None else kept[labels] for labels in ends))
            fault = skip_fault(self.model, module, self.analysis.shapes)
            if not fault and not np.array_equal(entry, exit_):
                fault = f"{module.entry!r} and {module.exit!r} keep different channels"
            if fault:
                raise WootzError(f"the plan leaves out module {module.name!r}: {fault}")

    def narrowed(
        self, weights: Mapping[str, np.ndarray], before: PruningPlan, after: PruningPlan
    ) -> dict[str, np.ndarray]:
        """Weights by name, those of a network pruned by `before`, as they are in one pruned by `after`, which keeps
        nothing that `before` removes."""
        kept_before, kept_after = kept_atoms(self.analysis, before), kept_atoms(self.analysis, after)
        narrow: dict[str, np.ndarray] = {}
        for use in self.analysis.parameters:
            if use.constant in weights and use.constant not in narrow:
                elements = np.arange(self._constants[use.constant].size).reshape(self._constants[use.constant].shape)
                had, has = (
                    slice_parameter(elements, use, [kept[labels] for labels in use.maps])
                    for kept in (kept_before, kept_after)
                )
                order = np.argsort(had, axis=None)
                places = order[np.searchsorted(had.ravel(), has.ravel(), sorter=order)]
                narrow[use.constant] = weights[use.constant].ravel()[places].reshape(has.shape)
        return {**weights, **narrow}

    @cached_property
    def _constants(self) -> Mapping[str, np.ndarray]:
        return parameter_values(self.model.graph, self.analysis.computed)

    def _masks(self, lossy: Mapping[int, np.ndarray]) -> dict[str, np.ndarray]:
        """What stays of the tensors that lose something, shaped as their maps."""
        maps = self.analysis.maps
        return {n: lossy[row].reshape(maps[n].shape) for n, row in self.maps.of_tensors.items() if row in lossy}

    def _restate_computed(self, surgery: _Surgery) -> None:
        """Operands that are computed from numbers of channels come to what they have to be.

        That is what they were, or what states the channels that are left. Left alone is what comes to it by itself;
        what depends on no symbolic dimension becomes a constant. In the others the elements that are wrong are
        replaced, if need be after every Shape and Size is made to give what it gave before.
        """
        wrong = surgery.wrong_values(self.model.graph)
        has_symbolic = any(self._is_symbolic(w.tensor)[w.elements].any() for w in wrong)
        if has_symbolic or surgery.gives_away_extents(self.model.graph):
            surgery.restore_extents()
            wrong = surgery.wrong_values(self.model.graph)
        for value in wrong:
            surgery.correct(value, self._is_symbolic(value.tensor))

    def _is_symbolic(self, tensor: str) -> np.ndarray:
        """Which elements of a computed value depend on a symbolic dimension: bool, of the value's shape."""
        value, other = self.analysis.values[tensor], self._other_values.get(tensor)
        if other is None or other.shape != value.shape:
            return np.ones(value.shape, bool)
        return np.asarray(other != value)

    @cached_property
    def _other_values(self) -> Mapping[str, np.ndarray]:
        """The values with symbolic dimensions bound to other sizes; empty where none fit."""
        if has_static_inputs(self.model):
            return self.analysis.values
        other = other_static_shapes(self.model)
        return {} if other is None else other.values

    def _sliced_parameters(self, kept: np.ndarray, lossy: Mapping[int, np.ndarray]) -> dict[int, np.ndarray]:
        """The new values of the parameter uses (by position) that lose something."""
        content = {row: mask.tobytes() for row, mask in lossy.items()}
        sliced: dict[int, np.ndarray] = {}
        for i, rows in enumerate(self.maps.of_parameters):
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
        if layer is None and entry.locked is not None and not entry.is_pruned:
            continue  # of a convolution that the analysis doesn't follow
        if layer is None:
            raise WootzError(f"the plan prunes a layer {entry.layer!r} that the model doesn't have")
        if layer.size != entry.filters:
            raise WootzError(f"the plan is for {entry.filters} filters in {entry.layer!r}; the model has {layer.size}")
        if entry.is_pruned:
            kept[layer.atoms] = False
            kept[layer.atoms[entry.indices]] = True
    _check_channels(analysis, kept[:-1])
    kept_channels = np.ones(len(analysis.channel_of), bool)
    kept_channels[analysis.channel_of[~kept[:-1]]] = False
    return np.append(kept_channels[analysis.channel_of], True)


def _check_channels(analysis: ChannelAnalysis, kept: np.ndarray) -> None:
    """Atoms of no layer follow those of layers; these have to agree."""
    atoms = np.concatenate([np.zeros(0, np.int32), *(layer.atoms for layer in analysis.layers)])
    removed = np.zeros(len(analysis.channel_of), bool)
    removed[analysis.channel_of[atoms[~kept[atoms]]]] = True
    torn = atoms[kept[atoms] & removed[analysis.channel_of[atoms]]]
    if torn.size:
        tied = atoms[~kept[atoms] & (analysis.channel_of[atoms] == analysis.channel_of[torn[0]])]
        one, other = _owner(analysis, int(torn[0])), _owner(analysis, int(tied[0]))
        raise WootzError(f"the plan keeps a filter of {one!r} and removes one of {other!r} that is tied to it")
    lost = np.flatnonzero(~kept & analysis.locked)
    if lost.size:
        reason = analysis.locks[int(analysis.channel_of[lost[0]])]
        raise WootzError(f"the plan removes a locked filter of {_owner(analysis, int(lost[0]))!r}: {reason}")


def _owner(analysis: ChannelAnalysis, atom: int) -> str:
    return next(layer.name for layer in analysis.layers if atom in layer.atoms)


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


@dataclass(frozen=True, eq=False)
class _WrongValue:
    """A computed operand whose value, where symbolic dimensions are bound, has to be another than it is.

    `elements` flags those that differ; `actual` is None where it has another shape than it has to have.
    """

    node: int
    operand: int
    tensor: str
    actual: np.ndarray | None
    required: np.ndarray

    @property
    def elements(self) -> np.ndarray:
        if self.actual is None:
            return np.ones(self.required.shape, bool)
        return np.asarray(self.actual != self.required)


class _Surgery:
    """The changes to one graph, a copy of the one that was analysed: its nodes are in the same order."""

    def __init__(self, graph: Graph, analysis: ChannelAnalysis, masks: Mapping[str, np.ndarray]):
        """`masks` say what stays of each tensor that loses something."""
        self.graph = graph
        self.analysis = analysis
        self.masks = masks
        self.nodes = list(graph.nodes)
        self.replaced: set[int] = set()
        self.required: dict[tuple[int, int], np.ndarray] = {}
        self.extents_are_restored = False

    def value(self, tensor: Tensor) -> np.ndarray:
        """The value of a shape operand that the analysis knew."""
        return tensor.values if isinstance(tensor, Constant) else self.analysis.values[tensor.name]

    def given(self, node: Node, operand: int, default: np.ndarray) -> np.ndarray:
        """The value of a shape operand, or what stands for it where it is omitted."""
        is_there = operand < len(node.inputs) and not node.inputs[operand].is_empty()
        return self.value(node.inputs[operand]) if is_there else default

    def kept_line(self, tensor: str, axis: int) -> np.ndarray:
        """Where along an axis anything is left: bool[extent]."""
        if tensor not in self.masks:
            return np.ones((self.analysis.shapes[tensor] or ())[axis], bool)
        mask = self.masks[tensor]
        return np.asarray(mask.any(axis=tuple(a for a in range(mask.ndim) if a != axis)))

    def count(self, tensor: str, axis: int) -> int:
        return len(_kept_along(self.masks[tensor], axis))

    def replace_parameters(self, sliced: Mapping[int, np.ndarray]) -> None:
        """A constant is changed in place when all that read it agree; otherwise each of them gets a copy."""
        direct: dict[str, list[tuple[Node, int, np.ndarray]]] = {}
        computed: dict[str, list[tuple[Node, int, np.ndarray]]] = {}
        for i, values in sliced.items():
            use = self.analysis.parameters[i]
            node = self.nodes[use.node]
            self._forget_shapes(node)
            tensor = node.inputs[use.operand]
            (direct if isinstance(tensor, Constant) else computed).setdefault(tensor.name, []).append(
                (node, use.operand, values)
            )
        for uses in direct.values():
            self._replace_constant(uses)
        for uses in computed.values():
            self._replace_computed(uses)

    def _forget_shapes(self, node: Node) -> None:
        """Of what is computed from a weight, which has no index map: they are inferred anew."""
        if node.op in OF_WEIGHTS and node.outputs[0].name not in self.masks:
            node.outputs[0].shape = None
            for reader in node.outputs[0].outputs:
                self._forget_shapes(reader)

    def _replace_constant(self, uses: Sequence[tuple[Node, int, np.ndarray]]) -> None:
        """Gives the operands that are one constant their new values: under its name, by which weights are handed on,
        and the old ones under a new name where something else reads them."""
        node, operand, values = uses[0]
        tensor = node.inputs[operand]
        is_output = any(tensor is t for t in self.graph.outputs)
        if is_output or not all(np.array_equal(values, other) for *_, other in uses[1:]):
            for node, operand, values in uses:
                node.inputs[operand] = Constant(self._fresh(tensor.name), values)
            return
        if len(tensor.outputs) != len(uses):
            whole = Constant(self._fresh(tensor.name), tensor.values)
            sliced = {(id(node), operand) for node, operand, _ in uses}
            for reader in list(tensor.outputs):
                for place in [i for i, t in enumerate(reader.inputs) if t is tensor and (id(reader), i) not in sliced]:
                    reader.inputs[place] = whole
        tensor.values = values

    def _replace_computed(self, uses: Sequence[tuple[Node, int, np.ndarray]]) -> None:
        """Puts constants in the place of what was computed from constants, under its name if all uses agree."""
        node, operand, values = uses[0]
        tensor = node.inputs[operand]
        is_whole = len(tensor.outputs) == len(uses) and not any(tensor is t for t in self.graph.outputs)
        if is_whole and all(np.array_equal(values, other) for *_, other in uses[1:]):
            constant = Constant(tensor.name, values)
            for node, operand, _ in uses:
                node.inputs[operand] = constant
        else:
            for node, operand, values in uses:
                node.inputs[operand] = Constant(self._fresh(tensor.name), values)
        erase_unread(self.graph, tensor)

    def cut_uniform_operands(self, kept: np.ndarray) -> None:
        """What is the same all along the channels is cut to as many as are left."""
        for use in reversed(self.analysis.uniform_uses):  # the last operand first: some are dropped
            mask = kept[use.labels]
            if mask.all():
                continue
            node, tensor = self.nodes[use.node], self.nodes[use.node].inputs[use.operand]
            counts = [len(_kept_along(mask, axis)) for axis in use.axes]
            if 0 in counts:  # a part of a Concat
                node.inputs.pop(use.operand)
                erase_unread(self.graph, tensor)
                continue
            bounds = {"starts": [0] * len(counts), "ends": counts, "axes": use.axes}
            constants = [
                Constant(self._fresh(f"{tensor.name}_{name}"), np.asarray(v, np.int64)) for name, v in bounds.items()
            ]
            node.inputs[use.operand] = self._insert(node, "Slice", [tensor, *constants], f"{tensor.name}_cut")

    def _insert(
        self, before: Node | None, op: str, operands: Sequence[Tensor], hint: str, **attributes: int
    ) -> Variable:
        """A new node just before another, or at the end; gives its result."""
        name = self._fresh(hint)
        result = Variable(name, operands[-1].dtype if op == "Where" else operands[0].dtype)
        insert_nodes(self.graph, [Node(op, name, attributes, list(operands), [result])], before)
        return result

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
        operands = [entry, self._builder.constant(indices, f"{exit_.name}_channels")]
        gathered = self._insert(last, "Gather", operands, f"{exit_.name}_gather", axis=permutation.axis)
        computed_for_it = list(last.inputs)
        replace_node(last, [gathered])
        erase_nodes(self.graph, [last])
        erase_unread(self.graph, *computed_for_it)

    def restate_shapes(self) -> None:
        """Writes shape operands and attributes with the new numbers of channels."""
        for use in self.analysis.shape_uses:
            node = self.nodes[use.node]
            touched = {t.name for t in [*node.inputs, *node.outputs]} & self.masks.keys()
            if touched and use.node not in self.replaced:
                _RESTATEMENTS[use.kind](self, node, use)

    def set_shape_operand(self, node: Node, operand: int, values: np.ndarray, hint: str) -> None:
        """Gives an operand that states numbers of channels another value; one that is computed is noted for later."""
        values = np.asarray(values, np.int64)
        if operand < len(node.inputs) and node.inputs[operand].name in self.analysis.values:
            self.required[self._position[id(node)], operand] = values
            return
        while len(node.inputs) <= operand:
            node.inputs.append(Constant(self._fresh(hint), values))
        tensor = node.inputs[operand]
        if isinstance(tensor, Constant) and len(tensor.outputs) == 1:
            tensor.values = values
        else:
            node.inputs[operand] = Constant(self._fresh(hint), values)
            erase_unread(self.graph, tensor)

    @cached_property
    def _position(self) -> Mapping[int, int]:
        return {id(node): i for i, node in enumerate(self.nodes)}

    @cached_property
    def _changed_shapes(self) -> dict[str, tuple[int, ...]]:
        """The new shapes of the tensors that lose channels."""
        changed = {}
        for name in self.masks:
            shape = list(self.analysis.shapes[name] or ())
            for axis in varying_axes(self.masks[name]):
                shape[axis] = self.count(name, axis)
            changed[name] = tuple(shape)
        return changed

    def _values_after(self, original: Graph) -> Mapping[str, np.ndarray | None]:
        """What the values that have changed come to."""
        if self.extents_are_restored:
            return {}
        return StaticShapes(self.analysis.shapes, self.analysis.values).values_after(original, self._changed_shapes)

    def wrong_values(self, original: Graph) -> list[_WrongValue]:
        """The computed operands that come to something else than they have to."""
        values = self.analysis.values
        after = self._values_after(original)
        wrong = []
        living = {id(node) for node in self.graph.nodes}
        for position, node in enumerate(self.nodes):
            is_computed = bool(node.outputs) and node.outputs[0].name in values
            if position in self.replaced or is_computed or id(node) not in living:
                continue
            for operand, tensor in enumerate(node.inputs):
                if tensor.name not in values or producer(tensor) is None:
                    continue
                required = self.required.get((position, operand), values[tensor.name])
                actual = after.get(tensor.name, values[tensor.name])
                if actual is None or not np.array_equal(actual, required):
                    fits = actual is not None and actual.shape == required.shape
                    wrong.append(_WrongValue(position, operand, tensor.name, actual if fits else None, required))
        return wrong

    def gives_away_extents(self, original: Graph) -> bool:
        """Whether an output of the network, or a subgraph, reads a value that has changed."""
        after = self._values_after(original)
        captured = (t for node in self.graph.nodes for t in captured_tensors(node))
        return any(t.name in after for t in (*self.graph.outputs, *captured))

    def restore_extents(self) -> None:
        """Makes every Shape and Size of a tensor that lost channels give what it gave before."""
        for node in [n for n in self.graph.nodes if n.op in ("Shape", "Size")]:
            name, result = node.inputs[0].name, node.outputs[0]
            if name not in self._changed_shapes:
                continue
            old, new = (np.asarray(s, np.int64) for s in (self.analysis.shapes[name], self._changed_shapes[name]))
            raw = Variable(self._fresh(f"{result.name}_left"), np.int64)
            node.outputs = [raw]
            place = next(i for i, n in enumerate(self.graph.nodes) if n is node)
            behind = self.graph.nodes[place + 1] if place + 1 < len(self.graph.nodes) else None
            if node.op == "Size":
                restored = self._scaled(behind, raw, old.prod(), new.prod())
            else:
                part = slice(node.attrs.get("start", 0), node.attrs.get("end"))
                restored = self._with_elements(behind, raw, (old != new)[part], old[part])
            compute_as(restored, result)
        self.extents_are_restored = True

    def correct(self, wrong: _WrongValue, symbolic: np.ndarray) -> None:
        """Makes an operand what it has to be."""
        node = self.nodes[wrong.node]
        tensor = node.inputs[wrong.operand]
        if not symbolic.any() or wrong.actual is None:
            node.inputs[wrong.operand] = Constant(self._fresh(f"{wrong.tensor}_stated"), wrong.required)
        else:
            fixed, scaled = wrong.elements & ~symbolic, wrong.elements & symbolic
            corrected = tensor
            if scaled.any():
                factor, divisor = (np.where(scaled, v, 1) for v in (wrong.required, wrong.actual))
                corrected = self._scaled(node, corrected, factor, divisor)
            if fixed.any():
                corrected = self._with_elements(node, corrected, fixed, wrong.required)
            node.inputs[wrong.operand] = corrected
        erase_unread(self.graph, tensor)

    def _with_elements(self, before: Node | None, tensor: Tensor, chosen: np.ndarray, values: np.ndarray) -> Variable:
        """The tensor with `values` at the elements that are `chosen`."""
        operands = [
            Constant(self._fresh(f"{tensor.name}_{hint}"), v)
            for hint, v in (
                ("chosen", np.asarray(chosen)),
                ("values", np.where(chosen, values, 0).astype(values.dtype)),
            )
        ]
        return self._insert(before, "Where", [*operands, tensor], f"{tensor.name}_stated")

    def _scaled(self, before: Node | None, tensor: Tensor, factor: np.ndarray, divisor: np.ndarray) -> Variable:
        """The tensor of integers times `factor` by `divisor`, which has no remainder."""
        common = np.gcd(factor, divisor)
        constants = [
            Constant(self._fresh(f"{tensor.name}_{hint}"), np.asarray(v // common, np.int64))
            for hint, v in (("factor", factor), ("divisor", divisor))
        ]
        product = self._insert(before, "Mul", [tensor, constants[0]], f"{tensor.name}_product")
        return self._insert(before, "Div", [product, constants[1]], f"{tensor.name}_stated")

    def erased_layers(self) -> set[str]:
        """The layers whose nodes are no longer in the graph."""
        living = {id(node) for node in self.graph.nodes}
        return {layer.name for layer in self.analysis.layers if id(self.nodes[layer.node]) not in living}

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
    if output not in surgery.masks:
        return
    stated = surgery.value(node.inputs[1]).copy()
    offset = len(stated) - surgery.masks[output].ndim
    for axis in use.axes:
        if axis + offset >= 0 and stated[axis + offset] > 1:
            stated[axis + offset] = surgery.count(output, axis)
    surgery.set_shape_operand(node, 1, stated, f"{output}_shape")


def _restate_squeeze(surgery: _Surgery, node: Node, use: ShapeUse) -> None:
    """The axes that were of extent 1: one channel that is left is not among them."""
    surgery.set_shape_operand(node, 1, np.asarray(use.axes), f"{node.outputs[0].name}_axes")


def _restate_sizes(surgery: _Surgery, node: Node, use: ShapeUse) -> None:
    """Resize: the channel count in its output size."""
    if "axes" in node.attrs:
        return
    sizes = surgery.value(node.inputs[3]).copy()
    sizes[1] = surgery.count(node.inputs[0].name, 1)
    surgery.set_shape_operand(node, 3, sizes, f"{node.outputs[0].name}_sizes")


def _restate_pads(surgery: _Surgery, node: Node, use: ShapeUse) -> None:
    """How many of the channels that are added stay, or of those that are cut off."""
    (axis,) = use.axes
    source, result = node.inputs[0].name, node.outputs[0].name
    pads = surgery.value(node.inputs[1]).copy()
    rank = len(surgery.analysis.shapes[source] or ())
    axes = surgery.given(node, 3, np.arange(rank)) % rank
    place = axes.tolist().index(axis)
    for index, is_low in ((place, True), (place + len(axes), False)):
        width = int(pads[index])
        line = surgery.kept_line(result if width > 0 else source, axis)
        part = line[: abs(width)] if is_low else line[len(line) - abs(width) :]
        pads[index] = np.sign(width) * part.sum()
    surgery.set_shape_operand(node, 1, pads, f"{result}_pads")


def _restate_groups(surgery: _Surgery, node: Node, use: ShapeUse) -> None:
    groups = node.attrs["num_groups"]
    node.attrs["num_groups"] = int(surgery.kept_line(node.inputs[0].name, 1).reshape(groups, -1).any(1).sum())


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
    axes = surgery.given(node, 3, np.arange(len(starts)))
    steps = surgery.given(node, 4, np.ones_like(starts))
    mask = surgery.masks[node.inputs[0].name]
    if len(steps) == 1 and steps[0] != 1:
        _slice_as_gather(surgery, node, use.axes[0], slice(int(starts[0]), int(ends[0]), int(steps[0])))
        return
    for i, axis in enumerate(a % mask.ndim for a in axes):
        if axis in use.axes:
            line = surgery.kept_line(node.inputs[0].name, axis)
            before = np.concatenate([[0], np.cumsum(line)])
            start, end, _ = slice(int(starts[i]), int(ends[i])).indices(len(line))
            starts[i], ends[i] = before[start], before[max(start, end)]
    surgery.set_shape_operand(node, 1, starts, f"{node.outputs[0].name}_starts")
    surgery.set_shape_operand(node, 2, ends, f"{node.outputs[0].name}_ends")


def _slice_as_gather(surgery: _Surgery, node: Node, axis: int, part: slice) -> None:
    """Every n-th channel, of which some are gone."""
    line = surgery.kept_line(node.inputs[0].name, axis)
    taken = np.arange(len(line))[part]
    indices = (np.cumsum(line) - 1)[taken[line[taken]]].astype(np.int64)
    bounds = list(node.inputs[1:])
    node.op, node.attrs = "Gather", {"axis": axis}
    node.inputs = [node.inputs[0], Constant(surgery._fresh(f"{node.outputs[0].name}_channels"), indices)]
    erase_unread(surgery.graph, *bounds)


def _restate_gather(surgery: _Surgery, node: Node, use: ShapeUse) -> None:
    (axis,) = use.axes
    mask = first_along(surgery.masks[node.inputs[0].name], axis)
    indices = surgery.value(node.inputs[1]) % len(mask)
    kept = indices[mask[indices]] if indices.ndim else indices
    surgery.set_shape_operand(node, 1, (np.cumsum(mask) - 1)[kept], f"{node.outputs[0].name}_channels")


def _restate_slices(surgery: _Surgery, node: Node, use: ShapeUse) -> None:
    """GatherND of whole slices: int64[n, 1]."""
    line = surgery.kept_line(node.inputs[0].name, 0)
    indices = surgery.value(node.inputs[1])[:, 0] % len(line)
    kept = (np.cumsum(line) - 1)[indices[line[indices]]]
    surgery.set_shape_operand(node, 1, kept[:, None], f"{node.outputs[0].name}_channels")


_RESTATEMENTS = {
    "group": _restate_group,
    "Reshape": _restate_shape,
    "Expand": _restate_shape,
    "Squeeze": _restate_squeeze,
    "Resize": _restate_sizes,
    "Pad": _restate_pads,
    "GroupNormalization": _restate_groups,
    "Split": _restate_split,
    "Slice": _restate_slice,
    "Gather": _restate_gather,
    "GatherND": _restate_slices,
}
