"""The engine in which no time passes: for what a run would take with other numbers of workers."""

from __future__ import annotations

import heapq
from collections.abc import Callable
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Generic, Self

from wootz.runtime.executors.engine import Cancelled, Ended, R, Returned, T


@dataclass(frozen=True)
class _Underway:
    number: int
    worker: int
    start: float
    end: float
    cancelled: bool = False


class Simulated(Generic[T, R]):
    """Tasks return `value(task)` after `duration(task)` invented seconds: the same calls, the same result.

    The idle worker of the lowest number takes a task. What ends at one moment is told at once, in the order of starts.
    """

    def __init__(self, workers: int, duration: Callable[[T], float], value: Callable[[T], R]):
        self.workers = workers
        self._duration, self._value = duration, value
        self._idle = list(range(workers))
        self._under_way: dict[T, _Underway] = {}
        self._ends: list[tuple[float, int, T]] = []
        self._count = 0
        self._now = 0.0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._under_way.clear()

    def now(self) -> float:
        return self._now

    def start(self, task: T, avoid: int | None = None) -> None:
        if task in self._under_way:
            raise ValueError(f"{task} is under way")
        if not self._idle:
            raise ValueError(f"no worker is idle for {task}")
        self._count += 1
        worker = heapq.heappop(self._idle)
        self._put(task, _Underway(self._count, worker, self._now, self._now + self._duration(task)))

    def cancel(self, task: T) -> None:
        self._put(task, replace(self._under_way[task], end=self._now, cancelled=True))

    def _put(self, task: T, under_way: _Underway) -> None:
        self._under_way[task] = under_way
        heapq.heappush(self._ends, (under_way.end, under_way.number, task))

    def wait(self, timeout: float | None = None) -> list[Ended[T, R]]:
        deadline = float("inf") if timeout is None else self._now + timeout
        self._drop_superseded()
        if self._ends:
            self._now = min(deadline, self._ends[0][0])
        ended = []
        while self._ends and self._ends[0][0] <= self._now:
            task = heapq.heappop(self._ends)[2]
            done = self._under_way.pop(task)
            heapq.heappush(self._idle, done.worker)
            how = Cancelled() if done.cancelled else Returned(self._value(task))
            ended.append(Ended(task, done.worker, done.start, done.end, how))
            self._drop_superseded()
        return ended

    def _drop_superseded(self) -> None:
        """Ends of tasks that were cancelled before."""
        while self._ends:
            end, number, task = self._ends[0]
            under_way = self._under_way.get(task)
            if under_way is not None and (under_way.number, under_way.end) == (number, end):
                return
            heapq.heappop(self._ends)
