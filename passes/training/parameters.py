"""Which constants of a graph are parameters that a loss trains, and which only look like some.

Three questions, in this order. Is it a weight? A constant is where an operator reads it as one of WEIGHT_OPERANDS, also
behind a change of layout. Does it stand where the network itself has no parameter? `is_placeholder` holds the
rules for that. Would a weight stay as it is, unnoticed, since no gradient reaches it? That is refused.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from wootz.passes.analysis.segments import data_tensors
from wootz.passes.errors import PassError, WootzError
from wootz.passes.ir.half_precision import HALF_SUFFIX
from wootz.passes.ir.model import MULTIPLIERS_KEY, Constant, Graph, Model, Node, Tensor, producer, subgraph_nodes
from wootz.passes.training.gradient_rules import (
    ALSO_NUMBERS,
    FIXED_OPERANDS,
    LIKE_WEIGHTS,
    PASSING_OPERATORS,
    SETTING_OPERANDS,
    UNTRAINED_WEIGHTS,
    WEIGHT_OPERANDS,
    WITHOUT_GRADIENT,
)
from wootz.passes.training.state import GRADIENT_SUFFIX, multipliers

CONSTANT_NODE = re.compile(r"(.*/)?Constant(_\d+)?_output_0")
"""How PyTorch's older exporter names what a Constant node holds; parameters are initializers there."""
GENERATED_NAME = re.compile(r"(.*/)?(onnx::\w+_\d+|val_\d+|\d+)")
"""How PyTorch's exporters name initializers that are no parameter of the network, or computed from some."""
COMPUTED_NAME = re.compile(r"(.*/)?\w+_default(_\d+)?")
"""How PyTorch's newer exporter names what it has computed, by the operator: `convert_element_type_default`."""
STATE_NAME = re.compile(r"(.*/)?\w+(\.\w+)+")
"""How PyTorch names parameters, `layer1.0.scale`, perhaps behind a prefix of ours."""

RANGE_OPERATORS = frozenset(
    {"Add", "Sub", "Mul", "Div", "Cast", "Clip", "Gather", "Transpose", "Reshape", "Identity", "Pad"}
)
"""What pixels go through before the first layer."""
FIRST_LAYERS = frozenset({"Conv", "Gemm", "MatMul", "BatchNormalization"})

NAMED = 12
"""How many placeholders a note names."""


@dataclass(frozen=True)
class Parameters:
    """What is trained, in the graph's order, and what only looks like a weight (see `is_placeholder`)."""

    trained: tuple[Constant, ...]
    placeholders: tuple[Constant, ...]

    def notes(self) -> tuple[str, ...]:
        """One line that names the placeholders, where there are any."""
        return _placeholder_notes(self.placeholders)


def placeholder_notes(graph: Graph) -> tuple[str, ...]:
    """One line that names all placeholders of a network, where there are any: what is computed of constants and shapes
    alone, as the scales of a Resize, has none."""
    data = data_tensors(graph)
    computing = (node for node in graph.nodes if any(t.name in data for t in node.outputs))
    found = {id(w): w for node in computing for w in _weights(node) if is_placeholder(w)}
    return _placeholder_notes(found.values())


def _placeholder_notes(placeholders: Iterable[Constant]) -> tuple[str, ...]:
    names = [_given_name(c) for c in placeholders]
    if not names:
        return ()
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    listed = ", ".join(names[:NAMED]) + more
    return (f"not trained, since the network itself has no parameter there: {listed}",)


def find_parameters(
    model: Model, losses: list[Tensor], frozen: tuple[str, ...], trained: tuple[str, ...], asking: str
) -> Parameters:
    """The constants that an operator uses as weights and that `losses` depend on.

    Left out is what `frozen` names (a name, or a prefix that ends in / or *; inputs, which are never trained, may have
    it, too), what has lr_mult 0, and placeholders that `trained` does not name. For the pass `asking` it raises
    PassError where `frozen` or `trained` names no constant, where weights would stay as they are though nobody has
    frozen them, and where gradients are there already.
    """
    for output in model.graph.outputs:
        if output.name.endswith(GRADIENT_SUFFIX):
            raise PassError(asking, "the graph has its gradients already", output.name)
    _check_names({"frozen": frozen, "trained": trained}, model.graph, asking)
    fixed = [*(name for name, (rate, _) in multipliers(model).items() if rate == 0.0), *frozen]
    reachable = subgraph_nodes(losses)
    nodes = [node for node in model.graph.nodes if id(node) in reachable]
    weights = {id(w): w for node in nodes for w in _weights(node)}
    moving = {key: w for key, w in weights.items() if not is_named(_given_name(w), fixed) and not _is_fixed(w)}
    placeholders = {key: w for key, w in moving.items() if is_placeholder(w) and not is_named(_given_name(w), trained)}
    _Untrained(weights, fixed, asking).check(nodes, _with_a_gradient(losses))
    return Parameters(tuple(w for key, w in moving.items() if key not in placeholders), tuple(placeholders.values()))


