"""The folder that a run writes into: locked while it goes on, marked as a run's, continued by the same job alone."""

from __future__ import annotations

import shutil
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import msgspec

from wootz.passes.errors import WootzError, reading
from wootz.passes.ir.files import write_atomically
from wootz.runtime.store.durable import owner_of_temporary
from wootz.runtime.store.heartbeat import Watch, read_mark
from wootz.runtime.store.lease import take_lease

BEST_FILE = "best.onnx"
TEACHER_FILE = "teacher.onnx"
RESULT_FILE = "result.json"
REPORT_FILE = "report.html"
EVENTS_FILE = "events.jsonl"
MARK_FILE = "run.json"
JOB_FILE = "job.pickle"
LOCK_FILE = ".lock"
FILES = (BEST_FILE, TEACHER_FILE, RESULT_FILE, REPORT_FILE, EVENTS_FILE, JOB_FILE)
SNAPSHOT_FOLDER = "snapshots"
LOG_FOLDER = "logs"
FOLDERS = (SNAPSHOT_FOLDER, LOG_FOLDER)
PLOT_SUFFIX = ".svg"
SCHEMA = 1
LONGEST_SHOWN = 60
"""Characters of an input that a message shows; longer ones are named only."""


class _Mark(msgspec.Struct, frozen=True, kw_only=True):
    """What `run.json` says: the run's own number, and what it is a run of, as soon as that is known."""

    schema: int
    id: str
    inputs: dict[str, str] | None = None


@dataclass
class RunDirectory:
    """A folder that is this process's to write into. `id` is the run's, the same whenever it is continued."""

    folder: Path
    id: str
    fresh: bool
    _inputs: Mapping[str, str] | None

    @property
    def is_begun(self) -> bool:
        """Whether it is known what the folder holds a run of."""
        return self._inputs is not None

    def claim(self, inputs: Mapping[str, str]) -> None:
        """Says what the run is made of, by name. With `fresh`, what an earlier run left goes first.

        Raises WootzError where the folder holds a run of something else.
        """
        if self.fresh:
            self._clear()
            self.id = _new_id()
        elif self._inputs is not None and self._inputs != inputs:
            raise WootzError(
                f"{self.folder} holds a run with {_differences(self._inputs, inputs)}: --fresh replaces it, --out "
                f"chooses another folder; what both have in common is in the store"
            )
        self._inputs = dict(inputs)
        _write_mark(self.folder, _Mark(schema=SCHEMA, id=self.id, inputs=dict(inputs)))

    def _clear(self) -> None:
        for name in FOLDERS:
            shutil.rmtree(self.folder / name, ignore_errors=True)
        for name in FILES:
            (self.folder / name).unlink(missing_ok=True)
            for partial in self.folder.glob(f".{name}.*"):
                partial.unlink()
        for plot in self.folder.glob(f"*{PLOT_SUFFIX}"):
            plot.unlink()


@contextmanager
def open_run_directory(folder: Path, fresh: bool = False) -> Iterator[RunDirectory]:
    """Makes `folder` a run's, which no other process writes into meanwhile.

    Raises WootzError for a folder that can't be written, holds other files than a run's, or in which a run goes on.
    """
    _check(folder)
    is_new = not folder.exists()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = take_lease(folder / LOCK_FILE, "a run", watch := Watch())
    except OSError as error:
        raise WootzError(f"{folder}: it can't be written ({error.strerror}): choose another --out") from error
    if lock is None:
        raise WootzError(f"{folder}: a run goes on there{_holder(folder, watch)}: wait for it, or choose another --out")
    try:
        with lock:
            yield from _held(folder, fresh)
    finally:
        if is_new and not any(folder.iterdir()):
            folder.rmdir()


def _held(folder: Path, fresh: bool) -> Iterator[RunDirectory]:
    mark = _read_mark(folder)
    if mark is None and not fresh and any((folder / name).exists() for name in (BEST_FILE, RESULT_FILE)):
        raise WootzError(f"{folder} holds a run of an older version of wootz: --fresh replaces it")
    if mark is None:
        mark = _Mark(schema=SCHEMA, id=_new_id())
        _write_mark(folder, mark)
    directory = RunDirectory(folder, mark.id, fresh, mark.inputs)
    try:
        yield directory
    finally:
        if not directory.is_begun:
            (folder / MARK_FILE).unlink(missing_ok=True)


def run_inputs(folder: Path) -> Mapping[str, str] | None:
    """What the run in `folder` is a run of; None where no run began there."""
    mark = _read_mark(folder)
    return None if mark is None else mark.inputs


def _check(folder: Path) -> None:
    if folder.exists() and not folder.is_dir():
        raise WootzError(f"{folder} is a file: --out names a folder")
    if folder.exists() and any(folder.iterdir()) and not _is_a_runs(folder):
        raise WootzError(f"{folder} holds files that are not a run's: choose another --out")


def _is_a_runs(folder: Path) -> bool:
    """Whether a run wrote into `folder`, or nothing but what a run writes is there: it may have been killed early."""
    if (folder / MARK_FILE).is_file() or (folder / RESULT_FILE).is_file():
        return True
    return all(_is_written_by_runs(file.name) for file in folder.iterdir())


def _is_written_by_runs(name: str) -> bool:
    known = (*FILES, MARK_FILE)
    return name in (*known, *FOLDERS) or any(name.startswith(f".{file}.") for file in known) or _is_lock(name)


def _is_lock(name: str) -> bool:
    """A lock, or what becomes one: its process may have been killed in between."""
    return name.startswith(LOCK_FILE) or owner_of_temporary(name) is not None


def _read_mark(folder: Path) -> _Mark | None:
    file = folder / MARK_FILE
    if not file.is_file():
        return None
    with reading(file, "the mark of a run"):
        mark = msgspec.json.decode(file.read_bytes(), type=_Mark)
    if mark.schema > SCHEMA:
        raise WootzError(f"{file}: the run of a newer version of wootz (schema {mark.schema}): choose another --out")
    return mark


def _write_mark(folder: Path, mark: _Mark) -> None:
    write_atomically(folder / MARK_FILE, msgspec.json.format(msgspec.json.encode(mark), indent=1) + b"\n")


def _new_id() -> str:
    return uuid.uuid4().hex


def _differences(before: Mapping[str, str], now: Mapping[str, str]) -> str:
    """`another subspace, --precision float16 instead of float32`."""
    texts = []
    for name in dict.fromkeys((*before, *now)):
        old, new = before.get(name, "none"), now.get(name, "none")
        if old != new:
            is_short = max(len(old), len(new)) <= LONGEST_SHOWN
            texts.append(f"{name} {old!r} instead of {new!r}" if is_short else f"another {name}")
    return ", ".join(texts)


def _holder(folder: Path, watch: Watch) -> str:
    content = read_mark(folder / LOCK_FILE)
    return "" if content is None or content.process is None else f" (process {content.process.pid})"
