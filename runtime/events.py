"""What happens in a run, as it stands in `events.jsonl`: one JSON object a line. docs/events.md says what each means.

The process that drives a run appends to the file, whatever executor does the work; nothing in it is ever changed. A run
that is continued goes on in the same file. Any process may read it at any time.
"""

from __future__ import annotations

import os
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Annotated, Literal

import msgspec
from msgspec import Meta, Struct

from wootz.passes.errors import InputError, reading
from wootz.passes.plan.subspace import Configuration
from wootz.runtime.result import Count, End, QualityResult, Seconds
from wootz.runtime.run_directory import EVENTS_FILE
from wootz.runtime.store.process import Process

SCHEMA = 2

HEARTBEAT_SECONDS = 10.0
"""The time of the file's last change is set anew this often, so that readers know that the process is alive."""

Phase = Literal["plan", "teacher", "pretraining", "scoring", "exploration", "baseline", "delivery"]
TaskKind = Literal["teacher", "tuned", "blocks", "scores", "look", "network", "default network"]
RunOutcome = Literal["found", "nothing found", "failed", "interrupted"]


class TaskId(Struct, frozen=True):
    """Which task: of the blocks the group, of networks the position in the subspace, from 0.

    `scores` and `look` are those of many networks, of which `index` is the first.
    `tuned` is the full network, fine-tuned as the pruned ones are.
    """

    kind: TaskKind
    index: Count = 0


class _Event(Struct, frozen=True, kw_only=True, tag_field="event"):
    """`time` is in seconds since 1970, `elapsed` in seconds since the process began, by a clock that never jumps.

    Both are set by the log.
    """

    time: float = 0.0
    elapsed: Seconds = 0.0


class RunStarted(_Event, frozen=True, kw_only=True, tag="run started"):
    """A process begins the run, or goes on with it; first in the file. `machine`, `pid`, `started`: see `Process`."""

    schema: int = SCHEMA
    wootz: str
    host: str
    machine: str
    pid: int
    started: int
    network: str
    data: str
    objective: str
    quality: QualityResult
    executor: str
    workers: Annotated[int, Meta(ge=1)]

    @property
    def process(self) -> Process:
        return Process(self.machine, self.pid, self.started)


class Planned(_Event, frozen=True, kw_only=True, tag="planned"):
    """What is to be done. With `stops_at_first` fewer networks may be needed than are feasible.

    `model_size` is the full network's number of parameters.
    """

    model_size: Count = 0
    networks_total: Count
    networks_feasible: Count
    blocks: Count
    groups: Count
    teacher: bool
    tuned: bool = False
    baseline: bool
    stops_at_first: bool


class PhaseStarted(_Event, frozen=True, kw_only=True, tag="phase"):
    """Phases follow each other."""

    phase: Phase


class TaskStarted(_Event, frozen=True, kw_only=True, tag="task started"):
    """A task is given to a worker, if it is known to which. `title` is for readers.

    `steps` is the length of the training, 0 for what is none; where progress is shown as lines, one every `display`
    steps is wanted.
    """

    task: TaskId
    title: str
    worker: Count | None = None
    steps: Count = 0
    display: Count = 0


class Progress(_Event, frozen=True, kw_only=True, tag="progress"):
    """After `step` steps: at tests, with the `quality`, and every few seconds."""

    task: TaskId
    worker: Count
    step: Count
    loss: float | None = None
    quality: float | None = None


class TaskEnded(_Event, frozen=True, kw_only=True, tag="task ended"):
    """A task has its result, which lies in the store under `key`.

    It may be `reused`: found there, computed by another run or an earlier attempt; `seconds` are those of the training
    all the same. `blocks` is the number of blocks in the task. Of a pruned network `bound` is what the objective asks
    of its quality, if it does, and `meets_bound` whether that is met.
    """

    task: TaskId
    worker: Count
    outcome: Literal["trained", "failed"]
    key: str = ""
    seconds: Seconds = 0.0
    reused: bool = False
    blocks: Count = 0
    quality: float | None = None
    bound: float | None = None
    meets_bound: bool | None = None
    ended: End = "all steps"
    steps_saved: Count = 0
    reason: str | None = None


class TaskCancelled(_Event, frozen=True, kw_only=True, tag="task cancelled"):
    """A task under way is given up, because its result is of no use any more."""

    task: TaskId
    worker: Count | None = None


class TaskRaised(_Event, frozen=True, kw_only=True, tag="task raised"):
    """A task ended in an error, and is tried `again` or counts as failed."""

    task: TaskId
    worker: Count
    reason: str
    again: bool


