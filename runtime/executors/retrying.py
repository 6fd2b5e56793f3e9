"""Which failures are tried again."""

from __future__ import annotations

from collections.abc import Callable
from types import TracebackType
from typing import Generic, Self

from wootz.runtime.executors.engine import Cancelled, Ended, Engine, R, Raised, T, WorkerLost


class Retrying(Generic[T, R]):
    """An engine that starts a task once more, on another worker if one is idle, when it raised or lost its worker.

    `note` is told of the first failure, the caller of `wait` of the second, and of errors of storage at once.
    """

    def __init__(self, engine: Engine[T, R], note: Callable[[Ended[T, R]], None]):
        self._engine, self._note = engine, note
        self._under_way: set[T] = set()
        self._failed: set[T] = set()
        self._waiting: dict[T, Ended[T, R]] = {}
        self._cancelled: list[Ended[T, R]] = []

    @property
    def workers(self) -> int:
        return self._engine.workers

    def now(self) -> float:
        return self._engine.now()

    def start(self, task: T, avoid: int | None = None) -> None:
        self._engine.start(task, avoid)
        self._under_way.add(task)

    def cancel(self, task: T) -> None:
        if task in self._waiting:
            failed = self._waiting.pop(task)
            self._failed.discard(task)
            self._cancelled.append(Ended(task, failed.worker, failed.start, self.now(), Cancelled()))
        else:
            self._engine.cancel(task)

    def wait(self, timeout: float | None = None) -> list[Ended[T, R]]:
        deadline = None if timeout is None else self.now() + timeout
        while True:
            ended, self._cancelled = self._cancelled, []
            told = self._engine.wait(0 if ended else timeout)
            ended += [e for e in told if self._is_final(e)]
            self._start_again()
            left = None if deadline is None else deadline - self.now()
            if ended or not told or (left is not None and left <= 0):
                return ended
            timeout = left

    def _is_final(self, ended: Ended[T, R]) -> bool:
        self._under_way.remove(ended.task)
        if isinstance(ended.how, Raised) and ended.how.is_of_storage:
            return True
        if isinstance(ended.how, Raised | WorkerLost) and ended.task not in self._failed:
            self._failed.add(ended.task)
            self._waiting[ended.task] = ended
            self._note(ended)
            return False
        self._failed.discard(ended.task)
        return True

    def _start_again(self) -> None:
        for task, failed in list(self._waiting.items()):
            if len(self._under_way) < self._engine.workers:
                del self._waiting[task]
                self.start(task, avoid=failed.worker)

    def __enter__(self) -> Self:
        self._engine.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._engine.__exit__(kind, error, traceback)
