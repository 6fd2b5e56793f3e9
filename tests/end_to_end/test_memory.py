"""`--memory` bounds the graphs in which blocks are pre-trained, and changes nothing else."""

import pytest

from wootz.runtime.result import RunResult

pytest.importorskip("sklearn")


def run_with(wootz, job_files, folder, out, *options):
    return wootz("run", job_files, "--data", "digits", "--threads", 1, "--out", out, *options, cwd=folder)


def test_a_small_budget_takes_more_teacher_passes_to_the_same_result(wootz, job_files, tmp_path):
    for out, options in (("large", ()), ("small", ("--memory", "15M"))):
        done = run_with(wootz, job_files, tmp_path, out, *options)
        assert done.code == 0, done.err
    small, large = RunResult.load(tmp_path / "small"), RunResult.load(tmp_path / "large")
    assert large.teacher_passes == 1
    assert small.teacher_passes > 1
    assert [b.block for b in small.blocks] == [b.block for b in large.blocks]
    for a, b in zip(small.blocks, large.blocks, strict=True):
        assert a.final_error == pytest.approx(b.final_error, rel=1e-3)


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (("--memory", "1M"), "alone takes about"),
        (("--memory", "1G", "--groups", "paper"), "--memory goes with --groups=joint"),
    ],
)
def test_refusals_come_before_anything_is_trained(wootz, job_files, tmp_path, options, reason):
    done = run_with(wootz, job_files, tmp_path, "out", *options)
    assert done.code == 1
    assert reason in done.err
    assert len(done.err.strip().splitlines()) == 1
    assert "full network" not in done.out
    assert not list((tmp_path / "out").rglob("*.npz")), "nothing was trained"
