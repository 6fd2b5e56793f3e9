"""Where a run stands, in words: for `wootz status`, and for the progress of a run under way."""

from __future__ import annotations

from collections.abc import Iterator

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from wootz.passes.plan.metrics import Metric
from wootz.passes.plan.subspace import format_configuration
from wootz.runtime.events import Phase, TaskKind
from wootz.runtime.quality.showing import show_reached, show_shortly
from wootz.runtime.status import RunStatus, State, Work
from wootz.runtime.store.amounts import show_seconds
from wootz.tools.wrapping import say

PHASES: dict[Phase, str] = {
    "plan": "planning",
    "teacher": "training the full network",
    "pretraining": "pre-training blocks",
    "scoring": "scoring blocks and looking at networks",
    "exploration": "trying networks",
    "baseline": "trying default networks",
    "delivery": "writing the results",
}
COUNTED: dict[Phase, TaskKind] = {
    "pretraining": "blocks",
    "exploration": "network",
    "baseline": "default network",
}
"""The phases that go through many tasks, and of which kind these are."""
SHOWN_NOTES = 10
LONGEST_NAME = 36
"""Characters."""


def print_status(console: Console, status: RunStatus, state: State, seconds: float, left: float | None) -> None:
    """All that is known of a run: how it stands, what is done, what each worker does, and the last notes."""
    run = status.run
    assert run is not None, "events of a run begin with its start"
    say(console, f"{_shortened(run.network)} on {_shortened(run.data)}: {headline(status, state, seconds)}")
    say(console, run.objective)
    table = Table.grid(padding=(0, 2))
    for name, text in (*facts(status), *([("time left", time_left(status, left))] if left is not None else [])):
        table.add_row(name, escape(text))
    if table.rows:
        console.print(table)
    if status.under_way:
        console.print(work_table(status, seconds))
    hidden = len(status.notes) - SHOWN_NOTES
    if hidden > 0:
        say(console, f"… and {hidden} notes before these:")
    for note in status.notes[-SHOWN_NOTES:]:
        say(console, f"note: {note}", indent=2)


def _shortened(name: str) -> str:
    """The end of a long path."""
    return name if len(name) <= LONGEST_NAME else f"…{name[1 - LONGEST_NAME :]}"


def headline(status: RunStatus, state: State, seconds: float) -> str:
    """How the run stands, in one sentence; `seconds` are those of this attempt."""
    run, duration = status.run, show_seconds(status.earlier + seconds)
    where = f"process {run.pid} on {run.host}" if run else ""
    reason = f": {status.ended.reason}" if status.ended and status.ended.reason else ""
    match state:
        case "running":
            return f"{PHASES[status.phase]}, {duration} so far ({where}, {_workers(status)})"
        case "found":
            return f"finished in {duration}"
        case "nothing found":
            return f"finished in {duration} without a network{reason}"
        case "failed":
            return f"failed after {duration}{reason}"
        case "interrupted":
            return f"interrupted after {duration}: the same command continues it"
        case "dead":
            return f"ended without a word after {duration} ({where}): the same command continues it"
        case "silent":
            return f"nothing heard after {duration} ({where}): suspended, or its machine is gone"


def progress(status: RunStatus, elapsed: float, left: float | None) -> Iterator[str]:
    """How far a run is: the phase, what of it is done and the time; the best network so far; workers that are lost."""
    kind = COUNTED.get(status.phase)
    done = {} if kind is None else dict(_counts(status))
    phase = f"{PHASES[status.phase]}, {done[kind]}" if kind in done else PHASES[status.phase]
    time = f"{show_seconds(status.earlier + elapsed)} so far"
    yield f"{phase}; {time}{'' if left is None else f', {time_left(status, left)} left'}"
    if status.phase in ("exploration", "baseline"):
        yield f"best so far: {best_text(status)}"
    if status.lost:
        yield f"workers lost: {', '.join(map(str, status.lost))}"


def facts(status: RunStatus) -> Iterator[tuple[str, str]]:
    """What is done of what, the best so far, and what was saved, each with its name."""
    if status.plan is None:
        return
    for kind, text in _counts(status):
        yield kind if kind == "blocks" else f"{kind}s", text
    rates = "" if status.best is None else f": rates {format_configuration(status.best.configuration)}"
    yield "best so far", f"{best_text(status)}{rates}"
    if status.seconds_saved:
        yield "saved", f"{show_seconds(status.seconds_saved)}, by results that were known before"
    if status.lost:
        yield "workers lost", ", ".join(map(str, status.lost))
    if status.attempt > 1:
        yield "continued", "once" if status.attempt == 2 else f"{status.attempt - 1} times"


def _counts(status: RunStatus) -> Iterator[tuple[TaskKind, str]]:
    """Of blocks, networks and default networks: `3 of at most 10 done, 1 known before, 1 failed`."""
    plan = status.plan
    if plan is None:
        return
    if plan.blocks:
        yield "blocks", _of(status.blocks, plan.blocks, False, status.blocks_reused, status.of("blocks").failed)
    kinds: tuple[TaskKind, ...] = ("network", "default network") if plan.baseline else ("network",)
    for kind in kinds:
        done = status.of(kind)
        yield kind, _of(done.tasks, plan.networks_feasible, plan.stops_at_first, done.reused, done.failed)


def best_text(status: RunStatus) -> str:
    """`54 % of full (12,345 parameters), 80.0 % right`."""
    best, plan = status.best, status.plan
    if best is None:
        return "none yet"
    size = f"{best.model_size:,} parameters"
    if plan is not None and plan.model_size:
        size = f"{100 * best.model_size / plan.model_size:.0f} % of full ({size})"
    return f"{size}, {show_reached(status.metric, best.quality)}"


def time_left(status: RunStatus, left: float) -> str:
    at_most = "at most " if status.plan is not None and status.plan.stops_at_first else "about "
    return f"{at_most}{show_seconds(left)}"


def work_table(status: RunStatus, seconds: float) -> Table:
    """A row a task under way."""
    table = Table(box=SIMPLE_HEAD, padding=(0, 1))
    table.add_column("worker", justify="right")
    table.add_column("task", overflow="fold", ratio=1)
    for column in ("step", "loss", status.metric.name.lower() if status.metric.is_share else status.metric.name, "for"):
        table.add_column(column, justify="right", no_wrap=True)
    for work in sorted(status.under_way, key=lambda work: (work.worker is None, work.worker)):
        table.add_row(*map(escape, _cells(work, status.metric, seconds)))
    return table


def _cells(work: Work, metric: Metric, seconds: float) -> tuple[str, ...]:
    return (
        "?" if work.worker is None else str(work.worker),
        work.title,
        f"{work.step} of {work.steps}" if work.steps else "",
        "" if work.loss is None else f"{work.loss:.4f}",
        "" if work.quality is None else show_shortly(metric, work.quality),
        show_seconds(max(0.0, seconds - work.since)),
    )


def _of(done: int, total: int, at_most: bool, reused: int, failed: int) -> str:
    known = f"{reused} known before" if reused else ""
    broken = f"{failed} failed" if failed else ""
    return ", ".join(filter(None, (f"{done} of {'at most ' if at_most else ''}{total} done", known, broken)))


def _workers(status: RunStatus) -> str:
    count = status.run.workers if status.run else 0
    return f"{count} worker{'' if count == 1 else 's'}"
