"""Shows a run under way from its events, whatever does the work: how far it is on top, a line a task below."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from types import TracebackType

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.markup import escape
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from wootz.passes.plan.metrics import Metric
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
from wootz.runtime.quality.showing import show_shortly
from wootz.runtime.status import RunStatus, Work, fold, seconds_left
from wootz.runtime.store.amounts import show_seconds
from wootz.runtime.tasks.task import FineTuneFull, TrainTeacher
from wootz.tools.status_table import progress
from wootz.tools.wrapping import say, wrapped

BETWEEN_SUMMARIES = 60.0
"""Seconds, where there is no terminal: then a line says how far the run is."""
SHORTEST_BAR, LONGEST_BAR = 6, 20
LINES_LEFT_FREE = 2
INDENT = 4
"""Of all lines but the first one of what is said of a task."""


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
            say(self._console, line, INDENT if line.startswith(" ") else 0)
        if not self._console.is_terminal and isinstance(event, TaskEnded):
            self._summarise()

    def _summarise(self) -> None:
        if self._heard - self._summarised >= BETWEEN_SUMMARIES:
            self._summarised = self._heard
            say(self._console, "; ".join(self._progress()))

    def _progress(self) -> list[str]:
        return list(progress(self._status, self._elapsed, seconds_left(self._status, self._elapsed)))

    @property
    def _elapsed(self) -> float:
        return self._status.elapsed + self._clock() - self._heard

    def _render(self) -> RenderableType:
        width, height = self._console.size
        lines = [line for text in self._progress() for line in wrapped(text, width, INDENT).splitlines()]
        room = max(1, height - len(lines) - LINES_LEFT_FREE)
        hidden = len(self._status.under_way) - room
        more = [f"… and {hidden} more"] if hidden > 0 else []
        return Group(*map(escape, lines), self._rows(self._status.under_way[:room]), *more)

    def _rows(self, under_way: Sequence[Work]) -> Table:
        """A row a task; where there is little room, titles are cut and numbers are not."""
        rows = Table.grid(padding=(0, 2, 0, 0))
        shows_workers = self._status.run is not None and self._status.run.workers > 1
        if shows_workers:
            rows.add_column(no_wrap=True)
        rows.add_column()
        rows.add_column(min_width=SHORTEST_BAR, max_width=LONGEST_BAR)
        for _ in range(3):
            rows.add_column(no_wrap=True, justify="right")
        for work in under_way:
            worker = ["" if work.worker is None else str(work.worker)] if shows_workers else []
            rows.add_row(*worker, *self._cells(work))
        return rows

    def _cells(self, work: Work) -> tuple[RenderableType, ...]:
        return (
            Text(work.title, no_wrap=True, overflow="ellipsis"),
            ProgressBar(total=work.steps or None, completed=work.step, pulse=not work.steps),
            f"{work.step} of {work.steps}" if work.steps else "",
            next(reversed(_measured(self._status.metric, work.loss, work.quality)), ""),
            show_seconds(max(0.0, self._elapsed - work.since)),
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
            told = ", ".join(_measured(status.metric, event.loss, event.quality))
            return f"  {work.title}: step {event.step} of {work.steps}, {told}"
        case TaskEnded():
            return f"  {_title(event.task, status)}: {_ending(event, _steps(event.task, status), status.metric)}"
        case TaskCancelled():
            return f"  {_title(event.task, status)}: given up, it is not needed any more"
        case TaskRaised(again=True) | WorkerLost(again=True):
            return f"  {_title(event.task, status)}: {event.reason}; it is tried again"
        case _:
            return None


def _ending(event: TaskEnded, steps: int, metric: Metric) -> str:
    """`steps` are those of a whole training, 0 if that is not known."""
    if event.outcome == "failed":
        told = [f"failed: {event.reason}"]
    else:
        told = _reached(event, metric)
        if event.ended != "all steps":
            told.append(f"{'done' if event.ended == 'bound met' else event.ended} {_how_early(event, steps)}")
    told.append("known before" if event.reused else show_seconds(event.seconds))
    return ", ".join(told)


def _reached(event: TaskEnded, metric: Metric) -> list[str]:
    """`81.2 %` and `misses 82.8 %`, with as many digits as it takes to see that."""
    if event.bound is None or event.quality is None:
        return _measured(metric, None, event.quality)
    both = event.quality, event.bound
    shown = (tuple(show_shortly(metric, value, more) for value in both) for more in range(3))
    quality, bound = next((texts for texts in shown if event.meets_bound or len(set(texts)) == 2), map(str, both))
    return [quality, f"{'meets' if event.meets_bound else 'misses'} {bound}"]


def _how_early(event: TaskEnded, steps: int) -> str:
    saved = event.steps_saved
    if not saved:
        return "at the last step"
    return "without training" if saved == steps else f"{saved} step{'s'[: saved != 1]} early"


def _measured(metric: Metric, loss: float | None, quality: float | None) -> list[str]:
    shown = (
        None if loss is None else f"loss {loss:.3g}",
        None if quality is None else show_shortly(metric, quality) if metric.is_share else f"{metric} {quality:.3g}",
    )
    return [text for text in shown if text is not None]


def _title(task: TaskId, status: RunStatus) -> str:
    """That of the task under way, or what it would be called."""
    known = (work.title for work in status.under_way if work.task == task)
    full = {"teacher": TrainTeacher(), "tuned": FineTuneFull()}.get(task.kind)
    return next(known, f"{task.kind} {task.index + 1}" if full is None else str(full))


def _steps(task: TaskId, status: RunStatus) -> int:
    return next((work.steps for work in status.under_way if work.task == task), 0)
