"""Scores are those of running every variant whole."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wootz.passes.ir.model import Constant, Graph, Model, Node, Variable, copy_graph
from wootz.passes.plan.transform import InputTransform
from wootz.runtime.data.dataset import Split
from wootz.runtime.quality.quality import ACCURACY, OUTPUT_ERROR
from wootz.runtime.session import InferenceSession, evaluate
from wootz.runtime.variants import plan as plan_module
from wootz.runtime.variants import scoring
from wootz.runtime.variants.plan import VariantPlan
from wootz.runtime.variants.scoring import score_variants

AS_THEY_ARE = InputTransform(channel_order="RGB")
BATCH, IMAGES = 7, 17


@pytest.fixture(autouse=True, scope="module")
def _several_batches():
    """The last of which has fewer images."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(scoring, "EVALUATION_BATCH", BATCH)
        yield


def images_for(model: Model, classes: int = 5) -> Split:
    random = np.random.default_rng(1)
    shape = (IMAGES, *model.graph.inputs[0].shape[1:])
    return Split(random.standard_normal(shape).astype(np.float32), random.integers(0, classes, IMAGES))


def kl_divergence(full: np.ndarray, variant: np.ndarray) -> float:
    p, q = (np.exp(scores.astype(np.float64)) for scores in (full, variant))
    p, q = p / p.sum(axis=1, keepdims=True), q / q.sum(axis=1, keepdims=True)
    return float(np.mean(np.sum(p * np.log(p / q), axis=1)))


def tensors_of(model: Model, names: tuple[str, ...], data: np.ndarray) -> Mapping[str, np.ndarray]:
    graph = copy_graph(model.graph)
    tensors = graph.tensors()
    graph.outputs = [tensors[name] for name in names]
    for tensor in graph.outputs:
        tensor.dtype = np.dtype(np.float32)
    return evaluate(replace(model, graph=graph), {"data": data})


def error_at(full: Model, variant: Model, names: tuple[str, ...], data: np.ndarray) -> float:
    own, others = (tensors_of(model, names, data) for model in (full, variant))
    return float(np.mean([np.mean((own[n] - others[n]) ** 2) / np.var(own[n]) for n in names]))


@pytest.mark.parametrize("largest", [0, 3000, plan_module.LARGEST_SUFFIXES])
def test_scores_are_those_of_whole_variants(case, largest, monkeypatch):
    """Whether suffixes are one program each, or share their parts."""
    monkeypatch.setattr(plan_module, "LARGEST_SUFFIXES", largest)
    split = images_for(case.full)
    quality = ACCURACY if len(case.full.graph.outputs) == 1 else OUTPUT_ERROR
    scores = score_variants(case.full, case.variants, split, AS_THEY_ARE, quality=quality)
    exits = {key: group.exits for group in VariantPlan.of(case.full, case.variants).groups for key in group.regions}
    assert scores.keys() == case.variants.keys()
    own = list(evaluate(case.full, {"data": split.images}).values())
    for key, variant in case.variants.items():
        others = list(evaluate(variant, {"data": split.images}).values())
        found = scores[key]
        if own[0].ndim == 2:
            assert found.quality == np.mean(others[0].argmax(axis=1) == split.labels)
            assert found.divergence == pytest.approx(kl_divergence(own[0], others[0]), abs=1e-5)
        else:
            expected = np.mean([np.sum((a - b) ** 2) / np.sum(a**2) for a, b in zip(own, others, strict=True)])
            assert found.divergence == pytest.approx(expected, rel=1e-4)
            assert quality is ACCURACY or found.quality == pytest.approx(expected, rel=1e-4)
        if key == "same":
            assert (found.divergence, found.error) == (0.0, 0.0)
        else:
            expected = error_at(case.full, variant, exits[key], split.images)
            assert found.error == pytest.approx(expected, rel=1e-4)
            assert found.error > 1e-3


@st.composite
def networks_and_changes(draw: st.DrawFn) -> tuple[Model, dict[int, Model]]:
    """Any small directed graph of convolutions, functions, sums and products, and variants with some other weights."""
    image = Variable("data", np.dtype(np.float32), ["N", 2, 3, 3])
    tensors, nodes, convolutions = [image], [], []
    for i in range(draw(st.integers(2, 9))):
        operands = [tensors[draw(st.integers(max(0, i - 3), i))] for _ in range(2)]
        kind = draw(st.sampled_from(["Conv", "Conv", "Relu", "Add", "Mul", "Identity"]))
        if kind == "Conv":
            convolutions.append(i)
            operands[1] = Constant(f"w{i}", np.random.default_rng(i).standard_normal((2, 2, 1, 1)).astype(np.float32))
        result = Variable(f"t{i}")
        count = 2 if kind in ("Conv", "Add", "Mul") else 1
        nodes.append(Node(op=kind, name=f"n{i}", inputs=operands[:count], outputs=[result]))
        tensors.append(result)
    logits = Variable("logits", np.dtype(np.float32))
    nodes.append(Node(op="GlobalAveragePool", name="pool", inputs=[tensors[-1]], outputs=[logits]))
    full = Model(Graph(nodes=nodes, inputs=[image], outputs=[logits], opset=18))
    subsets = draw(st.lists(st.sets(st.sampled_from(convolutions or [-1])), min_size=1, max_size=4))
    return full, {k: _with_other_weights(full, subset) for k, subset in enumerate(subsets)}


def _with_other_weights(model: Model, convolutions: set[int]) -> Model:
    variant = model.copy()
    for i in convolutions:
        if f"w{i}" in (tensors := variant.graph.tensors()):
            tensors[f"w{i}"].values = np.random.default_rng(i + 100).standard_normal((2, 2, 1, 1)).astype(np.float32)
    return variant


@settings(max_examples=40)
@given(networks_and_changes())
def test_scores_of_any_graph_are_those_of_whole_variants(example):
    full, variants = example
    split = images_for(full, classes=2)
    scores = score_variants(full, variants, split, AS_THEY_ARE)
    own = InferenceSession(full).run(split.images)[:, :, 0, 0]
    for key, variant in variants.items():
        others = InferenceSession(variant).run(split.images)[:, :, 0, 0]
        assert scores[key].divergence == pytest.approx(kl_divergence(own, others), rel=1e-4, abs=1e-5)
        sure = np.abs(others[:, 0] - others[:, 1]) > 1e-5
        right = (others.argmax(axis=1) == split.labels)[sure].sum()
        assert right <= round(scores[key].quality * IMAGES) <= right + np.sum(~sure)


def test_what_is_not_a_number_is_infinitely_far_off_and_wrong(case_of):
    case = case_of("chain")
    broken = case.full.copy()
    broken.graph.tensors()["m2.b.weight"].values = np.full((4, 6, 3, 3), np.nan, np.float32)
    score = score_variants(case.full, {"broken": broken}, images_for(case.full), AS_THEY_ARE)["broken"]
    assert (score.quality, score.divergence, score.error) == (0.0, float("inf"), float("inf"))
