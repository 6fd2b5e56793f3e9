"""`--memory` and `--groups` decide which blocks are pre-trained in one graph, and change nothing else."""

import pytest

from wootz.runtime.result import RunResult

pytest.importorskip("sklearn")


def run_with(wootz, job_files, folder, out, *options):
    return wootz("run", job_files, "--data", "digits", "--threads", 1, "--out", out, *options, cwd=folder)


@pytest.fixture(scope="module")
def one_group(wootz, job_files, tmp_path_factory):
    folder = tmp_path_factory.mktemp("joint")
    done = run_with(wootz, job_files, folder, "joint")
    assert done.code == 0, done.err
    result = RunResult.load(folder / "joint")
    assert len(result.groups) == 1
    return result


@pytest.mark.parametrize("options", [("--memory", "15M"), ("--groups", "paper")])
def test_more_teacher_passes_come_to_the_same_result(wootz, job_files, one_group, tmp_path, options):
    done = run_with(wootz, job_files, tmp_path, "out", *options)
    assert done.code == 0, done.err
    result = RunResult.load(tmp_path / "out")
    assert len(result.groups) > 1
    assert [b.symbols for b in result.blocks] == [b.symbols for b in one_group.blocks]
    for a, b in zip(result.blocks, one_group.blocks, strict=True):
        assert a.final_error == pytest.approx(b.final_error, rel=1e-3)


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (("--memory", "1M"), "alone takes about"),
        (("--memory", "1G", "--groups", "paper"), "--memory goes with --groups=joint"),
        (("--baseline", "--identifier", "none"), "--identifier=none has no others"),
        (("--objective", "max Accuracy constraint ModelSize < 10"), "no configuration can meet 'ModelSize < 10'"),
    ],
)
def test_refusals_come_before_anything_is_trained(wootz, job_files, tmp_path, options, reason):
    done = run_with(wootz, job_files, tmp_path, "out", *options)
    assert done.code == 1
    assert reason in done.err
    assert len(done.err.strip().splitlines()) == 1
    assert "full network" not in done.out
    assert not list((tmp_path / "out").rglob("*.npz")), "nothing was trained"
