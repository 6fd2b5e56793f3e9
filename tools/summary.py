"""What `wootz run` prints at the end."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from wootz.passes.plan.subspace import format_configuration
from wootz.runtime.result import (
    BestNetwork,
    Exploration,
    FailedFullNetworkResult,
    FullNetworkResult,
    Images,
    RunResult,
    Speed,
    TunedResult,
)
from wootz.runtime.run_directory import BEST_FILE
from wootz.runtime.store.amounts import show_seconds
from wootz.runtime.uncertainty import format_accuracy


def print_summary(console: Console, result: RunResult, folder: Path, report: Path) -> None:
    full = result.full
    if isinstance(full, FailedFullNetworkResult):
        console.print(f"report: {report}", highlight=False, soft_wrap=True)
        return
    accuracies = partial(_accuracies, result.images)
    table = Table(
        title=result.objective.text, title_justify="left", box=SIMPLE_HEAD, collapse_padding=True, pad_edge=False
    )
    table.add_column("network", no_wrap=True)
    for column in ("parameters", "", "validation", "test", "tried", "time"):
        table.add_column(column, justify="right", no_wrap=True)
    table.add_row(
        "full network",
        f"{full.model_size:,}",
        "",
        *accuracies(full),
        "",
        _time(full.seconds),
    )
    if full.tuned is not None:
        table.add_row(
            "  fine-tuned too",
            "",
            "",
            *accuracies(full.tuned),
            "",
            _time(full.tuned.seconds),
        )
    _add_exploration(table, "block-trained", result.block_trained, result, result.seconds.pretraining)
    if result.baseline is not None:
        _add_exploration(table, "default", result.baseline, result, 0.0)
    console.print(table)
    if reused := _reused(result):
        console.print(reused, highlight=False, soft_wrap=True)
    if result.speed is not None:
        console.print(_speed(result.speed), highlight=False, soft_wrap=True)
    if result.best is not None:
        rates = format_configuration(result.best.configuration)
        console.print(f"best:   {folder / BEST_FILE}  {rates}", highlight=False, soft_wrap=True, markup=False)
    console.print(f"report: {report}", highlight=False, soft_wrap=True)


def _add_exploration(table: Table, title: str, found: Exploration, result: RunResult, before: float) -> None:
    tried, time = f"{found.networks_evaluated} of {result.networks_feasible}", _time(before + found.seconds)
    best = found.best
    if best is None:
        table.add_row(title, "none", "", "", "", tried, time)
        return
    share = f"{100 * best.model_size / result.full.model_size:.0f} %"
    table.add_row(title, f"{best.model_size:,}", share, *_accuracies(result.images, best), tried, time)


def _reused(result: RunResult) -> str:
    """`reused: 31 of 48 blocks, 12 of 20 networks known: 14 min saved`; nothing where nothing was."""
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
    return f"reused: {', '.join(counts)} known: {show_seconds(reuse.seconds_saved)} saved" if counts else ""


def _time(seconds: float) -> str:
    return f"{seconds:.0f} s"


def _speed(speed: Speed) -> str:
    """`speed:  0.72 ms (0.70 to 0.75) an image instead of 1.39 ms (1.36 to 1.45): 1.93 × as fast on 2 threads`."""
    measured = ((x.median_ms, x.low_ms, x.high_ms) for x in (speed.best, speed.full))
    best, full = (f"{median:.3g} ms ({low:.3g} to {high:.3g})" for median, low, high in measured)
    threads = f"{speed.threads} thread{'' if speed.threads == 1 else 's'}"
    found = f"{speed.factor:.2f} × as fast" if speed.is_clearly_faster else "not clearly faster"
    return f"speed:  {best} an image instead of {full}: {found} on {threads}"


def _accuracies(images: Images | None, measured: FullNetworkResult | TunedResult | BestNetwork) -> tuple[str, str]:
    """On the validation and on the test split, with their standard errors."""
    return (
        format_accuracy(measured.accuracy, images.validation if images else None),
        format_accuracy(measured.test_accuracy, images.test if images else None),
    )


def nothing_found(result: RunResult) -> str:
    """Why a run has no best network, in one line."""
    if isinstance(result.full, FailedFullNetworkResult):
        return f"the full network could not be trained: {result.full.reason}"
    found = result.block_trained
    if not found.trained:
        return f"none of the {found.networks_evaluated} networks could be trained: {found.failed[0].reason}"
    closest = max(found.trained, key=lambda n: n.accuracy)
    failed = f" ({len(found.failed)} could not be trained)" if found.failed else ""
    rates = format_configuration(closest.configuration)
    return (
        f"none of the {found.networks_evaluated} networks meets '{result.objective.text}'{failed}: the most accurate "
        f"is {rates} with {closest.accuracy:.4f}; relax the constraint or add larger configurations"
    )
