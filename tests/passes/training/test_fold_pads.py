"""Pads of zeros before convolutions become theirs when gradients are built, and others stay."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from wootz.passes.ir.model import Module
from wootz.passes.ir.verifier import verify
from wootz.passes.plan.solver import Solver
from wootz.passes.training.training_graph import build_training_graph
from wootz.runtime.session import TrainingSession

SOLVER = Solver(momentum=0.9)
LINES = """g (float[N,2,8,7] x) => (float[N,3] y)
<float[4,2,3,3] w, float[4,1,2,3] v, float[3,4] f, int64[8] even = {{0,0,1,1,0,0,1,1}},
 int64[8] uneven = {{0,0,0,2,0,0,1,0}},
 int64[8] cut = {{0,0,0,-1,0,0,0,0}}, int64[4] wide = {{0,1,1,1}}, int64[2] axes = {{2,-1}}, float one = {{1}},
 float zero = {{0}}>
{{ {lines}
  p = GlobalAveragePool(c)  q = Flatten(p)  y = Gemm<transB = 1>(q, f) }}"""
REST = "c = Conv<group = 4>(b, v)"
FOLDED = {
    "even": ("a = Pad(x, even)  b = Conv(a, w)", "b = Conv<pads = [1,1,1,1]>(x, w)"),
    "uneven, beside its own": (
        "a = Pad(x, uneven, zero)  b = Conv<strides = [2,1], pads = [1,0,0,1]>(a, w)",
        "b = Conv<strides = [2,1], pads = [1,2,1,1]>(x, w)",
    ),
    "of named axes": ("a = Pad(x, wide, , axes)  b = Conv(a, w)", "b = Conv<pads = [0,1,1,1]>(x, w)"),
    "of two convolutions": (
        'a = Pad(x, even)  d = Conv(a, w)  e = Conv<auto_pad = "VALID", dilations = [2,2]>(a, w)  '
        "r = GlobalAveragePool(e)  b = Add(d, r)",
        "d = Conv<pads = [1,1,1,1]>(x, w)  e = Conv<dilations = [2,2], pads = [1,1,1,1]>(x, w)  "
        "r = GlobalAveragePool(e)  b = Add(d, r)",
    ),
    "one behind another": (
        "a = Pad(x, even)  d = Pad(a, uneven)  b = Conv(d, w)",
        "b = Conv<pads = [1,3,2,1]>(x, w)",
    ),
}


def model_of(make_model, lines):
    text = LINES.format(lines=f"{lines}  {REST}")
    return make_model(text, w=(4, 2, 3, 3), v=(4, 1, 2, 3), f=(3, 4))


def trained(model):
    random = np.random.default_rng(0)
    session = TrainingSession(build_training_graph(model, SOLVER))
    x, labels = random.normal(size=(4, 2, 8, 7)).astype(np.float32), random.integers(0, 3, 4)
    losses = [float(session.step(x, labels, 0.1)[0]) for _ in range(3)]
    return losses, {name: session.read_slot(name) for name in "wvf"}


@pytest.mark.parametrize("case", FOLDED)
def test_steps_are_those_of_convolutions_with_pads(case, make_model):
    with_pads, own = (model_of(make_model, lines) for lines in FOLDED[case])
    graph = build_training_graph(with_pads, SOLVER)
    verify(graph)
    assert not any(t.name == "a" for t in graph.graph.tensors().values())
    losses, weights = trained(with_pads)
    expected, expected_weights = trained(own)
    np.testing.assert_allclose(losses, expected, rtol=1e-5)
    for name, values in expected_weights.items():
        np.testing.assert_allclose(weights[name], values, rtol=1e-4, atol=1e-6, err_msg=name)


@pytest.mark.parametrize(
    "lines",
    [
        "a = Pad(x, even, one)  b = Conv(a, w)",
        'a = Pad<mode = "reflect">(x, even)  b = Conv(a, w)',
        "a = Pad(x, cut)  b = Conv(a, w)",
        "a = Pad(x, even)  d = Conv(a, w)  e = ReduceMean(a)  b = Add(d, e)",
        'a = Pad(x, even)  b = Conv<auto_pad = "SAME_UPPER">(a, w)',
    ],
)
def test_others_stay(lines, make_model):
    model = model_of(make_model, lines)
    assert "a" in build_training_graph(model, SOLVER).graph.tensors()
    losses, _ = trained(model)
    assert np.isfinite(losses).all()


def test_the_end_of_a_module_stays(make_model):
    model = model_of(make_model, FOLDED["even"][0])
    with_module = replace(model, modules=(Module("m", "a", "b"),))
    assert "a" in build_training_graph(with_module, SOLVER).graph.tensors()
