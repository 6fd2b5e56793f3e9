"""A whole run in float16."""

from wootz.runtime.result import RunResult


def test_a_run_in_float16_finds_a_network(wootz, job_files, tmp_path):
    (tmp_path / "subspace.json").write_text("[[0.5, 0.5, 0.5, 0.5], [0.7, 0.5, 0.5, 0.5]]")
    options = ("--subspace", tmp_path / "subspace.json", "--out", tmp_path / "run", "--threads", 1)
    done = wootz("run", job_files, "--data", "digits", "--precision", "float16", *options)
    assert done.code == 0, done.err
    assert "--precision float16 on the CPU is slower than float32" in done.out
    found = RunResult.load(tmp_path / "run")
    assert found.best is not None
    assert found.best.quality > 0.7


def test_there_is_no_bfloat16(wootz, job_files, tmp_path):
    done = wootz("run", job_files, "--data", "digits", "--precision", "bfloat16", "--out", tmp_path / "run")
    assert done.code == 2
    assert "'bfloat16' is not one of 'float32', 'float16'" in done.err
