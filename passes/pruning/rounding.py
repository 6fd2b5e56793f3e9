"""To which multiples the numbers of filters are rounded that layers keep."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass

LEAST_MULTIPLES = 4
"""Multiples in a layer: of fewer, rounding would move a count by more than an eighth of the layer."""


@dataclass(frozen=True)
class Rounding:
    """Layers keep multiples of `multiple` filters; with rates that are to stay `apart`, some layers those of its half,
    its quarter, …: the first that a layer has `LEAST_MULTIPLES` of, and with which all these rates, and 0, come to
    different counts in it that do so without rounding.
    """

    multiple: int = 1
    apart: tuple[float, ...] = ()

    def multiple_for(self, filters: int, kept: Callable[[float, int], Hashable]) -> int:
        """That for a layer of so many filters, which keeps `kept(rate, multiple)` of them."""
        if not self.apart:
            return self.multiple

        def different(multiple: int) -> int:
            return len({kept(rate, multiple) for rate in {0.0, *self.apart}})

        multiple, possible = self.multiple, different(1)
        while multiple > 1 and (filters < LEAST_MULTIPLES * multiple or different(multiple) < possible):
            multiple //= 2
        return max(1, multiple)


EXACT = Rounding()
