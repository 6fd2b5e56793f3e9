"""`build-gradients`: the backward pass of the network, as nodes of the graph."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import zip_longest
from typing import ClassVar

import numpy as np

from wootz.passes.analysis.symbolic_values import annotate_symbolic_shapes
from wootz.passes.base import Pass, PassResult, option
from wootz.passes.errors import PassError
from wootz.passes.ir.builder import Builder
from wootz.passes.ir.model import Constant, Graph, Model, Node, Tensor, Variable, captured_tensors
from wootz.passes.ir.rewrite import erase_dead_nodes
from wootz.passes.training.expression import Expression, UnknownShape
from wootz.passes.training.fold_pads import fold_pads
from wootz.passes.training.functions import import_used_functions
from wootz.passes.training.gradient_rules import RULES, SEVERAL_RESULTS, WITHOUT_GRADIENT
from wootz.passes.training.merged_parameters import separate_merged_parameters
from wootz.passes.training.parameters import find_parameters
from wootz.passes.training.rules.rule import Backward, NoRule, Rule
from wootz.passes.training.state import GRADIENT_SUFFIX, SEED_PREFIX, loss_outputs
from wootz.passes.transforms.fold_constants import FoldConstants


@dataclass(frozen=True)
class BuildGradients(Pass):
    """Adds the gradient of the sum of all losses with respect to every parameter, as outputs `<parameter>.grad`.

    A reverse walk over the nodes between parameters and losses; each node's rule is in
    `wootz.passes.training.gradient_rules`, and `docs/training-graphs.md` lists the operators that have one.

    1. Parameters are the constants that an operator uses as weights (convolution, normalisation, slope, …; running
       statistics and preprocessing constants are not), and that the losses depend on.
    2. What `frozen` names is not trained: a name, or a prefix that ends in `/` or `*`. Nor is a parameter with
       lr_mult 0 (metadata `wootz.multipliers`), nor what stands where the network itself has no parameter
       (`wootz.passes.training.parameters.is_placeholder`): a note names it, and `trained` has it trained. Merged
       parameters are separated, as `training-mode` does.
    3. Gradients are computed only between losses and parameters: a frozen teacher costs nothing.
    4. What is computed from shapes is folded before (`fold-constants{weights=false}`): the gradients of Slice, Concat
       and others need sizes that are known, except for the batch. A Pad of zeros before convolutions becomes theirs.
    5. They begin with a constant `grad/<loss>` of value 1: what replaces it is what the loss is multiplied by.
    6. With `parameters-as-inputs`, parameters become inputs, with their values as initializers of the same name.

    Refuses an operator without a rule, naming the node, a loss that is not a scalar, a graph without parameters, and
    one with weights that would stay as they are, though nobody has frozen them (in a GRU, in a subgraph, in a function
    or an operator of another domain, behind a quantization or another computation).
    Afterwards the graph calls functions of domain `wootz`; `legalize` replaces them by what a target runs.
    """

    name: ClassVar[str] = "build-gradients"
    requires = "a loss: attach-loss runs before"
    losses: tuple[str, ...] = option((), "the outputs to minimise; by default every scalar output")
    frozen: tuple[str, ...] = option((), "parameters that are not trained: names, or prefixes ending in / or *")
    trained: tuple[str, ...] = option((), "parameters that are trained though they look like an exporter's constants")
    parameters_as_inputs: bool = option(False, "parameters become inputs, for a program with an optimizer of its own")

    def apply(self, model: Model) -> PassResult:
        result = FoldConstants(weights=False).apply(model).model
        graph = result.graph
        separate_merged_parameters(graph)
        annotate_symbolic_shapes(graph)
        fold_pads(graph, {name for module in result.modules for name in module.ends})
        losses = loss_outputs(graph, self.losses, self)
        found = find_parameters(result, losses, self.frozen, self.trained, self.name)
        parameters = list(found.trained)
        if not parameters:
            raise self.refuse("there is nothing to train: no loss depends on a parameter that is not frozen")
        forward_nodes = len(graph.nodes)
        walk = _ReverseWalk(graph, self)
        for parameter, gradient in walk.run(losses, parameters):
            graph.outputs.append(_name_gradient(gradient, parameter, walk.builder))
        if self.parameters_as_inputs:
            graph.inputs.extend(parameters)
        erase_dead_nodes(graph)
        import_used_functions(graph)
        counts = {"parameters": len(parameters), "nodes": len(graph.nodes) - forward_nodes}
        return PassResult(result, True, counts, notes=found.notes())


class _ReverseWalk:
    """Visits nodes from the losses back to the parameters; keeps for each tensor the gradients that have arrived."""

    def __init__(self, graph: Graph, build: BuildGradients):
        self.graph, self.build = graph, build
        self.builder = Builder(graph, prefix=SEED_PREFIX)
        self._arrived: dict[int, list[Expression]] = {}

    def run(self, losses: list[Tensor], parameters: list[Constant]) -> Iterable[tuple[Constant, Expression]]:
        depends = _descendants(parameters, self.graph)
        needed = _ancestors(losses)
        for loss in losses:
            one = self.builder.constant(1.0, loss.name, dtype=loss.dtype)
            self._arrived[id(loss)] = [Expression(one, self.builder, np.dtype(loss.dtype))]
        for node in reversed([n for n in self.graph.nodes if id(n) in needed]):
            if any(id(t) in depends for t in node.outputs) and any(id(t) in self._arrived for t in node.outputs):
                self._visit(node, depends)
        for parameter in parameters:
            gradient = self._gradient(parameter)
            if gradient is None:
                raise self.build.refuse("no gradient reaches it: freeze it", parameter.name)
            yield parameter, gradient

    def _visit(self, node: Node, depends: set[int]) -> None:
        if any(id(t) in depends for t in captured_tensors(node)):
            raise self._refuse_at(node, f"there is no gradient through the subgraphs of {node.op}")
        wanted = tuple(id(t) in depends for t in node.inputs)
        rule = RULES.get(node.op) if not node.domain else None
        if rule is None:
            operator = f"{node.domain}.{node.op}" if node.domain else node.op
            raise self._refuse_at(node, f"there is no gradient rule for {operator}")
        self.builder.prefix = f"grad/{node.name or node.outputs[0].name}/"
        backward = Backward(
            node=node,
            builder=self.builder,
            x=tuple(self._expression(t) for t in node.inputs),
            y=tuple(self._expression(t) for t in node.outputs),
            dy=tuple(self._gradient(t) for t in node.outputs),
            wanted=wanted,
        )
        try:
            gradients = _wanted_gradients(rule, backward)
        except (NoRule, UnknownShape) as error:
            raise self._refuse_at(node, f"{node.op}: {error}") from error
        for tensor, gradient in gradients:
            self._arrived.setdefault(id(tensor), []).append(gradient)

    def _refuse_at(self, node: Node, reason: str) -> PassError:
        return self.build.refuse(reason, node.name or node.outputs[0].name)

    def _gradient(self, tensor: Tensor) -> Expression | None:
        """The sum of what has arrived at `tensor`."""
        arrived = self._arrived.get(id(tensor), [])
        if not arrived:
            return None
        total, *others = arrived
        for other in others:
            total = total + other
        self._arrived[id(tensor)] = [total]
        if total.tensor.shape is None:
            total.tensor.shape, total.tensor.dtype = tensor.shape, tensor.dtype
        return total

    def _expression(self, tensor: Tensor) -> Expression | None:
        return None if tensor.is_empty() else Expression.of(tensor, self.builder)


def _wanted_gradients(rule: Rule, b: Backward) -> Iterable[tuple[Tensor, Expression]]:
    """What `rule` gives for the operands whose gradient is wanted. Raises NoRule where it ignores one or a result."""
    for index, dy in enumerate(b.dy[1:], 1):
        if dy is not None and b.node.op not in SEVERAL_RESULTS:
            result = b.node.outputs[index].name
            raise NoRule(f"a gradient that enters through result {index}, {result}, is not supported")
    found = []
    for index, (tensor, gradient) in enumerate(zip_longest(b.node.inputs, rule(b))):
        if b.wants(index) and gradient is None:
            raise NoRule(f"there is no gradient for operand {index}, {tensor.name}")
        if b.wants(index) and isinstance(gradient, Expression):
            found.append((tensor, gradient))
    return found


def _ancestors(tensors: Iterable[Tensor]) -> set[int]:
    """The `id`s of the nodes that `tensors` depend on."""
    seen: set[int] = set()
    pending = [n for t in tensors for n in t.inputs]
    while pending:
        node = pending.pop()
        if id(node) not in seen:
            seen.add(id(node))
            pending.extend(n for t in node.inputs for n in t.inputs)
    return seen


def _descendants(tensors: Iterable[Tensor], graph: Graph) -> set[int]:
    """The `id`s of `tensors` and of the real numbers whose gradient leads to them, also where a subgraph reads them."""
    found = {id(t) for t in tensors}
    names = {t.name for t in tensors}
    for node in graph.nodes:
        if node.op in WITHOUT_GRADIENT and not node.domain:
            continue
        captured = [t for t in captured_tensors(node) if t.name in names]
        found.update(id(t) for t in captured)
        if captured or any(id(t) in found for t in node.inputs):
            real = [t for t in node.outputs if not t.is_empty() and "float" in np.dtype(t.dtype).name]
            found.update(id(t) for t in real)
            names.update(t.name for t in real)
    return found


def _name_gradient(gradient: Expression, parameter: Constant, builder: Builder) -> Tensor:
    """The gradient under its public name; a tensor that has another use keeps its own."""
    tensor = gradient.tensor
    if not isinstance(tensor, Variable) or tensor.outputs or tensor.name.endswith(GRADIENT_SUFFIX):
        tensor = gradient.op("Identity").tensor
    tensor.name = parameter.name + GRADIENT_SUFFIX
    tensor.dtype, tensor.shape = parameter.dtype, list(parameter.shape)
    return tensor
