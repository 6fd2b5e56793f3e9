"""Each loss and its gradients: against PyTorch, for CPUs, CUDA and float16, and against finite differences."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from wootz.passes.errors import PassError
from wootz.passes.ir.model import Model, constants
from wootz.passes.training.attach_loss import TARGET, AttachLoss
from wootz.passes.training.build_gradients import BuildGradients
from wootz.passes.training.legalize import Legalize
from wootz.passes.training.mixed_precision import MixedPrecision

RANDOM = np.random.default_rng(0)
X = RANDOM.normal(size=(4, 3, 6, 5)).astype(np.float32)
VALUES = RANDOM.normal(size=(4, 5, 6, 5)).astype(np.float32)
SHARES = RANDOM.random(size=(4, 5, 6, 5)).astype(np.float32)
MAP = RANDOM.integers(0, 5, size=(4, 6, 5))
HOLES = np.where(RANDOM.random(MAP.shape) < 0.3, 255, MAP)
NEGATIVE_HOLES = np.where(HOLES == 255, -1, HOLES)
WEIGHTS = (1.0, 2.0, 0.5, 3.0, 0.0)


@dataclass(frozen=True)
class Case:
    """A loss, what it compares with, and PyTorch's: of torch, its functional, the output and that."""

    options: dict[str, Any]
    given: np.ndarray
    expected: Callable[[Any, Any, Any, Any], Any]
    tail: str = "y = Identity(c)"


CASES = {
    "mse": Case({"loss": "mse"}, VALUES, lambda t, f, y, g: f.mse_loss(y, g)),
    "l1": Case({"loss": "l1"}, VALUES, lambda t, f, y, g: f.l1_loss(y, g)),
    "smooth-l1": Case({"loss": "smooth-l1"}, VALUES, lambda t, f, y, g: f.smooth_l1_loss(y, g)),
    "smooth-l1 of a small beta": Case(
        {"loss": "smooth-l1", "beta": 0.3}, VALUES, lambda t, f, y, g: f.smooth_l1_loss(y, g, beta=0.3)
    ),
    "bce": Case(
        {"loss": "bce-with-logits"}, SHARES, lambda t, f, y, g: f.binary_cross_entropy_with_logits(y, g)
    ),
    "bce behind a sigmoid": Case(
        {"loss": "bce-with-logits"},
        np.round(SHARES),
        lambda t, f, y, g: f.binary_cross_entropy_with_logits(y, g),
        tail="y = Sigmoid(c)",
    ),
    "classes of positions": Case({}, MAP, lambda t, f, y, g: f.cross_entropy(y, g), tail="y = Softmax<axis=1>(c)"),
    "classes of positions, weighted": Case(
        {"class_weights": WEIGHTS}, MAP, lambda t, f, y, g: f.cross_entropy(y, g, t.tensor(WEIGHTS))
    ),
    "an ignored label": Case(
        {"ignore_label": 255}, HOLES, lambda t, f, y, g: f.cross_entropy(y, g, ignore_index=255)
    ),
    "a negative label ignored": Case(
        {"ignore_label": -1}, NEGATIVE_HOLES, lambda t, f, y, g: f.cross_entropy(y, g, ignore_index=-1)
    ),
    "an ignored class": Case(
        {"ignore_label": 2},
        MAP,
        lambda t, f, y, g: f.cross_entropy(y, g, ignore_index=2),
        tail="y = LogSoftmax<axis=1>(c)",
    ),
    "an ignored label, weighted": Case(
        {"ignore_label": 255, "class_weights": WEIGHTS},
        HOLES,
        lambda t, f, y, g: f.cross_entropy(y, g, t.tensor(WEIGHTS), ignore_index=255),
    ),
    "an ignored label, smoothed": Case(
        {"ignore_label": 255, "label_smoothing": 0.2},
        HOLES,
        lambda t, f, y, g: f.cross_entropy(y, g, ignore_index=255, label_smoothing=0.2),
    ),
    "an ignored label, weighted and smoothed": Case(
        {"ignore_label": 255, "class_weights": WEIGHTS, "label_smoothing": 0.2},
        HOLES,
        lambda t, f, y, g: f.cross_entropy(y, g, t.tensor(WEIGHTS), ignore_index=255, label_smoothing=0.2),
    ),
}  # fmt: skip


@pytest.fixture(params=CASES)
def case(request) -> Case:
    return CASES[request.param]


