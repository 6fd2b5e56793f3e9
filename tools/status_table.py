"""Where a run stands, in words: for `wootz status`, and for the progress of a run under way."""

from __future__ import annotations

from collections.abc import Iterator

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from wootz.passes.plan.subspace import format_configuration
from wootz.runtime.status import RunStatus, State, Work
from wootz.runtime.store.amounts import show_seconds

PHASES = {
    "plan": "planning",
    "teacher": "training the full network",
    "pretraining": "pre-training blocks",
    "exploration": "trying networks",
    "baseline": "trying default networks",
    "delivery": "writing the results",
}
SHOWN_NOTES = 10


def print_status(console: Console, status: RunStatus, state: State, seconds: float, left: float | None) -> None:
    """All that is known of a run: how it stands, what is done, what each worker does, and the last notes."""
    run = status.run
    assert run is not None, "events of a run begin with its start"
    say(console, f"{run.network} on {run.data}: {headline(status, state, seconds)}")
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
        say(console, f"note: {note}")


def headline(status: RunStatus, state: State, seconds: float) -> str:
    """How the run stands, in one sentence."""
    run, duration = status.run, show_seconds(seconds)
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


def facts(status: RunStatus) -> Iterator[tuple[str, str]]:
    """What is done of what, the best so far, and what was saved, each with its name."""
    plan = status.plan
    if plan is None:
        return
    if plan.blocks:
        yield "blocks", _of(status.blocks, plan.blocks, False, status.blocks_reused, status.of("blocks").failed)
    networks, default = status.of("network"), status.of("default network")
    at_most, feasible = plan.stops_at_first, plan.networks_feasible
    yield "networks", _of(networks.tasks, feasible, at_most, networks.reused, networks.failed)
    if plan.baseline:
        yield "default networks", _of(default.tasks, feasible, at_most, default.reused, default.failed)
    yield "best so far", best_text(status)
    if status.seconds_saved:
        yield "saved", f"{show_seconds(status.seconds_saved)}, by results that were known before"
    if status.lost:
        yield "workers lost", ", ".join(map(str, status.lost))
    if status.attempt > 1:
        yield "continued", f"{status.attempt - 1} times"


def best_text(status: RunStatus) -> str:
    best = status.best
    if best is None:
        return "none yet"
    rates = format_configuration(best.configuration)
    return f"{rates}, {best.model_size:,} parameters, accuracy {100 * best.accuracy:.2f} %"


def time_left(status: RunStatus, left: float) -> str:
    at_most = "at most " if status.plan is not None and status.plan.stops_at_first else "about "
    return f"{at_most}{show_seconds(left)}"


def work_table(status: RunStatus, seconds: float) -> Table:
    """A row a task under way."""
    table = Table(box=SIMPLE_HEAD, padding=(0, 1))
    table.add_column("worker", justify="right")
    table.add_column("task", overflow="fold", ratio=1)
    for column in ("step", "loss", "accuracy", "for"):
        table.add_column(column, justify="right", no_wrap=True)
    for work in sorted(status.under_way, key=lambda work: (work.worker is None, work.worker)):
        table.add_row(*map(escape, _cells(work, seconds)))
    return table


def _cells(work: Work, seconds: float) -> tuple[str, ...]:
    return (
        "?" if work.worker is None else str(work.worker),
        work.title,
        f"{work.step} of {work.steps}" if work.steps else "",
        "" if work.loss is None else f"{work.loss:.4f}",
        "" if work.accuracy is None else f"{100 * work.accuracy:.2f} %",
        show_seconds(max(0.0, seconds - work.since)),
    )


def say(console: Console, text: str) -> None:
    """A line as it is, whatever is in it."""
    console.print(text, highlight=False, markup=False, soft_wrap=True)


def _of(done: int, total: int, at_most: bool, reused: int, failed: int) -> str:
    known = f"{reused} known before" if reused else ""
    broken = f"{failed} failed" if failed else ""
    return ", ".join(filter(None, (f"{done} of {'at most ' if at_most else ''}{total}", known, broken)))


def _workers(status: RunStatus) -> str:
    count = status.run.workers if status.run else 0
    return f"{count} worker{'' if count == 1 else 's'}"
