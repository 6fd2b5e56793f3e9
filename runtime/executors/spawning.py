"""Processes that are spawned: they die with the one that spawned them, and with it alone."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from multiprocessing import resource_tracker
from multiprocessing.context import SpawnContext, SpawnProcess
from typing import Any

_LIBRARY_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


class Spawned(SpawnProcess):
    """A process that Ctrl-C and SIGTERM don't reach: it inherits that they are blocked."""

    def start(self) -> None:
        resource_tracker.ensure_running()  # what starts it unblocks them
        blocked = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})
        try:
            super().start()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, blocked)


class Spawning(SpawnContext):
    """Knows the processes that it spawned, which ProcessPoolExecutor doesn't tell."""

    def __init__(self) -> None:
        super().__init__()
        self.spawned: list[Spawned] = []

    def Process(self, *args: Any, **options: Any) -> Spawned:  # type: ignore[override]
        process = Spawned(*args, **options)
        self.spawned.append(process)
        return process


def enter(threads: int, farewell: str) -> None:
    """What a spawned process does first; `farewell` as in `WorkerProcess`."""
    for name in _LIBRARY_THREADS:
        os.environ.setdefault(name, str(threads))
    if farewell:
        os.setsid()
    threading.Thread(target=_die_with_parent, args=(farewell, os.dup(2)), daemon=True).start()


def _die_with_parent(farewell: str, terminal: int) -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        try:
            os.write(terminal, farewell.encode())
        finally:  # whoever read that may be gone, too
            os._exit(1)
