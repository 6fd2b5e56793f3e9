"""Workers of a Dask cluster. The one place that knows distributed."""

from __future__ import annotations

import contextlib
import logging
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, wait
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from wootz.passes.errors import WootzError, one_line
from wootz.runtime.executors.control import Place, Ticket
from wootz.runtime.executors.future_engine import LOOK, Crew
from wootz.runtime.executors.versions import installed_versions, version_difference
from wootz.runtime.executors.worker import Answer, fulfil

SCHEME = "dask"

_TIMEOUT = 10
"""Seconds in which a scheduler has to answer, at first and after its connection broke."""

_PAUSE = 0.1
"""Seconds between two looks whether a broken connection is back."""

_GREETING = 30.0
"""Seconds that workers which are there from the beginning have for telling their versions."""

_LOGGER = logging.getLogger(__name__)


class DaskWorkers(Crew):
    """One task at a time on each worker of a scheduler, those that join later included. Waits for the first.

    A task is bound to its worker: that of a worker that leaves is lost, and not moved by Dask. A worker with other
    versions than this process is refused: at first with a WootzError, later with a warning.
    """

    def __init__(self, client: Any, address: str, threads: int):
        self._client, self._address, self._threads = client, address, threads
        self._seats: list[str] = []
        self._cores: dict[str, int] = {}
        self._met: set[str] = set()
        self._greeted: dict[str, Future[dict[str, str]]] = {}
        self._futures: dict[int, Future[Answer]] = {}
        self._looked = float("-inf")
        self._meet()
        wait(self._greeted.values(), _GREETING)
        for refusal in self._admit():
            raise WootzError(refusal)
        if not self._seats:
            _LOGGER.warning(f"{address} has no workers yet: waiting for the first one")
        while not self._seats:
            time.sleep(LOOK)
            self.look()

    def seats(self) -> Sequence[int]:
        return [seat for seat, worker in enumerate(self._seats) if worker in self._cores]

    def look(self) -> None:
        """Once a second."""
        if time.monotonic() - self._looked >= LOOK:
            self._looked = time.monotonic()
            had_workers = bool(self._cores)
            self._meet()
            if had_workers and not self._cores:
                _LOGGER.warning(f"{self._address} has no workers any more: waiting for one")
            for refusal in self._admit():
                _LOGGER.warning(refusal)

    def submit(self, seat: int, order: bytes, ticket: Ticket, logs: Path) -> Future[Answer]:
        worker = self._seats[seat]
        place = Place(seat, worker, self._threads or self._cores.get(worker, 1), gpu=0)
        self._futures[seat] = future = self._executor(worker).submit(fulfil, order, place, ticket, logs, False)
        return future

    @property
    def per_machine(self) -> int:
        """The most workers of one host, by their addresses."""
        return max(Counter(urlsplit(worker).hostname for worker in self._cores).values(), default=1)

    def replace(self, seat: int) -> str:
        while self._client.status == "connecting":
            time.sleep(_PAUSE)
        self._raise_if_closed()
        return f"{self._seats[seat]} died, or the connection broke"

    def gone(self, seat: int) -> str:
        if self._seats[seat] in self._cores:
            return ""
        self._futures[seat].cancel()  # Dask would keep it until there is a worker of this address again
        return f"{self._seats[seat]} died or left"

    def is_loss(self, error: Exception) -> bool:
        from distributed import KilledWorker

        return super().is_loss(error) or isinstance(error, KilledWorker)

    def kill(self, seat: int, ticket: Ticket) -> None:
        """Threads of others can't be killed."""

    def close(self) -> None:
        for future in self._futures.values():
            future.cancel()

    def _meet(self) -> None:
        """Asks the scheduler who is there, and those who are new for their versions."""
        self._cores = self._known_to_scheduler()
        for worker in sorted(self._cores.keys() - self._met):
            self._met.add(worker)
            self._greeted[worker] = self._executor(worker).submit(installed_versions)

    def _admit(self) -> list[str]:
        """Gives workers that told their versions a seat. Returns why others don't get one."""
        told = {worker: versions for worker, versions in self._greeted.items() if versions.done()}
        refusals = {worker: _refusal(worker, versions) for worker, versions in told.items()}
        self._seats += [worker for worker in told if not refusals[worker]]
        self._greeted = {worker: versions for worker, versions in self._greeted.items() if worker not in told}
        return [refusal for refusal in refusals.values() if refusal]

    def _known_to_scheduler(self) -> dict[str, int]:
        """The threads of each worker. Raises WootzError when the connection broke, and stays so."""
        self._raise_if_closed()
        with contextlib.suppress(OSError, RuntimeError):
            cores: dict[str, int] = self._client.nthreads()
            return cores
        self._raise_if_closed()
        return {}

    def _raise_if_closed(self) -> None:
        if self._client.status == "closed":
            raise WootzError(
                f"{self._address}: lost the scheduler: once it is back, the same command goes on from here"
            )

    def _executor(self, worker: str) -> Any:
        return self._client.get_executor(pure=False, retries=0, workers=[worker], allow_other_workers=False)


@contextlib.contextmanager
def dask_workers(address: str, threads: int = 0) -> Iterator[DaskWorkers]:
    """The workers of the scheduler at `address`, `dask://HOST:PORT`. A task may use `threads`, or those of its worker.

    Raises WootzError when there is no such scheduler, or a worker has other versions than this process.
    """
    parts = urlsplit(address)
    if parts.scheme != SCHEME or not parts.hostname or _port(address) is None or parts.path:
        raise WootzError(f"{address} is no address of a scheduler: {SCHEME}://HOST:PORT is one")
    try:
        from distributed import Client
    except ImportError as missing:
        raise WootzError(f"{address}: distributed is not installed: install wootz[dask]") from missing
    try:
        client = Client(f"tcp://{parts.netloc}", timeout=_TIMEOUT, set_as_default=False)
    except (OSError, ValueError) as error:
        raise WootzError(f"{address}: no Dask scheduler answers there within {_TIMEOUT} s ({_said(error)})") from error
    try:
        yield DaskWorkers(client, address, threads)
    finally:
        client.close(timeout=_TIMEOUT)


def _port(address: str) -> int | None:
    try:
        return urlsplit(address).port
    except ValueError:
        return None


def _refusal(worker: str, versions: Future[dict[str, str]]) -> str:
    """Why a worker can't be used, by what it answered; '' if it can."""
    try:
        difference = version_difference(versions.result(), installed_versions())
    except Exception as error:
        return f"Dask's worker {worker} can't be used: {_said(error)}: install the same Wootz there"
    return f"Dask's worker {worker} can't be used: {difference}: install the same there" if difference else ""


def _said(error: BaseException) -> str:
    return one_line(f"{type(error).__name__}: {error}".removesuffix(": "))
