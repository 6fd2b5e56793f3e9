"""The engine without workers: tasks are performed where it waits for them."""

from __future__ import annotations

import pickle
import time
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Generic, Self

from wootz.runtime.executors.control import Place
from wootz.runtime.executors.engine import Cancelled, Ended, Listener, R, T, Work, nobody
from wootz.runtime.executors.future_engine import GRACE
from wootz.runtime.executors.interrupts import postponed
from wootz.runtime.executors.worker import Order, fulfil


class ThisProcess(Generic[T, R]):
    """One task at a time, performed by `wait`, which therefore takes as long as that, whatever its timeout.

    Ctrl-C and SIGTERM ask a task to stop, and end it after GRACE seconds.
    """

    def __init__(self, place: Place, work: Work[T, R], folder: Path, listener: Listener[T] = nobody):
        """`listener` is told what tasks tell."""
        self._place, self._work, self._folder, self._listener = place, work, folder, listener
        self._started: list[tuple[T, float]] = []
        self._cancelled: set[T] = set()
        self._opened = 0.0

    workers = 1

    def __enter__(self) -> Self:
        self._opened = time.monotonic()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._started.clear()

    def now(self) -> float:
        return time.monotonic() - self._opened

    def start(self, task: T, avoid: int | None = None) -> None:
        if self._started:
            raise ValueError(f"{self._started[0][0]} is under way")
        self._started.append((task, self.now()))

    def cancel(self, task: T) -> None:
        self._cancelled.add(task)

    def wait(self, timeout: float | None = None) -> list[Ended[T, R]]:
        if not self._started:
            return []
        task, start = self._started.pop()
        if task in self._cancelled:
            self._cancelled.remove(task)
            return [Ended(task, 0, start, self.now(), Cancelled())]
        order = pickle.dumps(Order(self._work, task))
        with postponed(GRACE) as interrupted:
            listener = partial(self._listener, task)
            answer = fulfil(order, self._place, None, self._folder, False, listener, interrupted)
        return [Ended(task, 0, start, self.now(), answer.how)]
