"""How a task ends: with what it trained, or without."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Trained:
    """Arrays by name, and what was recorded beside them: JSON values, whose floats survive exactly."""

    weights: Mapping[str, np.ndarray]
    record: Mapping[str, Any]


@dataclass(frozen=True)
class Failed:
    """What stands in the place of a result where a training gave none; `reason` is for the user, in one line.

    It is a result of its own: stored like one, since the same training would fail again, and no number that an
    objective could compare.
    """

    reason: str


Outcome = Trained | Failed
