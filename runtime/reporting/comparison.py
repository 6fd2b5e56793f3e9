"""The full network beside the best one, as a run shows it at its end and on its page."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from wootz.runtime.result import BestNetwork, FullNetworkResult, RunResult, Speed
from wootz.runtime.store.amounts import show_bytes, show_milliseconds
from wootz.runtime.uncertainty import format_accuracy

TUNED = "full, tuned too"
"""The full network after the fine-tuning that the pruned ones get."""


@dataclass(frozen=True)
class Row:
    """Something measured of both networks, and how that of the best one compares; `is_detail` of the row before."""

    name: str
    full: str
    best: str
    compared: str
    is_detail: bool = False


def before_and_after(result: RunResult, full: FullNetworkResult) -> Iterator[Row]:
    """Without a best network its cells mean nothing."""
    best = result.best or full
    yield _amounts("parameters", full.model_size, best.model_size, "{:,}".format)
    yield _amounts("MFLOPs an image", full.flops, best.flops, lambda flops: f"{flops / 1e6:,.2f}")
    if full.file_bytes is not None and best.file_bytes is not None:
        yield _amounts("file", full.file_bytes, best.file_bytes, show_bytes)
    if result.speed is not None:
        yield from _latencies(result.speed)
    validation, test = (result.images.validation, result.images.test) if result.images is not None else (None, None)
    yield _accuracies("validation accuracy", full.accuracy, best.accuracy, validation)
    if full.tuned is not None:
        yield _tuned(full.tuned.accuracy, best.accuracy, validation)
    yield _accuracies("test accuracy", full.test_accuracy, best.test_accuracy, test)
    if full.tuned is not None:
        yield _tuned(full.tuned.test_accuracy, best.test_accuracy, test)


def in_a_sentence(best: BestNetwork, full: FullNetworkResult, speed: Speed | None) -> str:
    """`2.1 × as fast, 48 % of the parameters, 0.4 points less`: of the best network beside the full one."""
    fast = f"{speed.factor:.1f} × as fast, " if speed is not None and speed.is_clearly_faster else ""
    points = 100 * (best.accuracy - full.reference_accuracy)
    accuracy = f"{abs(points):.1f} points {'more' if points > 0 else 'less'}" if round(points, 1) else "as accurate"
    return f"{fast}{share(best.model_size, full.model_size)} of the parameters, {accuracy}"


def share(best: int, full: int) -> str:
    return f"{100 * best / full:.0f} %" if full else ""


def _amounts(name: str, full: int, best: int, show: Callable[[int], str]) -> Row:
    return Row(name, show(full), show(best), share(best, full))


def _latencies(speed: Speed) -> Iterator[Row]:
    """The medians, and below them between which times half of the runs are."""
    full, best = speed.full, speed.best
    found = f"{speed.factor:.2f} × as fast" if speed.is_clearly_faster else "not clearly faster"
    name = f"latency, {speed.threads} thread{'' if speed.threads == 1 else 's'}"
    yield Row(name, show_milliseconds(full.median_ms), show_milliseconds(best.median_ms), found)
    of_full, of_best = (f"{x.low_ms:.3g} to {x.high_ms:.3g}" for x in (full, best))
    yield Row("half of the runs", of_full, of_best, "", is_detail=True)


def _accuracies(name: str, full: float | None, best: float | None, images: int | None) -> Row:
    """With their standard errors, and the difference."""
    return Row(name, format_accuracy(full, images), format_accuracy(best, images), _difference(full, best))


def _tuned(full: float | None, best: float | None, images: int | None) -> Row:
    return Row(TUNED, format_accuracy(full, images), "", _difference(full, best), is_detail=True)


def _difference(full: float | None, best: float | None) -> str:
    return "" if full is None or best is None else f"{100 * (best - full):+.1f} points"
