"""Photographs that were decoded once: a folder with an entry for each data set, size and resizing.

    FOLDER/KEY/images     uint8, one image behind the other
              /digests    SHA-256 of each image's pixels
              /entry.json

KEY is the digest of what says that the photographs are the same, their names, sizes and times, and of how they were
resized.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np
import platformdirs

from wootz.passes.errors import InputError, StorageError
from wootz.runtime.data.stored_images import StoredImages
from wootz.runtime.store.amounts import show_bytes
from wootz.runtime.store.durable import owner_of_temporary, temporary_name
from wootz.runtime.store.heartbeat import Watch, read_mark
from wootz.runtime.store.lease import take_lease
from wootz.runtime.store.location import writing

CACHE_VARIABLE = "WOOTZ_CACHE"
ANOTHER_CACHE = f"choose another folder (--cache, {CACHE_VARIABLE})"
IMAGES_FILE, DIGESTS_FILE, ENTRY_FILE = "images", "digests", "entry.json"
LEASE_SUFFIX = ".lease"
KEY = re.compile(r"[0-9a-f]{64}")
DIGEST_BYTES = hashlib.sha256().digest_size
SECONDS_BETWEEN_LOOKS = 0.5


class Entry(msgspec.Struct, frozen=True):
    """What `entry.json` says: of which data set, how many images [channels, height, width] there are, how they were
    resized, which photographs are broken (their row, and the reason), and how long decoding took."""

    location: str
    images: int
    image_shape: tuple[int, int, int]
    resize: str
    broken: dict[int, str]
    seconds: float


@dataclass(frozen=True)
class Holding:
    """An entry of the cache, its bytes on the disk, and when it was last used (seconds since the epoch)."""

    key: str
    entry: Entry
    size: int
    used: float


@dataclass(frozen=True)
class Draft:
    """An entry that is being written: a file for images, which has its size already."""

    folder: Path
    images: Path


@dataclass(frozen=True)
class Tidied:
    """What was removed: entries, bytes, and what ended processes had left."""

    entries: int
    freed: int
    leftovers: int


def default_cache_folder() -> Path:
    """`$WOOTZ_CACHE`; without it `wootz/data` among the user's caches (`$XDG_CACHE_HOME`, `~/.cache`)."""
    named = os.environ.get(CACHE_VARIABLE)
    return Path(named).expanduser() if named else platformdirs.user_cache_path("wootz", appauthor=False) / "data"


@dataclass(frozen=True)
class Cache:
    folder: Path

    def get(self, key: str) -> tuple[Entry, StoredImages] | None:
        """An entry and all of its images; None where it isn't there as a whole."""
        place = self.folder / key
        entry = _read_entry(place / ENTRY_FILE)
        if entry is None:
            return None
        try:
            digests = np.fromfile(place / DIGESTS_FILE, np.uint8).reshape(entry.images, DIGEST_BYTES)
            images = StoredImages(place / IMAGES_FILE, entry.image_shape, digests, np.arange(entry.images))
        except (OSError, ValueError, InputError):
            return None
        with suppress(OSError):  # of another user, perhaps
            os.utime(place / ENTRY_FILE)
        return entry, images

    @contextmanager
    def lease(self, key: str, what: str) -> Iterator[None]:
        """The right to decode what `key` stands for, once another process that does it has ended."""
        watch, file = Watch(), self.folder / f"{key}{LEASE_SUFFIX}"
        with writing(self.folder, ANOTHER_CACHE):
            self.folder.mkdir(parents=True, exist_ok=True)
            while (lease := take_lease(file, what, watch)) is None:
                time.sleep(SECONDS_BETWEEN_LOOKS)
        with lease:
            yield

    @contextmanager
    def drafting(self, key: str, size: int) -> Iterator[Draft]:
        """A place for an entry with `size` bytes of images. At the end it is there as a whole, after an error not at
        all. Raises WootzError where there is no room for it."""
        place = temporary_name(self.folder)
        with writing(self.folder, ANOTHER_CACHE):
            if (free := shutil.disk_usage(self.folder).free) < size:
                raise StorageError(
                    f"{self.folder}: the decoded photographs take {show_bytes(size)}, and {show_bytes(free)} are free: "
                    f"make room (wootz cache gc), or {ANOTHER_CACHE}"
                )
            try:
                place.mkdir()
                with (place / IMAGES_FILE).open("xb") as images:
                    images.truncate(size)
                yield Draft(place, place / IMAGES_FILE)
                for name in (IMAGES_FILE, DIGESTS_FILE, ENTRY_FILE):
                    _sync(place / name)
                self._remove(key)  # one that was damaged
                place.rename(self.folder / key)
            finally:
                shutil.rmtree(place, ignore_errors=True)

    def holdings(self) -> list[Holding]:
        """All entries; those last used come first."""
        found = []
        for place in self._places():
            entry = _read_entry(place / ENTRY_FILE)
            if entry is not None:
                size = sum(file.stat().st_size for file in place.iterdir())
                found.append(Holding(place.name, entry, size, (place / ENTRY_FILE).stat().st_mtime))
        return sorted(found, key=lambda holding: -holding.used)

    def tidy(self, limit: int | None = None, older_than: float | None = None) -> Tidied:
        """Removes what ended processes left, what was not used for `older_than` seconds, and what was not used for
        longest until `limit` bytes stay. Runs that have opened an entry keep it until they end."""
        leftovers = self._remove_leftovers()
        kept, freed, entries, now = 0, 0, 0, time.time()
        for holding in self.holdings():
            is_old = older_than is not None and now - holding.used > older_than
            if is_old or (limit is not None and kept + holding.size > limit):
                self._remove(holding.key)
                freed, entries = freed + holding.size, entries + 1
            else:
                kept += holding.size
        return Tidied(entries, freed, leftovers)

    def _remove_leftovers(self) -> int:
        """What processes were writing that have ended, their leases, and entries that were damaged."""
        found = list(self.folder.iterdir()) if self.folder.is_dir() else []
        left = [path for path in found if _is_left(path)]
        for path in left:
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)
        return len(left)

    def _places(self) -> list[Path]:
        if not self.folder.is_dir():
            return []
        return [path for path in sorted(self.folder.iterdir()) if KEY.fullmatch(path.name)]

    def _remove(self, key: str) -> None:
        with suppress(FileNotFoundError):
            (self.folder / key / ENTRY_FILE).unlink()  # first: the rest alone is no entry
        shutil.rmtree(self.folder / key, ignore_errors=True)


def write_entry(draft: Draft, entry: Entry, digests: np.ndarray) -> None:
    """Completes a draft: what the images are, and the digest of each, uint8 [images, bytes]."""
    digests.tofile(draft.folder / DIGESTS_FILE)
    (draft.folder / ENTRY_FILE).write_bytes(msgspec.json.encode(entry))


def _is_left(path: Path) -> bool:
    if path.name.endswith(LEASE_SUFFIX):
        mark = read_mark(path)
        return mark is not None and mark.process is not None and mark.process.has_ended()
    if KEY.fullmatch(path.name):
        return path.is_dir() and _read_entry(path / ENTRY_FILE) is None
    owner = owner_of_temporary(path.name)
    return owner is not None and owner.has_ended()


def _read_entry(file: Path) -> Entry | None:
    try:
        return msgspec.json.decode(file.read_bytes(), type=Entry)
    except (OSError, msgspec.DecodeError):
        return None


def _sync(file: Path) -> None:
    with file.open("rb+") as stream:
        os.fsync(stream.fileno())
