"""What is left of a driving process that is ended from outside: nothing."""

import os
import signal
import sys
import time

import pytest
from processes import children, cpu_seconds, descendants, is_alive, wait_until

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")

SIGNALS = [(signal.SIGKILL, -signal.SIGKILL), (signal.SIGTERM, 143), (signal.SIGINT, 130)]


@pytest.mark.parametrize(("number", "status"), SIGNALS)
def test_no_process_is_left(drive, tmp_path, number, status) -> None:
    driver = drive("never-ending:1", "until-stopped:2", workers=2)
    wait_until(lambda: (tmp_path / "began-1").exists() and (tmp_path / "began-2").exists())
    below = descendants(driver.process.pid)
    assert len(below) >= 2
    os.kill(driver.process.pid, number)
    code, said = driver.finish()
    wait_until(lambda: not any(is_alive(process) for process in below))
    assert code == status
    if number != signal.SIGKILL:  # then multiprocessing's tracker tells what it cleans up
        assert said == ("interrupted\n" if number == signal.SIGINT else "")


@pytest.mark.parametrize(("number", "status"), SIGNALS[1:])
def test_a_signal_for_all_processes_of_a_job_reaches_the_driving_one_only(drive, tmp_path, number, status) -> None:
    """As a terminal and Slurm send it. Workers say nothing, and have time to stop in order."""
    driver = drive("until-stopped:1", workers=1)
    wait_until((tmp_path / "began-1").exists)
    os.killpg(driver.process.pid, number)
    assert driver.finish()[0] == status
    assert "until-stopped 1: stopped" in driver.log(0)


@pytest.mark.parametrize(("number", "status"), SIGNALS[1:])
@pytest.mark.parametrize(("toy", "times", "stops"), [("until-stopped", 1, True), ("never-ending", 1, False),
                                                     ("never-ending", 2, False)])  # fmt: skip
def test_a_task_of_this_process_may_stop_in_order(drive, tmp_path, number, status, toy, times, stops) -> None:
    driver = drive(f"{toy}:1")
    wait_until((tmp_path / "began-1").exists)
    for _ in range(times):
        os.kill(driver.process.pid, number)
        time.sleep(0.2)
    assert driver.finish()[0] == status
    assert (f"{toy} 1: stopped" in driver.log(0)) == stops


@pytest.mark.parametrize(("number", "status"), SIGNALS)
def test_no_process_of_mpi_is_left(drive, mpiexec, tmp_path, number, status) -> None:
    driver = drive("never-ending:1", "until-stopped:2", before=mpiexec(2))
    wait_until(lambda: (tmp_path / "began-1").exists() and (tmp_path / "began-2").exists())
    below = descendants(driver.process.pid)
    os.kill(driver.process.pid, number)
    assert driver.finish()[0] == status
    wait_until(lambda: not any(is_alive(process) for process in below))


@pytest.mark.parametrize("rank", [0, 1])
def test_a_lost_rank_ends_all_and_a_line_says_how_to_go_on(drive, mpiexec, tmp_path, rank) -> None:
    driver = drive("never-ending:1", "never-ending:2", before=mpiexec(2))
    wait_until(lambda: (tmp_path / "began-1").exists() and (tmp_path / "began-2").exists())
    below = descendants(driver.process.pid)
    (proxy,) = children(driver.process.pid)
    os.kill(children(proxy)[rank], signal.SIGKILL)
    code, said = driver.finish()
    assert code != 0
    assert "error: a process of this run was lost, and with it MPI ends all: the same command goes on from here" in said
    wait_until(lambda: not any(is_alive(process) for process in below))


def test_ranks_sleep_while_they_wait(drive, mpiexec, tmp_path) -> None:
    driver = drive("until-stopped:1", before=mpiexec(3))
    wait_until((tmp_path / "began-1").exists)
    (proxy,) = children(driver.process.pid)
    ranks = children(proxy)
    assert len(ranks) == 3
    before = [cpu_seconds(rank) for rank in ranks]
    signal.sigtimedwait([], 4)
    used = [cpu_seconds(rank) - b for rank, b in zip(ranks, before, strict=True)]
    assert max(used) < 0.4
    os.kill(driver.process.pid, signal.SIGTERM)
    assert driver.finish()[0] == 143
