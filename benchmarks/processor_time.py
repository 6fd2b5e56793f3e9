"""Runs a command and takes down how much of the processor's time it has had by when: on a busy machine the clock says
little.

Every two seconds /proc, which is Linux', is asked for the time of the process and of its children that have ended.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

INTERVAL = 2.0


@dataclass(frozen=True)
class ProcessorTime:
    """`seconds` of the processor until each of `times`, in seconds since 1970."""

    times: tuple[float, ...]
    seconds: tuple[float, ...]

    @staticmethod
    def load(file: Path) -> ProcessorTime | None:
        if not file.exists():
            return None
        samples = [json.loads(line) for line in file.read_text().splitlines()]
        if not samples:
            return None
        return ProcessorTime(tuple(s["time"] for s in samples), tuple(s["seconds"] for s in samples))

    def at(self, moment: float) -> float:
        return float(np.interp(moment, self.times, self.seconds))


def run(command: Sequence[object], file: Path) -> int:
    """The command's exit code. Its time is appended to `file`, behind that of earlier attempts; what it prints goes to
    the error output."""
    known = ProcessorTime.load(file)
    earlier = known.seconds[-1] if known is not None else 0.0
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("a") as samples, subprocess.Popen(list(map(str, command)), stdout=sys.stderr) as process:
        spent = 0.0
        while True:
            samples.write(json.dumps({"time": time.time(), "seconds": round(earlier + spent, 2)}) + "\n")
            samples.flush()
            try:
                return process.wait(INTERVAL)
            except subprocess.TimeoutExpired:
                spent = _spent(process.pid)


def _spent(process: int) -> float:
    """Fields 14 to 17 of /proc/PID/stat, counted from 1: user and system time, and those of children."""
    behind_the_name = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return sum(map(int, behind_the_name[11:15])) / os.sysconf("SC_CLK_TCK")
