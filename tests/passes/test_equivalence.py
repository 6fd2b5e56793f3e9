"""Equal within rounding: a network's own weights show how much that is."""

from __future__ import annotations

import numpy as np

from wootz.passes.equivalence import EQUAL, model_difference, random_inputs, relative_difference
from wootz.passes.ir.model import Model
from wootz.passes.ir.text import parse_text
from wootz.passes.transforms.fold_batchnorm import FoldBatchNorm
from wootz.runtime.session import evaluate


def network(mean: float, variance: float) -> Model:
    return parse_text(f"""<ir_version: 8, opset_import: ["" : 18]>
      g (float[N,2,H,W] x) => (float[N,2,H,W] y) <float[2,2,1,1] w = {{0.7,-0.3,0.2,0.9}},
        float[2] b = {{{mean},{mean}}},
        float[2] s = {{1,1.1}}, float[2] v = {{{variance},{variance}}}> {{
        a = Conv(x, w, b)
        y = BatchNormalization<epsilon = 1e-12>(a, s, s, b, v)
      }}""")


def test_what_rounding_explains_is_equal() -> None:
    """Of 3e4 + x - 3e4 float32 keeps three digits of x; folded, it keeps all."""
    model = network(3e4, 1e-3)
    folded = FoldBatchNorm().apply(model).model
    feeds = random_inputs(model)
    assert relative_difference(evaluate(folded, feeds)["y"], evaluate(model, feeds)["y"]) > 10 * EQUAL["float32"]
    assert model_difference(model, folded, evaluate) is None


def test_what_rounding_does_not_explain_differs() -> None:
    for mean, change in ((0.0, 1e-4), (3e4, 0.1)):
        model = network(mean, 1e-3)
        other = FoldBatchNorm().apply(model).model
        other.graph.tensors()["w"].values = other.graph.tensors()["w"].values * np.float32(1 + change)
        difference = model_difference(model, other, evaluate)
        assert difference is not None
        assert difference.tensor == "y"
        assert difference.relative > difference.allowed


def test_infinities_and_missing_numbers_are_equal_in_the_same_places_alone() -> None:
    a = np.asarray([1, np.nan, np.inf, -np.inf])
    assert relative_difference(a, a.copy()) == 0
    for i in range(4):
        b = a.copy()
        b[i] = 5 if i else np.nan
        assert relative_difference(a, b) == np.inf
        assert relative_difference(b, a) == np.inf
    assert relative_difference(np.zeros(3, np.int64), np.ones(3, np.int64)) == 1
    assert relative_difference(np.zeros(3), np.zeros(4)) == np.inf
