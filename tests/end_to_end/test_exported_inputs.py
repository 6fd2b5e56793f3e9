"""Networks as exporters leave them: what `wootz run` makes of their inputs and outputs, and what it refuses early."""

import numpy as np
import onnxruntime
import pytest
import residual
from residual import MODULES, write_network

from wootz.passes.ir.files import load
from wootz.passes.plan.transform import TRANSFORM_KEY, InputTransform
from wootz.runtime.data.loading import load_dataset
from wootz.runtime.machine import gpu_memory
from wootz.runtime.result import RunResult

pytest.importorskip("sklearn")


def run(wootz, job_files, folder, *options):
    return residual.run(wootz, job_files, folder, "--allow-untrained", *options)


def assert_refused_before_training(done, folder, reason):
    assert done.code == 1, done.out + done.err
    assert len(done.err.strip().splitlines()) == 1, done.err
    assert reason in done.err
    assert not done.trained
    assert not list(folder.rglob("*.npz"))
    assert not (folder / "out" / "teacher.onnx").exists()


def test_pixels_in_rows_a_batch_of_one_and_an_output_beside_the_scores(wootz, job_files, tmp_path, monkeypatch):
    """uint8[1, height, width, channels], open sizes, scores behind a view that has the batch in it."""
    write_network(
        tmp_path,
        "(uint8[1,H,W,1] pixels) => (float[1,10] y, float[1,8,1,1] p)",
        f"""t = Transpose<perm = [0,3,1,2]>(pixels) f = Cast<to = 1>(t)
            half = Constant<value = float {{128.0}}>() image = Div(f, half) {MODULES}
            s = Constant<value = int64[2] {{1, 8}}>() v = Reshape(p, s) y = MatMul(v, fc)""",
    )
    refused = run(wootz, job_files, tmp_path, "--size", "8x8")
    assert_refused_before_training(refused, tmp_path, "choose the one with the scores by --scores NAME")
    blocks = ("blocks", "net.onnx", "--subspace", "subspace.json")
    sample = ("subspace", "sample", "net.onnx", "--rates", "0.5,0.75", "--count", 3, "-o", "more.json")
    for command in (blocks, sample):
        assert "give it by --size HEIGHTxWIDTH" in wootz(*command, cwd=tmp_path).err
        done = wootz(*command, "--scores", "y", "--size", "8x8", cwd=tmp_path)
        assert done.code == 0, done.err
    data = load_dataset("digits", (1, 8, 8))
    splits = {"train": data.train, "val": data.validation}
    rows = {f"x_{name}": split.images.transpose(0, 2, 3, 1) for name, split in splits.items()}
    np.savez(tmp_path / "rows.npz", **rows, y_train=data.train.labels, y_val=data.validation.labels)
    for options in ((), ("--data", "rows.npz", "--fresh")):
        done = run(wootz, job_files, tmp_path, "--output", "y", "--size", 8, "--criterion", "taylor", *options)
        assert done.code == 0, done.err
        for said in ("outputs left out: p", "the batch, fixed to 1", "uint8 is now float32", "images are 8x8",
                     "[N, height, width, channels] is now [N, channels, height, width]"):  # fmt: skip
            assert said in done.out, done.out
        monkeypatch.chdir(tmp_path)
        known: dict[str, np.ndarray] = {}
        exec("\n".join(done.out.splitlines()[-3:]), known)
        assert (known["scores"].shape, known["scores"].dtype) == ((1, 10), np.float32)
        result = RunResult.load(tmp_path / "out")
        best = result.best
    for file in ("best.onnx", "teacher.onnx"):
        session = onnxruntime.InferenceSession(str(tmp_path / "out" / file), providers=["CPUExecutionProvider"])
        (image,), (scores,) = session.get_inputs(), session.get_outputs()
        assert (image.name, image.type, image.shape) == ("pixels", "tensor(uint8)", [1, "H", "W", 1])
        assert (scores.name, scores.type, scores.shape) == ("y", "tensor(float)", [1, 10])
        found = [session.run(None, {"pixels": row[None]})[0].argmax() for row in rows["x_val"].astype(np.uint8)]
        accuracy = best.quality if file == "best.onnx" else result.full.quality
        assert np.mean(np.equal(found, data.validation.labels)) == pytest.approx(accuracy)


