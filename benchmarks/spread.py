"""What several measurements of one thing come to."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence


def median(values: Iterable[float | None]) -> float | None:
    """Of those that are known, to four digits; None where none is."""
    known = [value for value in values if value is not None]
    return round(statistics.median(known), 4) if known else None


def spread(values: Sequence[float | None], digits: int | None = None) -> str:
    """The median of what was found and its range, and how often nothing was; with two digits, none from 10 on."""
    known = sorted(value for value in values if value is not None)
    if not known:
        return "none"
    digits = (0 if known[-1] >= 10 else 2) if digits is None else digits
    text = f"{statistics.median(known):.{digits}f}"
    if len(known) > 1:
        text += f" ({known[0]:.{digits}f} to {known[-1]:.{digits}f})"
    return text if len(known) == len(values) else f"{text}, {len(values) - len(known)} none"
