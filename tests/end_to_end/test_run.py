"""The main job from files to files, as a user runs it."""

import json
import re
import sys
from pathlib import Path
from shutil import which

import numpy as np
import onnx
import onnx.reference
import onnxruntime
import pytest

from wootz.passes.ir.files import load
from wootz.passes.ir.verifier import verify
from wootz.passes.plan.transform import InputTransform
from wootz.runtime.batches import normalize
from wootz.runtime.data.loading import load_dataset
from wootz.runtime.result import RunResult


@pytest.fixture(scope="module")
def result(finished_run) -> RunResult:
    return RunResult.load(finished_run)


@pytest.fixture(scope="module")
def photographs():
    return load_dataset("digits", (1, 8, 8))


def run_onnx(file, data):
    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    return session.run(None, {session.get_inputs()[0].name: data})[0]


def test_every_file_is_there(finished_run):
    assert {"best.onnx", "teacher.onnx", "result.json", "report.html", "sizes.svg"} <= {
        f.name for f in finished_run.iterdir()
    }


def test_all_feasible_networks_are_tried_both_ways_from_the_largest_down(result, job_files):
    for exploration in (result.block_trained, result.baseline):
        assert len(exploration.trained) == len(json.loads((job_files / "subspace.json").read_text()))
        sizes = [n.model_size for n in exploration.trained]
        assert sizes == sorted(sizes, reverse=True)
        best = exploration.best
        assert best.quality == max(n.quality for n in exploration.trained)


def test_training_learns_and_pre_training_lowers_the_error_of_every_block(result):
    assert result.full.quality > 0.7
    assert result.blocks
    for block in result.blocks:
        assert block.final_error < block.initial_error
    for network in result.block_trained.trained:
        assert any(block is not None for block in network.blocks)


def test_block_trained_networks_start_from_a_higher_accuracy(result):
    start = {n.index: n.initial_quality for n in result.baseline.trained}
    gains = [n.initial_quality - start[n.index] for n in result.block_trained.trained]
    assert np.median(gains) > 0


def test_the_best_network_is_as_good_as_the_result_says(finished_run, result, photographs):
    model = load(finished_run / "best.onnx")
    verify(model)
    onnx.checker.check_model(str(finished_run / "best.onnx"), full_check=True)
    transform = InputTransform.from_json(model.metadata["wootz.input"])
    assert json.loads(model.metadata["wootz.classes"]) == [str(d) for d in range(10)]
    for split, expected in (
        (photographs.validation, result.best.quality),
        (photographs.test, result.best.test_quality),
    ):
        scores = run_onnx(finished_run / "best.onnx", normalize(split.images, transform))
        assert np.mean(scores.argmax(axis=1) == split.labels) == pytest.approx(expected)


def test_three_runtimes_agree_on_the_best_network(finished_run, photographs):
    cv2 = pytest.importorskip("cv2")
    file = finished_run / "best.onnx"
    data = normalize(photographs.test.images[:8], InputTransform(mean=(128.0,), scale=(1 / 128,)))
    expected = run_onnx(file, data)
    reference = onnx.reference.ReferenceEvaluator(str(file)).run(None, {"data": data})[0]
    np.testing.assert_allclose(reference, expected, atol=1e-5)
    network = cv2.dnn.readNetFromONNX(str(file))
    network.setInput(data)
    np.testing.assert_allclose(network.forward(), expected, atol=1e-5)


def test_the_same_job_finds_the_same(wootz, finished_run, result, job_files, tmp_path):
    done = wootz("run", job_files, "--data", "digits", "--threads", 1, "--out", tmp_path / "again")
    assert done.code == 0, done.err
    again = RunResult.load(tmp_path / "again")
    assert [(n.index, n.curve) for n in again.block_trained.trained] == [
        (n.index, n.curve) for n in result.block_trained.trained
    ]
    assert (tmp_path / "again" / "best.onnx").read_bytes() == (finished_run / "best.onnx").read_bytes()


def test_without_blocks_the_networks_are_the_default_ones(wootz, result, job_files, tmp_path):
    options = ("--identifier", "none", "--threads", 1, "--store", tmp_path / "store", "--out", tmp_path / "none")
    done = wootz("run", job_files, "--data", "digits", *options)
    assert done.code == 0, done.err
    without = RunResult.load(tmp_path / "none")
    assert not without.blocks
    assert re.search(r"^ default +[\d,]+ ", done.out, re.MULTILINE)
    assert "block-trained" not in done.out
    trained, expected = ([(n.index, n.curve) for n in e.trained] for e in (without.block_trained, result.baseline))
    assert trained == expected