def is_named(name: str, patterns: Iterable[str]) -> bool:
    """Whether `name` is one of `patterns`, or begins with one that ends in / or *."""
    return any(name.startswith(p.rstrip("*")) if p.endswith(("/", "*")) else name == p for p in patterns)


def is_placeholder(constant: Constant) -> bool:
    """Whether `constant` stands where operators have weights, and the network itself has none.

    1. It comes from a Constant node of PyTorch's older exporter (`/norm/Constant_1_output_0`).
    2. It is the scale of ones or the bias of zeros of an InstanceNormalization, GroupNormalization or
       LayerNormalization, which ONNX demands, and either has a name that the exporter made up (`val_8`), or the result,
       perhaps in another shape, is multiplied by a weight: so PyTorch's group_norm is written.
    3. It has such a name, and Concat puts it, equal numbers, beside others: padding.
    4. It is the same filter for each channel of a depthwise convolution without bias: an anti-aliasing filter.
    5. It is a number a channel that brings the network's input into range before the first layer, and has no name of a
       parameter: a mean and a scale of pixels.
    """
    if CONSTANT_NODE.fullmatch(_given_name(constant)):
        return True
    readers = [n for n in constant.outputs if not n.domain]
    return bool(readers) and all(
        _is_neutral(constant, n)
        or _is_padding(constant, n)
        or _is_one_filter(constant, n)
        or _is_normalisation(constant, n)
        for n in readers
    )


def _is_neutral(constant: Constant, node: Node) -> bool:
    """Whether `node` normalises and then, by `constant`, changes nothing (rule 2)."""
    if node.op not in ("InstanceNormalization", "GroupNormalization", "LayerNormalization"):
        return False
    scale, bias = node.inputs[1], node.inputs[2] if len(node.inputs) > 2 else None
    if not _is_full_of(1.0, scale) or not (bias is None or bias.is_empty() or _is_full_of(0.0, bias)):
        return False
    return bool(GENERATED_NAME.fullmatch(_given_name(constant))) or _is_multiplied(node.outputs[0])


def _is_full_of(number: float, tensor: Tensor) -> bool:
    return isinstance(tensor, Constant) and bool(np.all(tensor.values == number))


def _is_multiplied(tensor: Tensor) -> bool:
    """Whether all that reads `tensor`, perhaps in another shape, is a product with a weight."""
    while len(tensor.outputs) == 1 and tensor.outputs[0].op in ("Reshape", "Cast"):
        tensor = tensor.outputs[0].outputs[0]
    return bool(tensor.outputs) and all(n.op == "Mul" and any(True for _ in _weights(n)) for n in tensor.outputs)


def _is_padding(constant: Constant, node: Node) -> bool:
    return node.op == "Concat" and bool(GENERATED_NAME.fullmatch(_given_name(constant))) and _is_uniform(constant)


def _is_one_filter(constant: Constant, node: Node) -> bool:
    """Whether `constant` holds the same filter for each of the channels (rule 4)."""
    if node.op != "Conv" or node.inputs[1] is not constant or len(node.inputs) > 2:
        return False
    filters = np.asarray(constant.values)
    is_depthwise = node.attrs.get("group", 1) == len(filters) > 1 and filters.shape[1] == 1
    return is_depthwise and bool((filters == filters[:1]).all()) and not _is_uniform(constant)


def _is_normalisation(constant: Constant, node: Node) -> bool:
    """Whether `node` brings the network's input into range by `constant`, for a layer behind it (rule 5)."""
    is_vector = sum(extent > 1 for extent in constant.shape) <= 1
    if node.op not in ("Mul", "Add") or not is_vector or STATE_NAME.fullmatch(_given_name(constant)):
        return False
    before: Node | None = node
    while before is not None and before.op in RANGE_OPERATORS and not before.domain:
        data = [t for t in before.inputs if not isinstance(t, Constant)]
        if len(data) != 1:
            return False
        before = producer(data[0])
    behind = node
    while before is None and behind.op in RANGE_OPERATORS and len(behind.outputs[0].outputs) == 1:
        behind = behind.outputs[0].outputs[0]
    return before is None and behind.op in FIRST_LAYERS


