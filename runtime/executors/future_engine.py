"""An engine over executors of `concurrent.futures`: local processes, MPI and Dask differ in their `Crew` only."""

from __future__ import annotations

import concurrent.futures
import pickle
import queue
import shutil
import tempfile
import time
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Generic, Self

from wootz.runtime.executors.control import Ticket
from wootz.runtime.executors.engine import Cancelled, Ended, Listener, R, Raised, Returned, T, Work, WorkerLost, nobody
from wootz.runtime.executors.worker import Answer, Order, as_raised

SILENCE_LIMIT = 1800.0
"""Seconds without a sign of life after which a worker is given up."""

GRACE = 3.0
"""Seconds that tasks under way have to stop in when the engine is closed."""

LOOK = 1.0
"""Seconds between two looks at who is silent, gone or new."""

LISTEN = 2.0
"""Seconds after a sign of life before the next one is looked for."""

_CONTROL = "control-"


class Crew(ABC):
    """Workers, each at a numbered seat, behind executors of `concurrent.futures`."""

    @abstractmethod
    def seats(self) -> Sequence[int]:
        """Those with a worker, idle or not, as of the last `look`."""

    @abstractmethod
    def look(self) -> None:
        """Finds out who came and went. Called while the engine waits, so that in between no worker disappears."""

    @abstractmethod
    def submit(self, seat: int, order: bytes, ticket: Ticket, logs: Path) -> concurrent.futures.Future[Answer]:
        """Has the worker `fulfil` the order."""

    def is_loss(self, error: Exception) -> bool:
        """Whether an error that a future raised means that the worker died, or that nobody waits for it any more."""
        return isinstance(error, concurrent.futures.BrokenExecutor | concurrent.futures.CancelledError)

    @abstractmethod
    def replace(self, seat: int) -> str:
        """Gives the seat of a worker that died a new one. Returns what became of the old one, in a few words."""

    @abstractmethod
    def kill(self, seat: int, ticket: Ticket) -> None:
        """Ends a worker that doesn't listen, where that can be done."""

    def gone(self, seat: int) -> str:
        """Why the worker of a seat that has a task is known to be gone, though its future doesn't say so; else ''."""
        return ""

    @abstractmethod
    def close(self) -> None:
        """Lets all workers go. None has a task any more, but those that weren't killed in spite of `kill`."""


@dataclass
class _Underway(Generic[T]):
    task: T
    seat: int
    ticket: Ticket
    started: float
    future: concurrent.futures.Future[Answer]
    pulse: int
    heard: float
    cancelled: bool = False


