"""A network for other classes than those of the data: its last layer is replaced, and the full network fine-tuned."""

import json
import re

import numpy as np
import onnxruntime
import pytest
import residual
from residual import MODULES, WEIGHTS

from wootz.passes.ir.files import load
from wootz.passes.ir.model import constants
from wootz.passes.transforms.replace_head import ReplaceHead
from wootz.runtime.data.loading import load_dataset
from wootz.runtime.result import RunResult
from wootz.tools.head import fit_head
from wootz.tools.models import open_trainable

pytest.importorskip("sklearn")


def write_network(folder, end):
    """Two residual modules and 25 classes; `end` makes `y` of the logits `l`."""
    body = f"{MODULES} v = Flatten(p) z = MatMul(v, fc) l = Add(z, fcb) {end}"
    weights = {**WEIGHTS, "fc": (8, 25), "fcb": (25,)}
    residual.write_network(folder, "(float[N,1,8,8] image) => (float[N,25] y)", body, weights)


def run(wootz, job_files, folder, *options):
    """Of a network that hardly learns in so few steps."""
    return residual.run(wootz, job_files, folder, "--scale", "0.0625", "--allow-untrained", *options)


def test_it_gets_one_for_the_classes_of_the_data(wootz, job_files, tmp_path):
    """Its softmax is taken apart, and stands in what comes out."""
    end = "axis = Constant<value = int64[1] {1}>() x = Exp(l) s = ReduceSum(x, axis) y = Div(x, s)"
    write_network(tmp_path, end)
    done = run(wootz, job_files, tmp_path)
    assert done.code == 0, done.err
    assert "The data have 10 classes, the network 25: the last layer" in done.out
    full = RunResult.load(tmp_path / "out").full
    (layer,) = full.new_layers
    assert f"The full network is fine-tuned; new layers: {layer}." in done.out
    assert full.origin == "fine-tuned"
    assert full.steps > 0
    session = onnxruntime.InferenceSession(str(tmp_path / "out" / "best.onnx"), providers=["CPUExecutionProvider"])
    validation = load_dataset("digits", (1, 8, 8)).validation
    (scores,) = session.run(None, {"image": validation.images.astype(np.float32) / 16})
    np.testing.assert_allclose(scores.sum(1), 1, rtol=1e-5)
    accuracy = np.mean(scores.argmax(1) == validation.labels)
    assert accuracy == pytest.approx(RunResult.load(tmp_path / "out").best.quality)
    described = json.loads((tmp_path / "out" / "best.json").read_text())
    assert described["outputs"] == [{"name": "y", "type": "float32", "shape": ["N", 10], "gives": "probabilities"}]
    assert (described["input"]["scale"], described["input"]["channel_order"]) == ([0.0625], "grey")
    assert described["best"]["validation_quality"] == pytest.approx(accuracy)
    assert described["best"]["bytes"] == (tmp_path / "out" / "best.onnx").stat().st_size
    assert described["full"]["validation_quality"] == pytest.approx(full.quality)
    assert described["origin"]["new_layers"] == [layer]
    assert list(described["origin"]["rates"].values()) == list(RunResult.load(tmp_path / "out").best.configuration)


def test_the_options_decide_otherwise(wootz, job_files, tmp_path):
    write_network(tmp_path, "y = Softmax(l)")
    kept = run(wootz, job_files, tmp_path, "--keep-head")
    assert (kept.code, len(kept.err.splitlines())) == (1, 1)
    assert "tells 25 classes apart (y), the data set has 10: without --keep-head it gets a new last layer" in kept.err
    assert not (tmp_path / "out").exists()
    assert run(wootz, job_files, tmp_path).code == 0
    (tmp_path / "net.onnx").write_bytes((tmp_path / "out" / "teacher.onnx").read_bytes())
    assert not RunResult.load(tmp_path / "out").full.reused
    for option, new_layers in (("--keep-head", ()), ("--new-head", ("z",))):
        done = run(wootz, job_files, tmp_path, option, "--fresh")
        assert done.code == 0, done.err
        assert RunResult.load(tmp_path / "out").full.new_layers == new_layers
        assert ("--new-head: the last layer 'z' starts anew" in done.out) == bool(new_layers)
    trained = constants(load(tmp_path / "out" / "teacher.onnx").graph)["fc"]
    given = constants(load(tmp_path / "net.onnx").graph)["fc"]
    assert trained.shape == given.shape
    assert not np.allclose(trained, given)


def test_what_is_no_classifier_is_refused(wootz, job_files, tmp_path):
    write_network(tmp_path, "y = Mul(l, l)")
    done = run(wootz, job_files, tmp_path)
    assert (done.code, len(done.err.splitlines())) == (1, 1)
    assert re.search(r"not for the 10 classes of the data.*output y comes from Mul: a classifier ends in", done.err)
    assert not (tmp_path / "out").exists()


def test_a_prototxt_gets_one_too(wootz, job_files, tmp_path):
    text = (job_files / "net.prototxt").read_text()
    changed = text.replace("num_output: 10", "num_output: 12")
    assert changed != text
    (tmp_path / "net.prototxt").write_text(changed)
    done = wootz(
        "run", "net.prototxt", "--data", "digits", "--dry-run", "--subspace", job_files / "subspace.json",
        "--solver", job_files / "solver.prototxt", "--pretrain-solver", job_files / "pretrain.prototxt",
        "--objective", "max Accuracy", cwd=tmp_path,
    )  # fmt: skip
    assert done.code == 0, done.err
    assert "The data have 10 classes, the network 12: the last layer" in done.out


def test_a_sigmoid_becomes_a_softmax_with_a_new_head_alone_and_a_line_says_so(tmp_path):
    write_network(tmp_path, "y = Sigmoid(l)")
    network = open_trainable(str(tmp_path / "net.onnx"))
    line = "The Sigmoid behind it is now a Softmax, since each image has one class."
    for classes, last in ((25, "Sigmoid"), (10, "Softmax")):
        fitted = fit_head(network, classes, None, 0)
        assert fitted.model.graph.outputs[0].inputs[0].op == last
        assert line in " ".join(fitted.notes) if last == "Softmax" else not fitted.notes
    (_, note) = ReplaceHead(classes=10).apply(network.model).notes
    assert note == "its Sigmoid is now a Softmax"
