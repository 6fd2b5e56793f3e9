"""Makes the normalisation of the input a part of the network."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from wootz.passes.base import Pass, PassResult
from wootz.passes.ir.builder import Builder
from wootz.passes.ir.model import Graph, Model, Tensor, Variable
from wootz.passes.ir.rewrite import ModuleEnds, redirect_readers
from wootz.passes.plan.transform import TRANSFORM_KEY, InputTransform


@dataclass(frozen=True)
class EmbedNormalization(Pass):
    """Puts the `wootz.input` metadata into nodes: afterwards the network takes RGB pixels from 0 to 255 as float32.

    `(pixel - mean) * scale` becomes Sub and Mul, the order BGR a Gather over the channels; a mean of 0 and a scale
    of 1 add no node. The metadata then says that nothing is left to do. The input keeps its name and shape.

    Leaves a model without that metadata as it is. Refuses a model with several inputs.
    """

    name = "embed-normalization"

    def apply(self, model: Model) -> PassResult:
        if TRANSFORM_KEY not in model.metadata:
            return PassResult(model, modified=False)
        if len(model.graph.inputs) != 1:
            raise self.refuse(f"the model has {len(model.graph.inputs)} inputs: which one takes the image is not known")
        transform = InputTransform.from_json(model.metadata[TRANSFORM_KEY])
        result = model.copy()
        ends = ModuleEnds(result)
        nodes = _prepend(result.graph, transform, ends)
        identity = replace(transform, mean=(0.0,), scale=(1.0,), channel_order="RGB")
        metadata = {**model.metadata, TRANSFORM_KEY: identity.to_json()}
        result = replace(result, modules=ends.table(result.graph), metadata=metadata)
        return PassResult(result, modified=nodes > 0, statistics={"nodes": nodes})


def _prepend(graph: Graph, transform: InputTransform, ends: ModuleEnds) -> int:
    """Gives the number of nodes put before the graph's old input."""
    old: Variable = graph.inputs[0]
    new = Variable(old.name, old.dtype, old.shape)
    build = Builder(graph)  # before the nodes are taken out: their names are taken, "mean" among them
    old.name = build.fresh(f"{new.name}_normalized")
    body, graph.nodes = graph.nodes, []
    value: Tensor = new
    if transform.channel_order == "BGR" and len(old.shape) == 4 and old.shape[1] == 3:
        value = build.op("Gather", value, build.constant([2, 1, 0], "bgr"), axis=1, hint="to_bgr")
    for op, numbers, neutral in (("Sub", transform.mean, 0.0), ("Mul", transform.scale, 1.0)):
        if any(number != neutral for number in numbers):
            operand = build.constant(
                np.array(numbers, np.float32).reshape(-1, 1, 1), "mean" if op == "Sub" else "scale"
            )
            value = build.op(op, value, operand, hint="centred" if op == "Sub" else "scaled")
    count = len(graph.nodes)
    if count:
        redirect_readers(old, value)
        ends.move(old, value)
        graph.inputs = [new]
    else:
        old.name = new.name
    graph.nodes = [*graph.nodes, *body]
    return count
