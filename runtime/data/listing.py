"""Which photographs a data set has, before any of them is decoded."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

SPLIT_NAMES = {"train": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}
"""What splits may be called, in capitals too."""


@dataclass(frozen=True, order=True)
class Cell:
    """A photograph inside a Parquet file: `row` of a row group."""

    file: str
    group: int
    row: int

    def __str__(self) -> str:
        return f"{self.file} (row {self.row} of row group {self.group})"


Photograph = str | Cell
"""The path of a file, or a place in one."""


@dataclass(frozen=True)
class Part:
    """The photographs of a split, and their labels, int64 [n], if they have any."""

    photographs: Sequence[Photograph]
    labels: np.ndarray | None = None

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

    def photographs(self) -> list[Photograph]:
        """All of them once, in an order that doesn't depend on splits and classes."""
        return sorted({photograph for part in self.parts for photograph in part.photographs}, key=_place)


def file_of(photograph: Photograph) -> str:
    return photograph.file if isinstance(photograph, Cell) else photograph


def _place(photograph: Photograph) -> tuple[str, int, int]:
    if isinstance(photograph, Cell):
        return photograph.file, photograph.group, photograph.row
    return photograph, 0, 0


def parts_of(
    photographs: Sequence[Photograph], labels: np.ndarray | None, splits: Sequence[str]
) -> tuple[Part, Part | None, Part | None]:
    """The parts for training, validation and testing, where `splits` has the split (`train`, `val`, `test`) of each."""
    found: dict[str, list[int]] = {"train": [], "val": [], "test": []}
    for number, split in enumerate(splits):
        found[split].append(number)
    train, validation, test = (
        Part([photographs[n] for n in numbers], None if labels is None else labels[numbers])
        if numbers or name == "train"
        else None
        for name, numbers in found.items()
    )
    assert train is not None
    return train, validation, test