def test_what_cannot_be_trained_is_told_before_pre_training(wootz, job_files, tmp_path):
    """The last layers have no part in a block: their gradient is needed by the fine-tuning alone."""
    body = f"{MODULES} v = Flatten(p) s = Sinh(v) y = MatMul(s, fc)"
    write_network(tmp_path, "(float[N,1,8,8] image) => (float[N,10] y)", body)
    assert_refused_before_training(
        run(wootz, job_files, tmp_path), tmp_path, "build-gradients: s: there is no gradient rule for Sinh"
    )


def test_a_batch_that_is_fixed_where_nobody_sees_it_is_told(wootz, job_files, tmp_path):
    write_network(
        tmp_path,
        "(float[1,1,8,8] image) => (float[1,10] y)",
        f"""{MODULES} flat = Constant<value = int64[1] {{-1}}>() v = Reshape(p, flat)
            back = Constant<value = int64[2] {{-1, 8}}>() w = Reshape(v, back) z = MatMul(w, fc)
            zero = Constant<value = int64[1] {{0}}>() m = ReduceMax<keepdims = 1>(z, zero) y = Add(z, m)""",
    )
    assert_refused_before_training(
        run(wootz, job_files, tmp_path), tmp_path, "other scores for 3 images at once than one by one"
    )


@pytest.mark.skipif(gpu_memory() is not None, reason="there is a GPU")
def test_without_a_gpu_the_solvers_mode_is_a_note_and_the_option_an_error(wootz, job_files, tmp_path):
    write_network(tmp_path, "(float[N,1,8,8] image) => (float[N,10] y)", f"{MODULES} v = Flatten(p) y = MatMul(v, fc)")
    refused = run(wootz, job_files, tmp_path, "--device", "cuda")
    assert_refused_before_training(refused, tmp_path, "error: --device cuda: ")
    (tmp_path / "gpu.prototxt").write_text(
        "base_lr: 0.05 lr_policy: 'fixed' max_iter: 5 batch_size: 32 solver_mode: GPU"
    )
    done = run(wootz, job_files, tmp_path, "--solver", "gpu.prototxt")
    assert (done.code, done.err) == (0, "")
    assert done.out.startswith("The solver asks for a GPU (solver_mode), but ")
    assert done.out.splitlines()[0].endswith(": this runs on the CPU.")


def test_what_is_in_the_store_is_not_trained_again(wootz, job_files, tmp_path):
    write_network(tmp_path, "(float[N,1,8,8] image) => (float[N,10] y)", f"{MODULES} v = Flatten(p) y = MatMul(v, fc)")
    for options, trains in (((), True), ((), False), (("--fresh",), False)):
        done = run(wootz, job_files, tmp_path, *options)
        assert done.code == 0, done.err
        assert bool(done.trained) == trains


def test_how_pixels_become_the_input_is_said_or_noted(wootz, job_files, tmp_path):
    """Caffe's order of channels is Caffe's alone."""
    write_network(tmp_path, "(float[N,1,8,8] image) => (float[N,10] y)", f"{MODULES} v = Flatten(p) y = MatMul(v, fc)")
    for options, scale in (((), 1 / 255), (("--scale", "0.01", "--fresh"), 0.01)):
        done = run(wootz, job_files, tmp_path, *options)
        assert done.code == 0, done.err
        assert "network only guesses" in done.out
        assert ("Nothing tells how pixels become the network's input" in done.out) == (not options)
        told = InputTransform.from_json(load(tmp_path / "out" / "best.onnx").metadata[TRANSFORM_KEY])
        assert (told.channel_order, told.scale) == ("RGB", (scale,))
