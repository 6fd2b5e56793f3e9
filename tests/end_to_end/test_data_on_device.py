"""`wootz run --data-on-device`: another way to the same result."""

from wootz.runtime.result import RunResult


def test_a_run_with_its_data_on_the_device_finds_the_same(wootz, finished_run, job_files, tmp_path):
    arguments = ("run", job_files, "--data", "digits", "--baseline", "--threads", 1, "--out", tmp_path / "run")
    done = wootz(*arguments, "--data-on-device")
    assert done.code == 0, done.err
    found, expected = RunResult.load(tmp_path / "run"), RunResult.load(finished_run)
    assert [(n.index, n.curve) for n in found.block_trained.trained] == [
        (n.index, n.curve) for n in expected.block_trained.trained
    ]
