"""The argument RUN of commands that look at a run."""

from __future__ import annotations

from pathlib import Path

import click


def _folder(context: click.Context, parameter: click.Parameter, path: Path) -> Path:
    return path.parent if path.is_file() else path


run_argument = click.argument("run", metavar="RUN", type=click.Path(path_type=Path), callback=_folder)
"""The folder of a run, also by a file in it."""
