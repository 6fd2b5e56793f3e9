"""Shows a run under way from its events, whatever does the work: what is done on top, a line a worker below."""

from __future__ import annotations

import time
from collections.abc import Callable
from types import TracebackType

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.markup import escape
from rich.progress_bar import ProgressBar
from rich.table import Table

from wootz.runtime.events import (
    Event,
    Note,
    Progress,
    TaskCancelled,
    TaskEnded,
    TaskId,
    TaskRaised,
    WorkerLost,
)
from wootz.runtime.status import RunStatus, Work, fold, seconds_left
from wootz.runtime.store.amounts import show_seconds
from wootz.runtime.tasks.task import FineTuneFull, TrainTeacher
from wootz.tools.status_table import PHASES, facts, say, time_left

BETWEEN_SUMMARIES = 60.0
"""Seconds, where there is no terminal: then a line says how far the run is."""
BAR_WIDTH = 20
LINES_BESIDE_WORKERS = 4


class RunDisplay:
    """A listener of an event log: a line a finished task, and notes; on a terminal, below them, what goes on.

    `clock` counts seconds.
    """

    def __init__(self, console: Console, clock: Callable[[], float] = time.monotonic):
        self._console, self._clock = console, clock
        self._status = RunStatus()
        self._heard = self._summarised = clock()
        self._live = Live(
            console=console, get_renderable=self._render, refresh_per_second=2, transient=True, redirect_stderr=False
        )

    def __enter__(self) -> RunDisplay:
        if self._console.is_terminal:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._live.stop()

    def __call__(self, event: Event) -> None:
        line = _line(event, self._status)
        self._status, self._heard = fold(self._status, event), self._clock()
        if line is not None and not (self._console.is_terminal and isinstance(event, Progress)):
            say(self._console, line)
        if not self._console.is_terminal and isinstance(event, TaskEnded):
            self._summarise()

    def _summarise(self) -> None:
        if self._heard - self._summarised >= BETWEEN_SUMMARIES:
            self._summarised = self._heard
            say(self._console, self._summary())

    def _summary(self) -> str:
        """How far the run is, in a line."""
        done = [f"{name} {text}" for name, text in facts(self._status)]
        left = seconds_left(self._status, self._elapsed)
        return "; ".join(
            [PHASES[self._status.phase], *done, *([f"{time_left(self._status, left)} left"] if left else [])]
        )

    @property
    def _elapsed(self) -> float:
        return self._status.elapsed + self._clock() - self._heard

    def _render(self) -> RenderableType:
        room = max(1, self._console.height - LINES_BESIDE_WORKERS)
        rows = Table.grid(padding=(0, 2))
        for work in self._status.under_way[:room]:
            rows.add_row(*self._cells(work))
        hidden = len(self._status.under_way) - room
        return Group(escape(self._summary()), rows, *([f"… and {hidden} more"] if hidden > 0 else []))

    def _cells(self, work: Work) -> tuple[RenderableType, ...]:
        seconds = self._elapsed - work.since
        return (
            "" if work.worker is None else str(work.worker),
            escape(work.title),
            ProgressBar(total=work.steps or None, completed=work.step, width=BAR_WIDTH, pulse=not work.steps),
            f"{work.step} of {work.steps}" if work.steps else "",
            ", ".join(_measured(work.loss, work.accuracy)),
            show_seconds(max(0.0, seconds)),
        )


def _line(event: Event, status: RunStatus) -> str | None:
    """What is told of an event where lines are shown; None for nothing."""
    match event:
        case Note():
            return event.text
        case Progress():
            work = next((w for w in status.under_way if w.task == event.task), None)
            if work is None or not work.display or event.step % work.display or event.step == work.steps:
                return None
            told = ", ".join(_measured(event.loss, event.accuracy))
            return f"  {work.title}: step {event.step} of {work.steps}, {told}"
        case TaskEnded():
            return f"  {_title(event.task, status)}: {_ending(event, _steps(event.task, status))}"
        case TaskCancelled():
            return f"  {_title(event.task, status)}: given up, it is not needed any more"
        case TaskRaised(again=True) | WorkerLost(again=True):
            return f"  {_title(event.task, status)}: {event.reason}; it is tried again"
        case _:
            return None


def _ending(event: TaskEnded, steps: int) -> str:
    """`steps` are those of a whole training, 0 if that is not known."""
    if event.outcome == "failed":
        told = [f"failed: {event.reason}"]
    else:
        told = [*_measured(None, event.accuracy)]
        if event.ended != "all steps":
            told.append(f"{event.ended} {_how_early(event.steps_saved, steps)}")
    told.append("known before" if event.reused else show_seconds(event.seconds))
    return ", ".join(told)


def _how_early(saved: int, steps: int) -> str:
    if not saved:
        return "at the last step"
    return "without training" if saved == steps else f"{saved} step{'s'[: saved != 1]} before the end"


def _measured(loss: float | None, accuracy: float | None) -> list[str]:
    shown = (None if loss is None else f"loss {loss:.4f}", None if accuracy is None else f"accuracy {accuracy:.4f}")
    return [text for text in shown if text is not None]


def _title(task: TaskId, status: RunStatus) -> str:
    """That of the task under way, or what it would be called."""
    known = (work.title for work in status.under_way if work.task == task)
    full = {"teacher": TrainTeacher(), "tuned": FineTuneFull()}.get(task.kind)
    return next(known, f"{task.kind} {task.index + 1}" if full is None else str(full))


def _steps(task: TaskId, status: RunStatus) -> int:
    return next((work.steps for work in status.under_way if work.task == task), 0)
