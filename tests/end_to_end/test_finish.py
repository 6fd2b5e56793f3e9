"""`wootz run --finish`: further files of the best network, added to a run and taken away without any training."""

import hashlib
import json

import numpy as np
import onnx
import onnxruntime
import pytest
import tiny

from wootz.runtime.result import RunResult

PIPELINES = ("int8", "float16", "embed-normalization,int8")
FILES = ("best.int8.onnx", "best.float16.onnx", "best.embed-normalization.int8.onnx")


def finishing(*pipelines):
    return [argument for pipeline in pipelines for argument in ("--finish", pipeline)]


def digests(folder):
    return {f.name: hashlib.sha256(f.read_bytes()).hexdigest() for f in folder.glob("*.onnx")}


def check_latencies(folder):
    """What stands side by side was measured side by side: a network has one latency, in both files."""
    result, description = RunResult.load(folder), json.loads((folder / "best.json").read_text())
    measured = [result.speed.best, result.speed.full, *(n.latency for n in result.finishing.networks)]
    told = [description["best"], description["full"], *description["finished"]]
    assert [facts["latency_ms"] for facts in told] == [latency.median_ms for latency in measured]


@pytest.fixture(scope="module")
def arguments(tiny_job, tmp_path_factory):
    folder = tmp_path_factory.mktemp("finish")
    return tiny.arguments(tiny_job, folder / "out", folder / "store")


@pytest.fixture(scope="module")
def out(wootz, arguments, tmp_path_factory):
    """A run that was finished with all of the pipelines from the start."""
    done = wootz(*arguments, *finishing(*PIPELINES))
    assert done.code == 0, done.err
    assert done.trained
    return next(folder for folder in tmp_path_factory.getbasetemp().glob("finish*/out"))


def test_the_files_do_what_the_result_says(out, tiny_job):
    data = np.load(tiny_job / "data.npz")
    result = RunResult.load(out)
    description = json.loads((out / "best.json").read_text())
    assert [f.model for f in result.finishing.networks] == list(FILES) == [f["file"] for f in description["finished"]]
    best = onnx.load(out / "best.onnx")
    for found, facts in zip(result.finishing.networks, description["finished"], strict=True):
        proto = onnx.load(out / found.model)
        onnx.checker.check_model(proto, full_check=True)
        assert (proto.graph.input, proto.graph.output) == (best.graph.input, best.graph.output)
        metadata = {p.key: p.value for p in proto.metadata_props}
        assert metadata.keys() >= {p.key for p in best.metadata_props} - {"wootz.modules"}
        fed = json.loads(metadata["wootz.input"])
        assert [fed["mean"], fed["scale"]] == [facts["input"]["mean"], facts["input"]["scale"]]
        assert (fed["mean"] == [0]) == ("embed" in found.pipeline)
        images = ((data["x_val"].transpose(0, 3, 1, 2) - fed["mean"][0]) * fed["scale"][0]).astype(np.float32)
        session = onnxruntime.InferenceSession(str(out / found.model), providers=["CPUExecutionProvider"])
        (scores,) = session.run(None, {session.get_inputs()[0].name: images})
        assert found.quality == np.mean(scores.argmax(1) == data["y_val"]) == found.steps[-1].quality
        assert found.bytes == (out / found.model).stat().st_size == found.steps[-1].bytes == facts["bytes"]
        assert found.latency.low_ms <= found.latency.median_ms <= found.latency.high_ms
        assert [step.pass_ for step in found.steps] == found.pipeline.split(",")
        assert (found.misses, found.test_quality, facts["meets_objective"]) == ((), None, True)
    assert description["best"]["meets_objective"]
    check_latencies(out)
    operators = {n.op_type for n in onnx.load(out / "best.int8.onnx").graph.node}
    assert {"QuantizeLinear", "DequantizeLinear", "Conv"} <= operators
    halves = [t.data_type for t in onnx.load(out / "best.float16.onnx").graph.initializer]
    assert onnx.TensorProto.FLOAT not in halves


def test_pipelines_come_and_go_without_training(wootz, arguments, out):
    before = digests(out)
    assert set(before) == {"best.onnx", "teacher.onnx", *FILES}
    without = wootz(*arguments)
    assert (without.code, without.trained) == (0, []), without.err
    assert digests(out) == {name: digest for name, digest in before.items() if name not in FILES}
    assert RunResult.load(out).finishing is None
    assert json.loads((out / "best.json").read_text())["finished"] == []
    one = wootz("run", out, *arguments[-4:], "--finish", "float16")
    assert (one.code, one.trained) == (0, []), one.err
    assert set(digests(out)) == {"best.onnx", "teacher.onnx", FILES[1]}
    check_latencies(out)
    all_again = wootz(*arguments, *finishing(*PIPELINES))
    assert (all_again.code, all_again.trained) == (0, []), all_again.err
    assert digests(out) == before, "the same command gives the same bytes"
    events = (out / "events.jsonl").read_bytes()
    repeated = wootz("run", out, *arguments[-4:])
    assert "this run is finished" in repeated.out
    assert (out / "events.jsonl").read_bytes() == events
    (out / FILES[0]).write_bytes(b"damaged")
    mended = wootz("run", out, *arguments[-4:])
    assert (mended.code, mended.trained) == (0, []), mended.err
    assert digests(out) == before


def test_what_was_trained_does_not_depend_on_pipelines(wootz, arguments, out, tmp_path):
    other = [*arguments, "--out", tmp_path / "other"]
    assert wootz(*other).code == 0
    plain, finished = (RunResult.load(folder) for folder in (tmp_path / "other", out))
    assert plain.finishing is None
    assert plain.best == finished.best
    assert [n.configuration for n in plain.networks] == [n.configuration for n in finished.networks]


def test_bad_pipelines_are_told_before_anything_is_written(wootz, arguments, tmp_path):
    folder = tmp_path / "bad"
    for pipeline, reason in (("int9", "no pass named 'int9'"), ("int8{keep=nothing}", "no such node")):
        done = wootz(*arguments, "--out", folder, "--finish", pipeline)
        assert (done.code, done.trained, folder.exists()) == (1, [], False)
        assert done.err.startswith("error: ")
        assert reason in done.err
        assert done.err.count("\n") == 1


def test_a_dry_run_says_which_files_there_will_be(wootz, arguments, tmp_path):
    done = wootz(*arguments, "--out", tmp_path / "dry", "--finish", "int8", "--dry-run")
    assert done.code == 0, done.err
    assert "the best network gets a further file best.int8.onnx (int8)" in done.out
    assert "; further files come on top\n" in done.out


def test_a_dry_run_of_a_finished_run_says_that_it_is(wootz, arguments, out):
    before = {f.name: f.stat().st_mtime_ns for f in out.iterdir()}
    for pipelines, says in ((PIPELINES, ""), (("float16",), "Its further files would be: best.float16.onnx\n")):
        done = wootz(*arguments, *finishing(*pipelines), "--dry-run")
        assert done.code == 0, done.err
        assert done.out.endswith(
            f"/out: this run is finished, and nothing would be trained; --fresh replaces it\n{says}"
        )
    assert {f.name: f.stat().st_mtime_ns for f in out.iterdir()} == before
