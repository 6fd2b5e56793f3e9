"""Which photographs a data set has, before any of them is decoded."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np


@dataclass(frozen=True)
class Part:
    """The photographs of a split, and their labels, int64 [n]."""

    photographs: Sequence[Path]
    labels: np.ndarray

    def __len__(self) -> int:
        return len(self.photographs)


@dataclass(frozen=True)
class Listing:
    """The photographs of a data set at `location`, by split. `notes` say what is there and isn't listed."""

    location: Path
    classes: tuple[str, ...]
    train: Part
    validation: Part | None
    test: Part | None
    notes: tuple[str, ...] = ()

    @property
    def parts(self) -> tuple[Part, ...]:
        return tuple(part for part in (self.train, self.validation, self.test) if part is not None)
