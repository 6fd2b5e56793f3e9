"""The folder that a run writes into: locked while it goes on, marked as a run's, continued by the same job alone."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import msgspec

from wootz.passes.errors import InputError, WootzError, reading
from wootz.runtime.store.durable import owner_of_temporary, write_durably
from wootz.runtime.store.heartbeat import Watch, read_mark
from wootz.runtime.store.lease import Lease, take_lease

BEST_FILE = "best.onnx"
DESCRIPTION_FILE = "best.json"
TEACHER_FILE = "teacher.onnx"
RESULT_FILE = "result.json"
REPORT_FILE = "report.html"
FRONT_FILE = "front.csv"
FRONT_FOLDER = "front"
EVENTS_FILE = "events.jsonl"
ASSIGNMENT_FILE = "assignment.json"
DAMAGED_EVENTS_FILE = "events.damaged.jsonl"
MARK_FILE = "run.json"
JOB_FILE = "job.pickle"
LOCK_FILE = ".lock"


def whole_file(name: str) -> str:
    """The file that has a delivered network with the postprocessing of the given one."""
    return f"{name.removesuffix('.onnx')}-whole.onnx"


NETWORK_FILES = (BEST_FILE, whole_file(BEST_FILE), TEACHER_FILE)
FILES = (
    *NETWORK_FILES,
    DESCRIPTION_FILE,
    RESULT_FILE,
    REPORT_FILE,
    FRONT_FILE,
    EVENTS_FILE,
    DAMAGED_EVENTS_FILE,
    JOB_FILE,
    ASSIGNMENT_FILE,
)
SUBSPACE_FILE = "subspace.json"
OBJECTIVE_FILE = "objective.txt"
SOLVER_FILE = "solver.prototxt"
PRETRAIN_SOLVER_FILE = "pretrain.prototxt"
TEACHER_SOLVER_FILE = "teacher.prototxt"
PIXELS_FILE = "pixels.json"
CHOSEN_FILES = (SUBSPACE_FILE, OBJECTIVE_FILE, SOLVER_FILE, PRETRAIN_SOLVER_FILE, TEACHER_SOLVER_FILE, PIXELS_FILE)
"""What a run chooses where nobody says it. Such a file alone makes no run of a folder: users write them, too."""
SNAPSHOT_FOLDER = "snapshots"
LOG_FOLDER = "logs"
PlotName = Literal["front", "sizes", "curves", "blocks", "tasks"]
IN_FOLDERS = {
    SNAPSHOT_FOLDER: re.compile(r"\.?snapshot_.+_iter_\d+\.npz(\.\d+)?"),
    LOG_FOLDER: re.compile(r"worker-\d+\.log|control-.+"),
    FRONT_FOLDER: re.compile(r"\.?\d+(-whole)?\.onnx(\.\d+)?"),
}
"""What runs write there: anything else was put there by someone, who may want it back."""
FURTHER = re.compile(r"best\..+\.onnx")
"""The names of networks that a run writes beside the usual ones."""
PARTIAL = re.compile(r"\.(.+)\.\d+")
"""Beside a file that `passes.ir.files` writes."""
SCHEMA = 1
LONGEST_SHOWN = 60
"""Characters of an input that a message shows; longer ones are named only."""
CALLED = {"--opset": "opset"}
"""What messages call otherwise: where nobody gives the option, the opset is the network's."""
LOOK_SECONDS = 1.0
"""Between two looks at the lock of a process of which this machine can't tell whether it is alive."""


def plot_file(name: PlotName) -> str:
    return f"{name}.svg"


PLOTS = tuple(map(plot_file, get_args(PlotName)))


CommandName = Literal["run", "search"]


class Command(msgspec.Struct, frozen=True, kw_only=True):
    """What `wootz run` or `wootz search` was given, as far as it says what is computed: the options by their names,
    paths absolute."""

    name: CommandName = "run"
    model: str | None = None
    options: dict[str, Any] = {}


class Mark(msgspec.Struct, frozen=True, kw_only=True):
    """What `run.json` says: the run's own number, what it is a run of, as soon as that is known, and at its end the
    SHA-256 of the networks that it delivered, by the names of their files. `further` are the files of networks that it
    writes beside the usual ones, `chosen` has the SHA-256 of what was chosen, by the names of these files."""

    schema: int
    id: str
    inputs: dict[str, str] | None = None
    command: Command | None = None
    delivered: dict[str, str] = {}
    further: tuple[str, ...] = ()
    chosen: dict[str, str] = {}


class _Head(msgspec.Struct):
    schema: int


