"""A network that doesn't say how pixels become its input: it is found out, kept, and told."""

import json

import numpy as np
import pytest

from wootz.passes.ir.files import load, save
from wootz.passes.ir.model import Model
from wootz.passes.plan.transform import TRANSFORM_KEY, InputTransform
from wootz.runtime.data.loading import load_dataset
from wootz.runtime.result import RunResult

pytest.importorskip("sklearn")


@pytest.fixture
def exported(finished_run, tmp_path):
    """The folder of the trained digits network, which wants (pixel - 128) / 128, as an exporter leaves it."""
    save(Model(load(finished_run / "teacher.onnx").graph), tmp_path / "net.onnx")
    return tmp_path


def run(wootz, job_files, folder, *options):
    files = {"subspace": "subspace.json", "solver": "solver.prototxt", "pretrain-solver": "pretrain.prototxt"}
    companions = [f"--{option}={job_files / file}" for option, file in files.items()]
    fixed = ("--data", "digits", "--objective", "max Accuracy", "--threads", 1, "--out", "out")
    return wootz("run", "net.onnx", *fixed, *companions, *options, cwd=folder)


def test_a_trial_finds_it_once_for_a_run(wootz, job_files, exported):
    shown = run(wootz, job_files, exported, "--dry-run")
    assert shown.code == 0, shown.err
    assert "-1..1 is taken" in shown.out
    assert not (exported / "out").exists()
    done = run(wootz, job_files, exported)
    assert done.code == 0, done.err
    assert done.out.count("-1..1 is taken") == 1
    result = RunResult.load(exported / "out")
    assert any("-1..1 is taken" in note for note in result.notes)
    assert result.full.quality > 0.8
    told = InputTransform.from_json(load(exported / "out" / "best.onnx").metadata[TRANSFORM_KEY])
    assert (told.mean, told.scale) == ((127.5,), (1 / 127.5,))
    kept = json.loads((exported / "out" / "pixels.json").read_text())
    assert (kept["mean"], kept["scale"], kept["channel_order"]) == ([127.5], [1 / 127.5], "RGB")
    assert kept["accuracies"]["-1..1"] > 0.7  # of 50 images
    assert set(kept["accuracies"]) == {"-1..1", "0..1", "raw"}

    again = run(wootz, job_files, exported)
    assert (again.code, "this run is finished" in again.out) == (0, True), again.err
    (exported / "out" / "pixels.json").write_text(json.dumps({**kept, "mean": [100.0]}))
    other = run(wootz, job_files, exported)
    assert other.code == 1
    assert "input transform" in other.err
    (exported / "out" / "pixels.json").write_text('{"mean": [], "scale": [0]}')
    damaged = run(wootz, job_files, exported)
    assert damaged.code == 1
    assert "pixels.json: " in damaged.err


def test_options_say_it(wootz, job_files, exported):
    done = run(wootz, job_files, exported, "--normalize", "-1..1", "--dry-run")
    assert done.code == 0, done.err
    assert "taken" not in done.out
    for options, said in {
        ("--normalize", "-1..1", "--mean", "3"): "--normalize says what --mean and --scale say",
        ("--normalize", "imagenet"): "the mean of the input has 3 values, for images of 1 channels",
        ("--normalize", "grey"): "--normalize grey: give imagenet, 0..1, -1..1, caffe, raw, or MEAN:STD",
        ("--scale", "-1"): "on pixels as --scale has them the network only guesses: -1..1 ",
    }.items():
        refused = run(wootz, job_files, exported, *options)
        assert (refused.code, len(refused.err.splitlines())) == (1, 1)
        assert said in refused.err
    assert not (exported / "out").exists()


def test_a_network_that_guesses_is_refused_before_anything_is_written(wootz, job_files, exported):
    data = load_dataset("digits", (1, 8, 8))
    shuffle = np.random.default_rng(0).permutation
    np.savez(
        exported / "shuffled.npz", x_train=data.train.images, y_train=shuffle(data.train.labels),
        x_val=data.validation.images, y_val=shuffle(data.validation.labels),
    )  # fmt: skip
    refused = run(wootz, job_files, exported, "--data", "shuffled.npz")
    assert (refused.code, len(refused.err.splitlines())) == (1, 1)
    assert "the network only guesses" in refused.err
    assert all(f"{name} " in refused.err for name in ("-1..1", "0..1", "raw"))
    assert not (exported / "out").exists()
    for options in (("--allow-untrained",), ("--new-head",)):
        goes_on = run(wootz, job_files, exported, "--data", "shuffled.npz", "--dry-run", *options)
        assert goes_on.code == 0, goes_on.err
        assert ("the network only guesses" in goes_on.out.lower()) == (options == ("--allow-untrained",))
        assert "-1..1 is taken" in goes_on.out, "the first BatchNormalizations tell it"
