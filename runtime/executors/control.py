"""What a task hears from the process that drives the run, and tells it: by files, which all kinds of workers have."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

INTERVAL = 1.0
"""Seconds between two looks at the files."""


class Stopped(Exception):
    """Raised by a task that stops because it was asked to."""


@dataclass(frozen=True)
class Place:
    """What a worker has of its machine: the number of CPU threads, and the index of its GPU."""

    worker: int
    host: str
    threads: int
    gpu: int | None = None


@dataclass(frozen=True)
class Ticket:
    """The files of one task under way, in a folder that the driving process and the worker both see.

    The driver makes `pulse`, and the folder is gone when it is: a worker that doesn't find it stops.
    """

    folder: Path
    number: int

    @property
    def _pulse(self) -> Path:
        return self.folder / f"{self.number}.pulse"

    @property
    def _stop(self) -> Path:
        return self.folder / f"{self.number}.stop"

    @property
    def _kill(self) -> Path:
        return self.folder / f"{self.number}.kill"

    def open(self) -> None:
        self._pulse.touch()

    def is_open(self) -> bool:
        return self._pulse.exists()

    def close(self) -> None:
        for file in (self._pulse, self._stop, self._kill):
            file.unlink(missing_ok=True)

    def ask_to_stop(self) -> None:
        """Where that can't be written, as on a full disk, the task goes on."""
        with contextlib.suppress(OSError):
            self._stop.touch()

    def ask_to_kill(self) -> None:
        """For whoever has the worker's process as a child."""
        with contextlib.suppress(OSError):
            self._kill.touch()

    def to_be_stopped(self) -> bool:
        """What the worker asks: it is told to stop, or nobody waits for it any more. Shows that it is alive."""
        try:
            os.utime(self._pulse)
        except OSError:
            return True
        return self._stop.exists()

    def to_be_killed(self) -> bool:
        return self._kill.exists() or not self.folder.exists()

    def tell(self, text: str) -> None:
        """What the worker says to whoever listens; it shows that it is alive, too."""
        with contextlib.suppress(OSError), self._pulse.open("r+") as file:
            file.write(text)
            file.truncate()

    def told(self) -> str:
        """What the worker said last."""
        try:
            return self._pulse.read_text()
        except (OSError, UnicodeDecodeError):
            return ""

    def last_pulse(self) -> int:
        """The file's time, by the clock of whatever machine set it: only a change means something. 0 without a file."""
        try:
            return self._pulse.stat().st_mtime_ns
        except OSError:
            return 0


class Control:
    """What a task can ask, as often as it likes: the answer is looked up once a second.

    A task calls `should_stop` or `alive` at least every few minutes, or its worker is taken for lost. One that is to
    stop stores what it wants to keep, and raises `Stopped`.
    """

    def __init__(
        self,
        place: Place,
        ticket: Ticket | None = None,
        listener: Callable[[str], None] | None = None,
        interrupted: Callable[[], bool] = lambda: False,
    ):
        """Without a ticket the process that drives performs the task: it is told by the `listener`, and the task is to
        stop when it is `interrupted`."""
        self.place = place
        self._ticket, self._interrupted = ticket, interrupted
        self._tell = listener if ticket is None else ticket.tell
        self._stops = False
        self._looked = self._told = float("-inf")

    def should_stop(self) -> bool:
        if self._interrupted():
            return True
        now = time.monotonic()
        if self._ticket is not None and not self._stops and now - self._looked >= INTERVAL:
            self._looked = now
            self._stops = self._ticket.to_be_stopped()
        return self._stops

    def alive(self) -> None:
        """For work that can't be stopped halfway."""
        self.should_stop()

    def tell(self, text: str, important: bool = False) -> None:
        """A line for the process that drives, which hears one a second at most: the last one, as a rule."""
        now = time.monotonic()
        if self._tell is not None and (important or now - self._told >= INTERVAL):
            self._told = now
            self._tell(text)
