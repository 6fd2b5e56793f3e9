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


def gpu_count() -> int:
    """How many GPUs CUDA shows to this process; 0 where there is no driver."""
    driver = _cuda_driver()
    count = ctypes.c_int()
    return count.value if driver is not None and driver.cuDeviceGetCount(ctypes.byref(count)) == 0 else 0


def gpu_memory(index: int = 0) -> int | None:
    """The memory of one of the GPUs that CUDA shows to this process, in bytes; None where there is no such GPU."""
    driver = _cuda_driver()
    if driver is None:
        return None
    device, size = ctypes.c_int(), ctypes.c_size_t()
    calls = (
        lambda: driver.cuDeviceGet(ctypes.byref(device), index),
        lambda: driver.cuDeviceTotalMem_v2(ctypes.byref(size), device),
    )
    return size.value if all(call() == 0 for call in calls) else None


def _cuda_driver() -> ctypes.CDLL | None:
    try:
        driver = ctypes.CDLL("nvcuda.dll" if os.name == "nt" else "libcuda.so.1")
    except OSError:
        return None
    return driver if driver.cuInit(0) == 0 else None