@pytest.fixture
def network(case, make_model) -> Model:
    body = f"c = Conv<pads=[1,1,1,1]>(x, w, b) {case.tail}"
    text = f"g (float[N,3,6,5] x) => (y) <float[5,3,3,3] w, float[5] b> {{ {body} }}"
    return make_model(text, w=(5, 3, 3, 3), b=(5,))


def feeds_of(lossy: Model, case: Case) -> dict[str, np.ndarray]:
    (name,) = (t.name for t in lossy.graph.inputs if t.name != "x")
    assert name == (TARGET if "loss" in case.options else "labels")
    return {"x": X, name: case.given}


@pytest.mark.parametrize(("target", "precision"), [("onnx", 1e-5), ("onnx-cuda", 1e-5), ("onnx-cuda", 0.02)])
def test_losses_equal_pytorch(case, target, precision, network, run):
    torch = pytest.importorskip("torch")
    lossy = AttachLoss(**case.options).apply(network).model
    feeds = feeds_of(lossy, case)
    if precision > 1e-3:
        lossy = MixedPrecision().apply(lossy).model
    found = run(Legalize(target=target).apply(BuildGradients().apply(lossy).model).model, feeds)
    own = {name: torch.tensor(v, requires_grad=True) for name, v in constants(network.graph).items()}
    y = torch.nn.functional.conv2d(torch.tensor(X), own["w"], own["b"], padding=1)
    loss = case.expected(torch, torch.nn.functional, y, torch.tensor(case.given))
    loss.backward()
    assert float(found["loss"]) == pytest.approx(loss.item(), rel=precision)
    for name, weight in own.items():
        gradient = weight.grad.numpy()
        np.testing.assert_allclose(
            found[f"{name}.grad"], gradient, rtol=0, atol=10 * precision * np.abs(gradient).max()
        )


def test_gradients_equal_finite_differences(case, network, in_double_precision, run_reference):
    lossy = AttachLoss(**case.options).apply(in_double_precision(network)).model
    feeds = {name: v.astype(np.float64) if v.dtype == np.float32 else v for name, v in feeds_of(lossy, case).items()}
    found = run_reference(BuildGradients().apply(lossy).model, feeds)
    for parameter in ("w", "b"):
        gradient = found[f"{parameter}.grad"]
        direction = RANDOM.normal(size=gradient.shape)

        def loss(step, parameter=parameter, direction=direction):
            moved = lossy.copy()
            tensor = moved.graph.tensors()[parameter]
            tensor.values = tensor.values + step * direction
            return float(run_reference(moved, feeds)["loss"])

        expected = (loss(1e-6) - loss(-1e-6)) / 2e-6
        assert np.sum(gradient * direction) == pytest.approx(expected, rel=1e-4, abs=1e-8), parameter


def test_large_logits_leave_the_cross_entropy_exact(make_model, run):
    text = "g (float[N,2] x) => (y) <float[2] w> { y = Mul(x, w) }"
    lossy = AttachLoss(loss="bce-with-logits").apply(make_model(text, w=np.ones(2))).model
    graph = Legalize().apply(BuildGradients().apply(lossy).model).model
    found = run(graph, {"x": np.array([[200, -200]], np.float32), TARGET: np.array([[1, 0]], np.float32)})
    assert float(found["loss"]) == 0
    found = run(graph, {"x": np.array([[200, -200]], np.float32), TARGET: np.array([[0, 1]], np.float32)})
    assert float(found["loss"]) == 200
    assert found["w.grad"].tolist() == [100, 100]


def test_a_batch_of_ignored_labels_has_no_loss_and_no_gradient(make_model, run):
    text = "g (float[N,4] x) => (y) <float[4,3] w> { y = MatMul(x, w) }"
    lossy = AttachLoss(ignore_label=9).apply(make_model(text, w=(4, 3))).model
    graph = Legalize().apply(BuildGradients().apply(lossy).model).model
    found = run(graph, {"x": np.ones((2, 4), np.float32), "labels": np.array([9, 9])})
    assert float(found["loss"]) == 0
    assert not found["w.grad"].any()


def test_a_beta_of_nothing_is_refused(make_model):
    text = "g (float[N,4] x) => (y) <float[4,3] w> { y = MatMul(x, w) }"
    with pytest.raises(PassError, match=f"^{re.escape('attach-loss: beta has to be more than 0, not 0.0')}$"):
        AttachLoss(loss="smooth-l1", beta=0.0).apply(make_model(text, w=(4, 3)))
