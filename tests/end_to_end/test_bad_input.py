"""Each fault of the input: one line that says what to do, exit code 1, no traceback, nothing half-written."""

import os
import pickle
import re

import numpy as np
import pytest

from wootz.runtime.result import FailedBlockResult, FailedNetworkResult, RunResult

pytest.importorskip("sklearn")


class Attack:
    def __reduce__(self):
        return os.system, ("touch attacked",)


def run_with(wootz, job_files, tmp_path, *options):
    """The job with some options changed, in an empty working directory."""
    return wootz("run", job_files, "--data", "digits", "--out", "out", *options, cwd=tmp_path)


def assert_refused(done, tmp_path, pattern):
    assert done.code == 1, done.out + done.err
    assert len(done.err.strip().splitlines()) == 1, done.err
    assert re.search(pattern, done.err), done.err
    assert "Traceback" not in done.err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("option", "name", "content", "pattern"),
    [
        ("--subspace", "missing.json", None, r"missing\.json: .*No such file"),
        (
            "--subspace",
            "short.json",
            "[[0.5, 0.5]]",
            r"short\.json: row 1: 2 rates; a row has 4 rates, one a module, or 15",
        ),
        ("--subspace", "rate.json", "[[0.5, 0.5, 0.5, 1.5]]", r"rate\.json.*1\.5"),
        ("--solver", "missing.prototxt", None, r"missing\.prototxt: .*[Nn]o such file"),
        ("--solver", "unknown.prototxt", "base_lr: 0.1\nmomentun: 0.9", r"unknown\.prototxt:2:1:.*momentun.*momentum"),
        (
            "--solver",
            "batch.prototxt",
            "base_lr: 0.1 lr_policy: 'fixed' max_iter: 9 batch_size: 5000",
            r"batch_size 5000 of the .*solver exceeds the \d+ training",
        ),
        (
            "--objective",
            None,
            "min ModelSize constraint Accuracy > 1.5",
            r"Accuracy lies between 0 and 1, 1\.5 doesn't",
        ),
        ("--objective", None, "min Size", r"--objective:1:5.*Size.*ModelSize"),
        ("--objective", None, "objectives/mine.txt", r"objectives/mine\.txt: no such file"),
        ("--weights", "missing.caffemodel", None, r"missing\.caffemodel: .*[Nn]o such file"),
        ("--data", None, "nowhere", r"nowhere: no such data set"),
        ("--criterion", None, "l7", r"l7"),
        ("--print-ir-after", None, "fold", r"--print-ir-after fold: no training graph .*training-mode, attach-loss"),
    ],
)
def test_options(wootz, job_files, tmp_path, option, name, content, pattern):
    value = name or content
    if name and content is not None:
        (tmp_path / name).write_text(content)
    assert_refused(run_with(wootz, job_files, tmp_path, option, value), tmp_path, pattern)


def test_a_pickle_that_holds_code(wootz, job_files, tmp_path):
    (tmp_path / "attack.pickle").write_bytes(pickle.dumps(Attack()))
    done = run_with(wootz, job_files, tmp_path, "--subspace", "attack.pickle")
    assert_refused(done, tmp_path, r"attack\.pickle.*(system|posix)")
    assert not (tmp_path / "attacked").exists()


def test_a_syntax_error_in_a_prototxt(wootz, job_files, tmp_path):
    text = (job_files / "net.prototxt").read_text().splitlines()
    text[6] = '  name: "conv1'
    (tmp_path / "net.prototxt").write_text("\n".join(text))
    done = wootz("run", "net.prototxt", "--data", "digits", "--out", "out", cwd=tmp_path)
    assert_refused(done, tmp_path, r"net\.prototxt:7:\d+:")


def test_a_network_that_does_not_exist(wootz, tmp_path):
    done = wootz("run", "nothing.prototxt", "--out", "out", cwd=tmp_path)
    assert_refused(done, tmp_path, r"nothing\.prototxt: .*[Nn]o such file")


@pytest.mark.parametrize("where", ["MODEL", "--out", "--subspace"])
def test_names_that_are_not_utf_8(wootz, job_files, tmp_path, where):
    given = {"MODEL": job_files, "--out": tmp_path / "out", "--subspace": job_files / "subspace.json"}
    named = tmp_path / os.fsdecode(b"m\xe9")
    if where != "--out":
        named.symlink_to(given[where])
    model, out, subspace = {**given, where: named}.values()
    options = ("--data", "digits", "--out", out, "--subspace", subspace)
    done = wootz("run", model, *options, cwd=tmp_path)
    assert_refused(done, tmp_path, r"m\\udce9: not UTF-8")


def test_a_network_with_another_number_of_classes(wootz, job_files, tmp_path):
    text = (job_files / "net.prototxt").read_text().replace("num_output: 10", "num_output: 7")
    (tmp_path / "net.prototxt").write_text(text)
    options = [
        f"--{name}={job_files / file}"
        for name, file in (
            ("subspace", "subspace.json"), ("solver", "solver.prototxt"), ("objective", "objective.txt"),
            ("pretrain-solver", "pretrain.prototxt"),
        )
    ]  # fmt: skip
    done = wootz("run", "net.prototxt", "--keep-head", "--data", "digits", "--out", "out", *options, cwd=tmp_path)
    assert_refused(done, tmp_path, r"7 classes.*10: without --keep-head it gets a new last layer")


