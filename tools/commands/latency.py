"""`wootz latency`: how long a network and its modules take, here or on another machine."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, cast

import click
import numpy as np
from rich.console import Console
from rich.table import Table

from wootz.passes.analysis.module_boundaries import check_modules
from wootz.passes.analysis.modules import find_modules
from wootz.passes.errors import WootzError
from wootz.passes.ir.model import tensor_shape
from wootz.passes.plan.subspace import format_rate
from wootz.passes.pruning.block_pruner import BlockPruner
from wootz.passes.pruning.rounding import Rounding
from wootz.runtime.defaults import FAST_MULTIPLE, RATES
from wootz.runtime.latency_table.measure import summary, take_turns
from wootz.runtime.latency_table.measuring import (
    SECONDS,
    clock_of,
    export,
    measure_table,
    options_of,
    read_fitting_table,
)
from wootz.runtime.latency_table.table import LatencyTable, ModelError
from wootz.runtime.session import Device, FileSession
from wootz.tools.commands.subspace import Rates
from wootz.tools.models import open_classifier, open_network, round_to_option, scores_option, size_option

SECONDS_A_NETWORK = 4.0
OUTSIDE = "outside of modules"


@click.command()
@click.argument("models", nargs=-1, required=True, metavar="MODEL...")
@scores_option
@size_option
@click.option("--batch", type=click.IntRange(min=1), default=1, show_default=True, help="Images at once.")
@click.option("--threads", type=click.IntRange(min=0), default=0, help="CPU threads (default: all cores).")
@click.option("--device", type=click.Choice(["cpu", "cuda"]), default="cpu", show_default=True)
@click.option("--seconds", type=click.FloatRange(min=0), metavar="S",
              help=f"For measuring (default: {SECONDS:g}, of several models {SECONDS_A_NETWORK:g} each); "
                   f"20 rounds at least.")  # fmt: skip
@click.option("--rates", type=Rates(), default=",".join(map(str, RATES)), show_default=True,
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
    batch: int,
    threads: int,
    device: str,
    seconds: float | None,
    rates: tuple[float, ...],
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
    machine = Device(cast(Any, device), threads)
    if len(models) > 1:
        if out or folder or given:
            raise WootzError("--out, --export and --table go with a single MODEL")
        _compare(models, machine, batch, size or (), seconds or SECONDS_A_NETWORK * len(models))
        return
    pruner, image_shape = _opened(models[0], scores, size, rates, round_to)
    options = options_of(pruner, rates, skip)
    if folder is not None:
        count = export(folder, pruner, options, image_shape, batch)
        click.echo(f"{folder}: {count} networks; there: python measure.py -o table.json")
        return
    if given is not None:
        table = read_fitting_table(given, pruner, options, image_shape)
    else:
        table = measure_table(pruner, options, image_shape, machine, batch, SECONDS if seconds is None else seconds)
    show(Console(), table, Path(models[0]).name)
    if out is not None:
        table.save(out)


def _opened(
    model: str, scores: str | None, size: tuple[int, int] | None, rates: Sequence[float], round_to: int | None
) -> tuple[BlockPruner, tuple[int, int, int]]:
    """The network's pruner, and the shape of an image."""
    network = open_classifier(model, scores=scores, size=size).model
    modules, _ = find_modules(network)
    check_modules(network, modules)
    shape = tensor_shape(network.graph.inputs[0]) or ()
    if len(shape) != 4 or not all(isinstance(extent, int) for extent in shape[1:]):
        raise WootzError(f"{model} leaves the size of images open: give --size")
    rounding = Rounding(FAST_MULTIPLE, tuple(rates)) if round_to is None else Rounding(round_to)
    channels, height, width = (int(extent) for extent in shape[1:])
    return BlockPruner.of(replace(network, modules=modules), rounding=rounding), (channels, height, width)


def show(console: Console, table: LatencyTable, title: str) -> None:
    """Prints what a latency table says."""
    write = partial(console.print, highlight=False, soft_wrap=True)
    on, full = table.measured_on, table.networks[0].times
    write(f"{title}: {_ms(full.median_ms)} ms an image, quartiles {_ms(full.low_ms)} to {_ms(full.high_ms)}")
    threads = "1 thread" if on.threads == 1 else f"{on.threads} threads"
    size = "x".join(map(str, on.image_shape))
    write(f"{on.runtime}, {on.provider}, {threads}, batch of {on.batch}, {size}, {on.machine}, {on.date}")
    write(_module_table(table))
    write(f"of networks that weren't fitted to, the sum of their pieces is off by {_error(table.error_before)}")
    correction = table.correction
    by_module = f" {correction.module_ms:+.3g} ms a module" if correction.module_ms else ""
    write(
        f"corrected, {correction.offset_ms:+.3g} ms and {correction.factor:.3g} times the sum{by_module}, "
        f"by {_error(table.error)}"
    )
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


def _error(error: ModelError | None) -> str:
    if error is None:
        return "an unknown part: there are too few of them"
    return f"{100 * error.median:.1f} %, at worst {100 * error.worst:.1f} % (of {error.networks})"


def _ms(milliseconds: float) -> str:
    return f"{milliseconds:.3g}"


def _compare(models: Sequence[str], device: Device, batch: int, size: tuple[int, ...], seconds: float) -> None:
    """Prints the latency of each network as it is, and what it is of the first one's in the same round."""
    opened = [FileSession(_program(model), device) for model in models]
    images = [_image(session, model, batch, size) for session, model in zip(opened, models, strict=True)]
    runs = [partial(session.run, image) for session, image in zip(opened, images, strict=True)]
    times = np.array(take_turns(runs, seconds, clock_of(device)))
    rows = Table()
    for column in ("network", "ms an image", "of the first", "outliers"):
        rows.add_column(column, justify="left" if column == "network" else "right")
    for model, image, of_model in zip(models, images, times, strict=True):
        found = summary(of_model.tolist(), len(image))
        low, median, high = np.percentile(of_model / len(image) / (times[0] / len(images[0])), (25, 50, 75))
        rows.add_row(
            Path(model).name,
            f"{_ms(found['median_ms'])} ({_ms(found['low_ms'])} to {_ms(found['high_ms'])})",
            f"{median:.3f} ({low:.3f} to {high:.3f})",
            f"{found['outliers']} of {found['runs']}",
        )
    Console().print(rows)


def _program(model: str) -> str | bytes:
    if model.endswith(".onnx"):
        if not Path(model).is_file():
            raise WootzError(f"{model}: no such file")
        return model
    return open_network(model).model.to_proto().SerializeToString()


NUMBERS = {"tensor(float)": np.float32, "tensor(float16)": np.float16, "tensor(uint8)": np.uint8,
           "tensor(int8)": np.int8, "tensor(int32)": np.int32, "tensor(int64)": np.int64}  # fmt: skip
"""ONNX Runtime's names of what a network may be fed."""


def _image(session: FileSession, model: str, batch: int, size: tuple[int, ...]) -> np.ndarray:
    """Zeros that the network takes: open extents are the batch and the size, in their order."""
    first, *extents = session.input_shape
    sizes = iter(size)
    shape = [first if isinstance(first, int) else batch]
    shape += [extent if isinstance(extent, int) else next(sizes, 0) for extent in extents]
    if not all(shape):
        raise WootzError(f"{model} leaves the size of images open: give --size")
    return np.zeros(shape, NUMBERS[session.input_type])
