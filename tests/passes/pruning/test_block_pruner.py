"""A pruner that is given other weights: what it analysed once holds for all of them."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType

import numpy as np
import pytest

from wootz.passes.analysis.data_criteria import Sample
from wootz.passes.errors import WootzError
from wootz.passes.ir.model import Model, constants, with_weights
from wootz.passes.ir.text import parse_text
from wootz.passes.pruning import block_pruner, materializer, planner
from wootz.passes.pruning.block_pruner import BlockPruner

STANDARDISED = """<ir_version: 8, opset_import: ["" : 18]>
g (float[N,1,4,4] x) => (float[N,2,4,4] y)
<float[3,1,1,1] w = {1,-1,0.5}, float[3,1,1,1] mean = {0.5,-2,0.4}, float[2,3,1,1] v = {1,2,-1,0.5,-2,1}> {
  centred = Sub (w, mean)
  [first] a = Conv (x, centred)
  r = Relu (a)
  [last] y = Conv (r, v)
}
"""
"""A network with a weight that is computed from constants."""


def other_weights(model: Model) -> dict[str, np.ndarray]:
    """Every vector and matrix of floats, its numbers in another order."""
    random = np.random.default_rng(5)
    weights = {name: w for name, w in constants(model.graph).items() if w.dtype.kind == "f" and w.size > 1}
    return {name: random.permutation(w.ravel()).reshape(w.shape) for name, w in weights.items()}


def assert_same_pruner(a: BlockPruner, b: BlockPruner) -> None:
    """Both make the same plans and the same networks."""
    assert a.modules == b.modules
    assert a.convolutions == b.convolutions
    for rate in (0.3, 0.7):
        rates = {table.module: rate for table in a.convolutions if table.prunable}
        assert a.plan(rates) == b.plan(rates)
        assert a.plan(rates).is_pruned
        pruned, expected = (p.materialize(p.plan(rates)).to_proto() for p in (a, b))
        assert pruned.SerializeToString(deterministic=True) == expected.SerializeToString(deterministic=True)


def forbid_analysis(monkeypatch: pytest.MonkeyPatch) -> None:
    def forbidden(*arguments: object, **options: object) -> None:
        raise AssertionError("the network is analysed again")

    analyses = {
        block_pruner: ["find_modules", "_ModuleCells"],
        planner: ["analyse_channels", "find_cells", "Families"],
        materializer: ["analyse_channels", "MapTable"],
    }
    for module, names in analyses.items():
        for name in names:
            monkeypatch.setattr(module, name, forbidden)


@pytest.mark.parametrize("criterion", ["l1", "fpgm", "bn-scale", "random"])
def test_other_weights_are_the_same_as_another_network(
    criterion: str, exported: Callable[[str], Model], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = exported("resnet18.torchscript")
    weights = other_weights(model)
    expected = BlockPruner.of(with_weights(model, weights), criterion, seed=3)
    pruner = BlockPruner.of(model, criterion, seed=3)
    rates = {table.module: 0.5 for table in pruner.convolutions}
    before = pruner.plan(rates)
    pruner.materialize(before)
    forbid_analysis(monkeypatch)
    assert_same_pruner(pruner.with_weights(weights), expected)
    assert pruner.plan(rates) == before


def test_computed_weights_are_those_of_the_new_constants() -> None:
    model = parse_text(STANDARDISED)
    weights = other_weights(model)
    pruner, expected = BlockPruner.of(model), BlockPruner.of(with_weights(model, weights))
    assert pruner.plan({"module1": 0.3}) != expected.plan({"module1": 0.3})
    assert_same_pruner(pruner.with_weights(weights), expected)


def test_other_weights_by_another_criterion(oracles: ModuleType) -> None:
    def evaluate(model: Model, feeds: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        return dict(zip([t.name for t in model.graph.outputs], oracles.run(model, dict(feeds)), strict=True))

    sample = Sample({"x": np.random.default_rng(0).standard_normal((8, 1, 4, 4)).astype(np.float32)}, evaluate)
    model = parse_text(STANDARDISED)
    weights = other_weights(model)
    expected = BlockPruner.of(with_weights(model, weights), "apoz", sample=sample)
    assert_same_pruner(BlockPruner.of(model).with_weights(weights, "apoz", sample), expected)


def test_weights_that_do_not_fit_are_refused() -> None:
    pruner = BlockPruner.of(parse_text(STANDARDISED))
    with pytest.raises(WootzError, match=r"w: shape \(2, 1, 1, 1\) does not fit the network's \(3, 1, 1, 1\)"):
        pruner.with_weights({"w": np.zeros((2, 1, 1, 1), np.float32)})
    with pytest.raises(WootzError, match="criterion taylor looks at data"):
        pruner.with_weights({}, "taylor")
