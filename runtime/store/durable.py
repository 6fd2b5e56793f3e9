"""Files that are there whole or not at all, also after the power fails."""

from __future__ import annotations

import os
import re
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from wootz.passes.durable import naming, sync_folder
from wootz.runtime.store.process import Process

TEMPORARY = re.compile(r"\.tmp-(?P<machine>[0-9a-f]*)-(?P<pid>\d+)-(?P<started>\d+)-[0-9a-f]{32}")
READ_AND_WRITE = 0o666
PROBE_BYTES = 4096


def write_durably(file: Path, pieces: Iterable[bytes | memoryview]) -> None:
    """Writes all of `file` or nothing, for those who have its folder. OSErrors pass, and leave nothing behind."""
    with replacing(file) as (content, temporary):
        share_like_folder(temporary)
        content.writelines(pieces)


@contextmanager
def replacing(file: Path) -> Iterator[tuple[BinaryIO, Path]]:
    """A neighbour of `file`, of a unique name, open for writing: at the end it is flushed and renamed to `file`.

    After an error it is gone; OSErrors have the name of `file`.
    """
    temporary = temporary_name(file.parent)
    try:
        with naming(file, temporary):
            with temporary.open("xb") as content:
                yield content, temporary
                content.flush()
                os.fsync(content.fileno())
            temporary.replace(file)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync_folder(file.parent)


def file_system_time(folder: Path) -> float:
    """The time that a file gets which is written in `folder` now: of the server's clock, where that differs from ours.

    It is really written, and raises OSError where no file can be: also on a full disk.
    """
    probe = temporary_name(folder)
    try:
        with probe.open("xb") as content:
            content.write(b"\0" * PROBE_BYTES)
            content.flush()
            os.fsync(content.fileno())
        return probe.stat().st_mtime
    finally:
        probe.unlink(missing_ok=True)


def temporary_name(folder: Path) -> Path:
    """A new name in `folder` that says who writes the file."""
    process = Process.current()
    return folder / f".tmp-{process.machine}-{process.pid}-{process.started}-{uuid.uuid4().hex}"


def owner_of_temporary(name: str) -> Process | None:
    """The process that writes, or wrote, the temporary file `name`; None if it is no name of one."""
    match = TEMPORARY.fullmatch(name)
    return Process(match["machine"], int(match["pid"]), int(match["started"])) if match else None


def make_folder(folder: Path) -> None:
    """Makes `folder` and those above it, durably; a new one is shared as the one above it is."""
    if folder.is_dir():
        return
    make_folder(folder.parent)
    try:
        folder.mkdir()
    except FileExistsError:
        if not folder.is_dir():
            raise
        return
    share_like_folder(folder)
    sync_folder(folder.parent)


def share_like_folder(path: Path) -> None:
    """Gives `path` to those who have its folder: in a group's store, entries are the group's, whatever the umask."""
    if os.name == "posix":
        mode = path.parent.stat().st_mode
        path.chmod(mode & (0o7777 if path.is_dir() else READ_AND_WRITE))
