"""What options of modules lose that were not measured, from the scores of their neighbours."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

Option = tuple[int, float]
"""A module, by its position, at a rate."""

EXPONENT = 2.0
"""By which losses grow with the rate where only one of a module's rates was measured."""


def expected_losses(options: Sequence[Sequence[float]], measured: Mapping[Option, float]) -> dict[Option, float]:
    """The losses of all options of all modules: those that were measured, and expected ones.

    The logarithm of a loss is taken to be linear in that of the rate between two measured rates, and beyond the first
    and the last as between the nearest two. Where nothing of a module was measured, its options lose as much as the
    worst of all. Rate 0 loses nothing.
    """
    worst = max(measured.values(), default=1.0)
    found: dict[Option, float] = {}
    for module, rates in enumerate(options):
        known = {rate: measured[module, rate] for rate in rates if (module, rate) in measured}
        for rate in rates:
            found[module, rate] = _expected(known, rate, worst) if rate else 0.0
    return found


def _expected(known: Mapping[float, float], rate: float, worst: float) -> float:
    if rate in known or not known:
        return known.get(rate, worst)
    rates = sorted(known)
    if len(rates) == 1:
        return known[rates[0]] * (rate / rates[0]) ** EXPONENT
    above = min(max(int(np.searchsorted(rates, rate)), 1), len(rates) - 1)
    low, high = rates[above - 1], rates[above]
    slope = math.log(known[high] / known[low]) / math.log(high / low)
    return known[low] * (rate / low) ** slope
