"""`wootz latency`: how long a network and its modules take, here or on another machine."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, cast

import click
from rich.console import Console
from rich.table import Table

from wootz.passes.analysis.module_boundaries import check_modules
from wootz.passes.analysis.modules import find_modules
from wootz.passes.errors import InputError, WootzError
from wootz.passes.plan.subspace import SKIP, format_rate
from wootz.passes.pruning.block_pruner import BlockPruner
from wootz.passes.pruning.rounding import Rounding
from wootz.runtime.defaults import FAST_MULTIPLE, RATES
from wootz.runtime.inputs import inputs_of_network
from wootz.runtime.latency_table.measure import CPU
from wootz.runtime.latency_table.measuring import (
    SECONDS,
    Options,
    export,
    measure_table,
    options_of,
    read_fitting_table,
)
from wootz.runtime.latency_table.table import Correction, LatencyTable, MeasuredOn, ModelError, read_table
from wootz.runtime.session import Device, cuda_obstacle
from wootz.tools.models import open_trainable, round_to_option, scores_option, size_option
from wootz.tools.rates import Rates
from wootz.tools.side_by_side import compare

SECONDS_A_NETWORK = 4.0
OUTSIDE = "outside of modules"
PROVIDERS = {"cpu": CPU, "cuda": "CUDAExecutionProvider"}
OF_MEASURING = ("threads", "device", "seconds")
OF_A_TABLE = ("scores", "rates", "skip", "round_to")


def _number(context: click.Context, option: click.Parameter, value: float | None) -> float | None:
    if value is not None and math.isnan(value):
        raise click.BadParameter("nan is no number of seconds", context, option)
    return value


@click.command()
@click.argument("models", nargs=-1, required=True, metavar="MODEL...")
@scores_option
@size_option
@click.option("--batch", type=click.IntRange(min=1), show_default="1", help="Images at once.")
@click.option("--threads", type=click.IntRange(min=0), help="CPU threads (default: all cores).")
@click.option("--device", type=click.Choice(["cpu", "cuda"]), show_default="cpu")
@click.option("--seconds", type=click.FloatRange(min=0), metavar="S", callback=_number,
              help=f"For measuring (default: {SECONDS:g}, of several models {SECONDS_A_NETWORK:g} each); "
                   f"20 rounds at least.")  # fmt: skip
@click.option("--rates", type=Rates(), show_default=",".join(map(str, RATES)),
              metavar="R,R,…", help="Rates that modules are measured at.")  # fmt: skip
@click.option("--skip", is_flag=True, help="Of networks that leave modules out, too.")
@round_to_option
@click.option("-o", "--out", type=click.Path(path_type=Path, dir_okay=False), help="Write the latency table as JSON.")
@click.option("--export", "folder", type=click.Path(path_type=Path, file_okay=False), metavar="FOLDER",
              help="Measure nothing: write the pieces, and a script that measures them elsewhere.")  # fmt: skip
@click.option("--table", "given", type=click.Path(path_type=Path, dir_okay=False), metavar="FILE",
              help="Measure nothing: show this table.")  # fmt: skip
def latency(
    models: tuple[str, ...],
    scores: str | None,
    size: tuple[int, int] | None,
    batch: int | None,
    threads: int | None,
    device: str | None,
    seconds: float | None,
    rates: tuple[float, ...] | None,
    skip: bool,
    round_to: int | None,
    out: Path | None,
    folder: Path | None,
    given: Path | None,
) -> None:
    """Measure how long MODEL and its modules take, or several models side by side.

    Of one MODEL, a latency table is made: what each module takes at each rate, how that adds up to whole networks, and
    how far that is off. Several are run in turns as they are, and compared with the first.
    """
    if sum(option is not None for option in (out, folder, given)) > 1:
        raise WootzError("--out, --export and --table exclude each other")
    params = click.get_current_context().params
    said = {name for name, value in params.items() if value is not None and value is not False}
    if len(models) > 1:
        if out or folder or given:
            raise WootzError("--out, --export and --table go with a single MODEL")
        _refuse(said, OF_A_TABLE, "with a single MODEL: several are measured as they are")
        allowed = SECONDS_A_NETWORK * len(models) if seconds is None else seconds
        compare(models, _device(device, threads), batch, size, allowed)
        return
    title = Path(models[0]).name
    if given is not None:
        _refuse(said, ("seconds",), "with measuring: --table measures nothing")
        table = read_table(given)
        provider = device and PROVIDERS[device]
        _check_conditions(given, table.measured_on, {"--batch": batch, "--threads": threads, "--device": provider})
        pruner, image_shape = _opened(models[0], scores, size, rates or table.rates, round_to)
        options = options_of(pruner, rates or table.rates, skip or (table.has_skips and not rates))
        table = read_fitting_table(given, pruner, options, image_shape)
        _check_rates(given, table, options)
        show(Console(), table, title)
        return
    rates = rates or RATES
    pruner, image_shape = _opened(models[0], scores, size, rates, round_to)
    options = options_of(pruner, rates, skip)
    if folder is not None:
        _refuse(said, OF_MEASURING, "with measuring: give them to measure.py")
        count = export(folder, pruner, options, image_shape, batch or 1)
        click.echo(f"{folder}: {count} networks; there: python measure.py -o table.json")
        return
    machine = _device(device, threads)
    table = measure_table(pruner, options, image_shape, machine, batch or 1, SECONDS if seconds is None else seconds)
    if out is not None:
        table.save(out)
    show(Console(), table, title)


def _refuse(said: set[str], names: Sequence[str], why: str) -> None:
    """Raises WootzError where one of these options was said."""
    if wrong := [f"--{name.replace('_', '-')}" for name in names if name in said]:
        raise WootzError(f"{' and '.join(wrong)}: {'goes' if len(wrong) == 1 else 'go'} {why}")


def _device(kind: str | None, threads: int | None) -> Device:
    """Raises WootzError where CUDA is asked for and isn't there."""
    obstacle = cuda_obstacle() if kind == "cuda" else ""
    if obstacle:
        raise WootzError(f"--device cuda: {obstacle}; run on the CPU with --device cpu")
    return Device(cast(Any, kind or "cpu"), threads or 0)


