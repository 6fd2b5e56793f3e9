"""The full network beside the best one, as a run shows it at its end and on its page."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from wootz.passes.plan.metrics import Metric
from wootz.runtime.quality.showing import show, show_difference, show_of_full
from wootz.runtime.result import BestNetwork, FullNetworkResult, RunResult, Speed
from wootz.runtime.store.amounts import show_bytes, show_milliseconds

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
    metric = result.quality.metric
    yield _qualities(metric, "validation", full.quality, best.quality, validation)
    if full.tuned is not None:
        yield _tuned(metric, full.tuned.quality, best.quality, validation)
    if full.test_quality is None:
        return
    yield _qualities(metric, "test", full.test_quality, best.test_quality, test)
    if full.tuned is not None:
        yield _tuned(metric, full.tuned.test_quality, best.test_quality, test)


def in_a_sentence(metric: Metric, best: BestNetwork, full: FullNetworkResult, speed: Speed | None) -> str:
    """`2.1 × as fast, 48 % of the parameters, 0.4 points less`: of the best network beside the full one."""
    fast = f"{speed.factor:.1f} × as fast, " if speed is not None and speed.is_clearly_faster else ""
    return f"{fast}{share(best.model_size, full.model_size)} of the parameters, {_compared(metric, best, full)}"


def _compared(metric: Metric, best: BestNetwork, full: FullNetworkResult) -> str:
    if metric.of_full is not None:
        return f"{show(metric, best.quality)} {metric.name}" if metric.is_share else f"{metric} {best.quality:.3g}"
    if not metric.is_share:
        return f"{metric} {best.quality:.4g} instead of {full.reference_quality:.4g}"
    points = 100 * (best.quality - full.reference_quality)
    return f"{abs(points):.1f} points {'more' if points > 0 else 'less'}" if round(points, 1) else "as accurate"


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


def _qualities(metric: Metric, split: str, full: float | None, best: float | None, images: int | None) -> Row:
    """With their standard errors, and the difference."""
    name = f"{split} {metric.name.lower() if metric.is_share else metric.name}"
    return Row(
        name, show_of_full(metric, full, images), show(metric, best, images), show_difference(metric, best, full)
    )


def _tuned(metric: Metric, full: float | None, best: float | None, images: int | None) -> Row:
    return Row(TUNED, show(metric, full, images), "", show_difference(metric, best, full), is_detail=True)
