"""Images without labels: pruned networks learn what the full one does, and are judged by how well they do it."""

import json

import numpy as np
import onnxruntime
import pytest
from residual import MODULES, WEIGHTS, write_network

from wootz.runtime.data.loading import load_dataset
from wootz.runtime.result import RunResult

SOLVER = 'base_lr: 0.01 lr_policy: "fixed" momentum: 0.9 max_iter: 12 batch_size: 16 test_interval: 6'
SCORES = ("(float[N,1,8,8] image) => (float[N,10] y)", MODULES + "f = Flatten(p) y = MatMul(f, fc)")
MAPS = (
    "(float[N,1,8,8] image) => (float[N,8,8,8] maps, float[N,10] y)",
    MODULES + "maps = Sigmoid(m2) f = Flatten(p) y = MatMul(f, fc)",
)


@pytest.fixture
def folder(tmp_path):
    np.save(tmp_path / "x.npy", np.random.default_rng(0).integers(0, 256, (120, 1, 8, 8), np.uint8))
    (tmp_path / "solver.prototxt").write_text(SOLVER)
    return tmp_path


def run(wootz, folder, *options):
    return wootz(
        "run", "net.onnx", "--data", "x.npy", "--subspace", "subspace.json", "--solver", "solver.prototxt",
        "--pretrain-solver", "solver.prototxt", "--normalize", "0..1", "--threads", 1, "--out", "out", *options,
        cwd=folder,
    )  # fmt: skip


def outputs(file, images):
    session = onnxruntime.InferenceSession(file)
    return session.run(None, {session.get_inputs()[0].name: images.astype(np.float32) / 255})


@pytest.mark.parametrize(("network", "quality"), [(SCORES, "Agreement"), (MAPS, "OutputError")])
def test_a_run_is_judged_by_what_the_full_network_does(wootz, folder, network, quality):
    write_network(folder, *network, WEIGHTS)
    done = run(wootz, folder, "--objective", f"{'max' if quality == 'Agreement' else 'min'} {quality}")
    assert done.code == 0, done.err
    found = RunResult.load(folder / "out")
    assert found.quality.name == quality
    assert found.full.quality == {"Agreement": 1, "OutputError": 0}[quality]
    assert found.classes == ()
    validation = load_dataset(str(folder / "x.npy"), (1, 8, 8)).validation
    images = np.asarray(validation.images)
    full, best = (outputs(folder / "out" / name, images) for name in ("teacher.onnx", "best.onnx"))
    if quality == "Agreement":
        expected = np.mean(full[0].argmax(1) == best[0].argmax(1))
    else:
        expected = np.mean([np.sum((a - b) ** 2) / np.sum(a**2) for a, b in zip(full, best, strict=True)])
    assert found.best.quality == pytest.approx(expected, rel=1e-3)
    trained = found.block_trained.trained
    best_of = max if quality == "Agreement" else min
    assert found.best.quality == best_of(network.quality for network in trained)
    assert all(network.quality == best_of(value for _, value in network.curve) for network in trained)
    if quality == "OutputError":
        assert all(network.quality < network.initial_quality for network in trained)
    described = json.loads((folder / "out" / "best.json").read_text())
    gives = [output["gives"] for output in described["outputs"]]
    assert gives == (["logits"] if quality == "Agreement" else ["numbers", "numbers"])
    assert described["quality"] == quality


def test_what_is_chosen_for_such_data_and_what_they_can_not_be_used_for(wootz, folder):
    write_network(folder, *SCORES, WEIGHTS)
    planned = run(wootz, folder, "--dry-run")
    assert "for 'min ModelSize constraint Agreement >= 0.97'" in planned.out
    refused = run(wootz, folder, "--objective", "max Accuracy")
    assert "Accuracy needs labels, and the data have none" in refused.err
    write_network(folder, *MAPS, WEIGHTS)
    planned = run(wootz, folder, "--dry-run")
    assert "for 'min ModelSize constraint OutputError <= 0.02'" in planned.out
    refused = run(wootz, folder, "--objective", "max Agreement")
    assert "Agreement is of networks with one output [N, classes], and this one gives maps, y" in refused.err


