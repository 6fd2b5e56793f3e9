"""The store: outcomes and checkpoints by key, leases, and who uses what."""

from __future__ import annotations

import os
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np

from wootz.passes.errors import StorageError, WootzError
from wootz.runtime.outcome import Failed, Outcome, Trained
from wootz.runtime.store.amounts import show_bytes
from wootz.runtime.store.collection import Collected, collect
from wootz.runtime.store.durable import make_folder, write_durably
from wootz.runtime.store.entry import (
    CHECKPOINT,
    OUTCOMES,
    Arrays,
    Checkpoint,
    Damaged,
    Entry,
    Kind,
    ReadRest,
    encode,
    load_arrays,
    read_entry,
    skip_arrays,
)
from wootz.runtime.store.heartbeat import Watch, read_mark
from wootz.runtime.store.layout import SUFFIX, Layout
from wootz.runtime.store.lease import Lease, take_lease
from wootz.runtime.store.location import (
    LIMIT_VARIABLE,
    check_format,
    create_store,
    default_folder,
    default_limit,
    writing,
)
from wootz.runtime.store.user import User

LOOK_SECONDS = 0.5
BETWEEN_COLLECTIONS = 50
"""The size is looked at whenever a process has put the limit's fiftieth part."""
EMPTIED_TO = 0.9
"""The part of the limit to which a store is emptied that has passed it."""


def _unheard(line: str) -> None:
    """What becomes of a note that nobody asked for."""


