"""The largest share of filters that can go."""

from __future__ import annotations

from collections.abc import Callable


def largest(is_enough: Callable[[float], bool], trainings: int) -> None:
    """Tries so many shares between 0, which is enough, and 1."""
    enough, too_much = 0.0, 1.0
    for _ in range(trainings):
        share = (enough + too_much) / 2
        if is_enough(share):
            enough = share
        else:
            too_much = share