@pytest.mark.parametrize("kind", ["local", "static", "MPI"])
def test_two_processes_find_what_one_finds(wootz, finished_run, result, job_files, tmp_path, kind):
    before: tuple[str, ...] = ()
    options = ("--workers", 2, *(("--static",) if kind == "static" else ()))
    if kind == "MPI":
        pytest.importorskip("mpi4py")
        mpiexec = which("mpiexec", path=str(Path(sys.executable).parent)) or which("mpiexec")
        if mpiexec is None:
            pytest.skip("no mpiexec: the extra 'mpi' brings one")
        before, options = (mpiexec, "-n", "2"), ()
    arguments = ("run", job_files, "--data", "digits", "--baseline", "--threads", 1, "--out", tmp_path / "two")
    done = wootz(*arguments, *options, before=before)
    assert done.code == 0, done.err
    two = RunResult.load(tmp_path / "two")
    assert two.environment.workers == 2
    assigned = tmp_path / "two" / "assignment.json"
    assert assigned.exists() == (kind == "static")
    if kind == "static":
        assert json.loads(assigned.read_text()) == [[n.index for n in two.networks[i::2]] for i in range(2)]
    for one, other in ((result.block_trained, two.block_trained), (result.baseline, two.baseline)):
        assert other.best == one.best
        assert [(n.index, n.curve) for n in other.trained] == [(n.index, n.curve) for n in one.trained]
    assert (tmp_path / "two" / "best.onnx").read_bytes() == (finished_run / "best.onnx").read_bytes()


def test_another_job_is_refused_and_the_same_one_trains_nothing_again(wootz, finished_run, job_files, monkeypatch):
    before = (finished_run / "best.onnx").read_bytes()
    result = (finished_run / "result.json").read_bytes()
    arguments = ("run", job_files, "--data", "digits", "--baseline", "--threads", 1, "--out", finished_run)
    refused = wootz(*arguments, "--objective", "max Accuracy constraint ModelSize < 1.0 * full")
    assert refused.code == 1
    assert re.search(r"holds a run with objective '.*' instead of '.*': --fresh replaces it", refused.err)
    assert len(refused.err.splitlines()) == 1
    assert (finished_run / "result.json").read_bytes() == result
    monkeypatch.setenv("WOOTZ_STORE", str(finished_run.parent / "store"))
    finished = wootz(*arguments)
    assert (finished.code, "this run is finished" in finished.out) == (0, True), finished.err
    assert (finished_run / "result.json").read_bytes() == result
    (finished_run / "best.onnx").unlink()
    again = wootz(*arguments)
    assert again.code == 0, again.err
    assert not again.trained
    assert (finished_run / "best.onnx").read_bytes() == before
    assert without_times(finished_run) == without_times_of(json.loads(result))


def test_another_objective_reuses_what_fits(wootz, finished_run, result, job_files, tmp_path, monkeypatch):
    monkeypatch.setenv("WOOTZ_STORE", str(finished_run.parent / "store"))
    arguments = ("run", job_files, "--data", "digits", "--baseline", "--threads", 1, "--out", tmp_path / "smallest")
    done = wootz(*arguments, "--objective", "min ModelSize constraint Accuracy >= 0", "--no-early-end")
    assert done.code == 0, done.err
    assert not done.trained
    smallest = RunResult.load(tmp_path / "smallest")
    assert smallest.best.model_size == min(n.model_size for n in result.networks)
    assert (smallest.reuse.blocks, smallest.reuse.networks) == (len(result.blocks), 1)
    assert "5 of 5 blocks, 1 of 1 networks" in done.out
    assert "[INFO]" not in done.out


def without_times(folder):
    return without_times_of(json.loads((folder / "result.json").read_text()))


def without_times_of(table):
    """What of a result has to be the same whenever and however often a run was continued."""
    if isinstance(table, dict):
        return {k: without_times_of(v) for k, v in table.items() if k not in ("seconds", "seconds_saved", "speed")}
    return [without_times_of(value) for value in table] if isinstance(table, list) else table


def test_the_normalisation_can_be_part_of_the_network(wootz, job_files, finished_run, tmp_path, photographs):
    out = tmp_path / "raw"
    done = wootz(
        "run", job_files, "--data", "digits", "--threads", 1, "--out", out, "--embed-normalization"
    )  # fmt: skip
    assert done.code == 0, done.err
    pixels = photographs.test.images[:16].astype(np.float32)
    plain = run_onnx(finished_run / "best.onnx", normalize(pixels, InputTransform(mean=(128.0,), scale=(1 / 128,))))
    np.testing.assert_allclose(run_onnx(out / "best.onnx", pixels), plain, atol=1e-6)


def test_the_report_can_be_made_again(wootz, finished_run):
    page = (finished_run / "report.html").read_text()
    (finished_run / "report.html").unlink()
    done = wootz("report", finished_run)
    assert done.code == 0
    assert done.out.strip() == str(finished_run / "report.html")
    assert len((finished_run / "report.html").read_text()) == len(page)
