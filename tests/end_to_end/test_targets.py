"""Targets of the data choose the loss, and networks learn what these say, where the full network says otherwise."""

import json
from dataclasses import dataclass

import numpy as np
import onnx
import onnxruntime
import pytest
from residual import MODULES, WEIGHTS, write_network

import wootz as library
from wootz.runtime.result import RunResult

SOLVER = 'base_lr: 0.02 lr_policy: "cosine" momentum: 0.9 max_iter: 60 batch_size: 16 test_interval: 20'
OPTIONS = {"subspace": "one.json", "solver": "solver.prototxt", "pretrain_solver": "solver.prototxt",
           "normalize": "0..1", "threads": 1, "show": False, "out": "out"}  # fmt: skip
IMAGES = np.random.default_rng(0).integers(0, 256, (96, 1, 8, 8), np.uint8)
HEAD = {"stem": WEIGHTS["stem"], "a": WEIGHTS["a"], "b": WEIGHTS["b"], "c": WEIGHTS["c"], "d": WEIGHTS["d"]}
NUMBERS = (
    "(float[N,1,8,8] image) => (float[N,1,8,8] y)",
    MODULES + "y = Conv(m2, head, shift)",
    {**HEAD, "head": (1, 8, 1, 1), "shift": (1,)},
)
SCORES = (
    "(float[N,1,8,8] image) => (float[N,3,8,8] y)",
    MODULES + "y = Conv(m2, head, shift)",
    {**HEAD, "head": (3, 8, 1, 1), "shift": (3,)},
)
BITS = (
    "(float[N,1,8,8] image) => (float[N,1,8,8] y)",
    MODULES + "s = Conv(m2, head, shift) y = Sigmoid(s)",
    NUMBERS[2],
)
TWO = (
    "(float[N,1,8,8] image) => (float[N,1,8,8] y, float[N,3] kind)",
    MODULES + "y = Conv(m2, head, shift) f = Flatten(p) kind = MatMul(f, fc)",
    {**NUMBERS[2], "fc": (8, 3)},
)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    (tmp_path / "solver.prototxt").write_text(SOLVER)
    (tmp_path / "one.json").write_text("[[0.5, 0.5]]")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("WOOTZ_STORE", str(tmp_path / "store"))
    return tmp_path


def outputs(file, images=IMAGES):
    session = onnxruntime.InferenceSession(file)
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(None, {"image": images.astype(np.float32) / 255}), strict=True))


def closeness(outputs, targets):
    return -float(np.mean((outputs - targets) ** 2))


@dataclass(frozen=True)
class Found:
    best: dict[str, np.ndarray]
    full: dict[str, np.ndarray]
    result: RunResult


def found(folder, targets, metric=closeness, **options):
    run = library.run(
        "net.onnx", data=(IMAGES, targets), metric=metric, objective=f"max {metric.__name__}", **OPTIONS, **options
    )
    return Found(outputs(run.best), outputs(folder / "net.onnx"), run.result)


@pytest.mark.parametrize(
    ("options", "shift"),
    [({"distill": 0.0, "reference": "given"}, 3), ({"loss": "l1", "distill": 0.0, "reference": "given"}, 3),
     ({"loss": "none"}, 0)],
)  # fmt: skip
def test_what_targets_add_to_the_full_network_is_learned(folder, options, shift):
    """They are what it gives, and 3: that is learned from them, and not from the full network."""
    write_network(folder, *NUMBERS)
    targets = outputs(folder / "net.onnx")["y"] + 3
    ran = found(folder, targets, **options)
    assert np.mean(ran.best["y"] - ran.full["y"]) == pytest.approx(shift, abs=0.7)
    learned = {"none": "the full network, with share 1", "l1": "l1"}.get(options.get("loss"), "mse")
    assert ran.result.learned_from == learned
    described = json.loads((folder / "out" / "best.json").read_text())
    assert described["origin"]["learned_from"] == learned
    assert any("(--loss)" in note for note in ran.result.notes) == (shift > 0)


def test_the_full_network_gets_the_same_lesson(folder):
    write_network(folder, *NUMBERS)
    ran = found(folder, outputs(folder / "net.onnx")["y"] + 3, distill=0.0)
    assert ran.result.full.tuned.quality > 10 * ran.result.full.quality, "the error is nearly gone"


