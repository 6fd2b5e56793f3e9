"""Training graphs whose loss is of several outputs: the sum of plain losses, and its slopes."""

from __future__ import annotations

import numpy as np
import pytest

from wootz.passes.ir.model import Model, with_weights
from wootz.passes.plan.lesson import Lesson, TargetLoss
from wootz.passes.plan.solver import Solver
from wootz.passes.training.distill import Distill
from wootz.passes.training.interface import TrainingInterface, target_input
from wootz.passes.training.training_graph import build_training_graph

RANDOM = np.random.default_rng(0)
X = RANDOM.normal(size=(5, 3, 4, 4)).astype(np.float32)
TARGETS = {
    "maps": RANDOM.integers(0, 4, (5, 4, 4)),
    "heights": RANDOM.normal(size=(5, 2)).astype(np.float32),
    "present": RANDOM.integers(0, 2, (5, 2)).astype(np.float32),
}
LOSSES = (
    TargetLoss("softmax-cross-entropy", "maps", 0.5, ignore_label=3),
    TargetLoss("l1", "heights", 2.0),
    TargetLoss("bce-with-logits", "present", 0.25),
)
SHAPES = {"w1": (4, 3, 1, 1), "w2": (2, 4, 1, 1), "w3": (2, 2)}
TEXT = """g (float[N,3,4,4] x) => (maps, heights, present) <float[4,3,1,1] w1, float[2,4,1,1] w2, float[2,2] w3> {
  maps = Conv(x, w1)
  r = Relu(maps)
  c = Conv(r, w2)
  p = GlobalAveragePool(c)
  heights = Flatten(p)
  m = MatMul(heights, w3)
  present = Sigmoid(m)
}"""


@pytest.fixture
def network(make_model) -> Model:
    return make_model(TEXT, **SHAPES)


def plain_loss(outputs: dict[str, np.ndarray]) -> float:
    """The same by its definition, in float64."""
    maps, heights, present = (outputs[name].astype(np.float64) for name in TARGETS)
    logarithms = maps - np.log(np.exp(maps).sum(axis=1, keepdims=True))
    labels = TARGETS["maps"]
    surprises = -np.take_along_axis(logarithms, labels[:, None], axis=1)[:, 0]
    bits = TARGETS["present"].astype(np.float64)
    return float(
        0.5 * surprises[labels != 3].mean()
        + 2.0 * np.abs(heights - TARGETS["heights"]).mean()
        - 0.25 * (bits * np.log(present) + (1 - bits) * np.log(1 - present)).mean()
    )


def stepped(graph: Model, run, values_of, rate: float):
    """The loss of a step, and the weights behind it."""
    interface, values = TrainingInterface.of(graph), values_of(graph)
    state = {slot.input: values[slot.input] for slot in interface.slots}
    fed = {name: np.asarray(targets) for name, targets in interface.targets_by_input(TARGETS)}
    outputs = run(graph, {"x": X, interface.learning_rate: np.array(rate, np.float32), **fed, **state})
    return float(outputs["loss"]), {slot.input: outputs[slot.output] for slot in interface.slots}


def test_the_loss_is_the_sum_and_each_output_has_an_input(network, run, values_of):
    graph = build_training_graph(network, Solver(), loss=LOSSES)
    interface = TrainingInterface.of(graph)
    assert interface.target_inputs == tuple(map(target_input, TARGETS))
    assert interface.losses == ("loss",)
    assert stepped(graph, run, values_of, 0.0)[0] == pytest.approx(plain_loss(run(network, {"x": X})), rel=1e-5)


@pytest.mark.parametrize("target", ["onnx", "onnx-cuda"])
def test_steps_follow_its_slopes(network, run, values_of, target):
    graph = build_training_graph(network, Solver(), loss=LOSSES, target=target)
    before = {name: values_of(graph)[name] for name in SHAPES}
    after = stepped(graph, run, values_of, 1.0)[1]
    step = 1e-3
    for name, weight in before.items():
        slope = np.empty_like(weight)
        for index in np.ndindex(weight.shape):
            moved = [weight.copy() for _ in range(2)]
            moved[0][index] += step
            moved[1][index] -= step
            high, low = (plain_loss(run(with_weights(network, {name: w}), {"x": X})) for w in moved)
            slope[index] = (high - low) / (2 * step)
        np.testing.assert_allclose(weight - after[name], slope, rtol=0.02, atol=2e-3, err_msg=name)


def test_an_output_without_targets_is_left_alone(network, run, values_of):
    """Its layer has no gradient, and stays as it is."""
    graph = build_training_graph(network, Solver(), loss=LOSSES[:1])
    assert [slot.input for slot in TrainingInterface.of(graph).slots] == ["w1"]
    loss = stepped(graph, run, values_of, 0.0)[0]
    outputs = run(network, {"x": X})
    alone = plain_loss({**outputs, "heights": TARGETS["heights"], "present": np.full((5, 2), 0.5)})
    assert loss == pytest.approx(alone - 0.25 * np.log(2), rel=1e-5)


def test_targets_and_the_full_network_are_mixed(network, make_model, run, values_of):
    """Beside an untrained teacher: what is left of the targets' loss is its share, and scores are those of maps."""
    teacher, lesson = make_model(TEXT, 1, **SHAPES), Lesson(LOSSES, distill=0.25, temperature=3.0)
    assert lesson.outputs_of_scores == ("maps",)
    graph = build_training_graph(network, Solver(), loss=LOSSES, distill=Distill.of(lesson, teacher))
    own, full = run(network, {"x": X}), run(teacher, {"x": X})

    def logarithms(scores):
        return scores / 3 - np.log(np.exp(scores / 3).sum(axis=1, keepdims=True))

    of_full, of_own = logarithms(full["maps"]), logarithms(own["maps"])
    divergence = 9 * (np.exp(of_full) * (of_full - of_own)).sum(axis=1).mean()
    error = np.mean((own["heights"] - full["heights"]) ** 2) / np.mean(full["heights"] ** 2)
    chances, wanted = (1 / (1 + (1 / outputs["present"] - 1) ** (1 / 3)) for outputs in (own, full))
    bits = 9 * (wanted * np.log(wanted / chances) + (1 - wanted) * np.log((1 - wanted) / (1 - chances))).mean()
    expected = 0.75 * plain_loss(own) + 0.25 * np.mean([divergence, error, bits])
    assert stepped(graph, run, values_of, 0.0)[0] == pytest.approx(expected, rel=1e-4)
