"""Live runs, and what they use."""

from __future__ import annotations

import uuid
from contextlib import suppress
from pathlib import Path

from wootz.runtime.store.heartbeat import Mark

KEYS_SUFFIX = ".keys"


class User:
    """A run that is registered in a store: a mark that beats, and beside it the list of the keys that it uses."""

    def __init__(self, mark: Mark, keys_file: Path):
        self._mark = mark
        self._keys_file = keys_file
        self._keys: set[str] = set()
        mark.start_beating()

    @classmethod
    def register(cls, folder: Path, what: str) -> User:
        file = folder / uuid.uuid4().hex
        mark = Mark.create(file, what)
        if mark is None:
            raise FileExistsError(file)
        return cls(mark, file.with_suffix(KEYS_SUFFIX))

    def uses(self, key: str) -> None:
        """Notes that `key` is used; a list that can't be written makes nothing wrong, only entries short-lived."""
        if key not in self._keys:
            self._keys.add(key)
            with suppress(OSError), self._keys_file.open("a") as stream:
                stream.write(f"{key}\n")

    def leave(self) -> None:
        self._mark.remove()
        with suppress(OSError):
            self._keys_file.unlink(missing_ok=True)


def keys_used(mark_file: Path) -> set[str]:
    """The keys in the list beside a user's mark."""
    try:
        return set(mark_file.with_suffix(KEYS_SUFFIX).read_text(errors="replace").split())
    except FileNotFoundError:
        return set()