@dataclass
class RunDirectory:
    """A folder that is this process's to write into."""

    folder: Path
    fresh: bool
    _mark: Mark

    @property
    def id(self) -> str:
        """The run's, the same whenever it is continued."""
        return self._mark.id

    @property
    def is_begun(self) -> bool:
        """Whether it is known what the folder holds a run of."""
        return self._mark.inputs is not None

    def claim(
        self,
        inputs: Mapping[str, str],
        command: Command | None = None,
        chosen: Mapping[str, bytes] | None = None,
        further: Sequence[str] = (),
    ) -> None:
        """Says what the run is made of, by name, and what it was started with; `chosen` are those of CHOSEN_FILES that
        are written, `further` the files of networks beside the usual ones: those of before that are not among them go.
        With `fresh`, all that an earlier run left goes first.

        Raises WootzError where the folder holds a run of something else.
        """
        before = self._mark.inputs
        if self.fresh:
            self._clear()
            self._mark = _new_mark()
        else:
            check_continued(self.folder, before, inputs)
        for name in set(self._mark.further) - set(further):
            (self.folder / name).unlink(missing_ok=True)
        self._mark = msgspec.structs.replace(self._mark, inputs=dict(inputs), command=command, further=tuple(further))
        for name, content in (chosen or {}).items():
            write_durably(self.folder / name, [content])
        self._mark = msgspec.structs.replace(self._mark, chosen=digests_of_files(self.folder, CHOSEN_FILES))
        _write_mark(self.folder, self._mark)

    def end(self) -> None:
        """Says that the networks in the folder are those that the run delivered."""
        delivered = digests_of_files(self.folder, (*NETWORK_FILES, *front_files(self.folder), *self._mark.further))
        self._mark = msgspec.structs.replace(self._mark, delivered=delivered)
        _write_mark(self.folder, self._mark)

    def _clear(self) -> None:
        for name, written in IN_FOLDERS.items():
            _clear_folder(self.folder / name, written)
        for name in (*FILES, *CHOSEN_FILES, *PLOTS, *self._mark.further):
            (self.folder / name).unlink(missing_ok=True)


def check_continued(folder: Path, before: Mapping[str, str] | None, inputs: Mapping[str, str]) -> None:
    """Raises WootzError where the folder holds a run of something else: what it is made of, by name, and what it was
    `before`, if anything."""
    if before is not None and before != inputs:
        raise WootzError(
            f"{folder} holds a run with {_differences(before, inputs)}: --fresh replaces it, --out chooses another "
            f"folder; what both have in common is in the store"
        )


def _clear_folder(folder: Path, written: re.Pattern[str]) -> None:
    """Removes the files whose names `written` matches, and the folder if nothing else is in it."""
    for file in folder.iterdir() if folder.is_dir() else ():
        if not written.fullmatch(file.name):
            continue
        if file.is_dir():
            shutil.rmtree(file, ignore_errors=True)
        else:
            file.unlink(missing_ok=True)
    with suppress(OSError):
        folder.rmdir()


def check_inputs(folder: Path, inputs: Iterable[Path], further: Sequence[str] = ()) -> None:
    """Raises WootzError for a file among `inputs` that a run in `folder` would overwrite, or replace with --fresh."""
    written = {(folder / name).resolve() for name in (*FILES, MARK_FILE, *CHOSEN_FILES, *PLOTS, *further)}
    for file in inputs:
        if file.resolve() in written:
            raise WootzError(
                f"{file} is an input, and a run in {folder} writes a file of that name: copy it to somewhere else, or "
                f"choose another --out"
            )


def check_name(name: str) -> None:
    """Raises WootzError for the name of a file, folder or class that is not UTF-8."""
    try:
        name.encode()
    except UnicodeEncodeError as error:
        raise WootzError(f"{name}: not UTF-8, as all is that a run writes: rename it, or link to it") from error


def front_files(folder: Path) -> tuple[str, ...]:
    """The names of the networks that a search has written beside the best one."""
    written = IN_FOLDERS[FRONT_FOLDER]
    found = (folder / FRONT_FOLDER).iterdir() if (folder / FRONT_FOLDER).is_dir() else ()
    return tuple(sorted(f"{FRONT_FOLDER}/{file.name}" for file in found if written.fullmatch(file.name)))


def clear_front(folder: Path) -> None:
    """Makes an empty folder for the networks of a front."""
    _clear_folder(folder / FRONT_FOLDER, IN_FOLDERS[FRONT_FOLDER])
    (folder / FRONT_FOLDER).mkdir(exist_ok=True)


def digests_of_files(folder: Path, names: Iterable[str]) -> dict[str, str]:
    """The SHA-256 of those that are in `folder`."""
    found = {}
    for name in names:
        if (folder / name).is_file():
            with (folder / name).open("rb") as content:
                found[name] = hashlib.file_digest(content, "sha256").hexdigest()
    return found


@contextmanager
def open_run_directory(
    folder: Path, fresh: bool = False, note: Callable[[str], None] = lambda text: None
) -> Iterator[RunDirectory]:
    """Makes `folder` a run's, which no other process writes into meanwhile.

    Raises WootzError for a folder that can't be written, holds other files than a run's, or in which a run goes on.
    Where that can't be told at once, `note` hears that it waits.
    """
    check_folder(folder)
    is_new = not folder.exists()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = _take_lock(folder, Watch(), note)
    except OSError as error:
        raise WootzError(f"{folder}: it can't be written ({error.strerror}): choose another --out") from error
    try:
        with lock:
            yield from _held(folder, fresh)
    finally:
        if is_new and not any(folder.iterdir()):
            folder.rmdir()


