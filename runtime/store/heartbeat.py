"""Marks: files that say "alive" by a number that goes up, and how others see that it has stopped.

No clock of another machine is trusted, no file's time, and no lock of a network file system: who watches a mark sees
whether its number changes while its own monotonic clock goes on. On one machine, a process that has ended is known to
have ended at once.
"""

from __future__ import annotations

import json
import os
import platform
import threading
import time
import uuid
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass
from errno import ENOSYS, ENOTSUP, EOPNOTSUPP, EPERM
from pathlib import Path

from wootz.runtime.store.durable import share_like_folder, temporary_name
from wootz.runtime.store.process import Process

BEAT_SECONDS = 5.0
PATIENCE_SECONDS = 60.0
"""A mark is dead that was not seen to change for so long."""
FEWEST_LOOKS = 4
"""At least so many looks show a silence: between two, the watcher itself may have been asleep."""
COUNTER_DIGITS = 16
LONGEST_MARK = 4096
LONGEST_PURPOSE = 200
WITHOUT_LINKS = (EPERM, ENOTSUP, EOPNOTSUPP, ENOSYS)
"""What a file system says that knows no hard links."""
REMOVAL = ".removal"
"""The suffix of the mark of who removes a dead one."""


@dataclass(frozen=True)
class MarkContent:
    """What a mark says: `beat` goes up, the rest stays. What is no mark has the process None and an id of its bytes.

    `owner` tells people whose it is: "process 4711 on node3 (block 2)".
    """

    beat: bytes
    id: str
    process: Process | None
    owner: str


def read_mark(file: Path) -> MarkContent | None:
    """The content of a mark; None where none is."""
    try:
        with file.open("rb") as stream:
            content = stream.read(LONGEST_MARK)
    except FileNotFoundError:
        return None
    except OSError:
        content = b""
    beat, rest = content[:COUNTER_DIGITS], content[COUNTER_DIGITS:]
    try:
        said = json.loads(rest)
        process = Process(str(said["machine"]), int(said["pid"]), int(said["started"]))
        return MarkContent(beat, str(said["id"]), process, str(said["owner"]))
    except (ValueError, TypeError, KeyError):
        return MarkContent(beat, rest.hex(), None, "someone unknown")


class Mark:
    """A mark of this process; between `start_beating` and `remove` its number goes up, from a thread of its own."""

    def __init__(self, file: Path, identity: str):
        self.file = file
        self._id = identity
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    @classmethod
    def create(cls, file: Path, what: str) -> Mark | None:
        """A mark where there was none; None where there is one. Of many who try at once, one gets it."""
        identity, process = uuid.uuid4().hex, Process.current()
        owner = f"process {process.pid} on {platform.node()}{f' ({what[:LONGEST_PURPOSE]})' if what else ''}"
        said = {"id": identity, "owner": owner, **asdict(process)}
        written = temporary_name(file.parent)
        try:
            with written.open("xb") as stream:
                stream.write(_counter(0) + json.dumps(said).encode())
            share_like_folder(written)
            _place(written, file)
        except FileExistsError:
            return None
        finally:
            written.unlink(missing_ok=True)
        return cls(file, identity)

    @property
    def is_held(self) -> bool:
        """False once another has taken this mark for dead, and its place."""
        content = read_mark(self.file)
        return content is not None and content.id == self._id

    def start_beating(self, seconds: float = BEAT_SECONDS) -> None:
        self._thread = threading.Thread(target=self._beat, args=(seconds,), name="heartbeat", daemon=True)
        self._thread.start()

    def remove(self) -> None:
        self._stop.set()
        if self._thread is not None:
            self._thread.join()
        if self.is_held:
            with suppress(OSError):  # one that stays says no more that it is alive
                self.file.unlink()

    def _beat(self, seconds: float) -> None:
        number = 0
        while not self._stop.wait(seconds):
            number += 1
            content = read_mark(self.file)
            if content is None or (content.process is not None and content.id != self._id):
                return
            try:
                with self.file.open("r+b", buffering=0) as stream:  # closing it tells the other machines
                    stream.write(_counter(number))
            except OSError:  # a file system that stumbles: the next beat may get through
                continue


def _place(written: Path, file: Path) -> None:
    """Gives `written` the name `file`, too: a mark without its content, of who was killed meanwhile, would be nobody's.

    Raises FileExistsError where there is a `file`. Where files can't have two names, it is filled after it is made.
    """
    try:
        os.link(written, file)
    except OSError as error:
        if error.errno not in WITHOUT_LINKS:
            raise
        with file.open("xb") as stream:
            stream.write(written.read_bytes())


def _counter(number: int) -> bytes:
    return f"{number:0{COUNTER_DIGITS}d}".encode()


@dataclass
class _Seen:
    beat: bytes
    id: str
    at: float
    silence: float


class Watch:
    """Tells living marks from dead ones, by what it saw of them so far. `clock`: monotonic seconds."""

    def __init__(self, clock: Callable[[], float] = time.monotonic, patience: float = PATIENCE_SECONDS):
        self._clock = clock
        self._patience = patience
        self._seen: dict[Path, _Seen] = {}

    def is_dead(self, file: Path, content: MarkContent) -> bool:
        """Whether who made the mark in `file`, of `content`, has ended or was silent for too long."""
        if content.process is not None and content.process.has_ended():
            return True
        now = self._clock()
        seen = self._seen.get(file)
        if seen is None or (seen.beat, seen.id) != (content.beat, content.id):
            self._seen[file] = _Seen(content.beat, content.id, now, 0.0)
            return False
        seen.silence += min(now - seen.at, self._patience / FEWEST_LOOKS)
        seen.at = now
        return seen.silence >= self._patience


def remove_mark(file: Path, content: MarkContent, watch: Watch) -> bool:
    """Removes a dead mark, of `content`; False where another has been faster, so that a new one may stand there.

    Of many who find it dead, the one who makes a second mark beside it looks again, and removes it.
    """
    beside = file.with_name(f"{file.name}{REMOVAL}")
    guard = Mark.create(beside, "")
    if guard is None:
        left = read_mark(beside)
        if left is not None and watch.is_dead(beside, left):
            discard(beside)
        return False
    try:
        found = read_mark(file)
        if found is None or found.id != content.id:
            return False
        discard(file)
        return True
    finally:
        guard.remove()


def discard(file: Path) -> None:
    """Removes what is in the place of a mark, a folder too if it is empty."""
    try:
        file.unlink(missing_ok=True)
    except (IsADirectoryError, PermissionError):
        os.rmdir(file)
