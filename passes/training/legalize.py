"""`legalize`: replaces the functions of domain `wootz` by what a target runs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from wootz.passes.base import Pass, PassResult, option
from wootz.passes.ir.builder import Builder
from wootz.passes.ir.model import Function, Graph, Model, Node, Tensor, Variable, constant_value
from wootz.passes.ir.rewrite import erase_dead_nodes, replace_node, rewriting
from wootz.passes.ir.shapes import annotate_shapes
from wootz.passes.training.casts import cancel_casts
from wootz.passes.training.functions import DOMAIN
from wootz.passes.training.lowerings import Lowering
from wootz.passes.training.lowerings.cpu import CPU
from wootz.passes.training.lowerings.cuda import CUDA
from wootz.passes.training.lowerings.native import NATIVE
from wootz.passes.training.lowerings.ort_training import ORT_TRAINING
from wootz.passes.training.simplify import (
    drop_unused_indices,
    share_equal_computations,
    widen_scalars,
)

Target = Literal["onnx", "onnx-cuda", "ort-training", "native"]

TARGETS: Mapping[str, Mapping[str, Lowering]] = {
    "onnx": CPU,
    "onnx-cuda": CUDA,
    "ort-training": ORT_TRAINING,
    "native": NATIVE,
}


@dataclass(frozen=True)
class Legalize(Pass):
    """Replaces each call of a gradient function by a formulation chosen for `target`, or by the function's body.

    1. `onnx`: standard operators only, formulations for CPUs whose results don't depend on the number of threads.
    2. `onnx-cuda`: standard operators that the CUDA provider has kernels for; BatchNormalization in training mode and
       the cross-entropy decomposed, reductions over batch and space in two steps.
    3. `ort-training`: the fused gradient kernels of onnxruntime-training (domain com.microsoft).
    4. `native`: operators of Wootz's own for CPUs (domain wootz.native), which only its sessions know.

    Afterwards no node is of domain `wootz`.
    """

    name: ClassVar[str] = "legalize"
    target: Target = option("onnx", "onnx, onnx-cuda, ort-training or native")

    def apply(self, model: Model) -> PassResult:
        if self.target not in TARGETS:
            raise self.refuse(f"no target {self.target!r}: one of {', '.join(TARGETS)}")
        result = model.copy()
        graph = result.graph
        annotate_shapes(graph)
        widened = widen_scalars(graph)
        lowered = _replace_calls(graph, TARGETS[self.target])
        cancelled = cancel_casts(graph)
        shared = share_equal_computations(graph)
        erase_dead_nodes(graph)
        drop_unused_indices(graph)
        counts = {"calls": lowered, "shared": shared, "widened scalars": widened, "cancelled casts": cancelled}
        return PassResult(result, any(counts.values()), counts)


def with_lowerings(model: Model, lowerings: Mapping[str, Lowering]) -> Model:
    """`model` with the nodes that have one in the place of what their lowering gives."""
    if not any(node.op in lowerings for node in model.graph.nodes):
        return model
    result = model.copy()
    annotate_shapes(result.graph)
    _replace_calls(result.graph, lowerings)
    return result


def _replace_calls(graph: Graph, lowerings: Mapping[str, Lowering]) -> int:
    functions = {f.name: f for f in graph.functions if f.domain == DOMAIN}
    builder = Builder(graph)
    calls = 0
    for node in rewriting(graph):
        builder.prefix = f"{node.name}/"
        lowering = lowerings.get(node.op)
        outputs = lowering(node, builder) if lowering else None
        if outputs is None and node.domain == DOMAIN:
            outputs = inline(functions[node.op], node, builder)
        if outputs is not None:
            calls += 1
            replace_node(node, outputs)
    graph.functions = [f for f in graph.functions if f.domain != DOMAIN]
    used = {"", "ai.onnx", *(node.domain or "" for node in graph.nodes)}
    graph.import_domains = [d for d in graph.import_domains if d.domain in used]
    return calls


def inline(function: Function, call: Node, builder: Builder) -> list[Tensor]:
    """Appends the body of `function` with the operands and attributes of `call`; gives its results."""
    inner: dict[str, Tensor] = {f.name: t for f, t in zip(function.inputs, call.inputs, strict=False)}
    attributes = {**function.attrs, **call.attrs}

    def tensor(formal: Tensor) -> Tensor:
        if formal.is_empty():
            return Variable.empty()
        return inner.setdefault(formal.name, builder.variable(formal.name))

    for node in function.nodes:
        attrs = _bound_attributes(node, attributes)
        if node.op == "Constant":
            inner[node.outputs[0].name] = builder.constant(constant_value(attrs), node.outputs[0].name)
            continue
        copied = Node(
            op=node.op,
            name=builder.fresh(node.outputs[0].name + "_node"),
            domain=node.domain,
            attrs=attrs,
            inputs=[tensor(t) for t in node.inputs],
            outputs=[tensor(t) for t in node.outputs],
        )
        builder.graph.nodes.append(copied)
    return [tensor(t) for t in function.outputs]


def _bound_attributes(node: Node, values: Mapping[str, Any]) -> dict[str, Any]:
    """The attributes of a node of a function, with the values that the call gives to those that refer to it."""
    bound = {k: values.get(v.name) if isinstance(v, Node.AttributeRef) else v for k, v in node.attrs.items()}
    return {k: v for k, v in bound.items() if v is not None}
