"""Workers on the processes that mpiexec started. The one place that knows mpi4py.

MPI carries tasks and answers only: each rank, the first among them, has its tasks performed by a worker process of its
own. So a task that dies or hangs is not the end of the job, and a rank that waits sleeps.
"""

from __future__ import annotations

import contextlib
import os
import signal
import textwrap
from collections.abc import Iterator, Sequence
from concurrent.futures import BrokenExecutor, Executor, Future, wait
from contextvars import ContextVar
from pathlib import Path
from typing import Any

from wootz.passes.errors import WootzError
from wootz.runtime.executors.control import INTERVAL, Place, Ticket
from wootz.runtime.executors.engine import WorkerLost
from wootz.runtime.executors.future_engine import Crew
from wootz.runtime.executors.local_processes import WorkerProcess
from wootz.runtime.executors.shares import gpu_of, own_cores, threads_beside
from wootz.runtime.executors.worker import Answer

FAREWELL = "error: a process of this run was lost, and with it MPI ends all: the same command goes on from here\n"

PAUSE = 0.01
"""Seconds that a process sleeps between two looks for messages, at most: MPI itself would spin."""

_PATIENCE = 30.0
"""Seconds that ranks have for ending their workers when an engine is closed."""

_STARTED_BY_MPI = ("PMI_RANK", "PMIX_RANK", "OMPI_COMM_WORLD_RANK")

_OWN_WORKER: ContextVar[WorkerProcess] = ContextVar("the worker process of this rank")


def started_by_mpi() -> bool:
    """Whether mpiexec started this process, with others or alone."""
    return any(name in os.environ for name in _STARTED_BY_MPI)


class Ranks(Crew):
    """A worker a rank, the first rank's beside the process that drives. Which of the others takes a task is open."""

    def __init__(self, world: Any, others: Executor, own: WorkerProcess, per_machine: int):
        self._world, self._others, self._own = world, others, own
        self._submitted: set[Future[Answer]] = set()
        self.size: int = world.Get_size()
        self.per_machine = per_machine

    def seats(self) -> Sequence[int]:
        return range(self.size)

    def look(self) -> None:
        """Ranks stay."""

    def submit(self, seat: int, order: bytes, ticket: Ticket, logs: Path) -> Future[Answer]:
        if seat == 0:
            return self._own.submit(order, ticket, logs)
        future: Future[Answer] = self._others.submit(_perform_on_rank, order, ticket, logs)
        self._submitted.add(future)
        future.add_done_callback(self._submitted.discard)
        return future

    def replace(self, seat: int) -> str:
        return self._own.replace()

    def kill(self, seat: int, ticket: Ticket) -> None:
        if seat == 0:
            self._own.kill()
        else:
            ticket.ask_to_kill()

    def close(self) -> None:
        self._own.kill()
        if wait(set(self._submitted), _PATIENCE).not_done:  # they don't see the files
            self._world.Abort(1)


@contextlib.contextmanager
def ranks(threads: int = 0, gpus: int = 0) -> Iterator[Ranks | None]:
    """The workers of all ranks on rank 0. On the others None, once rank 0 has come to the end of its `with`.

    `threads` are those of each worker (0: the cores of a machine are divided); `gpus` is what this machine has.
    """
    executor_class, mpi = _mpi4py()
    world = mpi.COMM_WORLD
    place, per_machine = _place(mpi, threads, gpus)
    own = WorkerProcess(place, FAREWELL if place.worker == 0 else "")
    own.start()
    executor = executor_class(world, root=0, backoff=PAUSE)
    try:
        if place.worker == 0:
            with executor as others:
                yield Ranks(world, others, own, per_machine)
        else:
            _OWN_WORKER.set(own)
            with _left_to_rank_0(), executor:
                pass
            yield None
    finally:
        own.close()


def _perform_on_rank(order: bytes, ticket: Ticket, logs: Path) -> Answer:
    worker = _OWN_WORKER.get()
    future = worker.submit(order, ticket, logs)
    while True:
        try:
            return future.result(INTERVAL)
        except TimeoutError:
            if ticket.to_be_killed():
                worker.kill()
        except BrokenExecutor:
            return Answer(worker.place.worker, WorkerLost(worker.replace()))


def _place(mpi: Any, threads: int, gpus: int) -> tuple[Place, int]:
    """The place of this rank, and the most ranks that a machine has. All ranks call this at once."""
    world = mpi.COMM_WORLD
    machine = world.Split_type(mpi.COMM_TYPE_SHARED)
    cores = own_cores()
    each = threads or threads_beside(cores, machine.allgather(cores))
    place = Place(world.Get_rank(), mpi.Get_processor_name(), each, gpu_of(machine.Get_rank(), gpus))
    per_machine = max(world.allgather(machine.Get_size()))
    machine.Free()
    return place, per_machine


@contextlib.contextmanager
def _left_to_rank_0() -> Iterator[None]:
    """Ctrl-C and SIGTERM reach all ranks. The first one ends the others in order; one that died would end it."""
    kept = {number: signal.signal(number, lambda *_: None) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in kept.items():
            signal.signal(number, handler)


def _mpi4py() -> tuple[Any, Any]:
    """Its executor and its module MPI."""
    try:
        from mpi4py import MPI
        from mpi4py.futures import MPICommExecutor
    except ImportError as missing:
        raise WootzError("started by mpiexec, but mpi4py is missing: install wootz[mpi]") from missing
    except RuntimeError as error:  # mpi4py's own
        said = textwrap.shorten(str(error), 200, placeholder=" …")
        raise WootzError(f"started by mpiexec, but {said}: install wootz[mpi]") from error
    return MPICommExecutor, MPI
