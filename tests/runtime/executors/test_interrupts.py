"""What is left of a driving process that is ended from outside: nothing."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

DRIVE = Path(__file__).parent / "drive.py"
LONG = 120


def descendants(process: int) -> set[int]:
    """All processes below one that are alive."""
    parents = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if fields[0] != "Z":
            parents[int(stat.parent.name)] = int(fields[1])
    found, new = set(), {process}
    while new:
        found |= new
        new = {child for child, parent in parents.items() if parent in new} - found
    return found - {process}


def until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + LONG
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def is_alive(process: int) -> bool:
    try:
        return Path("/proc", str(process), "stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize(
    ("number", "status"), [(signal.SIGKILL, -signal.SIGKILL), (signal.SIGTERM, 143), (signal.SIGINT, 130)]
)
def test_no_process_is_left(tmp_path, number, status) -> None:
    driver = subprocess.Popen(
        [sys.executable, DRIVE, tmp_path, json.dumps({"workers": 2}), "never-ending:1", "until-stopped:2"],
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        until(lambda: (tmp_path / "began-1").exists() and (tmp_path / "began-2").exists())
        below = descendants(driver.pid)
        assert len(below) >= 2
        os.kill(driver.pid, number)
        _, said = driver.communicate(timeout=LONG)
    finally:
        driver.kill()
    until(lambda: not any(is_alive(process) for process in below))
    assert driver.returncode == status
    if number != signal.SIGKILL:  # then multiprocessing's tracker tells what it cleans up
        assert said == ("interrupted\n" if number == signal.SIGINT else "")


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_control_c_reaches_the_driving_process_only(tmp_path) -> None:
    """A terminal sends it to all processes of the group: workers say nothing, and have time to stop in order."""
    driver = subprocess.Popen(
        [sys.executable, DRIVE, tmp_path, json.dumps({"workers": 1}), "until-stopped:1"],
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        until((tmp_path / "began-1").exists)
        os.killpg(driver.pid, signal.SIGINT)
        _, said = driver.communicate(timeout=LONG)
    finally:
        driver.kill()
    assert (driver.returncode, said) == (130, "interrupted\n")
    assert "until-stopped 1: stopped" in (tmp_path / "logs" / "worker-0.log").read_text()
