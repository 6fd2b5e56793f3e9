"""Where a variant of a network computes something else: what has changed, from where to where, and what lies behind."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from wootz.passes.analysis.cost import macs_of
from wootz.passes.analysis.segments import LAYERS
from wootz.passes.analysis.static_shapes import StaticShapes, static_shapes
from wootz.passes.errors import WootzError
from wootz.passes.ir.model import (
    Constant,
    Model,
    Node,
    Tensor,
    Variable,
    captured_tensors,
    first_result,
    is_constant,
    node_proto,
    subgraph_nodes,
)
from wootz.passes.ir.rewrite import cut_out
from wootz.passes.ir.shapes import infer_shapes


@dataclass(frozen=True, eq=False)
class ChangedRegion:
    """What a variant computes by nodes of its own: `branch`, a model from `entries` to `exits`, tensors by name.

    Entries are the same in the network. Exits have their shapes, and other values; from them and from tensors that are
    the same, `suffix`, nodes of the network by their first result, computes the output. `macs` are those of `branch`
    for one image. There are no exits where the variant is the network.
    """

    branch: Model
    entries: tuple[str, ...]
    exits: tuple[str, ...]
    suffix: frozenset[str]
    macs: int


@dataclass(frozen=True, eq=False)
class ComparedNetwork:
    """A network that variants are compared with, and of which pieces are cut out. It counts up to its outputs.

    A variant has the network's names. Nodes are the same where operator, attributes, names of operands and results,
    values of constants, and shapes of operands are. All nodes go by their first result. What doesn't depend on the
    input is no node of its own: as constants do, it belongs to each piece that reads it.
    """

    model: Model

    @property
    def input(self) -> str:
        """What takes the images, where the network has no other input."""
        return str(self.model.graph.inputs[0].name)

    @property
    def outputs(self) -> tuple[str, ...]:
        return tuple(str(t.name) for t in self.model.graph.outputs)

    @cached_property
    def nodes(self) -> Mapping[str, Node]:
        """Those that the outputs depend on, in order."""
        return {first_result(node): node for node in self.flow.nodes}

    @cached_property
    def maker(self) -> Mapping[str, str]:
        """The node that computes a tensor."""
        return {t.name: name for name, node in self.nodes.items() for t in node.outputs if not t.is_empty()}

    def reads(self, nodes: Collection[str]) -> tuple[str, ...]:
        """What nodes read that others compute, or the input."""
        return self.flow.reads_of_others([node for name, node in self.nodes.items() if name in nodes])

    def makes(self, nodes: Collection[str]) -> frozenset[str]:
        """All that nodes compute."""
        return frozenset(tensor for tensor, node in self.maker.items() if node in nodes)

    def macs(self, nodes: Collection[str]) -> int:
        """Multiply-accumulates for one image."""
        return macs_of((self.nodes[name] for name in nodes), self._static)

    def is_float(self, name: str) -> bool:
        """Whether a tensor has float32 elements along some axis."""
        tensor = self._tensors[name]
        return tensor.dtype == np.float32 and tensor.shape != []

    def piece(self, nodes: Collection[str], outputs: Iterable[str]) -> Model:
        """Nodes as a model of its own, from what they read to `outputs`, which depend on all of them."""
        inputs = {name: self._input(name) for name in self.reads(nodes)}
        return cut_out(self.model, inputs, {name: self._tensors[name] for name in outputs})

    def region_of(self, variant: Model) -> ChangedRegion:
        """What `variant` changes. Raises WootzError where its outputs have other names or shapes."""
        computed = tuple(t.name for t in variant.graph.outputs)
        if computed != self.outputs:
            raise WootzError(f"a variant computes {_listed(computed)}, the network {_listed(self.outputs)}")
        unlike: frozenset[str] = frozenset()
        while True:
            parted = _PartedVariant(self, variant, unlike)
            exits = {name: self._tensors[name] for name in parted.exits}
            branch = cut_out(variant, {name: self._input(name) for name in parted.entries}, exits)
            bound = cut_out(branch, {name: self._bound_input(name) for name in parted.entries}, exits)
            static = static_shapes(bound)
            others = {name for name in exits if not self._is_like(name, static)}
            if unlike_outputs := [name for name in self.outputs if name in others]:
                raise WootzError(f"a variant computes {unlike_outputs[0]!r} in another shape than the network")
            if not others:
                macs = macs_of(bound.graph.nodes, static)
                return ChangedRegion(branch, parted.entries, parted.exits, parted.suffix, macs)
            unlike |= others

    @cached_property
    def flow(self) -> DataFlow:
        return DataFlow(self.model)

    @cached_property
    def _tensors(self) -> Mapping[str, Tensor]:
        """All tensors with their types and shapes, by name."""
        graph = infer_shapes(self.model).graph
        return {t.name: t for t in graph.inputs} | graph.tensors()

    @cached_property
    def _static(self) -> StaticShapes:
        return static_shapes(self.model)

    def _is_like(self, name: str, static: StaticShapes) -> bool:
        """Whether what a variant computes can be read in place of a tensor of the network, as far as that is known."""
        depends_on_input = name in self.maker
        return depends_on_input and static.shapes.get(name) in (None, self._static.shapes.get(name))

    def _input(self, name: str) -> Variable:
        """An input in place of a tensor."""
        tensor = self._tensors[name]
        return Variable(name, tensor.dtype or np.dtype(np.float32), tensor.shape)

    def _bound_input(self, name: str) -> Tensor:
        """The same with the shape, or the value, that follows from the size of the images."""
        value = self._static.values.get(name)
        if value is not None:
            return Constant(name, value)
        shape = self._static.shapes.get(name)
        bound = self._input(name)
        bound.shape = bound.shape if shape is None else list(shape)
        return bound


class DataFlow:
    """What the outputs of a model depend on, in order: `nodes` that depend on the input, and `fixed_nodes` that
    don't. `by_result` has both by the first tensor that they compute.
    """

    def __init__(self, model: Model):
        needed = subgraph_nodes(model.graph.outputs)
        self.nodes: list[Node] = []
        self.fixed_nodes: list[Node] = []
        self._fixed: set[str] = set()
        self.by_result: dict[str, Node] = {}
        for node in (node for node in model.graph.nodes if id(node) in needed):
            self.by_result[first_result(node)] = node
            if self.reads(node):
                self.nodes.append(node)
            else:
                self.fixed_nodes.append(node)
                self._fixed.update(results(node))

    def reads(self, node: Node) -> set[str]:
        """The tensors that a node reads and that depend on the input."""
        return operands(node) - self._fixed

    def reads_of_others(self, nodes: Iterable[Node]) -> tuple[str, ...]:
        """The same of some nodes, without what they compute themselves."""
        nodes = list(nodes)
        made = {name for node in nodes for name in results(node)}
        return tuple(sorted({name for node in nodes for name in self.reads(node)} - made))


def _listed(names: Sequence[str]) -> str:
    return ", ".join(map(repr, names))


def operands(node: Node) -> set[str]:
    """The tensors that a node reads and that are no constants."""
    return {t.name for t in (*node.inputs, *captured_tensors(node)) if not is_constant(t) and not t.is_empty()}


def results(node: Node) -> list[str]:
    """The tensors that a node computes."""
    return [t.name for t in node.outputs if not t.is_empty()]


class _PartedVariant:
    """The nodes of a variant that depend on changed ones: its branch, and the suffix behind that, which is unchanged.

    Nodes that read a tensor of `unlike` count as changed. The branch takes in what is behind it as far as that is no
    layer and doesn't read what other nodes of the suffix read, too: a normalisation or a sum with a skip connection is
    computed best with the layer before it.
    """

    def __init__(self, network: ComparedNetwork, variant: Model, unlike: Collection[str]):
        self._network, self._flow = network, DataFlow(variant)
        changed = self._changed(unlike)
        dependent = self._depending_on(changed)
        branch = self._up_to(changed, dependent)
        branch |= self._behind(branch, dependent)
        nodes = [node for node in dependent if id(node) in branch]
        suffix = [node for node in dependent if id(node) not in branch]
        read_behind = {*network.outputs}.union(*map(self._flow.reads, suffix))
        self.entries = self._flow.reads_of_others(nodes)
        self.exits = tuple(name for node in nodes for name in results(node) if name in read_behind)
        self.suffix = frozenset(map(first_result, suffix))

    def _changed(self, unlike: Collection[str]) -> set[int]:
        """The nodes, by `id`, that aren't those of the network, or read constants that aren't."""
        twins = self._network.flow.by_result
        changed: set[int] = set()
        others = set(unlike)
        for node in (*self._flow.fixed_nodes, *self._flow.nodes):
            twin = twins.get(first_result(node))
            if twin is None or not _is_same(node, twin) or not operands(node).isdisjoint(others):
                changed.add(id(node))
                if not self._flow.reads(node):
                    others.update(results(node))
        return changed

    def _depending_on(self, changed: Collection[int]) -> list[Node]:
        """In order."""
        found: list[Node] = []
        tensors: set[str] = set()
        for node in self._flow.nodes:
            if id(node) in changed or not tensors.isdisjoint(self._flow.reads(node)):
                found.append(node)
                tensors.update(results(node))
        return found

    def _up_to(self, changed: Collection[int], dependent: Sequence[Node]) -> set[int]:
        """The changed nodes, and those that they depend on."""
        found: set[int] = set()
        read: set[str] = set()
        for node in reversed(dependent):
            if id(node) in changed or not read.isdisjoint(results(node)):
                found.add(id(node))
                read.update(self._flow.reads(node))
        return found

    def _behind(self, branch: Collection[int], dependent: Sequence[Node]) -> set[int]:
        """What the branch takes in."""
        suffix = [node for node in dependent if id(node) not in branch]
        readers = Counter([*self._network.outputs, *(name for node in suffix for name in self._flow.reads(node))])
        computed = {name for node in dependent for name in results(node)}
        made = {name for node in dependent if id(node) in branch for name in results(node)}
        found: set[int] = set()
        for node in suffix:
            reads = computed & self._flow.reads(node)
            alone = all(name in made and readers[name] == 1 for name in reads)
            if alone and node.op not in LAYERS and len(node.outputs) == 1:
                found.add(id(node))
                made.update(results(node))
        return found


def _is_same(node: Node, twin: Node) -> bool:
    """Whether two nodes compute the same of the same operands."""
    return (
        (node.op, node.domain or "") == (twin.op, twin.domain or "")
        and [t.name for t in node.outputs] == [t.name for t in twin.outputs]
        and len(node.inputs) == len(twin.inputs)
        and all(map(_is_same_operand, node.inputs, twin.inputs))
        and _has_same_attributes(node, twin)
    )


def _is_same_operand(tensor: Tensor, twin: Tensor) -> bool:
    if not (isinstance(tensor, Constant) and isinstance(twin, Constant)):
        return is_constant(tensor) == is_constant(twin) and bool(tensor.name == twin.name)
    values, others = tensor.values, twin.values
    if values is others:
        return True
    return values.dtype == others.dtype and values.shape == others.shape and values.tobytes() == others.tobytes()


def _has_same_attributes(node: Node, twin: Node) -> bool:
    if node.attrs.keys() == twin.attrs.keys() and all(value is twin.attrs[name] for name, value in node.attrs.items()):
        return True
    return bool(node_proto(node).attribute == node_proto(twin).attribute)
