"""How the cores and GPUs of a machine are divided among its workers."""

from __future__ import annotations

import os
import platform
from collections.abc import Sequence

from wootz.passes.errors import WootzError
from wootz.runtime.executors.control import Place

MOST_PER_CORE = 16
"""Workers without a core or GPU of their own slow each other down: more of them are a slip."""

FILES_PER_WORKER = 8
"""The files that the process that drives has open for each of its worker processes, at most."""

OTHER_FILES = 100
"""Those that it has open otherwise, at most."""


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


def check_workers(workers: int, gpus: int = 0) -> None:
    """Raises WootzError for more worker processes than make sense on this machine, or than can be started on it."""
    cores = len(own_cores())
    if workers > MOST_PER_CORE * max(cores, gpus):
        has = f"{cores} core{'s'[: cores != 1]}" + (f" and {gpus} GPU{'s'[: gpus != 1]}" if gpus else "")
        raise WootzError(
            f"--workers {workers}: this machine has {has}, and workers without one of their own slow each other down: "
            f"give {max(cores, gpus)}, or at most {MOST_PER_CORE * max(cores, gpus)}"
        )
    files = open_files_limit()
    if files is not None and workers * FILES_PER_WORKER + OTHER_FILES > files:
        raise WootzError(
            f"--workers {workers}: each takes {FILES_PER_WORKER} open files, and a process may have {files} here: "
            f"raise that (ulimit -n), or give at most {max(1, (files - OTHER_FILES) // FILES_PER_WORKER)}"
        )


def open_files_limit() -> int | None:
    """How many files this process may have open; None where nothing limits that."""
    if os.name == "nt":
        return None
    import resource

    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return None if soft == resource.RLIM_INFINITY else soft


def shared_machine(workers: int, threads: int = 0, gpus: int = 0) -> tuple[Place, ...]:
    """The places of `workers` workers on this machine; `threads` of each instead of equal shares of the cores."""
    cores = own_cores()
    each = threads or threads_beside(cores, [cores] * workers)
    return tuple(Place(n, platform.node(), each, gpu_of(n, gpus)) for n in range(workers))