class WorkerLost(_Event, frozen=True, kw_only=True, tag="worker lost"):
    """A worker is gone, and with it what it did: that is tried `again` or counts as failed."""

    task: TaskId
    worker: Count
    reason: str
    again: bool


class BestFound(_Event, frozen=True, kw_only=True, tag="best"):
    """The best network so far, of those that meet the constraints."""

    index: Count
    configuration: Configuration
    model_size: Count
    quality: float


class Note(_Event, frozen=True, kw_only=True, tag="note"):
    """A line worth reading."""

    text: str


class RunEnded(_Event, frozen=True, kw_only=True, tag="run ended"):
    """The process is done with the run; without this line it was killed."""

    outcome: RunOutcome
    reason: str | None = None


Event = (
    RunStarted
    | Planned
    | PhaseStarted
    | TaskStarted
    | Progress
    | TaskEnded
    | TaskCancelled
    | TaskRaised
    | WorkerLost
    | BestFound
    | Note
    | RunEnded
)

Listener = Callable[[Event], None]


class EventLog:
    """Appends events to a file and tells them to listeners; any thread may `emit`.

    Each line is written at once, and behind a line that a killed process left unfinished. Raises OSError, with the
    file's name, when the disk is full.
    """

    def __init__(self, file: Path, listeners: Iterable[Listener] = (), heartbeat: float = HEARTBEAT_SECONDS):
        self._file, self._listeners, self._heartbeat = file, tuple(listeners), heartbeat
        self._begin = time.monotonic()
        self._lock = threading.Lock()
        self._closed = threading.Event()
        self._beating = threading.Thread(target=self._beat, name="heartbeat", daemon=True)

    def __enter__(self) -> EventLog:
        self._descriptor = os.open(self._file, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o666)
        end = os.lseek(self._descriptor, 0, os.SEEK_END)
        if end and os.pread(self._descriptor, 1, end - 1) != b"\n":
            self._write(b"\n")
        self._beating.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._closed.set()
        self._beating.join()
        os.close(self._descriptor)

    def emit(self, event: Event) -> None:
        with self._lock:
            stamped = msgspec.structs.replace(event, time=time.time(), elapsed=time.monotonic() - self._begin)
            self._write(msgspec.json.encode(stamped) + b"\n")
            for listener in self._listeners:
                listener(stamped)

    def _write(self, line: bytes) -> None:
        try:
            while line:
                line = line[os.write(self._descriptor, line) :]
        except OSError as error:
            raise OSError(error.errno, error.strerror, str(self._file)) from error

    def _beat(self) -> None:
        while not self._closed.wait(self._heartbeat):
            os.utime(self._descriptor)


def events_of(folder: Path) -> Iterator[Event]:
    """The events so far of the run in `folder`. Raises InputError where there is none, and as `read_events` does."""
    file = folder / EVENTS_FILE
    if not folder.is_dir():
        raise InputError("there is no such folder", folder)
    if not file.is_file():
        raise InputError(f"no {EVENTS_FILE} in this folder: no run has begun in it", folder)
    return read_events(file)


def read_events(file: Path) -> Iterator[Event]:
    """The events of a run so far. Lines that a killed process left unfinished are passed over.

    Raises InputError, with the file's name, for one that can't be read, is not a run's, or of another schema.
    """
    decoder = msgspec.json.Decoder(Event)
    with reading(file, "the events of a run"), file.open("rb") as lines:
        started = False
        for number, line in enumerate(lines, 1):
            try:
                event = decoder.decode(line)
            except msgspec.ValidationError as error:
                raise InputError(f"not an event of a run ({error})", file, number) from error
            except msgspec.DecodeError:
                continue
            if isinstance(event, RunStarted) and event.schema != SCHEMA:
                said = f"not the events of a run that this version of wootz reads: schema {event.schema}, not {SCHEMA}"
                raise InputError(said, file, number)
            started = started or isinstance(event, RunStarted)
            if not started:
                raise InputError("not the events of a run: no 'run started' comes first", file, number)
            yield event
        if not started:
            raise _NoEvents("not the events of a run: there is none in it", file)


class _NoEvents(InputError):
    """Of a file without a whole line: what is appended to it can be read."""


def set_aside_if_damaged(file: Path, aside: Path) -> str:
    """Renames a file of events that can't be read to `aside`, since what is appended to it couldn't be read either.

    Returns a note for the user; empty where nothing had to be done.
    """
    try:
        if file.exists():
            deque(read_events(file), maxlen=0)
    except _NoEvents:
        return ""
    except InputError as error:
        file.replace(aside)
        return f"{error}: set aside as {aside.name}, what was trained is in the store."
    return ""
