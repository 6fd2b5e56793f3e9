"""Who performs the tasks of a run: gathered when the run begins, before it is known what is to be done."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from wootz.passes.errors import WootzError
from wootz.runtime.executors.control import Place
from wootz.runtime.executors.dask import DaskWorkers, dask_workers
from wootz.runtime.executors.engine import Engine, Listener, R, T, Work, nobody
from wootz.runtime.executors.future_engine import SILENCE_LIMIT, FutureEngine
from wootz.runtime.executors.local_processes import LocalProcesses
from wootz.runtime.executors.mpi import Ranks, ranks, started_by_mpi
from wootz.runtime.executors.shares import check_workers, shared_machine
from wootz.runtime.executors.this_process import ThisProcess
from wootz.runtime.machine import gpu_count
from wootz.runtime.store.amounts import counted


class Team(Protocol):
    """Workers that an engine can be opened on."""

    @property
    def workers(self) -> int:
        """How many there are now. On a cluster they come and go."""

    @property
    def per_machine(self) -> int:
        """The most of them that share a machine, and its memory."""

    @property
    def is_this_process(self) -> bool:
        """Whether nothing has to be sent to another one."""

    @property
    def description(self) -> str:
        """For the user: "4 processes of 2 threads"."""

    def engine(
        self, work: Work[T, R], folder: Path, silence_limit: float = SILENCE_LIMIT, listener: Listener[T] = nobody
    ) -> Engine[T, R]:
        """An engine that performs `work`, to be entered. Logs are written into `folder`, which all workers see.

        A worker without a sign of life for `silence_limit` seconds is given up. `listener` is told what tasks tell.
        """


@contextmanager
def gathered(workers: int = 0, executor: str = "", threads: int = 0, gpus: int | None = None) -> Iterator[Team | None]:
    """The team of a run, until the run is over.

    `workers` processes of this machine, or none but this one; the workers of a scheduler, `dask://HOST:PORT`; or the
    processes that mpiexec started. Of these all but the first get None, when the run is over: until then they serve it.
    `threads` are those of each worker (0: the cores are divided), `gpus` those of this machine (None: what CUDA shows).

    Raises WootzError for what excludes each other, for more processes than make sense or can be started on this
    machine, and for a scheduler that can't be reached.
    """
    if executor and (workers or started_by_mpi()):
        raise WootzError(
            f"--executor {executor} has workers of its own: leave {'--workers' if workers else 'mpiexec'} out"
        )
    gpus = gpu_count() if gpus is None else gpus
    if executor:
        with dask_workers(executor, threads) as crew:
            yield _DaskTeam(crew)
    elif started_by_mpi():
        if workers:
            raise WootzError(f"started by mpiexec, with as many workers as processes: leave --workers {workers} out")
        with ranks(threads, gpus) as mpi_crew:
            yield None if mpi_crew is None else _MpiTeam(mpi_crew)
    elif workers:
        check_workers(workers, gpus)
        yield _LocalTeam(shared_machine(workers, threads, gpus))
    else:
        yield _Alone(shared_machine(1, threads, gpus)[0])


@dataclass(frozen=True)
class _Alone:
    place: Place
    workers: int = 1
    per_machine: int = 1
    is_this_process: bool = True

    @property
    def description(self) -> str:
        return f"this process, {_threads(self.place.threads)}"

    def engine(
        self, work: Work[T, R], folder: Path, silence_limit: float = SILENCE_LIMIT, listener: Listener[T] = nobody
    ) -> Engine[T, R]:
        return ThisProcess(self.place, work, folder, listener)


@dataclass(frozen=True)
class _LocalTeam:
    places: tuple[Place, ...]
    is_this_process: bool = False

    @property
    def workers(self) -> int:
        return len(self.places)

    @property
    def per_machine(self) -> int:
        return len(self.places)

    @property
    def description(self) -> str:
        return f"{counted(self.workers, 'process')} of {_threads(self.places[0].threads)}"

    def engine(
        self, work: Work[T, R], folder: Path, silence_limit: float = SILENCE_LIMIT, listener: Listener[T] = nobody
    ) -> Engine[T, R]:
        return FutureEngine(LocalProcesses(self.places), work, folder, silence_limit, listener)


@dataclass(frozen=True)
class _MpiTeam:
    crew: Ranks
    is_this_process: bool = False

    @property
    def workers(self) -> int:
        return self.crew.size

    @property
    def per_machine(self) -> int:
        return self.crew.per_machine

    @property
    def description(self) -> str:
        return f"{counted(self.workers, 'process')} of MPI"

    def engine(
        self, work: Work[T, R], folder: Path, silence_limit: float = SILENCE_LIMIT, listener: Listener[T] = nobody
    ) -> Engine[T, R]:
        return FutureEngine(self.crew, work, folder, silence_limit, listener)


@dataclass(frozen=True)
class _DaskTeam:
    crew: DaskWorkers
    is_this_process: bool = False

    @property
    def workers(self) -> int:
        return len(self.crew.seats())

    @property
    def per_machine(self) -> int:
        return self.crew.per_machine

    @property
    def description(self) -> str:
        return f"{counted(self.workers, 'worker')} of Dask"

    def engine(
        self, work: Work[T, R], folder: Path, silence_limit: float = SILENCE_LIMIT, listener: Listener[T] = nobody
    ) -> Engine[T, R]:
        return FutureEngine(self.crew, work, folder, silence_limit, listener)


def _threads(count: int) -> str:
    return counted(count, "thread")
