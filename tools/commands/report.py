"""`wootz report`: writes the report of a finished run anew."""

from __future__ import annotations

from pathlib import Path

import click

from wootz.runtime.report import write_report


@click.command()
@click.argument("folder", metavar="RUN")
def report(folder: str) -> None:
    """Write the HTML page and the plots of the run in RUN, from its result.json."""
    run = Path(folder)
    click.echo(write_report(run.parent if run.is_file() else run))
