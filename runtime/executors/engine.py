"""What all engines have in common: tasks are started on workers, and end in one of four ways."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Generic, Protocol, Self, TypeVar

from wootz.runtime.executors.control import Control

T = TypeVar("T")
R = TypeVar("R")

Work = Callable[[T, Control], R]
"""What workers do: picklable, so a function of a module, or a `functools.partial` of one."""


Listener = Callable[[T, str], None]
"""Is told, in the process that drives, what a task under way tells (`Control.tell`)."""


def nobody(task: object, text: str) -> None:
    """Listens to nothing."""


@dataclass(frozen=True)
class Returned(Generic[R]):
    """The task is done."""

    value: R


@dataclass(frozen=True)
class Raised:
    """The task raised: `error` in one line, and where. `is_user_error` tells a WootzError from a fault of ours.

    With `is_of_storage` no other task would fare better: a disk is full, or a folder can't be written any more.
    """

    error: str
    traceback: str
    is_user_error: bool
    is_of_storage: bool = False


@dataclass(frozen=True)
class WorkerLost:
    """The worker died, left, or was silent for too long. What the task had stored is still there."""

    reason: str


@dataclass(frozen=True)
class Cancelled:
    """The task was cancelled, and didn't get done all the same."""


@dataclass(frozen=True)
class Ended(Generic[T, R]):
    """How a task ended, on which worker, and when it was started and ended, in seconds of the engine."""

    task: T
    worker: int
    start: float
    end: float
    how: Returned[R] | Raised | WorkerLost | Cancelled


class Engine(Protocol[T, R]):
    """Performs tasks while it is open: `with engine: ...`.

    Closing it stops what is under way within seconds, and leaves no process behind.
    """

    @property
    def workers(self) -> int:
        """How many tasks can be under way at once. Workers of a cluster come and go."""

    def start(self, task: T, avoid: int | None = None) -> None:
        """Starts the task on an idle worker, on another one than `avoid` if there is one. Tasks are hashable.

        No task is started twice at once, and no more of them than there are workers.
        """

    def wait(self, timeout: float | None = None) -> list[Ended[T, R]]:
        """The tasks that ended since the last call, in that order; sleeps until there is one, or `timeout` is over.

        The list is empty after the timeout, when nothing is under way, and when workers have joined.
        """

    def cancel(self, task: T) -> None:
        """Asks the worker to stop a task that is under way: it ends soon, as cancelled or as done."""

    def now(self) -> float:
        """Seconds since the engine was opened."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None: ...
