"""What this machine has."""

from __future__ import annotations

import ctypes
import os
from pathlib import Path

CGROUP_LIMITS = (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"))
SHARE_FOR_TRAINING = 0.5
"""The part of the memory that pre-training may take; the data set and the rest of the process need some, too."""


def default_memory_budget(processes: int) -> int | None:
    """Half of the memory, or of a container's share of it, divided by the processes; None where it isn't known.

    The processes may all be on this machine.
    """
    if not hasattr(os, "sysconf"):
        return None
    known = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    limits = (file.read_text().strip() for file in CGROUP_LIMITS if file.is_file())
    known += [int(limit) for limit in limits if limit.isdigit()]
    return int(SHARE_FOR_TRAINING * min(known) / processes)


def gpu_memory() -> int | None:
    """The memory of the first GPU that CUDA shows to this process, in bytes; None where there is no GPU or driver."""
    try:
        driver = ctypes.CDLL("nvcuda.dll" if os.name == "nt" else "libcuda.so.1")
    except OSError:
        return None
    device, size = ctypes.c_int(), ctypes.c_size_t()
    calls = (
        lambda: driver.cuInit(0),
        lambda: driver.cuDeviceGet(ctypes.byref(device), 0),
        lambda: driver.cuDeviceTotalMem_v2(ctypes.byref(size), device),
    )
    return size.value if all(call() == 0 for call in calls) else None
