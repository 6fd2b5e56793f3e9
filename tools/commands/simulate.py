"""`wootz simulate`: what a finished run would take with other numbers of workers."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import click
import msgspec
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from wootz.runtime.result import Exploration, RunResult
from wootz.runtime.simulation import Recording, Schedule, Simulation, simulate
from wootz.runtime.store.amounts import show_seconds
from wootz.tools.run_argument import run_argument

DEFAULT_WORKERS = "1,4,16,64,256,1024"


class WorkerCounts(click.ParamType[tuple[int, ...]]):
    """Numbers from 1 on, with commas between them."""

    name = "counts"

    def convert(
        self, value: str | tuple[int, ...], param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[int, ...]:
        if isinstance(value, tuple):
            return value
        parts = value.split(",")
        if not all(part.strip().isdecimal() and int(part) > 0 for part in parts):
            self.fail(f"{value!r}: numbers of workers from 1 on, with commas between them", param, ctx)
        return tuple(int(part) for part in parts)


@click.command("simulate")
@run_argument
@click.option("--workers", type=WorkerCounts(), default=DEFAULT_WORKERS, show_default=True, metavar="N,N,…",
              help="Numbers of workers.")  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="Print everything as JSON, times in seconds.")
def simulate_command(run: Path, workers: tuple[int, ...], as_json: bool) -> None:
    """Tell what the finished run in RUN would take with other numbers of workers.

    The run's own exploration is gone through again, with the times that its trainings took, for each number of workers:
    static, in rounds as the paper has it, and dynamic, where an idle worker takes the next network. Pre-training of
    blocks is included; planning and the training of the full network are not. Nothing is trained and nothing written.
    """
    recorded = Recording.load(run)
    simulation = simulate(recorded, workers)
    if as_json:
        click.echo(msgspec.json.format(msgspec.json.encode(simulation), indent=1))
    else:
        _print(Console(), recorded.result, simulation)


def _print(console: Console, result: RunResult, simulation: Simulation) -> None:
    def say(text: str) -> None:
        console.print(text, highlight=False, markup=False, soft_wrap=True)

    table = Table(title=result.objective.text, title_justify="left", box=SIMPLE_HEAD, padding=0)
    for column in _columns(result):
        table.add_column(column, justify="right" if column else "left", no_wrap=True)
    default = simulation.default or (None,) * len(simulation.block_trained)
    for of_blocks, of_default in zip(simulation.block_trained, default, strict=True):
        table.add_row(*_cells(of_blocks, of_default))
    console.print(table)
    for line in _notes(result, simulation):
        say(line)


def _columns(result: RunResult) -> tuple[str, ...]:
    beside = () if result.baseline is None else ("default",)
    speedup = () if result.baseline is None else ("speedup",)
    return (
        "workers",
        "",
        "net-\nworks",
        *beside,
        "time",
        *beside,
        *speedup,
        "blocks",
        "over\none",
        "effi-\nciency",
        "idle",
    )


def _cells(found: Schedule, default: Schedule | None) -> tuple[str, ...]:
    return (
        str(found.workers),
        found.assignment,
        str(found.networks),
        *((str(default.networks),) if default else ()),
        show_seconds(found.seconds),
        *((show_seconds(default.seconds), f"{_ratio(default.seconds, found.seconds):.1f}") if default else ()),
        _percent(_ratio(found.pretraining_seconds, found.seconds)),
        f"{found.speedup:.1f}",
        _percent(found.efficiency),
        _percent(found.idle),
    )


def _notes(result: RunResult, simulation: Simulation) -> Iterator[str]:
    """What the columns mean, sizes, and what the figures rest on."""
    yield "networks: those begun. blocks: what part of the time they take. over one: times as fast as with one worker."
    if result.baseline is not None:
        yield "speedup: the default networks' time over that of the block-trained ones, whose blocks are counted."
    sizes = [f"block-trained {_size(result, result.block_trained)}"]
    if result.baseline is not None:
        sizes.append(f"default {_size(result, result.baseline)}")
    yield f"best network, of the full one's parameters: {', '.join(sizes)}"
    recorded, default = simulation.recorded_seconds, simulation.recorded_default_seconds
    times = show_seconds(recorded) + (f", default {show_seconds(default)}" if result.baseline else "")
    workers = simulation.recorded_workers
    yield f"recorded with {workers} worker{'' if workers == 1 else 's'}: {times}{_reused(result)}"
    if simulation.estimated:
        yield f"{simulation.estimated} networks were not trained: their times are estimated from their FLOPs"


def _reused(result: RunResult) -> str:
    saved = result.reuse.seconds_saved
    return f" (with results known before, which once took {show_seconds(saved)})" if saved else ""


def _size(result: RunResult, exploration: Exploration) -> str:
    best = exploration.best
    return "none" if best is None else _percent(best.model_size / result.full.model_size)


def _ratio(numerator: float, denominator: float) -> float:
    return numerator / denominator if denominator else 0.0


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %"
