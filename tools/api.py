"""The library's `wootz.run`: what the commands do, on data and by a metric that Python code gives."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np

from wootz.passes.errors import WootzError
from wootz.runtime.quality.own import own_quality
from wootz.runtime.quality.quality import Quality
from wootz.runtime.result import RunResult
from wootz.tools.carry_out import carry_out
from wootz.tools.commands.run import run as run_command
from wootz.tools.commands.search import OF_RUN
from wootz.tools.commands.search import search as search_command
from wootz.tools.job import Given

TEXT = (str, Path)


@dataclass(frozen=True)
class Run:
    """What a run came to, and the `folder` with its files: `best.onnx`, `teacher.onnx`, `report.html`, …"""

    folder: Path
    result: RunResult

    @property
    def best(self) -> Path:
        """The file of the network that was found."""
        return self.folder / "best.onnx"


def run(
    model: str | Path,
    *,
    data: Any = None,
    metric: str | Callable[..., Any] | None = None,
    objective: str | Path | None = None,
    out: str | Path | None = None,
    search: bool = False,
    show: bool = True,
    **options: Any,
) -> Run:
    """Finds the best pruned version of a network, as the command `wootz run` does, or with `search` `wootz search`.

    `model` is a file that the command takes. `data` is where the images are, as for `--data`, or the images
    themselves: an array [n, channels, height, width] or [n, height, width, channels], a tuple `(images, targets)`, an
    iterable of arrays or of such tuples, a dictionary of these for `train`, `val` and `test`, or a function that
    returns any of it. For a network of other inputs dictionaries of arrays by their names stand for images, as in
    `({"image": …, "mask": …}, targets)`. Without targets networks learn from the full one. `metric` is a function
    `(outputs, targets)` -> number, a class with `add` and `value`, or `FILE.py:NAME`; the `objective` may name it.
    `out` is the folder for the results. With `show` the progress is printed. Further `options` are those of the
    command, with underscores: `effort="quick"`, `threads=1`, `early_end=False`, `output_weights={"boxes": 2}`.

        found = wootz.run("net.onnx", data=images, objective="min ModelSize constraint Agreement >= 0.97")
        found.best, found.result.best.quality

    Called again with the same arguments it goes on where it was interrupted, or gives what was found. Raises
    WootzError, with one line, where something is wrong, or no network meets the objective.
    """
    _text("model", model)
    _check_flag("search", search)
    _check_flag("show", show)
    if options.get("dry_run"):
        raise WootzError(
            "dry_run is of the command alone: it prints what would be trained, and there is no run to give"
        )
    given = Given(
        data=None if isinstance(data, TEXT) else data,
        data_title="" if data is None or isinstance(data, TEXT) else "arrays",
        metric=_own_metric(metric),
    )
    texts = {
        "data": data if isinstance(data, TEXT) else None,
        "metric": None if given.metric else metric,
        "objective": objective,
        "out": out,
        **options,
    }
    name, command = ("search", search_command) if search else ("run", run_command)
    try:
        with command.make_context(name, [str(model), *_arguments(texts, command)]) as context:
            both = {**(OF_RUN if search else {}), **context.params}
            found = carry_out(context.info_name, given=given, quiet=not show, **both)  # type: ignore[arg-type]
    except click.ClickException as error:
        raise WootzError(error.format_message()) from error
    except click.Abort as error:
        raise KeyboardInterrupt from error
    if found is None:
        raise WootzError("this process of mpiexec has served the first one, which has the run")
    return Run(*found)


def _own_metric(metric: Any) -> Quality | None:
    """That of a function or class; None for a text, and where there is none."""
    if metric is None or isinstance(metric, TEXT):
        return None
    if not callable(metric) and not hasattr(metric, "add"):
        raise WootzError(f"metric: {_shown(metric)} is no function, no class with add and value, nor FILE.py:NAME")
    return own_quality(metric)


def _check_flag(name: str, value: Any) -> None:
    if not isinstance(value, bool | np.bool_):
        raise WootzError(f"{name} is True or False, not {_shown(value)}")


def _shown(value: Any) -> str:
    return repr(value) if isinstance(value, str | int | float) else type(value).__name__


def _arguments(options: dict[str, Any], command: click.Command) -> Iterator[str]:
    """The options as the command takes them. Raises WootzError for those that it has not, or in no such form."""
    known = {flag: option for option in command.params for flag in (*option.opts, *option.secondary_opts)}
    for name, value in options.items():
        flag = f"--{name.replace('_', '-')}"
        if value is None:
            continue
        if (option := known.get(flag)) is None:
            raise click.NoSuchOption(flag, possibilities=difflib.get_close_matches(flag, known, 1))
        assert isinstance(option, click.Option), "all but MODEL are options"
        if name == "subspace" and not isinstance(value, TEXT):
            raise WootzError(f"subspace: {_shown(value)} is no name of a file, as --subspace takes it")
        if option.is_flag:
            _check_flag(name, value)
            yield from (option.opts if value == (flag in option.opts) else option.secondary_opts)[:1]
        elif option.multiple and isinstance(value, list | tuple):
            for one in value:
                yield from (flag, _text(name, one))
        else:
            yield from (flag, _text(name, value))


def _text(name: str, value: Any) -> str:
    """An option's value as it is written; of several ones with commas between."""
    if isinstance(value, Mapping):
        return ",".join(f"{key}={_text(name, one)}" for key, one in value.items())
    if isinstance(value, list | tuple):
        return ",".join(_text(name, one) for one in value)
    if isinstance(value, bool) or not isinstance(value, (*TEXT, int, float, np.number)) or value == "":
        raise WootzError(f"{name}: {_shown(value)} is no text, path or number")
    return str(value)
