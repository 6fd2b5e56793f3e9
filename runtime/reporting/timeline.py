"""When each worker did what, from the events of a run."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from wootz.runtime.events import (
    Event,
    Progress,
    RunStarted,
    TaskCancelled,
    TaskEnded,
    TaskId,
    TaskRaised,
    TaskStarted,
    WorkerLost,
)

Ending = Literal["trained", "failed", "cancelled", "lost", "unfinished"]


@dataclass(frozen=True)
class Span:
    """A task on a worker, in seconds since the run began; `lost` with its worker, or by an error."""

    worker: int
    task: TaskId
    begin: float
    end: float
    ending: Ending


@dataclass(frozen=True)
class Timeline:
    """The tasks that were performed, and when each attempt began: the time between two attempts is left out.
    `end` is that of the last task.

    `workers` is their number, in the last attempt at least.
    """

    spans: tuple[Span, ...] = ()
    attempts: tuple[float, ...] = ()
    end: float = 0.0
    workers: int = 0

    @property
    def busy(self) -> float:
        """The part of the workers' time, from the first task to the last, that they had a task."""
        if not self.spans:
            return 0.0
        time = max(s.end for s in self.spans) - min(s.begin for s in self.spans)
        return sum(s.end - s.begin for s in self.spans) / (time * self.workers) if time else 1.0


def timeline(events: Iterable[Event]) -> Timeline:
    """Tasks that were known before take no time, and are not among them."""
    spans: list[Span] = []
    attempts: list[float] = []
    begun: dict[TaskId, tuple[float, int | None]] = {}
    start, now, workers = 0.0, 0.0, 0

    def finish(task: TaskId, worker: int | None, ending: Ending) -> None:
        begin, known_worker = begun.pop(task, (None, None))
        worker = known_worker if worker is None else worker
        if begin is not None and worker is not None:
            spans.append(Span(worker, task, begin, now, ending))

    def finish_all() -> None:
        for task in list(begun):
            finish(task, None, "unfinished")

    for event in events:
        if isinstance(event, RunStarted):
            finish_all()
            start, workers = now, event.workers
            attempts.append(start)
        now = start + event.elapsed
        match event:
            case TaskStarted():
                begun[event.task] = (now, event.worker)
            case Progress() if event.task in begun:
                begun[event.task] = (begun[event.task][0], event.worker)
            case TaskEnded(reused=True):
                begun.pop(event.task, None)
            case TaskEnded():
                finish(event.task, event.worker, event.outcome)
            case TaskCancelled():
                finish(event.task, event.worker, "cancelled")
            case TaskRaised() | WorkerLost():
                finish(event.task, event.worker, "lost")
    finish_all()
    end = max((span.end for span in spans), default=0.0)
    return Timeline(tuple(spans), tuple(attempts), end, max([workers, *(s.worker + 1 for s in spans)]))
