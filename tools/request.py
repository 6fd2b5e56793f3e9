"""What `wootz run` is asked for: its own command, or that of a run which is repeated, with what is given beside it."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from wootz.passes.errors import WootzError
from wootz.runtime.data.loading import DIGITS
from wootz.runtime.run_directory import MARK_FILE, Command, CommandName, check_name, read_run_mark
from wootz.runtime.user_code import file_of
from wootz.tools.companions import RunFiles

PATHS = (
    "weights",
    "data",
    "classes",
    "subspace",
    "objective",
    "solver",
    "teacher_solver",
    "pretrain_solver",
    "latency_table",
    "metric",
)
"""Options that name files or folders, if there are such ones, or an object in a Python file."""
NOT_RECORDED = ("cache", "threads", "data_on_device", "cuda_graphs", "print_ir_after", "verify_each")
"""Options that say how a run is carried out, and not what it computes."""
FINISHING = ("finish",)
"""Options that say what is made of the network that a run has found: that is chosen with and without them alike."""
CHOOSING = ("effort", "budget")
"""Options of which solvers and subspace are chosen."""
CHOSEN_BY_EFFORT = ("subspace", "solver", "teacher_solver", "pretrain_solver")


ALWAYS_FILES = ("weights", "classes", "subspace", "solver", "teacher_solver", "pretrain_solver", "latency_table")


@dataclass(frozen=True)
class Request:
    """A run to be made of `model` with `options`, by name; `command` is of these what is recorded.

    `repeats` is the run's folder that was given instead of a model, of which the files `run_files` count; `is_same`
    says that its command is given anew.
    """

    model: str | None
    options: Mapping[str, Any]
    command: Command
    repeats: Path | None = None
    run_files: RunFiles | None = None
    is_same: bool = False

    @property
    def inputs(self) -> tuple[Path, ...]:
        """The files and folders that are given, by the command that is repeated, too."""
        given = (self.model, *(self.options.get(name) for name in PATHS))
        return tuple(Path(path) for path in given if path is not None)

    @property
    def missing(self) -> Path | None:
        """An input that was there when the run began that is repeated, and no longer is."""
        return next((path for path in self.inputs if path.is_absolute() and not Path(file_of(path)).exists()), None)

    def files_of(self, folder: Path, fresh: bool) -> RunFiles | None:
        """The companions that a run in `folder` has chosen, if it is to be continued with the same command."""
        if self.run_files is not None or fresh:
            return self.run_files
        mark = read_run_mark(folder)
        is_known = mark is not None and _without_finish(mark.command) == _without_finish(self.command)
        return RunFiles(folder) if is_known else None


def requested(name: CommandName, model: str | None, options: Mapping[str, Any], given: Collection[str]) -> Request:
    """What the command `name` is asked for by the argument `model` and the `options`, of which those in `given` were
    written down.

    Raises WootzError for the folder of a run that has no command, for names that are not UTF-8, and for files that are
    not there.
    """
    for text in (model, *options.values()):
        if isinstance(text, str):
            check_name(_absolute(text) or text)
    _check_that_all_are_there(options)
    own = _recorded({name: options[name] for name in options if name in given and name not in NOT_RECORDED})
    folder = None if model is None else Path(model)
    if folder is None or not (folder / MARK_FILE).is_file():
        return Request(model, options, Command(name=name, model=_absolute(model), options=own))
    mark = read_run_mark(folder)
    if mark is None or mark.command is None:
        raise WootzError(f"{folder}: the run does not say which command began it: give MODEL, and --data")
    before = mark.command
    if before.name != name:
        raise WootzError(f"{folder} is the folder of `wootz {before.name}`: wootz {before.name} {folder} repeats it")
    command = Command(name=name, model=before.model, options={**before.options, **own})
    is_chosen_anew = any(command.options.get(name) != before.options.get(name) for name in CHOOSING)
    merged = {**options, **{name: _as_option(value) for name, value in command.options.items() if name in options}}
    files = RunFiles(folder, CHOSEN_BY_EFFORT if is_chosen_anew else ())
    return Request(before.model, merged, command, folder, files, is_same=command == before)


def _check_that_all_are_there(options: Mapping[str, Any]) -> None:
    """Raises WootzError for several files that aren't; of a single one its reader says more."""
    given = {f"--{name.replace('_', '-')}": options[name] for name in ALWAYS_FILES if options.get(name)}
    missing = [f"{option} {file}" for option, file in given.items() if not os.path.exists(file)]
    if len(missing) > 1:
        raise WootzError(f"no such files: {', '.join(missing)}")


def _without_finish(command: Command | None) -> Command | None:
    if command is None:
        return None
    return Command(
        name=command.name, model=command.model, options={n: v for n, v in command.options.items() if n not in FINISHING}
    )


def _recorded(options: Mapping[str, Any]) -> dict[str, Any]:
    """The options as they are read back from JSON, paths absolute."""
    paths = {name for name in PATHS if (name, options.get(name)) != ("data", DIGITS)}
    made = {name: _absolute(value) if name in paths else value for name, value in options.items()}
    plain: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(made))
    return plain


def _as_option(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def _absolute(path: str | None) -> str | None:
    return str(Path(path).absolute()) if path is not None and os.path.exists(file_of(path)) else path
