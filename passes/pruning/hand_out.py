"""What a pruning pass hands out: a network that was seen to work, and a plan that says what became of each layer.

Convolutions of which the channel analysis has no filters (their weights are computed, they lie in a branch of an If, …)
stand in the plan too, with the reason.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import replace

from wootz.passes.analysis.channels import ChannelAnalysis, node_names
from wootz.passes.base import Evaluator, PassResult
from wootz.passes.ir.model import Graph, Model, Node, constant_behind, producer
from wootz.passes.plan.pruning import LayerPlan, PruningPlan
from wootz.passes.pruning.check import check_pruned

REASONS_SHOWN = 3
DEFAULT_RATE = 0.5
"""What pruning passes prune at when nothing is said."""


def hand_out(
    original: Model,
    pruned: Model,
    plan: PruningPlan,
    analysis: ChannelAnalysis,
    evaluator: Evaluator | None,
    notes: tuple[str, ...] = (),
) -> PassResult:
    """The result of a pass that pruned by `plan`; with an evaluator, once it was seen to work.

    Raises WootzError for a network that does not, see `check_pruned`. A note says where it couldn't be executed.
    """
    seconds = 0.0
    if plan.is_pruned and evaluator is not None:
        check = check_pruned(original, pruned, plan, evaluator, analysis)
        seconds = check.seconds
        if check.skipped:
            notes = (*notes, f"not executed to check it: {check.skipped}")
    return PassResult(pruned, plan.is_pruned, plan.statistics(), plan, notes=notes, check_seconds=seconds)


def explained(
    plan: PruningPlan, model: Model, analysis: ChannelAnalysis, reasons: Mapping[str, str] | None = None
) -> PruningPlan:
    """The plan with a line for every convolution, and `reasons` (by layer) why those without a lock are whole."""
    rows = []
    for layer, entry in zip(analysis.layers, plan.layers, strict=True):
        is_left = not entry.is_pruned and entry.locked is None
        outcome = (reasons or {}).get(entry.layer, entry.outcome) if is_left else entry.outcome
        rows.append((layer.node, replace(entry, outcome=outcome)))
    rows += _unfollowed(model, analysis)
    return replace(plan, layers=tuple(entry for _, entry in sorted(rows, key=lambda row: row[0])))


def nothing_removed(plan: PruningPlan) -> str:
    """Why a plan removes nothing, reasons summed up: those of the most layers come first."""
    if not plan.layers:
        return "nothing was removed: the network has no convolutions"
    kinds: dict[str, list[LayerPlan]] = {}
    for entry in plan.layers:
        kinds.setdefault(re.sub(r"'[^']*'|\d+", "", entry.outcome), []).append(entry)
    ordered = sorted(kinds.values(), key=len, reverse=True)
    parts = [_summary(entries) for entries in ordered[:REASONS_SHOWN]]
    if left := sum(map(len, ordered[REASONS_SHOWN:])):
        parts.append(f"{left} more layers for other reasons (--plan FILE lists all)")
    return f"nothing was removed: {'; '.join(parts)}"


def _summary(entries: list[LayerPlan]) -> str:
    """The layers of one kind of reason, and the first one's."""
    first = entries[0]
    if len(entries) == 1:
        return f"{first.layer!r}: {first.outcome}"
    return f"{len(entries)} layers like {first.layer!r}: {first.outcome}"


def _unfollowed(model: Model, analysis: ChannelAnalysis) -> Iterator[tuple[int, LayerPlan]]:
    """The convolutions that the analysis has no layer for, with the place of the node that holds them."""
    names, followed = node_names(model.graph), {layer.node for layer in analysis.layers}
    for i, node in enumerate(model.graph.nodes):
        if _is_convolution(node) and i not in followed:
            yield i, _locked(names[i], node, _why_unfollowed(node, analysis), _filters(node, analysis))
        for inner in _convolutions_inside(model.graph, node):
            reason = f"it lies inside {node.op} {names[i]!r}, where nothing is pruned"
            yield i, _locked(f"{names[i]}/{inner.name or inner.outputs[0].name}", inner, reason)


def _locked(name: str, node: Node, reason: str, filters: int = 0) -> LayerPlan:
    weight = node.inputs[1].name if len(node.inputs) > 1 else ""
    return LayerPlan(name, weight, filters, tuple(range(filters)), (), reason, reason)


def _is_convolution(node: Node) -> bool:
    """Convolutions of all kinds, those of other domains too."""
    return "Conv" in node.op


def _filters(node: Node, analysis: ChannelAnalysis) -> int:
    """The number of output channels; 0 where it isn't known."""
    shape = analysis.shapes.get(node.outputs[0].name) or ()
    return shape[1] if len(shape) > 1 else 0


def _why_unfollowed(node: Node, analysis: ChannelAnalysis) -> str:
    if node.domain not in (None, "", "ai.onnx"):
        return f"no rule says what {node.op} of the domain {node.domain!r} computes"
    if node.op not in ("Conv", "ConvTranspose"):
        return f"no rule says how {node.op} is pruned"
    weight = node.inputs[1]
    by = producer(weight)
    if constant_behind(weight) is None and by is not None:
        return f"its weights are computed, by {by.op} {by.name or weight.name!r} (fold-constants may help)"
    if constant_behind(weight) is None:
        return f"its weights are an input of the network, {weight.name!r}"
    unknown = [t.name for t in (*node.inputs, *node.outputs) if not t.is_empty() and not analysis.shapes.get(t.name)]
    return f"the shape of {(unknown or [node.outputs[0].name])[0]!r} is not known"


def _convolutions_inside(graph: Graph, node: Node) -> Iterator[Node]:
    """Those in the subgraphs of a node, and in the function that it calls."""
    bodies = [a for a in node.attrs.values() if isinstance(a, Graph)]
    bodies += [f for f in graph.functions if (f.domain, f.name) == (node.domain, node.op)]
    for body in bodies:
        for inner in body.nodes:
            if _is_convolution(inner):
                yield inner
            yield from _convolutions_inside(graph, inner)
