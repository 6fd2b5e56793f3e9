from __future__ import annotations

import numpy as np
import pytest

from wootz.passes.errors import InputError

NETWORK = """layer {{ name: "data" type: "Input" top: "x" top: "label"
             input_param {{ shape {{ {logits} }} shape {{ {labels} }} }} }}
    layer {{ name: "loss" bottom: "x" bottom: "label" top: "loss" {body} }}"""


def softmax_losses(x: np.ndarray, labels: np.ndarray) -> np.ndarray:
    e = np.exp(x - x.max(1, keepdims=True))
    probabilities = e / e.sum(1, keepdims=True)
    return -np.log(np.take_along_axis(probabilities, labels[:, None], 1))[:, 0]


@pytest.mark.parametrize(
    ("parameter", "average"),
    [
        ("", lambda losses, valid: losses[valid].sum() / valid.sum()),
        ("normalization: VALID", lambda losses, valid: losses[valid].sum() / valid.sum()),
        ("normalize: false", lambda losses, valid: losses[valid].sum() / len(losses)),
        ("normalization: BATCH_SIZE", lambda losses, valid: losses[valid].sum() / len(losses)),
        ("normalization: FULL", lambda losses, valid: losses[valid].sum() / losses.size),
        ("normalization: NONE", lambda losses, valid: losses[valid].sum()),
    ],
)
@pytest.mark.parametrize("spatial", [(), (2, 3)])
@pytest.mark.parametrize("ignored", [None, 1])
@pytest.mark.parametrize("weight", [1, 0.3])
def test_softmax_with_loss(load, run, random, parameter, average, spatial, ignored, weight) -> None:
    x = random.normal(size=(4, 5, *spatial)).astype(np.float32)
    labels = random.integers(0, 5, size=(4, *spatial))
    labels.reshape(-1)[0] = 1
    ignore = f"ignore_label: {ignored}" if ignored is not None else ""
    body = f'type: "SoftmaxWithLoss" loss_weight: {weight} loss_param {{ {parameter} {ignore} }}'
    logits_shape, label_shape = (" ".join(f"dim: {d}" for d in s) for s in (x.shape, labels.shape))
    result = load(NETWORK.format(logits=logits_shape, labels=label_shape, body=body), phase="TRAIN")
    assert result.model.graph.outputs[0].shape == []
    found = run(result, {"x": x, "label": labels})["loss"]
    valid = labels != ignored if ignored is not None else np.ones_like(labels, bool)
    np.testing.assert_allclose(found, weight * average(softmax_losses(x, labels), valid), rtol=1e-5)


def test_sigmoid_cross_entropy_loss(load, run, random) -> None:
    x, target = random.normal(size=(4, 3)).astype(np.float32), random.uniform(size=(4, 3)).astype(np.float32)
    text = NETWORK.format(logits="dim: 4 dim: 3", labels="dim: 4 dim: 3", body='type: "SigmoidCrossEntropyLoss"')
    found = run(load(text, phase="TRAIN"), {"x": x, "label": target})["loss"]
    p = 1 / (1 + np.exp(-x))
    np.testing.assert_allclose(found, -(target * np.log(p) + (1 - target) * np.log(1 - p)).sum() / 4, rtol=1e-5)


def test_euclidean_loss(load, run, random) -> None:
    x, target = (random.normal(size=(4, 3)).astype(np.float32) for _ in range(2))
    text = NETWORK.format(logits="dim: 4 dim: 3", labels="dim: 4 dim: 3", body='type: "EuclideanLoss"')
    found = run(load(text, phase="TRAIN"), {"x": x, "label": target})["loss"]
    np.testing.assert_allclose(found, ((x - target) ** 2).sum() / 8, rtol=1e-5)


def test_a_loss_without_rule_is_refused_while_training(load) -> None:
    text = NETWORK.format(logits="dim: 4 dim: 3", labels="dim: 4", body='type: "MultiBoxLoss"')
    with pytest.raises(InputError, match=r"net\.prototxt:3:\d+: layer 'loss' \(MultiBoxLoss\)"):
        load(text, phase="TRAIN")
