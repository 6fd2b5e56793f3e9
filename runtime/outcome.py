"""How a training ends without a result."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Failed:
    """What stands in the place of a result where a training gave none; `reason` is for the user, in one line.

    It is a result of its own: stored like one, since the same training would fail again, and no number that an
    objective could compare.
    """

    reason: str