def _check_conditions(file: Path, on: MeasuredOn, asked: Mapping[str, Any]) -> None:
    """Raises InputError where an option contradicts how the table in the file was measured."""
    measured = {"--batch": on.batch, "--threads": on.threads, "--device": on.provider}
    for option, value in asked.items():
        if value not in (None, measured[option]):
            raise InputError(f"{option}: the latency table is of {measured[option]}, not {value}", file)


def _check_rates(file: Path, table: LatencyTable, options: Options) -> None:
    """Raises InputError where the table has further rates."""
    if any({*of_table} - {*of_module, SKIP} for of_table, of_module in zip(table.space.options, options, strict=True)):
        raise InputError(f"the latency table has {table.rate_options}: give these, or no rates", file)


def _opened(
    model: str, scores: str | None, size: tuple[int, int] | None, rates: Sequence[float], round_to: int | None
) -> tuple[BlockPruner, tuple[int, ...]]:
    """The network's pruner, and the shape of an image."""
    network = open_trainable(model, scores=scores, size=size).model
    modules, _ = find_modules(network)
    check_modules(network, modules)
    image_shape = inputs_of_network(network)[0].shape
    rounding = Rounding(FAST_MULTIPLE, tuple(rates)) if round_to is None else Rounding(round_to)
    return BlockPruner.of(replace(network, modules=modules), rounding=rounding), image_shape


def show(console: Console, table: LatencyTable, title: str) -> None:
    """Prints what a latency table says."""
    write = partial(console.print, highlight=False, soft_wrap=True)
    on, full = table.measured_on, table.networks[0].times
    write(f"{title}: {_ms(full.median_ms)} ms an image, quartiles {_ms(full.low_ms)} to {_ms(full.high_ms)}")
    threads = "1 thread" if on.threads == 1 else f"{on.threads} threads"
    size = "x".join(map(str, on.image_shape))
    write(f"{on.runtime}, {on.provider}, {threads}, batch of {on.batch}, {size}, {on.machine}, {on.date}")
    write(_module_table(table))
    if table.pieces[table.space.spell(table.networks[0].configuration)[-1]] < 0:
        write(f"{OUTSIDE} is below 0: modules that run alone have a start and an end each, which a network has once")
    if table.error_before is None:
        write("how far the sum of the pieces is off isn't known: there are too few networks to tell it by")
    else:
        write(f"of networks that weren't fitted to, the sum of their pieces is off by {_error(table.error_before)}")
    write(_corrected(table))
    for warning in table.warnings:
        click.echo(f"warning: {warning}", err=True)


def _module_table(table: LatencyTable) -> Table:
    """The milliseconds of each module at each rate behind unpruned ones, and its share of the full network."""
    rates = sorted({piece.rate for module in table.modules for piece in module.pieces})
    rows = Table()
    rows.add_column("module")
    rows.add_column("share", justify="right")
    for rate in rates:
        rows.add_column(format_rate(rate), justify="right")
    *symbols, outside = table.space.spell(table.networks[0].configuration)
    for module, symbol in zip(table.modules, symbols, strict=True):
        of_rates = (table.pieces.get(replace(symbol, rate=rate)) for rate in rates)
        share = table.pieces[symbol] / table.full_ms
        rows.add_row(module.module, f"{100 * share:.0f} %", *("" if ms is None else _ms(ms) for ms in of_rates))
    rows.add_row(OUTSIDE, f"{100 * table.pieces[outside] / table.full_ms:.0f} %", _ms(table.pieces[outside]))
    return rows


def _corrected(table: LatencyTable) -> str:
    correction = table.correction
    if correction == Correction():
        return "predictions are the sum of the pieces: the whole networks give no correction"
    by_module = f" {correction.module_ms:+.3g} ms a module" if correction.module_ms else ""
    off = f", by {_error(table.error)}" if table.error else ""
    return f"corrected, {correction.offset_ms:+.3g} ms and {correction.factor:.3g} times the sum{by_module}{off}"


def _error(error: ModelError) -> str:
    return f"{100 * error.median:.1f} %, at worst {100 * error.worst:.1f} % (of {error.networks})"


def _ms(milliseconds: float) -> str:
    return f"{milliseconds:.3g}"