def _take_lock(folder: Path, watch: Watch, note: Callable[[str], None]) -> Lease:
    """Waits for a sign of life of a holder on another machine, or on this one before it was started anew."""
    file = folder / LOCK_FILE
    seen = None
    while (lock := take_lease(file, "a run", watch)) is None:
        holder = read_mark(file)
        if holder is None:
            continue
        is_alive_here = holder.process is not None and holder.process.is_seen and not holder.process.has_ended()
        if is_alive_here or (seen is not None and holder.beat != seen.beat):
            raise WootzError(f"{folder}: a run goes on there ({holder.owner}): wait for it, or choose another --out")
        if seen is None:
            note(f"{folder}: waiting for a sign of life of {holder.owner}; without one in a minute this goes on.")
        seen = holder
        time.sleep(LOOK_SECONDS)
    return lock


def _held(folder: Path, fresh: bool) -> Iterator[RunDirectory]:
    _remove_partial_files(folder)
    is_damaged = False
    try:
        mark = read_run_mark(folder)
    except InputError as error:
        if not fresh:
            raise WootzError(f"{error}: --fresh begins anew, with what the store has of the run") from error
        mark, is_damaged = None, True
    if mark is None:
        mark = _new_mark()
        if not is_damaged:
            _write_mark(folder, mark)
    directory = RunDirectory(folder, fresh, mark)
    try:
        yield directory
    finally:
        if not directory.is_begun and not is_damaged:
            (folder / MARK_FILE).unlink(missing_ok=True)


def check_folder(folder: Path) -> None:
    """Raises WootzError for a folder that no run can be in: a file, one with other files, or none that can be made."""
    if folder.exists() and not folder.is_dir():
        raise WootzError(f"{folder} is a file: --out names a folder")
    if folder.exists() and any(folder.iterdir()) and not _is_a_runs(folder):
        raise WootzError(f"{folder} holds files, and no {MARK_FILE} that says they are a run's: choose another --out")
    there = next(path for path in (folder, *folder.parents) if path.exists())
    if not there.is_dir() or not os.access(there, os.W_OK | os.X_OK):
        reason = "may not be written into" if there.is_dir() else "is a file"
        raise WootzError(f"{folder}: it can't be written ({there} {reason}): choose another --out")


def _is_a_runs(folder: Path) -> bool:
    """Whether a run marked `folder` as its own, or was killed before that: then a lock and temporaries are all."""
    if (folder / MARK_FILE).is_file():
        return True
    return all(_is_lock(file.name) or owner_of_temporary(file.name) is not None for file in folder.iterdir())


def _is_replacement(name: str) -> bool:
    partial = PARTIAL.fullmatch(name)
    return partial is not None and (partial[1] in (*FILES, MARK_FILE, *PLOTS) or bool(FURTHER.fullmatch(partial[1])))


def _remove_partial_files(folder: Path) -> None:
    """Of processes that were killed: only one that holds the lock writes these, but for the lock itself."""
    for file in folder.iterdir():
        owner = owner_of_temporary(file.name)
        if _is_replacement(file.name) or (owner is not None and owner.has_ended()):
            file.unlink(missing_ok=True)


def _is_lock(name: str) -> bool:
    return name.startswith(LOCK_FILE)


def read_run_mark(folder: Path) -> Mark | None:
    """What `run.json` in `folder` says; None where there is none. Raises WootzError for a damaged or a newer one."""
    file = folder / MARK_FILE
    if not file.is_file():
        return None
    with reading(file, "the mark of a run"):
        content = file.read_bytes()
        schema = msgspec.json.decode(content, type=_Head).schema
        if schema > SCHEMA:
            raise WootzError(f"{file}: the run of a newer version of wootz (schema {schema}): choose another --out")
        return msgspec.json.decode(content, type=Mark)


def _write_mark(folder: Path, mark: Mark) -> None:
    write_durably(folder / MARK_FILE, [msgspec.json.format(msgspec.json.encode(mark), indent=1), b"\n"])


def _new_mark() -> Mark:
    return Mark(schema=SCHEMA, id=uuid.uuid4().hex)


def _differences(before: Mapping[str, str], now: Mapping[str, str]) -> str:
    """`--seed '0' instead of '3', other data, another subspace`: options first, which cause other differences."""
    texts = []
    for name in sorted(dict.fromkeys((*before, *now)), key=lambda name: not name.startswith("--")):
        old, new = before.get(name, "none"), now.get(name, "none")
        follows = name == "subspace" and "space" in before and "space" in now  # a search's networks for comparison
        if old != new and not follows:
            is_short = max(len(old), len(new)) <= LONGEST_SHOWN
            texts.append(
                f"{CALLED.get(name, name)} {old!r} instead of {new!r}"
                if is_short
                else f"{'other' if name == 'data' else 'another'} {name}"
            )
    return ", ".join(texts)
