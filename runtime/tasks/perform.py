"""What the workers of a run do: a process opens network and data for its first task, and keeps them."""

from __future__ import annotations

import atexit
import pickle
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

from wootz.passes.errors import StorageError
from wootz.passes.ir.files import write_atomically
from wootz.runtime.digest import digest
from wootz.runtime.executors.control import Control, Place
from wootz.runtime.job import Job
from wootz.runtime.run_directory import JOB_FILE
from wootz.runtime.store import Store
from wootz.runtime.tasks.task import Order, Results
from wootz.runtime.tasks.workshop import Workshop


@dataclass(frozen=True)
class Site:
    """Where a worker finds the job of a run, and the store: paths that hold on all machines that take part.

    `job` is the digest of the job's file: the next run in the folder has another. `store_limit`: bytes to which the
    store keeps.
    """

    run: Path
    job: str
    store: Path
    store_limit: int

    @staticmethod
    def of(job: Job, store: Store) -> Site:
        """Writes the job for the workers: the network, and where the data are."""
        content = pickle.dumps(job)
        write_atomically(job.out / JOB_FILE, content)
        return Site(job.out, digest(content), store.folder, store.limit)


def perform(site: Site, order: Order, control: Control) -> Results:
    """Does what `order` says. Raises WootzError where the job isn't there, or is another by now, or the data have
    changed."""
    if site not in _WORKSHOPS:
        _forget()
        _WORKSHOPS[site] = _opened(site, control.place)
    return _WORKSHOPS[site].perform(order, control)


def provide(site: Site, workshop: Workshop) -> None:
    """Has this process perform the tasks of a run in `workshop`, and forget about other runs."""
    _forget()
    _WORKSHOPS[site] = workshop


_WORKSHOPS: dict[Site, Workshop] = {}
"""What this process has open: one at most."""
_USES = ExitStack()
"""Keeps what a worker puts in the store: until the run's driver has seen it, nobody else uses it."""


def _forget() -> None:
    _USES.close()
    _WORKSHOPS.clear()


def _opened(site: Site, place: Place) -> Workshop:
    file = site.run / JOB_FILE
    try:
        content = file.read_bytes()
    except OSError as error:
        raise StorageError(
            f"{file}: the worker on {place.host} can't read it ({error.strerror}): the run's folder, the store and the "
            f"data have to have the same paths on all machines"
        ) from error
    if digest(content) != site.job:
        raise StorageError(f"{file}: the worker on {place.host} finds another job in it: its run is over")
    job: Job = pickle.loads(content)
    store = Store.open(site.store, site.store_limit)
    _USES.enter_context(store.using(f"{job.title}, a worker"))
    atexit.register(_USES.close)
    device = replace(job.device, threads=place.threads, index=place.gpu or 0)
    return Workshop(replace(job, device=device), store)
