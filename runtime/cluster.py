"""The processes of a run: one, or those that `mpiexec` started. The one place that knows mpi4py.

All processes run the same program with the same arguments. Values that they exchange are small results and weight
arrays; no process needs to see the files of another.
"""

from __future__ import annotations

import os
import textwrap
from typing import Any, Protocol, TypeVar

from wootz.passes.errors import WootzError

T = TypeVar("T")

_STARTED_BY_MPI = ("PMI_RANK", "PMIX_RANK", "OMPI_COMM_WORLD_RANK")


class Cluster(Protocol):
    """`rank` is this process's number, from 0 to `size - 1`."""

    rank: int
    size: int

    def gather(self, value: T) -> list[T]:
        """The values of all processes, by rank, on every process."""

    def broadcast(self, value: Any, root: int = 0) -> Any:
        """The value of process `root`, on every process."""


class SingleProcess:
    rank = 0
    size = 1

    def gather(self, value: T) -> list[T]:
        return [value]

    def broadcast(self, value: Any, root: int = 0) -> Any:
        return value


class MpiCluster:
    """The processes of MPI's world communicator. A failure on one ends them all."""

    def __init__(self, mpi: Any):
        self._world = mpi.COMM_WORLD
        self.rank, self.size = self._world.Get_rank(), self._world.Get_size()

    def gather(self, value: T) -> list[T]:
        gathered: list[T] = self._world.allgather(value)
        return gathered

    def broadcast(self, value: Any, root: int = 0) -> Any:
        return self._world.bcast(value, root)


def connect() -> Cluster:
    """The cluster that `mpiexec` made, or this process alone; mpi4py is imported in the first case only."""
    if not any(name in os.environ for name in _STARTED_BY_MPI):
        return SingleProcess()
    try:
        from mpi4py import MPI
    except ImportError as missing:
        raise WootzError("started by mpiexec, but mpi4py is missing: install wootz[mpi]") from missing
    except RuntimeError as error:  # mpi4py's own
        raise WootzError(
            f"started by mpiexec, but {textwrap.shorten(str(error), 200, placeholder=' …')}: install wootz[mpi]"
        ) from error
    return MpiCluster(MPI)


def abort(status: int) -> None:
    """Ends the other processes too, after an error in this one."""
    if any(name in os.environ for name in _STARTED_BY_MPI):
        from mpi4py import MPI

        if MPI.COMM_WORLD.Get_size() > 1:
            MPI.COMM_WORLD.Abort(status)
