"""What happens in a worker: it performs a task, catches what goes wrong, and writes a log."""

from __future__ import annotations

import contextlib
import logging
import os
import pickle
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic

from wootz.passes.errors import NO_SPACE, StorageError, WootzError, one_line
from wootz.runtime.executors.control import Control, Place, Stopped, Ticket
from wootz.runtime.executors.engine import Cancelled, R, Raised, Returned, T, Work, WorkerLost

LOGGER = logging.getLogger("wootz")


@dataclass(frozen=True)
class Order(Generic[T, R]):
    """A task as it travels to a worker, pickled: what can't be read there is the task's error, and not the worker's."""

    work: Work[T, R]
    task: T


@dataclass(frozen=True)
class Answer:
    """What comes back, with the worker that did it."""

    worker: int
    how: Returned[Any] | Raised | WorkerLost | Cancelled


def log_file(folder: Path, worker: int) -> Path:
    """Where a worker writes what it does."""
    return folder / f"worker-{worker}.log"


def fulfil(
    order: bytes,
    place: Place,
    ticket: Ticket | None,
    logs: Path,
    whole_output: bool,
    listener: Callable[[str], None] | None = None,
    interrupted: Callable[[], bool] = lambda: False,
) -> Answer:
    """Performs a pickled `Order`. With `whole_output` all that the process writes meanwhile goes to the log, too."""
    if ticket is not None and not ticket.is_open():
        unseen = WootzError(f"{logs} is not seen by a worker on {place.host}: all workers share the run's file system")
        return Answer(place.worker, as_raised(unseen))
    with _logging_to(log_file(logs, place.worker), whole_output):
        return Answer(place.worker, _performed(order, Control(place, ticket, listener, interrupted)))


def _performed(order: bytes, control: Control) -> Returned[Any] | Raised | Cancelled:
    began = time.monotonic()
    name = "a task"
    try:
        given: Order[Any, Any] = pickle.loads(order)
        name = str(given.task)
        LOGGER.info("%s: begins on %s", name, control.place)
        value = given.work(given.task, control)
    except Stopped:
        LOGGER.info("%s: stopped after %.1f s", name, time.monotonic() - began)
        return Cancelled()
    except Exception as error:
        LOGGER.exception("%s: failed after %.1f s", name, time.monotonic() - began)
        return as_raised(error)
    LOGGER.info("%s: done after %.1f s", name, time.monotonic() - began)
    return Returned(value)


def as_raised(error: BaseException) -> Raised:
    """An exception as it is told: a WootzError's own line, or the kind of another and what it says."""
    if isinstance(error, OSError) and error.errno in NO_SPACE and error.filename is not None:
        error = StorageError.of(error.filename, str(error.strerror)).with_traceback(error.__traceback__)
    user_error = isinstance(error, WootzError)
    said = str(error) if user_error else one_line(f"{type(error).__name__}: {error}".removesuffix(": "))
    return Raised(said, "".join(traceback.format_exception(error)), user_error, _is_of_storage(error))


def _is_of_storage(error: BaseException) -> bool:
    return isinstance(error, StorageError) or (isinstance(error, OSError) and error.errno in NO_SPACE)


class _Log(logging.FileHandler):
    """A log that a full disk cuts short: whoever writes what matters tells of it."""

    def handleError(self, record: logging.LogRecord) -> None:
        pass

    def close(self) -> None:
        with contextlib.suppress(OSError):
            super().close()


@contextlib.contextmanager
def _logging_to(file: Path, whole_output: bool) -> Iterator[None]:
    file.parent.mkdir(parents=True, exist_ok=True)
    handler = _Log(file, encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    level, propagates = LOGGER.level, LOGGER.propagate
    LOGGER.addHandler(handler)
    LOGGER.setLevel(logging.INFO)
    LOGGER.propagate = False  # libraries make the root logger write to the terminal
    try:
        with _output_to(file) if whole_output else contextlib.nullcontext():
            yield
    finally:
        LOGGER.removeHandler(handler)
        LOGGER.setLevel(level)
        LOGGER.propagate = propagates
        handler.close()


@contextlib.contextmanager
def _output_to(file: Path) -> Iterator[None]:
    """Has the process's standard output and errors in the file, those of native code included."""
    kept = [os.dup(descriptor) for descriptor in (1, 2)]
    opened = os.open(file, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
    try:
        for descriptor in (1, 2):
            os.dup2(opened, descriptor)
        yield
    finally:
        for stream in (sys.stdout, sys.stderr):
            if stream is not None:
                with contextlib.suppress(OSError):
                    stream.flush()
        for descriptor, original in zip((1, 2), kept, strict=True):
            os.dup2(original, descriptor)
        for descriptor in (opened, *kept):
            os.close(descriptor)
