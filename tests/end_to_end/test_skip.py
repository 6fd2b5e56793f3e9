"""A run whose subspace leaves modules out, from files to files."""

import json
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import tiny

from wootz.passes.ir.files import load
from wootz.passes.ir.verifier import verify
from wootz.passes.plan.transform import InputTransform
from wootz.runtime.batches import normalize
from wootz.runtime.result import RunResult, TrainedBlockResult

ROWS = [["skip", 0.5], [0.5, 1], [0.5, 0.5], ["skip", "skip"]]


def arguments(job: Path, out: str) -> list[str]:
    """The command of the tiny job, without default networks."""
    return [text for text in tiny.arguments(job, job / out, job / "store") if text != "--baseline"]


@pytest.fixture(scope="module")
def job(tmp_path_factory) -> Path:
    folder = tiny.make_job(tmp_path_factory.mktemp("skip"))
    (folder / "subspace.json").write_text(json.dumps(ROWS))
    return folder


@pytest.fixture(scope="module")
def run(wootz, job) -> Path:
    """All networks are trained."""
    done = wootz(*arguments(job, "out"))
    assert done.code == 0, done.err
    return job / "out"


def test_what_is_left_out_is_shown(wootz, job):
    shown = wootz("blocks", job / "net.prototxt", "--subspace", job / "subspace.json")
    assert shown.code == 0, shown.err
    for row in ("[skip, 0.5]", "[0.5, skip]", "[skip, skip]"):
        assert row in shown.out


def test_blocks_of_modules_that_are_there_are_trained(run):
    found = RunResult.load(run)
    assert all(isinstance(block, TrainedBlockResult) for block in found.blocks)
    assert sorted((s.module, s.rate) for block in found.blocks for s in block.symbols) == [("m", 0.5), ("n", 0.5)]
    networks = {n.configuration: n for n in found.block_trained.trained}
    assert set(networks) == {(1.0, 0.5), (0.5, 1.0), (0.5, 0.5), (1.0, 1.0)}
    pretrained = [[block is not None for block in networks[row].blocks] for row in ((1.0, 0.5), (0.5, 1.0), (1.0, 1.0))]
    assert pretrained == [[False, True], [True, False], [False, False]]
    assert networks[1.0, 1.0].model_size == 80 + 18, "what is outside of all modules"


def test_the_best_network_is_delivered_without_what_is_left_out(wootz, job, run):
    """Another objective finds the trainings of the first run in the store."""
    options = ("--objective", "min ModelSize constraint Accuracy >= 0", "--no-early-end")
    done = wootz(*arguments(job, "smallest"), *options)
    assert done.code == 0, done.err
    assert not done.trained
    assert "rates: [skip, skip]" in " ".join(done.out.split())
    file = job / "smallest" / "best.onnx"
    onnx.checker.check_model(str(file), full_check=True)
    assert [node.op_type for node in onnx.load(file).graph.node if node.op_type in ("Conv", "Identity")] == ["Conv"]
    model = load(file)
    verify(model)
    assert model.modules == ()
    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    images = np.load(job / "data.npz")
    pixels = images["x_val"].transpose(0, 3, 1, 2)
    transform = InputTransform.from_json(model.metadata["wootz.input"])
    (scores,) = session.run(None, {session.get_inputs()[0].name: normalize(pixels, transform)})
    best = RunResult.load(job / "smallest").best
    assert best.configuration == (1.0, 1.0)
    assert np.mean(scores.argmax(1) == images["y_val"]) == pytest.approx(best.quality)
