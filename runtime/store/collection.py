"""Makes a store smaller: what the dead left, then what was not used for longest."""

from __future__ import annotations

import stat
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from wootz.runtime.store.durable import file_system_time, owner_of_temporary
from wootz.runtime.store.heartbeat import BEAT_SECONDS, REMOVAL, MarkContent, Watch, discard, read_mark, remove_mark
from wootz.runtime.store.layout import CHECKPOINTS, ENTRIES, Layout, key_of, listed
from wootz.runtime.store.user import KEYS_SUFFIX, keys_used

FORGOTTEN_SECONDS = 24 * 3600.0
"""What another machine left is taken for dead when its file has not changed for so long."""


@dataclass(frozen=True)
class Collected:
    """What a collection did: entries removed and their bytes, leftovers of dead processes, and the bytes that stay."""

    entries: int
    freed: int
    leftovers: int
    size: int


@dataclass(frozen=True)
class _File:
    path: Path
    key: str | None
    size: int
    used: float


def collect(
    layout: Layout, watch: Watch, limit: int, target: int | None = None, older_than: float | None = None
) -> Collected:
    """Removes leftovers and what was not used for `older_than` seconds; and if more than `limit` bytes stay, what was
    set aside and the least recently used, until `target` (None: `limit`) are left.

    What live runs use stays, and what someone alive is computing. The age of files is told by the file system's clock
    alone, since machines may have others. OSErrors pass.
    """
    now = file_system_time(layout.folder)
    leftovers = _remove_temporaries(layout, now)
    living, dead = _living(layout.users, watch, now)
    leftovers += dead + _remove_lists(layout)
    protected = {key for mark in living for key in keys_used(mark)}
    leased, dead = _living(layout.leases, watch, now)
    leftovers += dead
    protected |= {lease.name for lease in leased}
    leftovers += _remove_finished_checkpoints(layout, protected)

    files = sorted(_files(layout), key=lambda file: (file.key is not None, file.used, file.path.name))
    size = sum(file.size for file in files)
    entries = freed = 0
    goal = (limit if target is None else target) if size > limit else size
    for file in files:
        is_old = older_than is not None and now - file.used > older_than
        if file.key not in protected and (size > goal or is_old):
            with suppress(FileNotFoundError):
                file.path.unlink()
            size -= file.size
            freed += file.size
            entries += file.key is not None
    return Collected(entries, freed, leftovers, size)


def _files(layout: Layout) -> Iterator[_File]:
    """Entries, checkpoints, and what was set aside as damaged."""
    for path in (*layout.entries(), *layout.checkpoints(), *listed(layout.damaged)):
        with suppress(FileNotFoundError):
            status = path.lstat()
            if stat.S_ISREG(status.st_mode):
                yield _File(path, key_of(path), status.st_size, status.st_mtime)


def _remove_temporaries(layout: Layout, now: float) -> int:
    """Removes what processes were writing when they ended."""
    spread = (folder for kind in (ENTRIES, CHECKPOINTS) for folder in listed(layout.folder / kind))
    removed = 0
    folders = (layout.folder, layout.damaged, layout.leases, layout.users, *spread)
    for file in (file for folder in folders for file in listed(folder)):
        owner = owner_of_temporary(file.name)
        if owner is not None and (owner.has_ended() or _age(file, now) > FORGOTTEN_SECONDS):
            file.unlink(missing_ok=True)
            removed += 1
    return removed


def _living(folder: Path, watch: Watch, now: float) -> tuple[list[Path], int]:
    """The marks of the living in `folder`, and how many of the dead were removed."""
    files = [f for f in listed(folder) if f.suffix != KEYS_SUFFIX and owner_of_temporary(f.name) is None]
    found = [(file, read_mark(file)) for file in files]
    marks = [(file, content) for file, content in found if content is not None]
    dead = {file for file, content in marks if watch.is_dead(file, content)}
    silent = [(file, content) for file, content in marks if file not in dead and _age(file, now) > FORGOTTEN_SECONDS]
    dead |= _without_a_beat(silent)
    removed = sum(_remove(file, content, watch) for file, content in marks if file in dead)
    return [file for file, _ in marks if file not in dead], removed


def _without_a_beat(marks: Iterable[tuple[Path, MarkContent]]) -> set[Path]:
    """Those of `marks` that don't change while we wait: a clock that was set anew makes a living one look old."""
    marks = list(marks)
    if marks:
        time.sleep(2 * BEAT_SECONDS)
    return {file for file, content in marks if read_mark(file) == content}


def _remove(file: Path, content: MarkContent, watch: Watch) -> bool:
    if file.suffix == REMOVAL:
        discard(file)
        return True
    return remove_mark(file, content, watch)


def _remove_lists(layout: Layout) -> int:
    """Removes lists of keys whose user's mark is gone."""
    lists = [file for file in listed(layout.users) if file.suffix == KEYS_SUFFIX and not file.with_suffix("").exists()]
    for file in lists:
        file.unlink(missing_ok=True)
    return len(lists)


def _remove_finished_checkpoints(layout: Layout, protected: set[str]) -> int:
    """Removes the checkpoints of trainings that have an outcome."""
    removed = 0
    for file in layout.checkpoints():
        if file.stem not in protected and layout.entry(file.stem).exists():
            file.unlink(missing_ok=True)
            removed += 1
    return removed


def _age(file: Path, now: float) -> float:
    try:
        return now - file.stat().st_mtime
    except FileNotFoundError:
        return 0.0