def test_a_search_goes_by_all_outputs(wootz, folder):
    write_network(folder, *MAPS, WEIGHTS)
    done = wootz(
        "search", "net.onnx", "--data", "x.npy", "--rates", "0.5", "--networks", 2, "--looks", 4, "--normalize", "0..1",
        "--solver", "solver.prototxt", "--pretrain-solver", "solver.prototxt", "--round-to", 1, "--threads", 1,
        "--objective", "min OutputError constraint ModelSize < 0.9 * full", "--out", "out", cwd=folder,
    )  # fmt: skip
    assert done.code == 0, done.err
    found = RunResult.load(folder / "out")
    assert found.best.quality == min(network.quality for network in found.block_trained.trained)
    assert all(0 <= network.looked < 1 for network in found.search.networks if network.looked is not None)
    assert [point.quality for point in found.search.front] == sorted(point.quality for point in found.search.front)


def test_a_reference_that_would_be_ignored_is_refused(wootz, folder):
    write_network(folder, *SCORES, WEIGHTS)
    done = run(wootz, folder, "--objective", "max Agreement", "--reference", "tuned")
    assert done.code == 1
    assert "--reference tuned: without labels" in done.err
    assert not (folder / "out").exists()


DECIDES = (
    "(float[N,1,8,8] image) => (int64[N] chosen, float[N,8,8,8] maps)",
    MODULES + "maps = Relu(m2) f = Flatten(p) y = MatMul(f, fc) chosen = ArgMax<axis=1, keepdims=0>(y)",
)


def test_all_networks_of_a_front_have_their_postprocessing(wootz, folder):
    write_network(folder, *DECIDES, WEIGHTS)
    command = (
        "search", "net.onnx", "--data", "x.npy", "--rates", "0.5", "--networks", 2, "--looks", 4, "--normalize", "0..1",
        "--solver", "solver.prototxt", "--pretrain-solver", "solver.prototxt", "--round-to", 1, "--threads", 1,
        "--objective", "min OutputError constraint ModelSize < 0.9 * full", "--out", "out",
    )  # fmt: skip
    done = wootz(*command, cwd=folder)
    assert done.code == 0, done.err
    images = np.load(folder / "x.npy")[:20]
    points = [point.model for point in RunResult.load(folder / "out").search.front]
    for name in ("best.onnx", *points):
        file = folder / "out" / name
        chosen, *maps = outputs(file.with_stem(f"{file.stem}-whole"), images)
        y, own = sorted(outputs(file, images), key=np.ndim)
        np.testing.assert_array_equal(chosen, y.argmax(1))
        np.testing.assert_array_equal(maps, [own])
    (folder / "out" / "front" / "01-whole.onnx").unlink()
    again = wootz(*command, cwd=folder)
    assert "this run is finished" not in again.out
    assert (folder / "out" / "front" / "01-whole.onnx").is_file()
    assert "this run is finished" in wootz(*command, cwd=folder).out


def test_outputs_count_by_their_weights(wootz, folder):
    """Of two outputs only `maps` counts, in training and in what is found; another weight is another run."""
    write_network(folder, *MAPS, WEIGHTS)
    done = run(wootz, folder, "--objective", "min OutputError", "--output-weights", "y=0")
    assert done.code == 0, done.err
    found = RunResult.load(folder / "out")
    validation = np.asarray(load_dataset(str(folder / "x.npy"), (1, 8, 8)).validation.images)
    (full, _), (best, _) = (outputs(folder / "out" / name, validation) for name in ("teacher.onnx", "best.onnx"))
    assert found.best.quality == pytest.approx(np.sum((best - full) ** 2) / np.sum(full**2), rel=1e-3)
    assert any("maps 1, y 0" in note for note in found.notes)
    others = run(wootz, folder, "--objective", "min OutputError", "--output-weights", "y=0.5")
    assert others.code == 1
    assert "--output-weights" in others.err