def test_maps_of_classes_without_those_that_stand_for_none(folder):
    """All is of class 1 where anything is known, whatever the full network says."""
    write_network(folder, *SCORES)
    targets = np.ones((96, 8, 8), np.int64)
    targets[:, :4] = 255

    def right(outputs, targets):
        return float(np.mean(outputs.argmax(1)[:, 4:] == targets[:, 4:]))

    ran = found(folder, targets, right, distill=0.0)
    assert ran.result.learned_from == "softmax-cross-entropy, without label 255"
    assert np.mean(ran.full["y"].argmax(1) == 1) < 0.1
    assert np.mean(ran.best["y"].argmax(1) == 1) > 0.95


def test_bits_behind_a_sigmoid(folder):
    write_network(folder, *BITS)
    ran = found(folder, np.zeros((96, 1, 8, 8), np.int64), distill=0.0)
    assert ran.result.learned_from == "bce-with-logits"
    assert ran.best["y"].mean() < 0.1
    assert ran.full["y"].mean() > 2 * ran.best["y"].mean()


def test_several_outputs_with_targets_by_name(folder):
    """What has no output of its name is for the metric, which gets all of it."""
    write_network(folder, *TWO)
    targets = {"y": outputs(folder / "net.onnx")["y"] + 3, "kind": np.ones(96, np.int64), "weight": np.arange(96.0)}

    def both(outputs, targets):
        assert targets["weight"].ndim == 1
        return closeness(outputs["y"], targets["y"]) + np.mean(outputs["kind"].argmax(1) == targets["kind"])

    ran = found(folder, targets, both, distill=0.0)
    assert ran.result.learned_from == "mse of y and softmax-cross-entropy of kind"
    assert np.mean(ran.best["y"] - ran.full["y"]) == pytest.approx(3, abs=0.5)
    assert np.mean(ran.best["kind"].argmax(1) == 1) > 0.95


def test_targets_of_one_of_several_outputs(folder):
    """What the other one gives is learned from the full network."""
    write_network(folder, *TWO)

    def closeness_of_y(outputs, targets):
        return closeness(outputs["y"], targets)

    ran = found(folder, outputs(folder / "net.onnx")["y"] + 3, closeness_of_y, distill=0.3, data_on_device=True)
    assert ran.result.learned_from == "mse of y and the full network, with share 0.3"
    assert 1 < np.mean(ran.best["y"] - ran.full["y"]) < 3


def test_another_loss_is_another_run(folder):
    write_network(folder, *NUMBERS)
    targets = outputs(folder / "net.onnx")["y"] + 3
    given = {"metric": closeness, "objective": "max closeness", "data": (IMAGES, targets)}
    library.run("net.onnx", **given, **OPTIONS)
    with pytest.raises(library.WootzError, match="--loss"):
        library.run("net.onnx", **given, **OPTIONS, loss="l1")


UNTRAINED = """
layer { name: "image" type: "Input" top: "image" input_param { shape { dim: 1 dim: 1 dim: 8 dim: 8 } } }
layer { name: "a" type: "Convolution" bottom: "image" top: "a" module: "m"
        convolution_param { num_output: 8 kernel_size: 3 pad: 1 weight_filler { type: "msra" } } }
layer { name: "r" type: "ReLU" bottom: "a" top: "a" module: "m" }
layer { name: "b" type: "Convolution" bottom: "a" top: "b" module: "m"
        convolution_param { num_output: 8 kernel_size: 3 pad: 1 weight_filler { type: "msra" } } }
layer { name: "y" type: "Convolution" bottom: "b" top: "y"
        convolution_param { num_output: 1 kernel_size: 1 weight_filler { type: "msra" } } }
"""


def test_a_network_without_weights_is_trained_by_targets(folder):
    (folder / "net.prototxt").write_text(UNTRAINED)
    (folder / "one.json").write_text("[[0.5]]")
    targets = IMAGES.astype(np.float32) / 255
    given = {**OPTIONS, "metric": closeness, "objective": "max closeness"}
    ran = library.run("net.prototxt", data=(IMAGES, targets), **given)
    assert ran.result.full.quality > -0.07, "no constant comes below the variance of 0.083"
    assert ran.result.learned_from == "mse", "the full network knows no more than these"
    boxes = np.zeros((96, 2, 4), np.float32)
    with pytest.raises(library.WootzError, match=r"layers without weights .*no loss of their targets is known"):
        library.run("net.prototxt", data=(IMAGES, boxes), **given, fresh=True)


def test_boxes_are_for_the_metric_alone(folder):
    write_network(folder, *NUMBERS)

    def size(outputs, targets):
        return -float(np.mean(outputs**2)) + float(targets.sum())

    ran = found(folder, np.zeros((96, 2, 4), np.float32), size)
    assert ran.result.learned_from == "the full network, with share 1"
    assert onnx.load(folder / "out" / "best.onnx").graph.output[0].name == "y"
