"""APoZ and Taylor criteria, against their definitions."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from wootz.passes.analysis.channels import analyse_channels
from wootz.passes.analysis.data_criteria import Sample, data_scores
from wootz.passes.errors import InputError, WootzError
from wootz.passes.ir.model import Model
from wootz.passes.ir.text import parse_text
from wootz.passes.pipeline import parse_pass

NETWORK = """<ir_version: 8, opset_import: ["" : 18]>
g (float[N,1,2,2] x) => (float[N,2] y)
<
  float[3,1,1,1] w = {1,-1,0.5}, float[3] b = {0,-1,0.5}, float[2,3,1,1] v = {1,2,-1,0.5,-2,1}, float[2] c = {0,0.1}
>
{
  [conv] a = Conv(x, w, b)
  [relu] r = Relu(a)
  [last] z = Conv(r, v, c)
  [pool] p = GlobalAveragePool(z)
  [flat] y = Flatten(p)
}"""


@pytest.fixture
def sample(oracles: ModuleType) -> Sample:
    random = np.random.default_rng(0)
    images = random.standard_normal((16, 1, 2, 2)).astype(np.float32)
    labels = random.integers(0, 2, 16)

    def evaluate(model: Model, feeds: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        return dict(zip([t.name for t in model.graph.outputs], oracles.run(model, dict(feeds)), strict=True))

    return Sample({"x": images, "labels": labels}, evaluate)


def test_apoz_is_the_share_of_activations_that_are_not_zero(sample: Sample) -> None:
    model = parse_text(NETWORK)
    scores = data_scores(model, analyse_channels(model), "apoz", sample)
    x = sample.feeds["x"]
    expected = [np.mean(w * x + b > 0) for w, b in ((1, 0), (-1, -1), (0.5, 0.5))]
    np.testing.assert_allclose(scores[:3], expected, rtol=1e-6)


def test_apoz_of_a_network_in_float16(sample: Sample) -> None:
    model = parse_text(NETWORK)
    expected = data_scores(model, analyse_channels(model), "apoz", sample)
    half = parse_text(NETWORK)
    for name, tensor in half.graph.tensors().items():
        if name in ("x", "y"):
            tensor.dtype = np.dtype(np.float16)
        elif name in ("w", "b", "v", "c"):
            tensor.values = tensor.values.astype(np.float16)
    feeds = {**sample.feeds, "x": sample.feeds["x"].astype(np.float16)}
    scores = data_scores(half, analyse_channels(half), "apoz", replace(sample, feeds=feeds))
    np.testing.assert_allclose(scores, expected, atol=1 / 16)


def test_a_network_without_layers_has_no_activations_to_measure(sample: Sample) -> None:
    model = parse_text('<ir_version: 8, opset_import: ["" : 18]> g (float[N,1,2,2] x) => (float y) { y = Tanh(x) }')
    assert not data_scores(model, analyse_channels(model), "apoz", sample).size


def test_taylor_needs_one_output(sample: Sample) -> None:
    model = parse_text(NETWORK.replace("(float[N,2] y)", "(float[N,2] y, float[N,2,1,1] p)"))
    with pytest.raises(WootzError, match=r"criterion taylor: .* the network has 2 \(y, p\): take another criterion"):
        data_scores(model, analyse_channels(model), "taylor", sample)


def test_taylor_predicts_what_the_loss_does_when_a_filter_shrinks(sample: Sample) -> None:
    """The derivative of the loss by a factor on the filter is Σ weight · gradient: measured by differences."""

    def loss(factor: float, filter_: int) -> float:
        model = parse_text(NETWORK)
        weight = model.graph.tensors()["w"]
        values = weight.values.copy()
        values[filter_] *= factor
        weight.values = values
        logits = sample.evaluate(model, {"x": sample.feeds["x"]})["y"].astype(np.float64)
        likelihood = logits - np.log(np.exp(logits).sum(1, keepdims=True))
        return -float(np.mean(likelihood[np.arange(16), sample.feeds["labels"]]))

    model = parse_text(NETWORK)
    scores = data_scores(model, analyse_channels(model), "taylor", sample)
    for i in range(3):
        derivative = (loss(1.01, i) - loss(0.99, i)) / 0.02
        assert scores[i] == pytest.approx(derivative**2, rel=0.02, abs=1e-7)


def test_what_is_missing_is_named(sample: Sample) -> None:
    model = parse_text(NETWORK)
    without = replace(sample, feeds={"x": sample.feeds["x"]})
    with pytest.raises(WootzError, match="criterion taylor: the data has no array 'labels'"):
        data_scores(model, analyse_channels(model), "taylor", without)


@pytest.mark.parametrize("criterion", ["apoz", "taylor"])
@pytest.mark.parametrize("name", ["prune-filters", "prune-blocks"])
def test_passes_read_the_data(criterion: str, name: str, sample: Sample, tmp_path: Path) -> None:
    np.savez(tmp_path / "data.npz", **sample.feeds)
    pass_ = parse_pass(f"{name}{{rate=0.4 criterion={criterion} data={tmp_path / 'data.npz'}}}")
    plan = replace(pass_, evaluator=sample.evaluate).apply(parse_text(NETWORK)).plan  # type: ignore[call-arg]
    model = parse_text(NETWORK)
    scores = data_scores(model, analyse_channels(model), criterion, sample)[:3]
    assert plan is not None
    assert plan.keep("conv") == tuple(int(i) for i in sorted(np.argsort(-scores)[:1]))


def test_mistakes_are_named(sample: Sample, tmp_path: Path) -> None:
    (tmp_path / "data.npz").write_text("no arrays")
    model = parse_text(NETWORK)
    pass_ = parse_pass(f"prune-filters{{rate=0.4 criterion=apoz data={tmp_path / 'data.npz'}}}")
    with pytest.raises(WootzError, match="something to execute the network"):
        pass_.apply(model)
    with pytest.raises(InputError, match=r"data.npz: not an .npz file of arrays"):
        replace(pass_, evaluator=sample.evaluate).apply(model)  # type: ignore[call-arg]
    with pytest.raises(WootzError, match="criterion apoz looks at data"):
        parse_pass("prune-filters{rate=0.4 criterion=apoz}").apply(model)
