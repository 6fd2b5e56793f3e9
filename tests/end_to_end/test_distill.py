"""Runs whose networks learn from the full one."""

import onnx
import pytest

from wootz.runtime.result import RunResult


@pytest.fixture
def run(wootz, job_files, tmp_path):
    (tmp_path / "subspace.json").write_text("[[0.5, 0.5, 0.5, 0.5]]")

    def run(*options, out="run"):
        given = ("--subspace", tmp_path / "subspace.json", "--store", tmp_path / "store", "--threads", 1)
        return wootz("run", job_files, "--data", "digits", "--out", tmp_path / out, *given, *options)

    return run


def test_networks_learn_from_the_full_one_beside_labels_or_without(run, tmp_path):
    done = run("--distill", 0.5, "--distill-features", 0.1)
    assert done.code == 0, done.err
    assert "Pruned networks learn 50 % of their loss from the full network's scores at temperature" in done.out
    found = RunResult.load(tmp_path / "run")
    assert found.best is not None
    assert found.best.quality > 0.7
    names = [node.name for node in onnx.load(tmp_path / "run" / "best.onnx").graph.node]
    assert names
    assert not any(name.startswith("teacher/") for name in names)
    alone = run("--distill", 1.0, "--temperature", 4, out="alone")
    assert alone.code == 0, alone.err
    assert "known before" in alone.out, "the full network itself has learned the same"
    assert RunResult.load(tmp_path / "alone").full.tuned is None, "it would have learned from itself"
    assert RunResult.load(tmp_path / "alone").best.quality > 0.5, "no label was seen, and a guess is worth 0.1"


def test_a_run_with_another_lesson_is_another_run(run):
    assert run("--distill", 0.5, "--dry-run").code == 0
    assert run("--distill", 0.5).code == 0
    done = run("--distill", 0.9)
    assert done.code == 1
    assert "--distill" in done.err
    assert "--fresh replaces it" in done.err


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (("--distill", 1.5), "1.5 is not in the range 0<=x<=1"),
        (("--temperature", 2), "--temperature is that of the full network's scores: it goes with --distill SHARE"),
        (("--distill", 0.5, "--temperature", 0), "0.0 is not in the range x>0"),
    ],
)
def test_what_is_refused(run, options, reason):
    done = run(*options)
    assert done.code != 0
    assert reason in done.err
