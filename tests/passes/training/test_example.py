"""`wootz-opt` writes a training graph that a program without wootz trains."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import numpy as np

EXAMPLE = Path(__file__).parents[3] / "examples" / "train_with_bare_onnxruntime.py"
NETWORK = """<ir_version: 8, opset_import: ["" : 18]>
network (float[N,1,4,4] x) => (probability) <
  float[2,1,1,1] conv = {1, -1}, float[3,32] fc = {%s}, float[3] bias = {0, 0, 0}> {
  y = Conv(x, conv)
  r = Relu(y)
  f = Flatten(r)
  logits = Gemm<transB=1>(f, fc, bias)
  probability = Softmax(logits)
}
""" % ", ".join(f"{v:.3f}" for v in np.random.default_rng(0).normal(0, 0.1, 96))  # noqa: UP031
PASSES = (
    "training-mode",
    "attach-loss",
    "build-gradients",
    "apply-optimizer{momentum=0.9}",
    "legalize{target=onnx}",
)


def write_training_graph(tmp_path, passes=PASSES):
    (tmp_path / "network.onnxtxt").write_text(NETWORK)
    passes = [f"--pass={p}" for p in passes]
    command = [sys.executable, "-c", "from wootz.tools.opt import main; main()", *passes]
    subprocess.run(
        [*command, str(tmp_path / "network.onnxtxt"), "-o", str(tmp_path / "training.onnx")], check=True, cwd=tmp_path
    )
    return tmp_path / "training.onnx"


def train(training_graph, images, labels, tmp_path):
    """Runs the example; gives the losses that it prints."""
    np.save(tmp_path / "images.npy", images)
    np.save(tmp_path / "labels.npy", labels)
    files = [str(training_graph), "images.npy", "labels.npy"]
    done = subprocess.run(
        [sys.executable, str(EXAMPLE), *files], check=True, cwd=tmp_path, capture_output=True, text=True
    )
    assert done.stderr == ""
    return [float(loss) for loss in re.findall(r"loss (\S+)", done.stdout)]


def test_a_program_without_wootz_trains_the_graph(tmp_path):
    random = np.random.default_rng(1)
    labels = random.integers(0, 3, 120)
    images = random.normal(size=(120, 1, 4, 4)) + labels[:, None, None, None] - 1
    losses = train(write_training_graph(tmp_path), images, labels, tmp_path)
    assert len(losses) == 100
    assert np.mean(losses[-10:]) < 0.5 * np.mean(losses[:5])
    assert set(np.load(tmp_path / "trained.npz")) >= {"conv", "fc", "bias", "fc.momentum"}
    code = re.sub(r'""".*?"""', "", EXAMPLE.read_text(), flags=re.DOTALL)
    assert set(re.findall(r"\"?wootz[\w.-]*\"?", code)) == {'"wootz.training"', '"wootz.initial-values"'}


def test_a_program_without_wootz_trains_towards_targets(tmp_path):
    random = np.random.default_rng(1)
    images = random.normal(size=(120, 1, 4, 4))
    targets = random.normal(size=(120, 3))
    targets[:, 0] += images.mean((1, 2, 3))
    distils = [p.replace("attach-loss", "attach-loss{loss=distillation}") for p in PASSES]
    losses = train(write_training_graph(tmp_path, distils), images, targets, tmp_path)
    assert np.mean(losses[-10:]) < np.mean(losses[:5])