class Store:
    """A folder of entries, each the outcome of what its key stands for; many processes and machines may use it at once.

    A key is 32 or 64 hexadecimal digits, other texts raise ValueError. Entries appear whole or not at all and are
    verified whenever they are read; one that is damaged is set aside, with a note for the user, and counts as missing.
    Where the store can't be written, StorageErrors name the file.
    """

    def __init__(
        self,
        folder: Path,
        limit: int,
        note: Callable[[str], None] = _unheard,
        clock: Callable[[], float] = time.monotonic,
    ):
        """For a folder that is known to be a store: see `open` and `existing`. `clock` gives monotonic seconds."""
        self.folder = folder
        self.limit = limit
        self.layout = Layout(folder)
        self._note = note
        self._clock = clock
        self._watch = Watch(clock)
        self._user: User | None = None
        self._bytes_put = 0
        self._told_of_limit = False
        self._lock = threading.Lock()

    @staticmethod
    def open(folder: Path | None = None, limit: int | None = None, note: Callable[[str], None] = _unheard) -> Store:
        """The store in `folder`, made if there is none; None: `$WOOTZ_STORE`, or the user's own one.

        `limit`: bytes (None: `$WOOTZ_STORE_LIMIT`, or 20 GB) from which on what was not used for longest is removed.
        `note` is told what the user should know, in lines. Raises WootzError for a folder that can't be written, is no
        store, or is one of a newer format.
        """
        place = (folder or default_folder()).absolute()
        create_store(place)
        return Store(place, default_limit() if limit is None else limit, note)

    @staticmethod
    def existing(folder: Path | None = None, note: Callable[[str], None] = _unheard) -> Store:
        """The store in `folder`, which need not be writable. Raises WootzError if there is none."""
        place = (folder or default_folder()).absolute()
        if not check_format(place):
            raise WootzError(f"{place}: no store (--store DIR and WOOTZ_STORE name another one)")
        return Store(place, default_limit(), note)

    def get(self, key: str) -> Outcome | None:
        """The outcome that was put, its arrays in memory of their own; None where there is none, or a damaged one."""
        found = self._read(self.layout.entry(key), key, OUTCOMES, load_arrays)
        return None if found is None else _outcome(*found)

    def entry(self, key: str) -> Entry | None:
        """What the outcome's entry says of itself: kind, record, seconds, arrays' names. The arrays are not read."""
        found = self._read(self.layout.entry(key), key, OUTCOMES, skip_arrays)
        return None if found is None else found[0]

    def get_record(self, key: str) -> Mapping[str, Any] | None:
        """The record of a `Trained`, without reading the weights; None where there is none, or a failure."""
        entry = self.entry(key)
        return entry.record if entry is not None and entry.kind == "trained" else None

    def put(self, key: str, outcome: Outcome, *, what: str, seconds: float, by: str = "") -> None:
        """Keeps `outcome`, durably when this returns.

        `what` tells people what it is, `seconds` how long it took; `by` is the run that it was computed for.
        """
        if isinstance(outcome, Failed):
            self._write(self.layout.entry(key), key, "failed", what, seconds, {"reason": outcome.reason}, {}, by)
        else:
            self._write(self.layout.entry(key), key, "trained", what, seconds, outcome.record, outcome.weights, by)

    def put_checkpoint(
        self,
        key: str,
        arrays: Mapping[str, np.ndarray],
        record: Mapping[str, Any],
        *,
        what: str = "",
        seconds: float = 0.0,
    ) -> None:
        """Keeps the state of a training under way, in the place of an earlier one. Durable when this returns."""
        self._write(self.layout.checkpoint(key), key, "checkpoint", what, seconds, record, arrays)

    def get_checkpoint(self, key: str) -> Checkpoint | None:
        found = self._read(self.layout.checkpoint(key), key, CHECKPOINT, load_arrays)
        return None if found is None else Checkpoint(found[1], found[0].record)

    def drop_checkpoint(self, key: str) -> None:
        file = self.layout.checkpoint(key)
        with writing(file):
            file.unlink(missing_ok=True)

    def lease(self, key: str, what: str = "") -> Lease | None:
        """The right to compute the outcome of `key`, for one holder at a time; None while someone else has it.

        Who gets it looks once more whether the outcome is there. A holder is alive as long as its lease renews itself;
        one that ended without releasing it is noticed at once on this machine, and within minutes on another one.
        """
        file = self.layout.lease(key)
        with writing(file):
            self._make_folder(file.parent)
            return take_lease(file, what, self._watch)

    def wait(self, key: str, timeout: float) -> Outcome | None:
        """The outcome of `key` that another one computes; None when its lease is free, or after `timeout` seconds."""
        end = self._clock() + timeout
        file = self.layout.lease(key)
        while True:
            holder = read_mark(file)
            outcome = self.get(key)
            if outcome is not None or holder is None or self._watch.is_dead(file, holder):
                return outcome
            if self._clock() >= end:
                return None
            time.sleep(min(LOOK_SECONDS, max(0.0, end - self._clock())))

    @contextmanager
    def using(self, what: str) -> Iterator[None]:
        """While this lasts, nothing that this store object got or put since its begin is removed to make room."""
        if self._user is not None:
            raise RuntimeError("a store object has one user at a time")
        with writing(self.folder):
            self._make_folder(self.layout.users)
            user = self._user = User.register(self.layout.users, what)
        try:
            yield
        finally:
            self._user = None
            user.leave()
            self.make_room()

    def collect(self, limit: int | None = None, older_than: float | None = None) -> Collected:
        """Removes what the dead left, what wasn't used for `older_than` seconds, and more until `limit` bytes stay.

        What was not used for longest goes first. What live runs use stays, and what someone is computing.
        """
        with writing(self.folder):
            return collect(self.layout, self._watch, self.limit if limit is None else limit, older_than=older_than)

    def make_room(self) -> None:
        """Makes room if the store has passed its limit; what can't be removed is no reason to end a run.

        That more than the limit is in use is told once: with a small limit, it is found again after each put.
        """
        with self._lock:
            self._bytes_put = 0
        try:
            collected = collect(self.layout, self._watch, self.limit, int(EMPTIED_TO * self.limit))
        except OSError as error:
            self._note(f"{self.folder}: no room could be made ({error.strerror})")
            return
        if collected.size > self.limit and not self._told_of_limit:
            self._told_of_limit = True
            self._note(
                f"{self.folder}: {show_bytes(collected.size)} are in use, more than the limit of "
                f"{show_bytes(self.limit)} (--store-limit, {LIMIT_VARIABLE})"
            )

    def holder(self, key: str) -> str | None:
        """Who has the lease of `key`, for people: "process 4711 on node3"; None where nobody has."""
        content = read_mark(self.layout.lease(key))
        return None if content is None else content.owner

    def look_into(
        self, file: Path, key: str, kinds: tuple[Kind, ...], read_rest: ReadRest
    ) -> tuple[Entry, Arrays] | None:
        """What is in the entry `file`, which doesn't count as a use. What isn't whole is set aside, with a note."""
        try:
            return read_entry(file, key, kinds, read_rest)
        except Damaged as damage:
            self._set_aside(file, key, str(damage))
            return None
        except OSError as error:
            raise StorageError(f"{file}: can't be read ({error.strerror}): choose another store (--store)") from error

    def _read(self, file: Path, key: str, kinds: tuple[Kind, ...], read_rest: ReadRest) -> tuple[Entry, Arrays] | None:
        """What is in `file`, which counts as a use. What isn't whole is set aside."""
        found = self.look_into(file, key, kinds, read_rest)
        if found is not None:
            self._count_use(file, key)
        return found

    def _set_aside(self, file: Path, key: str, why: str) -> None:
        aside = self.layout.damaged / f"{key}-{uuid.uuid4().hex[:8]}{SUFFIX}"
        try:
            self._make_folder(aside.parent)
            file.rename(aside)
            write_durably(aside.with_suffix(".txt"), [f"{file}: {why}\n".encode()])
        except FileNotFoundError:
            return
        except OSError as error:
            self._note(f"{file}: {why}; it can't be set aside ({error.strerror}), and will be computed again")
            return
        self._note(f"{file}: {why}; set aside as {aside}, it will be computed again")

    def _count_use(self, file: Path, key: str) -> None:
        if self._user is not None:
            self._user.uses(key)
        with suppress(OSError):
            os.utime(file)

    def _write(
        self,
        file: Path,
        key: str,
        kind: Kind,
        what: str,
        seconds: float,
        record: Mapping[str, Any],
        arrays: Mapping[str, np.ndarray],
        by: str = "",
    ) -> None:
        pieces = encode(key, kind, what, seconds, record, arrays, by)
        if self._user is not None:
            self._user.uses(key)
        with writing(file):
            self._make_folder(file.parent)
            write_durably(file, pieces)
        with self._lock:
            self._bytes_put += sum(len(piece) for piece in pieces)
            is_time = self._bytes_put > self.limit / BETWEEN_COLLECTIONS
        if is_time:
            self.make_room()

    def _make_folder(self, folder: Path) -> None:
        if not self.folder.is_dir():  # someone removed it since it was opened
            create_store(self.folder)
        make_folder(folder)


def _outcome(entry: Entry, arrays: Arrays) -> Outcome:
    return Failed(entry.record["reason"]) if entry.kind == "failed" else Trained(arrays, entry.record)
