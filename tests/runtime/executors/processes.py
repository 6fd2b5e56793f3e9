"""What Linux tells of processes."""

import os
import time
from collections.abc import Callable
from pathlib import Path

LONG = 120
"""Seconds that nothing here takes."""


def _fields(process: int) -> list[str]:
    """Of its `stat`, from the state on; nothing where there is no such process, or only its exit status."""
    try:
        fields = Path("/proc", str(process), "stat").read_text().rpartition(")")[2].split()
    except OSError:
        return []
    return [] if fields[0] == "Z" else fields


def is_alive(process: int) -> bool:
    return bool(_fields(process))


def cpu_seconds(process: int) -> float:
    user, system = _fields(process)[11:13]
    return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")


def children(process: int) -> list[int]:
    """Those that are alive, in the order of their numbers."""
    all_processes = [int(folder.name) for folder in Path("/proc").glob("[0-9]*")]
    return sorted(p for p in all_processes if (fields := _fields(p)) and int(fields[1]) == process)


def descendants(process: int) -> set[int]:
    below = set(children(process))
    return below.union(*(descendants(child) for child in below))


def wait_until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + LONG
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.05)
