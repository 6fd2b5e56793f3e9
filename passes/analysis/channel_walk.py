"""The state of the channel analysis while it walks a graph: what the rules read and what they note."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from wootz.passes.analysis.computed_constants import ComputedConstants
from wootz.passes.analysis.index_maps import NO_ATOM, distinct_pairs, empty_map, first_along, varying_axes
from wootz.passes.analysis.static_shapes import StaticShapes
from wootz.passes.ir.model import Constant, Graph, Node, Tensor, captured_tensors, producer


@dataclass(frozen=True, eq=False)
class Layer:
    """A node with filters of its own: a convolution or a fully connected layer.

    `atoms` are its filters in order: int[filters]. `weight` names the constant, or what is computed from constants,
    that holds them along `filter_axis` (for a grouped ConvTranspose, along that axis in each group); `node` counts
    from 0 in the graph's order.
    """

    name: str
    node: int
    kind: str
    weight: str
    filter_axis: int
    groups: int
    atoms: np.ndarray

    @property
    def size(self) -> int:
        """The number of filters."""
        return len(self.atoms)

    @property
    def is_convolution(self) -> bool:
        """False for fully connected layers."""
        return self.kind != "linear"


@dataclass(frozen=True, eq=False)
class ParameterUse:
    """A constant operand, or one that is computed from constants, that is indexed by channels.

    `maps` are broadcastable to the constant's shape; an element stays when the atoms that all maps give it stay. With
    `groups` > 1 it is the weight of a grouped convolution: the maps are int[groups, n] for its first two axes.
    """

    node: int
    operand: int
    constant: str
    maps: tuple[np.ndarray, ...]
    groups: int = 1


@dataclass(frozen=True, eq=False)
class UniformUse:
    """An operand that is the same at all places along some axes, where it has to be as long as the channels it meets.

    `labels` is the operand's index map, which varies along `axes` alone.
    """

    node: int
    operand: int
    labels: np.ndarray
    axes: tuple[int, ...]


@dataclass(frozen=True)
class ShapeUse:
    """An operand or attribute that states a number of channels and has to be written anew after pruning.

    `kind` is the operator, or "group" for the group count of a depthwise convolution; `axes` are the axes concerned.
    """

    node: int
    kind: str
    axes: tuple[int, ...] = ()


class ChannelWalk:
    """Index maps of the tensors walked so far, and everything noted about their atoms."""

    def __init__(self, graph: Graph, static: StaticShapes, names: Mapping[int, str]):
        self.graph = graph
        self.static = static
        self.names = names
        self.maps: dict[str, np.ndarray] = {}
        self.atoms = 0
        self.ties: list[tuple[np.ndarray, np.ndarray]] = []
        self.locks: list[tuple[np.ndarray, str]] = []
        self.layers: list[Layer] = []
        self.parameters: list[ParameterUse] = []
        self.shape_uses: list[ShapeUse] = []
        self.uniform_uses: list[UniformUse] = []
        self.partitions: list[np.ndarray] = []
        self.never_empty: list[np.ndarray] = []
        self.uniform: dict[str, frozenset[int]] = {}
        self.constants = ComputedConstants(graph)
        self._positions = {id(node): i for i, node in enumerate(graph.nodes)}

    def position(self, node: Node) -> int:
        return self._positions[id(node)]

    def where(self, node: Node) -> str:
        """How a reason names a node."""
        return f"{node.op} {self.names[self.position(node)]!r}"

    def shape(self, tensor: Tensor) -> tuple[int, ...] | None:
        if isinstance(tensor, Constant):
            return tuple(tensor.shape)
        return self.static.shapes.get(tensor.name)

    def value(self, tensor: Tensor) -> np.ndarray | None:
        """What is known of a shape operand's value."""
        return self.static.value(tensor)

    def is_shape_computation(self, node: Node) -> bool:
        """Whether the node's result is known from shapes alone."""
        return node.outputs[0].name in self.static.values

    def uniform_axes(self, tensor: Tensor) -> frozenset[int]:
        """The axes along which a computed tensor is known to be the same at all places."""
        return self.uniform.get(tensor.name, frozenset())

    def map(self, tensor: Tensor) -> np.ndarray:
        """The tensor's index map; its shape has to be known."""
        found = self.maps.get(tensor.name)
        return empty_map(len(self.shape(tensor) or ())) if found is None else found

    def is_labelled(self, tensor: Tensor) -> bool:
        return tensor.name in self.maps

    def set_map(self, tensor: Tensor, labels: np.ndarray) -> None:
        if not tensor.is_empty() and (labels >= 0).any():
            self.maps[tensor.name] = labels

    def channels(self, node: Node, tensor: Tensor, axis: int) -> np.ndarray:
        """The atoms along `axis` of an operand of `node`, int[extent]; atoms at equal positions of it are tied."""
        labels = self.map(tensor)
        others = [a for a in varying_axes(labels) if a != axis]
        if others:
            labels = self.collapse(
                labels, others, f"{self.where(node)} couples neighbouring channels: removing one isn't zeroing it"
            )
        line = first_along(labels, axis)
        shape = self.shape(tensor)
        extent = shape[axis] if shape else len(line)
        return line if len(line) == extent else np.repeat(line, extent)

    def collapse(self, labels: np.ndarray, axes: Sequence[int], reason: str) -> np.ndarray:
        """The map without its differences along `axes`: atoms that differ there alone are tied.

        Where the map varies along no other axis all would be tied to each other: they are locked for `reason`.
        """
        first = labels[tuple(slice(0, 1) if a in axes else slice(None) for a in range(labels.ndim))]
        if not varying_axes(first):
            self.lock(labels, reason)
            return np.full_like(first, NO_ATOM)
        self.tie(labels, first, "differs in whether it can be pruned along other axes")
        return first

    def tie(self, a: np.ndarray, b: np.ndarray, reason: str) -> None:
        """Unites the atoms that meet; one that meets no atom is locked for `reason`."""
        a, b = np.broadcast_arrays(a, b)
        both = (a >= 0) & (b >= 0)
        self.ties.append(distinct_pairs(self.atoms, a[both], b[both]))
        if both.all():
            return
        self.lock(np.where(both, NO_ATOM, np.maximum(a, b)), reason)

    def lock(self, labels: np.ndarray, reason: str) -> None:
        atoms = labels[labels >= 0]
        if atoms.size:
            self.locks.append((atoms, reason))

    def lock_inputs(self, node: Node, reason: str) -> None:
        for tensor in (*node.inputs, *captured_tensors(node)):
            if self.is_labelled(tensor):
                self.lock(self.maps[tensor.name], reason)

    def new_atoms(self, size: int) -> np.ndarray:
        """Fresh atoms, int[size]. Those that no layer has are removed with the filters that they are tied to."""
        self.atoms += size
        return np.arange(self.atoms - size, self.atoms, dtype=np.int32)

    def new_layer(
        self, node: Node, size: int, weight: Tensor, filter_axis: int, kind: str, groups: int = 1
    ) -> np.ndarray:
        """Fresh atoms for the filters of `node`: int[size]."""
        atoms = self.new_atoms(size)
        position = self.position(node)
        self.layers.append(Layer(self.names[position], position, kind, weight.name, filter_axis, groups, atoms))
        return atoms

    def parameter(self, tensor: Tensor) -> Constant | None:
        """The constant that an operand is, or that is computed for it; None for one that depends on the input."""
        return self.constants.constant(tensor)

    def matrix(self, node: Node, operand: int) -> tuple[Node, int, Constant, bool] | None:
        """Where a matrix operand is a constant: the node and operand, the constant, and whether it is transposed on
        the way (exporters leave the Transpose of a fully connected layer's weight in the graph)."""
        before = producer(node.inputs[operand])
        is_transposed = before is not None and before.op == "Transpose" and len(node.inputs[operand].outputs) == 1
        if before is not None and is_transposed:
            node, operand = before, 0
        constant = self.parameter(node.inputs[operand])
        if constant is None or len(constant.shape) != 2:
            return None
        return node, operand, constant, is_transposed and list(node.attrs.get("perm", [1, 0])) == [1, 0]

    def use(self, node: Node, operand: int, *maps: np.ndarray, groups: int = 1) -> None:
        """Notes that a constant operand is indexed by channels. One that depends on the input locks them."""
        tensor = node.inputs[operand]
        before = producer(tensor)
        constant = self.parameter(tensor)
        if constant is None:
            for labels in maps:
                self.lock(labels, f"{self.where(node)} has a computed parameter {tensor.name!r} (try fold-constants)")
        elif before is not None and self._is_quantized_alone(before) and groups == 1:
            self._use_quantized(before, constant.values.ndim, maps)
        else:
            self.parameters.append(ParameterUse(self.position(node), operand, constant.name, maps, groups))

    def _is_quantized_alone(self, node: Node) -> bool:
        """Whether it quantises or restores a weight that nothing else reads: others may not lose the same channels."""
        result = node.outputs[0]
        is_read_once = len(result.outputs) == 1 and all(result is not t for t in self.graph.outputs)
        return node.op in ("QuantizeLinear", "DequantizeLinear") and is_read_once

    def _use_quantized(self, node: Node, rank: int, maps: Sequence[np.ndarray]) -> None:
        """Notes what the operands of a QuantizeLinear or DequantizeLinear of constants are indexed by."""
        self.use(node, 0, *maps)
        axis = node.attrs.get("axis", 1)
        for operand in range(1, len(node.inputs)):
            if np.prod(self.shape(node.inputs[operand]) or ()) > 1:
                self.use(node, operand, *(first_along(m, axis % rank) for m in maps if m.shape[axis % rank] > 1))

    def use_uniform(self, node: Node, operand: int, labels: np.ndarray, axes: tuple[int, ...]) -> None:
        """Notes that an operand that is the same along `axes` has to be as long as what is left of `labels`."""
        self.uniform_uses.append(UniformUse(self.position(node), operand, labels, axes))

    def note_shape(self, node: Node, kind: str, axes: tuple[int, ...] = ()) -> None:
        self.shape_uses.append(ShapeUse(self.position(node), kind, axes))
