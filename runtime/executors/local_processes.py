"""Workers that are processes of this machine, each behind a pool of its own, so that it dies alone."""

from __future__ import annotations

import os
import signal
from collections.abc import Sequence
from concurrent.futures import BrokenExecutor, Future, ProcessPoolExecutor
from pathlib import Path

from wootz.runtime.executors.control import Place, Ticket
from wootz.runtime.executors.future_engine import Crew
from wootz.runtime.executors.spawning import Spawning, enter
from wootz.runtime.executors.worker import Answer, fulfil


class WorkerProcess:
    """A worker in a process that is spawned when it is first needed, and again after it died.

    It dies with this process, whatever ends that. Ctrl-C and SIGTERM, which often go to all processes of a job, don't
    reach it: this process decides when it ends.
    """

    def __init__(self, place: Place, farewell: str = ""):
        """A worker with a `farewell` writes it to standard error when this process is killed. It has a session of its
        own, so that whoever kills this process with all its group doesn't kill that worker before."""
        self.place = place
        self._farewell = farewell
        self._open()

    def _open(self) -> None:
        self._context = Spawning()
        self._pool = ProcessPoolExecutor(1, self._context, enter, (self.place.threads, self._farewell))

    def start(self) -> None:
        """Spawns the process now."""
        self._pool.submit(os.getpid)

    def submit(self, order: bytes, ticket: Ticket, logs: Path) -> Future[Answer]:
        try:
            return self._pool.submit(fulfil, order, self.place, ticket, logs, whole_output=True)
        except BrokenExecutor:  # it died after its last task
            self.replace()
            return self._pool.submit(fulfil, order, self.place, ticket, logs, whole_output=True)

    def kill(self) -> None:
        for process in self._context.spawned:
            if process.is_alive():
                process.kill()

    def replace(self) -> str:
        """After its process died: a new one. Returns what became of the old one."""
        self.kill()
        self._pool.shutdown()
        codes = [process.exitcode for process in self._context.spawned]
        self._open()
        return _what_became(codes[-1] if codes else None)

    def close(self) -> None:
        """Ends the process at once, whatever it does."""
        self.kill()
        self._pool.shutdown(cancel_futures=True)


class LocalProcesses(Crew):
    """A worker process a place."""

    def __init__(self, places: Sequence[Place]):
        self._processes = [WorkerProcess(place) for place in places]

    def seats(self) -> Sequence[int]:
        return range(len(self._processes))

    def look(self) -> None:
        """Each stays, or is replaced."""

    def submit(self, seat: int, order: bytes, ticket: Ticket, logs: Path) -> Future[Answer]:
        return self._processes[seat].submit(order, ticket, logs)

    def replace(self, seat: int) -> str:
        return self._processes[seat].replace()

    def kill(self, seat: int, ticket: Ticket) -> None:
        self._processes[seat].kill()

    def close(self) -> None:
        for process in self._processes:
            process.kill()
        for process in self._processes:
            process.close()


def _what_became(exitcode: int | None) -> str:
    if exitcode is None:
        return "its process could not be started"
    if exitcode == -signal.SIGKILL:
        return "its process was killed, perhaps since memory ran out"
    if exitcode < 0:
        return f"its process was ended by {signal.Signals(-exitcode).name}"
    return f"its process ended with status {exitcode}"
