"""Networks as PyTorch's exporters write them are pruned correctly: outputs equal those of the masked original."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from wootz.passes.analysis.modules import find_modules
from wootz.passes.ir.model import Model, constants, is_constant
from wootz.passes.ir.verifier import verify
from wootz.passes.pipeline import parse_pass
from wootz.passes.plan.pruning import PruningPlan
from wootz.passes.pruning.block_pruner import BlockPruner
from wootz.passes.pruning.materializer import Materializer, materialize
from wootz.passes.pruning.planner import Planner
from wootz.passes.transforms.fold_batchnorm import FoldBatchNorm
from wootz.passes.transforms.fold_constants import FoldConstants

Exported = Callable[[str], Model]
NAMES = sorted(
    f.name.removesuffix(".onnxtxt.gz") for f in (Path(__file__).parents[2] / "fixtures" / "models").glob("*.gz")
)
TORCHSCRIPT = [name for name in NAMES if name.endswith(".torchscript")]


def mixed_rates(planner: Planner) -> dict[int, float]:
    """30, 50 and 70 % in turn; the groups of a grouped convolution alike."""
    families = {cell.family: i for i, cell in enumerate(planner.cells)}
    return {i: (0.3, 0.5, 0.7)[families[cell.family] % 3] for i, cell in enumerate(planner.cells)}


@pytest.mark.parametrize("name", NAMES)
def test_mixed_rates_and_replayed_plan(name: str, exported: Exported, oracles: ModuleType) -> None:
    model = exported(name)
    verify(model)
    planner = Planner.of(model)
    plan = planner.plan(mixed_rates(planner))
    pruned = Materializer.of(model, planner.analysis).materialize(plan)
    verify(pruned)
    oracles.assert_pruned_correctly(model, pruned, plan)
    assert plan.statistics()["filters removed"] > 0.25 * sum(entry.filters for entry in plan.layers)

    replayed = constants(materialize(model, PruningPlan.from_json(plan.to_json())).graph)
    for tensor, values in constants(pruned.graph).items():
        np.testing.assert_array_equal(replayed[tensor], values)


@pytest.mark.slow
@pytest.mark.parametrize("rate", [0.3, 0.5, 0.7])
@pytest.mark.parametrize("name", NAMES)
def test_uniform_rates(name: str, rate: float, exported: Exported, oracles: ModuleType) -> None:
    model = exported(name)
    result = parse_pass(f"prune-filters{{rate={rate} linear=true}}").apply(model)
    verify(result.model)
    assert result.plan is not None
    oracles.assert_pruned_correctly(model, result.model, result.plan)


@pytest.mark.parametrize("name", ["resnet50", "inception_v3", "googlenet", "mobilenet_v2", "squeezenet"])
def test_prune_blocks(name: str, exported: Exported, oracles: ModuleType) -> None:
    model = exported(f"{name}.torchscript")
    pruner = BlockPruner.of(model)
    rates = [(0.3, 0.5, 0.7)[i % 3] for i in range(len(pruner.modules))]
    plan = pruner.plan({c.module: r for c, r in zip(pruner.convolutions, rates, strict=True) if c.prunable})
    oracles.assert_pruned_correctly(model, pruner.materialize(plan), plan)


def test_a_plan_is_replayed_on_other_weights(exported: Exported, oracles: ModuleType) -> None:
    model = exported("mobilenet_v2.torchscript")
    planner = Planner.of(model)
    plan = planner.plan(mixed_rates(planner))
    other = model.copy()
    for tensor in other.graph.tensors().values():
        if is_constant(tensor) and tensor.values.dtype == np.float32:
            tensor.values = np.asarray(tensor.values * np.float32(1.25))
    oracles.assert_pruned_correctly(other, materialize(other, plan), plan)


@pytest.mark.parametrize(
    ("name", "count", "convolutions"),
    [
        ("resnet50", 16, [4] + [3] * 2 + [4] + [3] * 3 + [4] + [3] * 5 + [4] + [3] * 2),
        ("inception_v3", 11, None),
        ("mobilenet_v2", 17, None),
        ("mobilenet_v3", 15, None),
        ("efficientnet_b0", 16, None),
    ],
)
@pytest.mark.parametrize("exporter", ["torchscript", "dynamo"])
def test_modules_are_those_of_the_paper(
    name: str, count: int, convolutions: list[int] | None, exporter: str, exported: Exported
) -> None:
    """ResNet-50 has 16 residual blocks, Inception-V3 has 11 Inception modules (paper, section 7.1).

    MobileNetV2 and V3 have 17 and 15 inverted bottlenecks, EfficientNet-B0 has 16 (tables of their papers).
    """
    pruner = BlockPruner.of(exported(f"{name}.{exporter}"))
    modules, source = find_modules(pruner.model)
    assert source == "structure"
    assert len(modules) == count
    for before, after in itertools.pairwise(modules):
        assert before.exit == after.entry or name == "inception_v3"
    if convolutions:
        assert [len(table.convolutions) for table in pruner.convolutions] == convolutions
        assert all(len(table.prunable) == 2 for table in pruner.convolutions)


@pytest.mark.parametrize("name", TORCHSCRIPT)
def test_folded_batch_normalization_computes_the_same(name: str, exported: Exported, oracles: ModuleType) -> None:
    model = exported(name)
    simplified = FoldConstants().apply(model).model
    folded = FoldBatchNorm().apply(simplified)
    verify(folded.model)
    feeds = oracles.random_feeds(model)
    for a, b in zip(oracles.run(folded.model, feeds), oracles.run(model, feeds), strict=True):
        assert oracles.difference(a, b) <= oracles.TOLERANCE
    if any(node.op == "BatchNormalization" for node in model.graph.nodes):
        assert folded.statistics["folded"] > 0
