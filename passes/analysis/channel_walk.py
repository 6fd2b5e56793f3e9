"""The state of the channel analysis while it walks a graph: what the rules read and what they note."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from wootz.passes.analysis.index_maps import NO_ATOM, along, empty_map, first_along, varying_axes
from wootz.passes.analysis.static_shapes import StaticShapes
from wootz.passes.ir.model import Constant, Graph, Node, Tensor, captured_tensors, constant_behind, producer


@dataclass(frozen=True, eq=False)
class Layer:
    """A node with filters of its own: a convolution or a fully connected layer.

    `atoms` are its filters in order: int[filters]. `weight` names the constant that holds them along `filter_axis`
    (for a grouped ConvTranspose, along that axis in each group); `node` counts from 0 in the graph's order.
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
    """A constant operand that is indexed by channels.

    `maps` are broadcastable to the constant's shape; an element stays when the atoms that all maps give it stay. With
    `groups` > 1 it is the weight of a grouped convolution: the maps are int[groups, n] for its first two axes.
    """

    node: int
    operand: int
    constant: str
    maps: tuple[np.ndarray, ...]
    groups: int = 1


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
        self.partitions: list[np.ndarray] = []
        self.never_empty: list[np.ndarray] = []
        self.shape_sources: dict[str, set[str]] = {}
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

    def note_shape_computation(self, node: Node) -> None:
        """Remembers which labelled tensors' shapes a value was computed from."""
        sources = {name for t in node.inputs for name in self.shape_sources.get(t.name, ())}
        if node.op in ("Shape", "Size") and self.is_labelled(node.inputs[0]):
            sources.add(node.inputs[0].name)
        if sources:
            self.shape_sources[node.outputs[0].name] = sources

    def lock_shape_sources(self, node: Node, operands: Iterable[int]) -> None:
        """Locks the channels whose number `node` computes with, as operands at these positions."""
        for i in operands:
            for name in self.shape_sources.get(node.inputs[i].name, ()):
                self.lock(self.maps[name], f"{self.where(node)} computes with the shape of {name!r}")

    def map(self, tensor: Tensor) -> np.ndarray:
        """The tensor's index map; its shape has to be known."""
        found = self.maps.get(tensor.name)
        return empty_map(len(self.shape(tensor) or ())) if found is None else found

    def is_labelled(self, tensor: Tensor) -> bool:
        return tensor.name in self.maps

    def set_map(self, tensor: Tensor, labels: np.ndarray) -> None:
        if not tensor.is_empty() and (labels >= 0).any():
            self.maps[tensor.name] = labels

    def channels(self, tensor: Tensor, axis: int) -> np.ndarray:
        """The atoms along `axis`, int[extent]; atoms at equal positions of it are tied."""
        labels = self.map(tensor)
        line = first_along(labels, axis)
        if any(a != axis for a in varying_axes(labels)):
            self.tie(labels, along(line, axis, labels.ndim), "differs in whether it can be pruned along other axes")
        shape = self.shape(tensor)
        extent = shape[axis] if shape else len(line)
        return line if len(line) == extent else np.repeat(line, extent)

    def tie(self, a: np.ndarray, b: np.ndarray, reason: str) -> None:
        """Unites the atoms that meet; one that meets no atom is locked for `reason`."""
        a, b = np.broadcast_arrays(a, b)
        both = (a >= 0) & (b >= 0)
        if both.all():
            self.ties.append((a, b))
            return
        self.ties.append((a[both], b[both]))
        self.lock(np.where(both, NO_ATOM, np.maximum(a, b)), reason)

    def lock(self, labels: np.ndarray, reason: str) -> None:
        atoms = labels[labels >= 0]
        if atoms.size:
            self.locks.append((atoms, reason))

    def lock_inputs(self, node: Node, reason: str) -> None:
        for tensor in (*node.inputs, *captured_tensors(node)):
            if self.is_labelled(tensor):
                self.lock(self.maps[tensor.name], reason)

    def new_layer(
        self, node: Node, size: int, weight: Tensor, filter_axis: int, kind: str, groups: int = 1
    ) -> np.ndarray:
        """Fresh atoms for the filters of `node`: int[size]."""
        atoms = np.arange(self.atoms, self.atoms + size, dtype=np.int32)
        self.atoms += size
        position = self.position(node)
        self.layers.append(Layer(self.names[position], position, kind, weight.name, filter_axis, groups, atoms))
        return atoms

    def parameter(self, tensor: Tensor) -> Constant | None:
        """The constant that an operand is; None for one that is computed."""
        return constant_behind(tensor)

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
        """Notes that a constant operand is indexed by channels. One that is computed locks them."""
        tensor = node.inputs[operand]
        constant = self.parameter(tensor)
        if constant is None:
            for labels in maps:
                self.lock(labels, f"{self.where(node)} has a computed parameter {tensor.name!r} (try fold-constants)")
            return
        self.parameters.append(ParameterUse(self.position(node), operand, constant.name, maps, groups))

    def note_shape(self, node: Node, kind: str, axes: tuple[int, ...] = ()) -> None:
        self.shape_uses.append(ShapeUse(self.position(node), kind, axes))
