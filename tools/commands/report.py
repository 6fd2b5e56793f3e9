"""`wootz report`: writes the report of a finished run anew, or what TensorBoard shows of any."""

from __future__ import annotations

from pathlib import Path

import click

from wootz.runtime.reporting.scalars import write_scalars
from wootz.tools.run_argument import run_argument


@click.command()
@run_argument
@click.option("--tensorboard", type=click.Path(path_type=Path), metavar="DIR",
              help="Write accuracies and losses for TensorBoard instead, of a run that goes on, too.")  # fmt: skip
def report(run: Path, tensorboard: Path | None) -> None:
    """Write the HTML page and the plots of the run in RUN, from its result.json."""
    if tensorboard is None:
        from wootz.runtime.reporting.report import write_report  # here: matplotlib and jinja2 take a second to import

        click.echo(write_report(run))
    else:
        count = write_scalars(run, tensorboard)
        click.echo(f"{tensorboard}: scalars of {count} trainings; tensorboard --logdir {tensorboard} shows them")
