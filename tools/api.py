"""The library's `wootz.run`: what the commands do, on data and by a metric that Python code gives."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from wootz.passes.errors import WootzError
from wootz.runtime.quality.own import own_quality
from wootz.runtime.result import RunResult
from wootz.tools.carry_out import carry_out
from wootz.tools.commands.run import run as run_command
from wootz.tools.commands.search import OF_RUN
from wootz.tools.commands.search import search as search_command
from wootz.tools.job import Given


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
    stated = {"data": data, "metric": metric, "objective": objective, "out": out, **options}
    texts = {name: value for name, value in stated.items() if isinstance(value, str | Path) or name in options}
    given = Given(
        data=None if isinstance(data, str | Path) else data,
        data_title="" if data is None or isinstance(data, str | Path) else "arrays",
        metric=own_quality(metric) if callable(metric) else None,
    )
    name, command = ("search", search_command) if search else ("run", run_command)
    try:
        with command.make_context(name, [str(model), *_arguments(texts)]) as context:
            both = {**(OF_RUN if search else {}), **context.params}
            found = carry_out(context.info_name, given=given, quiet=not show, **both)  # type: ignore[arg-type]
    except click.ClickException as error:
        raise WootzError(error.format_message()) from error
    except click.Abort as error:
        raise KeyboardInterrupt from error
    if found is None:
        raise WootzError("dry_run is of the command alone")
    return Run(*found)


def _arguments(options: dict[str, Any]) -> Iterator[str]:
    """The options as the command takes them."""
    for name, value in options.items():
        flag = name.replace("_", "-")
        if isinstance(value, bool):
            yield f"--{flag}" if value else f"--no-{flag}"
        elif isinstance(value, Mapping):
            yield from (f"--{flag}", ",".join(f"{key}={one}" for key, one in value.items()))
        elif isinstance(value, list | tuple):
            for one in value:
                yield from (f"--{flag}", str(one))
        elif value is not None:
            yield from (f"--{flag}", str(value))
