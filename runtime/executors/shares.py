"""How the cores and GPUs of a machine are divided among its workers."""

from __future__ import annotations

import os
import platform
from collections.abc import Sequence

from wootz.runtime.executors.control import Place


def own_cores() -> frozenset[int]:
    """The cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return frozenset(os.sched_getaffinity(0))
    return frozenset(range(os.cpu_count() or 1))


def threads_beside(cores: frozenset[int], all_cores: Sequence[frozenset[int]]) -> int:
    """The threads of a worker that may use `cores`, where those of the machine, itself among them, may use `all_cores`.

    Workers that were bound to cores of their own use them all; those that share them get equal parts, at least 1.
    """
    return max(1, len(cores) // sum(not cores.isdisjoint(others) for others in all_cores))


def gpu_of(index: int, gpus: int) -> int | None:
    """The GPU of the worker that is number `index` on its machine: more workers than GPUs share them."""
    return index % gpus if gpus else None


def shared_machine(workers: int, threads: int = 0, gpus: int = 0) -> tuple[Place, ...]:
    """The places of `workers` workers on this machine; `threads` of each instead of equal shares of the cores."""
    cores = own_cores()
    each = threads or threads_beside(cores, [cores] * workers)
    return tuple(Place(n, platform.node(), each, gpu_of(n, gpus)) for n in range(workers))
