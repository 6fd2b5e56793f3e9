"""Values of qualities in words: shares of images in per cent, others as numbers."""

from __future__ import annotations

from collections.abc import Callable

from wootz.passes.plan.metrics import Metric
from wootz.runtime.uncertainty import Share


def show(metric: Metric, value: float | None, images: int | None = None) -> str:
    """`98.4 ± 0.8 %` for a share of so many images; without their number, and for all else, no error is known."""
    if value is None:
        return "–"
    if not metric.is_share:
        return f"{value:.4g}"
    if not images:
        return f"{100 * value:.2f} %"
    error = 100 * Share(value, images).standard_error
    digits = 1 if error >= 0.1 else 2
    return f"{100 * value:.{digits}f} ± {error:.{digits}f} %"


def show_of_full(metric: Metric, value: float | None, images: int | None = None) -> str:
    """The same of the full network. What it has by definition, such as its agreement with itself, has no error."""
    return show(metric, value, images) if value is None or metric.of_full is None else show_shortly(metric, value)


def show_shortly(metric: Metric, value: float, more_digits: int = 0) -> str:
    """`98.4 %`, or a number."""
    return f"{100 * value:.{1 + more_digits}f} %" if metric.is_share else f"{value:.{3 + more_digits}g}"


def show_reached(metric: Metric, value: float) -> str:
    """What a network came to, in a sentence: `98.4 % right`, `97.0 % agreement`, `OutputError 0.0123`."""
    if not metric.is_share:
        return f"{metric} {value:.4g}"
    return f"{100 * value:.1f} % {'right' if metric == Metric.ACCURACY else metric.name.lower()}"


def show_difference(metric: Metric, value: float | None, beside: float | None) -> str:
    """`-0.4 points`, or a number with its sign; nothing where one is not known."""
    if value is None or beside is None:
        return ""
    difference = value - beside
    return f"{100 * difference:+.1f} points" if metric.is_share else f"{difference:+.3g}"


def show_loss(metric: Metric, of_full: float, of_best: float) -> str:
    """`loses 1.4 points`, or `has OutputError 0.031, the full network 0`: where a network is worse than the full
    one."""
    if metric.is_share:
        return f"loses {100 * (of_full - of_best):.1f} points"
    return f"has {metric} {of_best:.4g}, the full network {of_full:.4g}"


def show_amount(metric: Metric, amount: float) -> str:
    """By how much a bound is missed: in points, milliseconds, or as a number."""
    shown: dict[str, Callable[[float], str]] = {
        "share": lambda x: f"{100 * x:.2f} points",
        "milliseconds": lambda x: f"{x:.3g} ms",
        "count": lambda x: f"{x:,.0f}",
        "number": lambda x: f"{x:.3g}",
    }
    return shown[metric.format](amount)
