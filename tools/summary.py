"""What `wootz run` prints at the end."""

from __future__ import annotations

from pathlib import Path

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from wootz.passes.plan.subspace import format_configuration
from wootz.runtime.quality.showing import show, show_reached, show_shortly
from wootz.runtime.reporting.comparison import before_and_after, in_a_sentence, share
from wootz.runtime.reporting.further_files import remarks, rows
from wootz.runtime.reporting.python_lines import python_lines
from wootz.runtime.result import (
    Exploration,
    FailedFullNetworkResult,
    Finishing,
    FullNetworkResult,
    PhaseSeconds,
    RunResult,
    SearchResult,
)
from wootz.runtime.run_directory import BEST_FILE, REPORT_FILE
from wootz.runtime.store.amounts import show_bytes, show_milliseconds, show_seconds
from wootz.tools.wrapping import say

PHASES = {
    "plan": "planning and checks",
    "teacher": "full network",
    "pretraining": "blocks",
    "scoring": "scores and looks",
    "exploration": "networks",
    "baseline": "default networks",
    "delivery": "writing",
}
INDENT = 8
"""Columns before the text of a line that begins with what it is about."""


def print_summary(console: Console, result: RunResult, folder: Path) -> None:
    """What was tried, where the results are, the network before and after, and how to run it."""
    folder = _from_here(folder)
    if isinstance(result.full, FailedFullNetworkResult):
        _print(console, "report", str(folder / REPORT_FILE))
        return
    console.print()
    console.print(_explorations(result))
    if reused := _reused(result):
        _print(console, "reused", reused)
    _print(console, "time", _time(result.seconds))
    _print(console, "report", str(folder / REPORT_FILE))
    if result.best is not None:
        _print(console, "best", str(folder / BEST_FILE))
        _print(console, "", in_a_sentence(result.quality.metric, result.best, result.full, result.speed))
        _print(console, "rates", format_configuration(result.best.configuration))
    console.print(_before_and_after(result, result.full))
    if result.search is not None and result.search.front:
        console.print(_front(result, result.search, result.full))
    if result.finishing is not None:
        console.print(_further_files(result, result.finishing))
        for remark in remarks(result, result.finishing):
            _print(console, "note", remark)
    if result.best is not None and (result.input is not None or result.inputs):
        for line in python_lines(result.input, result.inputs, folder / BEST_FILE, result.quality):
            console.print(line, highlight=False, soft_wrap=True, markup=False)


def _from_here(folder: Path) -> Path:
    return folder.relative_to(Path.cwd()) if folder.is_relative_to(Path.cwd()) else folder


def _print(console: Console, name: str, text: str) -> None:
    say(console, f"{name + ':' if name else '':{INDENT}}{text}", INDENT)


def _explorations(result: RunResult) -> Table:
    """What was tried and how long it took, a row an exploration, each with its best network."""
    table = Table(
        title=result.objective.text, title_justify="left", box=SIMPLE_HEAD, collapse_padding=True, pad_edge=False
    )
    table.add_column("networks", no_wrap=True)
    for column in ("parameters", "validation", "test", "tried", "time"):
        table.add_column(column, justify="right", no_wrap=True)
    _add_exploration(table, result.kind, result.block_trained, result, result.seconds.pretraining)
    if result.baseline is not None:
        _add_exploration(table, "default", result.baseline, result, 0.0)
    return table


def _add_exploration(table: Table, title: str, found: Exploration, result: RunResult, before: float) -> None:
    of_all = "" if result.search else f" of {result.networks_feasible}"
    tried, time = f"{found.networks_evaluated}{of_all}", show_seconds(before + found.seconds)
    best = found.best
    if best is None:
        table.add_row(title, "none", "", "", tried, time)
        return
    images = result.images
    validation, test = (images.validation, images.test) if images is not None else (None, None)
    metric = result.quality.metric
    qualities = show(metric, best.quality, validation), show(metric, best.test_quality, test)
    table.add_row(title, f"{best.model_size:,}", *qualities, tried, time)


