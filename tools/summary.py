"""What `wootz run` prints at the end."""

from __future__ import annotations

from pathlib import Path

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from wootz.runtime.result import ExplorationResult, FailedFullNetworkResult, RunResult
from wootz.runtime.run_directory import BEST_FILE


def print_summary(console: Console, result: RunResult, folder: Path, report: Path) -> None:
    full = result.full
    if isinstance(full, FailedFullNetworkResult):
        console.print(f"report: {report}", highlight=False, soft_wrap=True)
        return
    table = Table(title=result.objective, title_justify="left", box=SIMPLE_HEAD)
    table.add_column("network", no_wrap=True)
    for column in ("parameters", "", "validation", "test", "tried", "time"):
        table.add_column(column, justify="right", no_wrap=True)
    table.add_row(
        "full network",
        f"{full.parameters:,}",
        "",
        _percent(full.accuracy),
        _percent(full.test_accuracy),
        "",
        _time(full.seconds),
    )
    _add_exploration(table, "block-trained", result.block_trained, result, result.pretraining_seconds)
    if result.default is not None:
        _add_exploration(table, "default", result.default, result, 0.0)
    console.print(table)
    if result.block_trained.best is not None:
        best = result.block_trained.network(result.block_trained.best)
        console.print(
            f"best:   {folder / BEST_FILE}  {best.configuration}", highlight=False, soft_wrap=True, markup=False
        )
    console.print(f"report: {report}", highlight=False, soft_wrap=True)


def _add_exploration(table: Table, title: str, found: ExplorationResult, result: RunResult, before: float) -> None:
    tried, time = f"{len(found.networks)} of {result.feasible}", _time(before + found.seconds)
    if found.best is None:
        table.add_row(title, "none", "", "", "", tried, time)
        return
    best = found.network(found.best)
    share = f"{100 * best.parameters / result.full.parameters:.0f} %"
    accuracies = (_percent(best.accuracy), _percent(found.best_test_accuracy))
    table.add_row(title, f"{best.parameters:,}", share, *accuracies, tried, time)


def _time(seconds: float) -> str:
    return f"{seconds:.0f} s"


def _percent(accuracy: float | None) -> str:
    return "-" if accuracy is None else f"{100 * accuracy:.2f} %"


def nothing_found(result: RunResult) -> str:
    """Why a run has no best network, in one line."""
    if isinstance(result.full, FailedFullNetworkResult):
        return f"the full network could not be trained: {result.full.failed}"
    found = result.block_trained
    if not found.trained:
        return f"none of the {len(found.networks)} networks could be trained: {found.failed[0].failed}"
    closest = max(found.trained, key=lambda n: n.accuracy)
    failed = f" ({len(found.failed)} could not be trained)" if found.failed else ""
    return (
        f"none of the {len(found.networks)} networks meets '{result.objective}'{failed}: the most accurate is "
        f"{closest.configuration} with {closest.accuracy:.4f}; relax the constraint or add larger configurations"
    )
