"""On what a benchmark ran, and when."""

from __future__ import annotations

import datetime
import os
import platform
from pathlib import Path


def machine() -> str:
    cpus = Path("/proc/cpuinfo")
    models = [line.split(":")[1].strip() for line in cpus.read_text().splitlines() if line.startswith("model name")]
    name = models[0] if models else platform.processor()
    today = datetime.date.today().isoformat()
    return f"{os.cpu_count()} cores, {name}, load average {os.getloadavg()[0]:.1f}; {today}"
