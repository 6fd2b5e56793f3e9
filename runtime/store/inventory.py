"""What a store holds, and whether it is whole."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from wootz.runtime.store.entry import CHECKPOINT, OUTCOMES, Damaged, Entry, Kind, check_arrays, read_entry, skip_arrays
from wootz.runtime.store.layout import Layout
from wootz.runtime.store.store import Store


@dataclass(frozen=True)
class Holding:
    """An entry, and when it was used last (seconds since 1970, of the file system's clock)."""

    entry: Entry
    used: float


@dataclass(frozen=True)
class Verified:
    """How many entries are whole, their bytes, and how many were damaged and have been set aside."""

    whole: int
    size: int
    damaged: int


def holdings(store: Store) -> list[Holding]:
    """The outcomes and checkpoints, that used last first. Only headers are read; the damaged ones are left out."""
    found = []
    for file, kinds in _files(store.layout):
        with suppress(Damaged, OSError):
            read = read_entry(file, file.stem, kinds, skip_arrays)
            if read is not None:
                found.append(Holding(read[0], file.stat().st_mtime))
    return sorted(found, key=lambda holding: holding.used, reverse=True)


def verify(store: Store) -> Verified:
    """Reads all of all outcomes and checkpoints. What is damaged is set aside, with a note; nothing counts as used."""
    read = [store.look_into(file, file.stem, kinds, check_arrays) for file, kinds in _files(store.layout)]
    whole = [found[0] for found in read if found is not None]
    return Verified(len(whole), sum(entry.size for entry in whole), len(read) - len(whole))


def _files(layout: Layout) -> Iterator[tuple[Path, tuple[Kind, ...]]]:
    yield from ((file, OUTCOMES) for file in layout.entries())
    yield from ((file, CHECKPOINT) for file in layout.checkpoints())