def test_a_folder_that_is_not_a_runs(wootz, job_files, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years of work")
    done = wootz("run", job_files, "--data", "digits", "--out", "mine", "--fresh", cwd=tmp_path)
    assert_refused(done, tmp_path, "choose another --out")
    assert (tmp_path / "mine" / "thesis.txt").exists()


@pytest.mark.parametrize(
    ("fault", "pattern"),
    [
        ("damaged", r"data\.npz: not an archive .*, or damaged"),
        ("NaN", r"data\.npz: NaN .* 1 of 40 images .* index 3: mend"),
    ],
)
def test_a_bad_data_file(wootz, job_files, tmp_path, fault, pattern):
    images, file = np.zeros((40, 1, 8, 8), np.float32), tmp_path / "data.npz"
    if fault == "NaN":
        images[3] = np.nan
    np.savez(file, x_train=images, y_train=np.arange(40) % 10)
    if fault == "damaged":
        file.write_bytes(file.read_bytes()[:-30])
    assert_refused(run_with(wootz, job_files, tmp_path, "--data", "data.npz"), tmp_path, pattern)


def test_nothing_meets_the_objective(wootz, job_files, tmp_path):
    done = run_with(wootz, job_files, tmp_path, "--objective", "min ModelSize constraint Accuracy > 0.9999")
    assert done.code == 1
    assert re.search(r"none of the 4 networks meets .*the best has [\d.]+ % right with \d+ % of the full", done.err)
    assert (tmp_path / "out" / "report.html").exists()
    assert not (tmp_path / "out" / "best.onnx").exists()


@pytest.mark.parametrize(
    "objective", ["min ModelSize constraint Accuracy > 0.5", "min ModelSize constraint Accuracy >= 0", "min Accuracy"]
)
def test_networks_that_diverge_are_named_never_chosen_and_not_trained_again(
    wootz, job_files, finished_run, tmp_path, objective
):
    (tmp_path / "solver.prototxt").write_text("base_lr: 1e30 lr_policy: 'fixed' max_iter: 5 batch_size: 16")
    job = (
        "run", finished_run / "teacher.onnx", "--solver", tmp_path / "solver.prototxt", "--pretrain-solver",
        job_files / "pretrain.prototxt", "--subspace", job_files / "subspace.json", "--data", "digits",
        "--objective", objective, "--out", tmp_path / "out", "--no-early-end",
    )  # fmt: skip
    for options in ((), ("--fresh",)):
        done = wootz(*job, *options)
        assert done.code == 1
        assert done.err.startswith("error: none of the 4 networks could be trained: the training diverged, the loss")
        assert len(done.err.splitlines()) == 1
        assert len(re.findall(r"network \[.*the training diverged, the loss is not finite at step \d", done.out)) == 4
        assert "None of the 4 networks could be trained" in (tmp_path / "out" / "report.html").read_text()
        assert not (tmp_path / "out" / "best.onnx").exists()
    assert not done.trained
    assert {type(n) for n in RunResult.load(tmp_path / "out").networks} == {FailedNetworkResult}


def test_a_full_network_that_diverges_ends_the_run_and_is_not_trained_again(wootz, job_files, tmp_path):
    solver = "base_lr: 1e30 lr_policy: 'fixed' max_iter: 5 batch_size: 16"
    (tmp_path / "teacher.prototxt").write_text(solver)
    for options in ((), ("--fresh",)):
        done = run_with(wootz, job_files, tmp_path, "--teacher-solver", "teacher.prototxt", *options)
        assert done.code == 1
        assert done.err.startswith("error: the full network could not be trained: the training diverged")
        assert len(done.err.splitlines()) == 1
        assert "The full network could not be trained" in (tmp_path / "out" / "report.html").read_text()
    assert not done.trained


def test_blocks_that_diverge_are_not_assembled(wootz, job_files, finished_run, tmp_path):
    """With them, no network would have a finite score; without, they are the default networks."""
    (tmp_path / "pretrain.prototxt").write_text("base_lr: 1e30 lr_policy: 'fixed' max_iter: 5 batch_size: 16")
    done = wootz(
        "run", finished_run / "teacher.onnx", "--solver", job_files / "solver.prototxt", "--pretrain-solver",
        tmp_path / "pretrain.prototxt", "--subspace", job_files / "subspace.json", "--data", "digits",
        "--objective", "max Accuracy", "--out", tmp_path / "out", "--baseline",
    )  # fmt: skip
    assert done.code == 0, done.err
    result = RunResult.load(tmp_path / "out")
    assert {type(block) for block in result.blocks} == {FailedBlockResult}
    assert [n.curve for n in result.block_trained.trained] == [n.curve for n in result.baseline.trained]
    assert {block for n in result.block_trained.trained for block in n.blocks} == {None}


def test_usage_errors_exit_with_2(wootz):
    assert wootz("run", "--no-such-option").code == 2
    assert wootz("fly").code == 2