def _before_and_after(result: RunResult, full: FullNetworkResult) -> Table:
    """The full network beside the best one, if there is one, and how they compare."""
    table = Table(box=SIMPLE_HEAD, pad_edge=False, padding=(0, 1))
    table.add_column("", no_wrap=True)
    for column in ("full", "best", "best of full") if result.best is not None else ("full",):
        table.add_column(column, justify="right", no_wrap=True)
    for row in before_and_after(result, full):
        cells = ("  " * row.is_detail + row.name, row.full, row.best, row.compared)
        table.add_row(*cells[: len(table.columns)])
    return table


def _front(result: RunResult, search: SearchResult, full: FullNetworkResult) -> Table:
    """What quality costs: a row a network, which is a file in the run's folder."""
    table = Table(box=SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
    table.add_column("front", no_wrap=True)
    for column in ("of full", "latency", "valid.", "test", ""):
        table.add_column(column, justify="right", no_wrap=True)
    for point in search.front:
        latency = "" if point.latency is None else show_milliseconds(point.latency.median_ms)
        qualities = _shown(result, point.quality, point.test_quality)
        is_best = result.best is not None and point.index == result.best.index
        size = share(point.model_size, full.model_size)
        table.add_row(point.model, size, latency, *qualities, "best" if is_best else "")
    return table


def _further_files(result: RunResult, finishing: Finishing) -> Table:
    """What was made of the best network, beside it."""
    table = Table(box=SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
    table.add_column("file", overflow="fold")
    for column in ("size", "latency", "valid.", "test", "bounds"):
        table.add_column(column, justify="right", no_wrap=True)
    for row in rows(result, finishing):
        size = "" if row.bytes is None else show_bytes(row.bytes)
        qualities = _shown(result, row.quality, row.test_quality)
        table.add_row(row.name, size, show_milliseconds(row.latency.median_ms), *qualities, row.verdict)
    return table


def _shown(result: RunResult, *qualities: float | None) -> list[str]:
    return ["" if value is None else show_shortly(result.quality.metric, value) for value in qualities]


def _time(seconds: PhaseSeconds) -> str:
    """`52 s: planning and checks 4.1 s, full network 2.9 s, …`: the parts are all of it."""
    parts = ((name, getattr(seconds, phase)) for phase, name in PHASES.items())
    shown = ", ".join(f"{name} {show_seconds(part)}" for name, part in parts if part)
    return f"{show_seconds(seconds.total)}: {shown}"


def _reused(result: RunResult) -> str:
    """`31 of 48 blocks, 12 of 20 networks known: 14 min saved`; nothing where nothing was."""
    reuse, counts = result.reuse, []
    for noun, known, all_ in (
        ("blocks", reuse.blocks, len(result.blocks)),
        ("networks", reuse.networks, result.networks_evaluated),
        ("default networks", reuse.baseline_networks, result.baseline.networks_evaluated if result.baseline else 0),
    ):
        if known:
            counts.append(f"{known} of {all_} {noun}")
    if reuse.teacher:
        counts.insert(0, "the full network")
    return f"{', '.join(counts)} known: {show_seconds(reuse.seconds_saved)} saved" if counts else ""


def _advice(search: SearchResult | None) -> str:
    if search is None or (search.is_listed and search.is_complete):
        return "add larger configurations"
    return f"allow more --networks or {'add larger configurations' if search.is_listed else '--looks'}"


def nothing_found(result: RunResult) -> str:
    """Why a run has no best network, in one line."""
    if isinstance(result.full, FailedFullNetworkResult):
        return f"the full network could not be trained: {result.full.reason}"
    found = result.block_trained
    if not found.trained:
        return f"none of the {found.networks_evaluated} networks could be trained: {found.failed[0].reason}"
    metric = result.quality.metric
    closest = max(found.trained, key=lambda n: metric.sign * n.quality)
    failed = f" ({len(found.failed)} could not be trained)" if found.failed else ""
    count = found.networks_evaluated
    advice = _advice(result.search)
    tried = " that were tried" if result.search else ""
    none = f"none of the {count} networks{tried} meets" if count > 1 else "the one network that was tried misses"
    return (
        f"{none} '{result.objective.text}'{failed}: "
        f"the best has {show_reached(metric, closest.quality)} with "
        f"{share(closest.model_size, result.full.model_size)} of the full network's parameters; relax the constraint "
        f"or {advice}"
    )
