"""Which file of a store is what."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from wootz.runtime.store.entry import KEY, check_key

ENTRIES = "entries"
CHECKPOINTS = "checkpoints"
LEASES = "leases"
USERS = "users"
DAMAGED = "damaged"
SUFFIX = ".entry"


@dataclass(frozen=True)
class Layout:
    """The paths in a store's folder. Entries are spread over folders by the first two digits of their keys."""

    folder: Path

    def entry(self, key: str) -> Path:
        return self._spread(ENTRIES, key)

    def checkpoint(self, key: str) -> Path:
        return self._spread(CHECKPOINTS, key)

    def lease(self, key: str) -> Path:
        return self.leases / check_key(key)

    @property
    def leases(self) -> Path:
        return self.folder / LEASES

    @property
    def users(self) -> Path:
        return self.folder / USERS

    @property
    def damaged(self) -> Path:
        return self.folder / DAMAGED

    def entries(self) -> Iterator[Path]:
        """The files of all outcomes, in no order."""
        return (file for file in _files(self.folder / ENTRIES) if key_of(file))

    def checkpoints(self) -> Iterator[Path]:
        return (file for file in _files(self.folder / CHECKPOINTS) if key_of(file))

    def _spread(self, kind: str, key: str) -> Path:
        return self.folder / kind / check_key(key)[:2] / f"{key}{SUFFIX}"


def key_of(file: Path) -> str | None:
    """The key of an entry's or checkpoint's file; None for another file."""
    return file.stem if file.suffix == SUFFIX and KEY.fullmatch(file.stem) else None


def _files(folder: Path) -> Iterator[Path]:
    """What lies in the folders of `folder`; those may come and go."""
    for spread in listed(folder):
        yield from listed(spread)


def listed(folder: Path) -> list[Path]:
    """What lies in `folder`, nothing if it is none."""
    try:
        return list(folder.iterdir())
    except (FileNotFoundError, NotADirectoryError):
        return []