def _is_uniform(constant: Constant) -> bool:
    return bool(np.all(constant.values == np.asarray(constant.values).flat[0]))


def with_frozen(model: Model, patterns: Sequence[str]) -> Model:
    """The model with lr_mult 0 for the constants that `patterns` name (a name, or a prefix that ends in / or *).

    No training graph that is made of it, or of a pruned version, trains them. Raises WootzError for a pattern that
    names no constant.
    """
    names = _constant_names(model.graph)
    for pattern in patterns:
        if not any(is_named(name, [pattern]) for name in names):
            raise WootzError(f"--freeze: {pattern!r} names no constant of the network (a prefix ends in / or *)")
    frozen = {name: (0.0, 0.0) for name in sorted(names) if is_named(name, patterns)}
    table = json.dumps({**multipliers(model), **frozen})
    return replace(model, metadata={**model.metadata, MULTIPLIERS_KEY: table}) if frozen else model


def _check_names(options: Mapping[str, tuple[str, ...]], graph: Graph, asking: str) -> None:
    constants = _constant_names(graph)
    names = {"frozen": constants | {t.name for t in graph.inputs}, "trained": constants}
    for option, patterns in options.items():
        for name in patterns:
            if not any(is_named(known, [name]) for known in names[option]):
                raise PassError(asking, f"{option}={name} names no constant (a prefix ends in / or *)")


def _constant_names(graph: Graph) -> set[str]:
    names = {_given_name(t) for t in graph.tensors().values() if isinstance(t, Constant)}
    return names | {_given_name(c) for node in graph.nodes for c in _constants_inside(node)}


def _given_name(constant: Constant) -> str:
    """The name that the constant had before mixed-precision."""
    in_half = np.dtype(constant.dtype) == np.float16
    return str(constant.name.removesuffix(HALF_SUFFIX) if in_half else constant.name)


class _Untrained:
    """Finds weights that would silently stay as they are, and refuses them by name.

    `weights` are the constants that have been looked at already, `fixed` names those that may stay as they are.
    """

    def __init__(self, weights: Mapping[int, Constant], fixed: list[str], asking: str):
        self.weights, self.fixed, self.asking = weights, fixed, asking
        self._computed: dict[int, dict[int, Constant]] = {}
        self._behind = set(weights)

    def check(self, nodes: Iterable[Node], with_gradient: set[int]) -> None:
        """Goes through `nodes` in order, and looks at those whose `id` is in `with_gradient`."""
        for node in nodes:
            if id(node) in with_gradient:
                self._check_node(node)
            sources = _sources(node, self._computed)
            if sources is not None:
                self._computed.update((id(t), sources) for t in node.outputs)
            if any(id(t) in self._behind for t in node.inputs):
                self._behind.update(id(t) for t in node.outputs)

    def _check_node(self, node: Node) -> None:
        inside = [c for c in _constants_inside(node) if not self._may_stay(c)]
        if inside:
            reason = f"nothing is trained in a subgraph of {node.op}, which reads {{names}}"
            raise self._refuse(node, f"{reason}: run fold-constants before, or freeze {{names}}", inside)
        for reason in dict.fromkeys(self._reason(node, i) for i in range(len(node.inputs))):
            operands = [i for i in range(len(node.inputs)) if reason and self._reason(node, i) == reason]
            found = (c for i in operands for c in self._constants_of(node, i, node.inputs[i]))
            left_out = [c for c in found if id(c) not in self.weights and not self._may_stay(c)]
            if left_out:
                raise self._refuse(node, reason, left_out)

    def _may_stay(self, constant: Constant) -> bool:
        return is_named(_given_name(constant), self.fixed)

    def _refuse(self, node: Node, reason: str, constants: Iterable[Constant] = ()) -> PassError:
        """The error, with the names of `constants` in the place of {names}."""
        names = ", ".join(dict.fromkeys(_given_name(c) for c in constants))
        return PassError(self.asking, reason.replace("{names}", names), node.name or node.outputs[0].name)

    def _constants_of(self, node: Node, index: int, tensor: Tensor) -> Iterable[Constant]:
        """The constants of several numbers that `tensor` is, or is computed from, that look like weights to `node`."""
        if not isinstance(tensor, Constant):
            return self._computed.get(id(tensor), {}).values()
        is_weight = node.domain or index in UNTRAINED_WEIGHTS.get(node.op, ())
        if not _is_several(tensor) or not (_is_real(tensor) or index in UNTRAINED_WEIGHTS.get(node.op, ())):
            return ()
        name = _given_name(tensor)
        is_count = node.op == "Div" and index == 1 and COMPUTED_NAME.fullmatch(name)
        is_made_up = is_count or CONSTANT_NODE.fullmatch(name) or (_is_uniform(tensor) and tensor.values.size > 1)
        return () if is_made_up and not is_weight else (tensor,)

    def _reason(self, node: Node, index: int) -> str:
        """Why what `node` reads as operand `index` gets no gradient; empty where it is trained, or needs none."""
        if node.domain:
            return f"there is no gradient for {{names}}, which {node.domain}.{node.op} reads: freeze {{names}}"
        if node.op == "DequantizeLinear":
            return (
                "there is no gradient for {names}, which DequantizeLinear reads: train the network before it is "
                "quantised, or freeze {names}"
            )
        if index in UNTRAINED_WEIGHTS.get(node.op, ()):
            return f"there is no gradient for {{names}}, which {node.op} reads: freeze {{names}}"
        if index in WEIGHT_OPERANDS.get(node.op, ()):
            reason = f"{node.op} computes its weights from {{names}}, which isn't trained"
            return f"{reason}: run fold-constants before, or freeze {{names}}"
        is_behind = any(id(t) in self._behind for i, t in enumerate(node.inputs) if i != index)
        if node.op not in LIKE_WEIGHTS or not is_behind:
            return ""
        return f"{{names}} isn't trained, though {node.op} reads it behind weights that are: freeze {{names}}"