class FutureEngine(Generic[T, R]):
    """Performs `work` for tasks on the workers of `crew`; logs, and files for talking to workers, are in `folder`."""

    def __init__(
        self,
        crew: Crew,
        work: Work[T, R],
        folder: Path,
        silence_limit: float = SILENCE_LIMIT,
        listener: Listener[T] = nobody,
        grace: float = GRACE,
    ):
        """`listener` is told what tasks tell, while `wait` waits."""
        self._listener = listener
        self._crew, self._work, self._folder = crew, work, folder.absolute()
        self._silence_limit, self._grace = silence_limit, grace
        self._under_way: dict[int, _Underway[T]] = {}
        self._given_up: dict[int, int] = {}
        self._numbers: dict[T, int] = {}
        self._ended: queue.SimpleQueue[tuple[int, float]] = queue.SimpleQueue()
        self._count = 0
        self._opened = 0.0
        self._control = Path()

    def __enter__(self) -> Self:
        self._folder.mkdir(parents=True, exist_ok=True)
        for left in self._folder.glob(f"{_CONTROL}*"):  # of a driver that was killed: its workers see that by it
            shutil.rmtree(left, ignore_errors=True)
        self._control = Path(tempfile.mkdtemp(prefix=_CONTROL, dir=self._folder))
        self._opened = time.monotonic()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            for under_way in self._under_way.values():
                under_way.ticket.ask_to_stop()
            concurrent.futures.wait([u.future for u in self._under_way.values()], self._grace)
        finally:
            for under_way in self._under_way.values():
                if not under_way.future.done():
                    self._crew.kill(under_way.seat, under_way.ticket)
            self._crew.close()
            shutil.rmtree(self._control, ignore_errors=True)

    @property
    def workers(self) -> int:
        given_up = self._given_up.values()
        return sum(seat not in given_up for seat in self._crew.seats())

    def now(self) -> float:
        return time.monotonic() - self._opened

    def start(self, task: T, avoid: int | None = None) -> None:
        if task in self._numbers:
            raise ValueError(f"{task} is under way")
        busy = {u.seat for u in self._under_way.values()} | set(self._given_up.values())
        idle = [seat for seat in self._crew.seats() if seat not in busy]
        if not idle:
            raise ValueError(f"no worker is idle for {task}")
        seat = next((s for s in idle if s != avoid), idle[0])
        number = self._count = self._count + 1
        ticket = Ticket(self._control, number)
        ticket.open()
        order = pickle.dumps(Order(self._work, task))
        started = self.now()
        future = self._crew.submit(seat, order, ticket, self._folder)
        self._under_way[number] = _Underway(task, seat, ticket, started, future, ticket.last_pulse(), started)
        self._numbers[task] = number
        future.add_done_callback(lambda _: self._ended.put((number, self.now())))

    def cancel(self, task: T) -> None:
        under_way = self._under_way[self._numbers[task]]
        under_way.cancelled = True
        under_way.ticket.ask_to_stop()

    def wait(self, timeout: float | None = None) -> list[Ended[T, R]]:
        deadline = None if timeout is None else self.now() + timeout
        workers, pause = self.workers, 0.0
        while True:
            ended = list(self._arrived(pause))
            self._crew.look()
            ended += self._lost()
            pause = LOOK if deadline is None else min(LOOK, deadline - self.now())
            if ended or pause <= 0 or self.workers > workers or not (self._under_way or self.workers == 0):
                return sorted(ended, key=lambda e: e.end)
            workers = self.workers

    def _arrived(self, pause: float) -> Iterable[Ended[T, R]]:
        """Waits that long for the first."""
        while True:
            try:
                number, end = self._ended.get(timeout=pause)
            except queue.Empty:
                return
            pause = 0.0
            if self._given_up.pop(number, None) is None and number in self._under_way:
                yield self._taken(number, end, *self._how(self._under_way[number]))

    def _how(self, under_way: _Underway[T]) -> tuple[int, Returned[R] | Raised | WorkerLost | Cancelled]:
        """The worker, and how the task of a future that is done ended on it."""
        try:
            answer = under_way.future.result()
        except Exception as error:
            if self._crew.is_loss(error):
                return under_way.seat, WorkerLost(self._crew.replace(under_way.seat))
            return under_way.seat, as_raised(error)
        return answer.worker, answer.how

    def _lost(self) -> Iterable[Ended[T, R]]:
        for number, under_way in list(self._under_way.items()):
            if under_way.future.done():
                continue
            reason = self._crew.gone(under_way.seat) or self._silent(under_way)
            if reason:
                self._given_up[number] = under_way.seat
                self._crew.kill(under_way.seat, under_way.ticket)
                yield self._taken(number, self.now(), under_way.seat, WorkerLost(reason))

    def _silent(self, under_way: _Underway[T]) -> str:
        silent = self.now() - under_way.heard
        if silent < min(LISTEN, self._silence_limit):
            return ""
        pulse = under_way.ticket.last_pulse()
        if pulse != under_way.pulse:
            under_way.pulse, under_way.heard = pulse, self.now()
            if text := under_way.ticket.told():
                self._listener(under_way.task, text)
            return ""
        return f"it was silent for {silent:.0f} s" if silent > self._silence_limit else ""

    def _taken(
        self, number: int, end: float, worker: int, how: Returned[R] | Raised | WorkerLost | Cancelled
    ) -> Ended[T, R]:
        under_way = self._under_way.pop(number)
        del self._numbers[under_way.task]
        if number not in self._given_up:
            under_way.ticket.close()
        if under_way.cancelled and not isinstance(how, Returned):
            how = Cancelled()
        elif isinstance(how, Cancelled) and not under_way.cancelled:
            how = WorkerLost(f"it stopped, for {self._control} is not to be seen any more")
        return Ended(under_way.task, worker, under_way.started, end, how)
