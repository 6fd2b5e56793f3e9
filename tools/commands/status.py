"""`wootz status`: where a run stands, from another terminal or another machine."""

from __future__ import annotations

import time
from pathlib import Path

import click
import msgspec
from rich.console import Console

from wootz.runtime.run_directory import EVENTS_FILE
from wootz.runtime.status import RunStatus, State, read_status, seconds_left, state
from wootz.tools.run_argument import run_argument
from wootz.tools.status_table import print_status

EXIT_CODES: dict[State, int] = {
    "found": 0,
    "running": 3,
    "nothing found": 4,
    "failed": 5,
    "interrupted": 5,
    "dead": 5,
    "silent": 6,
}


class Shown(msgspec.Struct, frozen=True, kw_only=True):
    """What `--json` prints. `seconds` since this attempt began, those of attempts before it (`seconds_earlier`), and
    `seconds_left`, null where nobody knows."""

    state: State
    seconds: float
    seconds_earlier: float
    seconds_left: float | None
    status: RunStatus


@click.command()
@run_argument
@click.option("--json", "as_json", is_flag=True, help="Print everything as JSON.")
def status(run: Path, as_json: bool) -> int:
    """Tell where the run in RUN stands: running, finished or dead.

    Reads the run's events.jsonl alone and writes nothing.

    \b
    Exit codes: 0 finished, a network was found
                1 RUN is no run's directory
                3 running
                4 finished, no network meets the objective
                5 failed, interrupted or killed: the same command continues it
                6 silent: its process, on another machine, has not been heard of for a minute
    """
    found = read_status(run)
    now = state(found, run)
    seconds = _seconds(found, run, now)
    left = seconds_left(found, seconds) if now == "running" else None
    if as_json:
        shown = Shown(state=now, seconds=seconds, seconds_earlier=found.earlier, seconds_left=left, status=found)
        click.echo(msgspec.json.format(msgspec.json.encode(shown), indent=1))
    else:
        print_status(Console(), found, now, seconds, left)
    return EXIT_CODES[now]


def _seconds(found: RunStatus, run: Path, now: State) -> float:
    """Since this attempt began: until now, until its end, or until it was last heard of."""
    if found.ended is not None or found.run is None:
        return found.elapsed
    until = time.time() if now == "running" else (run / EVENTS_FILE).stat().st_mtime
    return max(found.elapsed, until - found.run.time)
