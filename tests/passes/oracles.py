"""What pruning means, computed another way: the original network with removed channels masked, in ONNX Runtime."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import onnx
import onnxruntime

from wootz.passes.analysis.channels import analyse_channels
from wootz.passes.ir.builder import Builder
from wootz.passes.ir.model import Model, Variable
from wootz.passes.plan.pruning import PruningPlan, SkippedModule
from wootz.passes.pruning.materializer import kept_atoms

TOLERANCE = 1e-5
"""max|a - b| / max|b|, float32."""
CONSUMERS = {"Conv": 1, "ConvTranspose": 1, "Gemm": 1, "MatMul": 2, "Einsum": 2, "ReduceSum": 1}
"""Operators that sum over channels, and how many of their operands may have some."""


def zero_masked(model: Model, plan: PruningPlan) -> Model:
    """The original network, in which every consumer reads zeros in place of the removed channels."""
    analysis = analyse_channels(model)
    kept = kept_atoms(analysis, plan)
    masked = model.copy()
    builder = Builder(masked.graph, "mask/")
    for node in list(masked.graph.nodes):
        for operand, data in enumerate(node.inputs[: CONSUMERS.get(node.op, 0)]):
            mask = kept[analysis.maps.get(data.name, np.full((), -1))]
            if not mask.all():
                product = builder.op("Mul", data, builder.constant(mask.astype(np.float32)))
                masked.graph.nodes.remove(masked.graph.nodes[-1])
                place = next(i for i, n in enumerate(masked.graph.nodes) if n is node)
                masked.graph.nodes.insert(place, product.inputs[0])
                node.inputs[operand] = product
    return masked


def run(model: Model, feeds: dict[str, np.ndarray]) -> list[np.ndarray]:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    session = onnxruntime.InferenceSession(
        model.to_proto().SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    return session.run([t.name for t in model.graph.outputs], feeds)


def random_feeds(model: Model, seed: int = 0, extent: int = 64) -> dict[str, np.ndarray]:
    """Standard normal inputs; symbolic dimensions are 2 (the batch) and `extent`."""
    rng = np.random.default_rng(seed)
    feeds = {}
    for tensor in model.graph.inputs:
        assert isinstance(tensor, Variable)
        shape = [d if isinstance(d, int) else 2 if i == 0 else extent for i, d in enumerate(tensor.shape)]
        feeds[tensor.name] = rng.standard_normal(shape).astype(tensor.dtype)
    return feeds


def difference(a: np.ndarray, b: np.ndarray) -> float:
    """max|a - b| / max|b|."""
    assert a.shape == b.shape, f"{a.shape} is not {b.shape}"
    return float(np.max(np.abs(a - b)) / max(np.max(np.abs(b)), 1e-30))


def assert_pruned_correctly(model: Model, pruned: Model, plan: PruningPlan, extent: int = 64) -> None:
    """Every output of `pruned` equals that of the zero-masked original, within TOLERANCE."""
    feeds = random_feeds(model, extent=extent)
    expected = run(zero_masked(model, plan), feeds)
    for tensor, a, b in zip(model.graph.outputs, run(pruned, feeds), expected, strict=True):
        assert np.isfinite(b).all()
        assert np.abs(b).max() > 0, f"output {tensor.name} is constant zero: nothing is tested"
        assert difference(a, b) <= TOLERANCE, f"output {tensor.name}"


def without_modules(model: Model, modules: Iterable[SkippedModule]) -> Model:
    """The network in which what read the exit of one of `modules` reads its entry; what was between computes on."""
    proto = model.to_proto()
    entries = {module.exit: module.entry for module in modules}

    def stands_for(name: str) -> str:
        return stands_for(entries[name]) if name in entries else name

    for node in proto.graph.node:
        node.input[:] = [stands_for(name) for name in node.input]
        node.output[:] = [f"{name}/unread" if name in entries else name for name in node.output]
    for output in proto.graph.output:
        if output.name in entries:
            proto.graph.node.append(onnx.helper.make_node("Identity", [stands_for(output.name)], [output.name]))
    return Model.from_proto(proto)