def _with_a_gradient(losses: Iterable[Tensor]) -> set[int]:
    """The `id`s of the nodes from which a gradient could come out, if all operators had one."""
    found: set[int] = set()
    pending = [producer(t) for t in losses]
    while pending:
        node = pending.pop()
        if node is None or id(node) in found or (node.op in WITHOUT_GRADIENT and not node.domain):
            continue
        found.add(id(node))
        pending.extend(producer(t) for t in node.inputs)
    return found


def _constants_inside(node: Node) -> Iterator[Constant]:
    """The constants of several real numbers that subgraphs of `node` read as weights, and not as settings."""
    for subgraph in (a for a in node.attrs.values() if isinstance(a, Graph)):
        for inner in subgraph.nodes:
            yield from _constants_inside(inner)
            for index, tensor in enumerate(inner.inputs):
                is_setting = index in SETTING_OPERANDS.get(inner.op, ()) and not inner.domain
                if isinstance(tensor, Constant) and _is_real(tensor) and tensor.values.size > 1 and not is_setting:
                    yield tensor


def _sources(node: Node, computed: dict[int, dict[int, Constant]]) -> dict[int, Constant] | None:
    """The constants of several numbers that `node` computes its result from; None where it reads other things."""
    found: dict[int, Constant] = {}
    for index, tensor in enumerate(node.inputs):
        if isinstance(tensor, Constant):
            is_weight = _is_real(tensor) or index in UNTRAINED_WEIGHTS.get(node.op, ())
            if is_weight and _is_several(tensor):
                found[id(tensor)] = tensor
        elif id(tensor) in computed:
            found |= computed[id(tensor)]
        elif not tensor.is_empty():
            return None
    return {} if node.op in WITHOUT_GRADIENT else found


def _is_real(tensor: Constant) -> bool:
    return np.dtype(tensor.dtype).kind == "f"


def _weights(node: Node) -> Iterable[Constant]:
    """The constants that `node` uses as parameters, also through a change of layout."""
    places = WEIGHT_OPERANDS.get(node.op, ()) if not node.domain else ()
    for index, operand in enumerate(node.inputs):
        tensor = _source(operand) if index in places else operand
        if index in places and isinstance(tensor, Constant) and _is_weight(tensor, node):
            yield tensor


def _is_fixed(constant: Constant) -> bool:
    uses = [(node, index) for node in constant.outputs for index in FIXED_OPERANDS.get(node.op, ())]
    return any(index < len(node.inputs) and node.inputs[index] is constant for node, index in uses)


def _is_weight(tensor: Constant, node: Node) -> bool:
    return _is_real(tensor) and (node.op not in ALSO_NUMBERS or _is_several(tensor))


def _is_several(tensor: Constant) -> bool:
    """Whether these are several numbers, or one with the name of a parameter."""
    return int(np.prod(tensor.shape)) > 1 or bool(STATE_NAME.fullmatch(_given_name(tensor)))


def _source(tensor: Tensor) -> Tensor:
    while tensor.inputs and tensor.inputs[0].op in PASSING_OPERATORS:
        tensor = tensor.inputs[0].inputs[0]
    return tensor
