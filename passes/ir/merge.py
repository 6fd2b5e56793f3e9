"""Several models as one, in which what they compute alike is computed once."""

from __future__ import annotations

import hashlib
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from wootz.passes.errors import WootzError
from wootz.passes.ir.model import Constant, Graph, Model, Node, Tensor, has_subgraphs, node_proto
from wootz.passes.ir.rewrite import disconnect


@dataclass(frozen=True)
class Merged:
    """`outputs` says for each of the models, in their order, which outputs of `model` its own ones are, by name."""

    model: Model
    outputs: tuple[Mapping[str, str], ...]


def merge(models: Sequence[Model]) -> Merged:
    """The models as one with the same inputs. Its nodes and constants are called `NUMBER/NAME` after the first model
    that has them.

    Nodes are the same where operator, attributes, constants and what they read are, so that models which begin alike
    share that beginning. Outputs that are the same are one. A single model stays as it is. Raises WootzError where the
    inputs of models differ, and for several models of which one has If, Loop or Scan.
    """
    if len(models) == 1:
        return Merged(models[0], ({t.name: t.name for t in models[0].graph.outputs},))
    graph: Graph = models[0].copy().graph
    merging = _Merging({t.name: t for t in graph.inputs})
    outputs = tuple(merging.add(str(number), model) for number, model in enumerate(models))
    graph.nodes = merging.nodes
    graph.outputs = [merging.tensors[name] for name in dict.fromkeys(n for of in outputs for n in of.values())]
    return Merged(replace(models[0], graph=graph, modules=(), metadata={}), outputs)


class _Merging:
    """What models have come to so far: `nodes` in order, `tensors` by name, inputs and constants among them."""

    def __init__(self, inputs: Mapping[str, Tensor]):
        self.nodes: list[Node] = []
        self.tensors = dict(inputs)
        self._inputs = dict(inputs)
        self._known: dict[Hashable, Node] = {}
        self._constants: dict[Hashable, Constant] = {}
        self._contents: dict[int, tuple[np.ndarray, Hashable]] = {}

    def add(self, prefix: str, model: Model) -> Mapping[str, str]:
        """What the outputs of `model` are called here."""
        graph = model.copy().graph
        if has_subgraphs(graph):
            raise WootzError("If, Loop and Scan can't be merged")
        outputs = {t.name: t for t in graph.outputs}
        twins = {id(t): self._input(t) for t in graph.inputs}
        for node in graph.nodes:
            operands = [self._operand(t, prefix, twins) for t in node.inputs]
            key = _text(node), tuple(None if t.is_empty() else id(t) for t in operands)
            if (known := self._known.get(key)) is not None:
                twins |= {id(own): twin for own, twin in zip(node.outputs, known.outputs, strict=True)}
                disconnect(node)
                continue
            self._known[key] = node
            self.nodes.append(node)
            node.name, node.inputs = node.name and f"{prefix}/{node.name}", operands
            for t in node.outputs:
                self._name(t, prefix)
        return {name: self._operand(t, prefix, twins).name for name, t in outputs.items()}

    def _input(self, given: Tensor) -> Tensor:
        own = self._inputs.get(given.name)
        if own is None or (own.dtype, own.shape) != (given.dtype, given.shape):
            raise WootzError(f"models have other inputs than {given.name}, {given.dtype} {given.shape}")
        return own

    def _operand(self, tensor: Tensor, prefix: str, twins: Mapping[int, Tensor]) -> Tensor:
        """What a tensor of a model is here."""
        if not isinstance(tensor, Constant):
            return twins.get(id(tensor), tensor)
        content = self._content(tensor.values)
        if content not in self._constants:
            constant = Constant(tensor.name, tensor.values)
            self._name(constant, prefix)
            self._constants[content] = constant
        return self._constants[content]

    def _content(self, values: np.ndarray) -> Hashable:
        """What equal arrays have in common; models share most of theirs, which are read once."""
        if id(values) not in self._contents:
            read = str(values.tolist()).encode() if values.dtype == object else values.tobytes()
            content = values.dtype.str, values.shape, hashlib.sha256(read).digest()
            self._contents[id(values)] = values, content  # an array that is held keeps its identity
        return self._contents[id(values)][1]

    def _name(self, tensor: Tensor, prefix: str) -> None:
        if not tensor.is_empty():
            tensor.name = f"{prefix}/{tensor.name}"
            self.tensors[tensor.name] = tensor


def _text(node: Node) -> Hashable:
    """What nodes have in common that compute the same of the same operands."""
    proto = node_proto(node)
    computed = tuple(bool(name) for name in proto.output)
    for field in ("name", "input", "output", "doc_string"):
        proto.ClearField(field)
    return proto.SerializeToString(deterministic=True), computed
