"""`wootz search`: the best network of a whole space."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from wootz.tools.carry_out import CommandThatKeepsArguments, carry_out
from wootz.tools.exploration_options import options_of

OF_RUN = {"subspace": None, "baseline": False, "static": False, "identifier": "maximal", "groups": "joint"}
"""What a search has in place of the options that `wootz run` alone has."""


@click.command(cls=CommandThatKeepsArguments)
@options_of("search")
def search(
    model: str | None,
    out: str | None,
    fresh: bool,
    dry_run: bool,
    workers: int,
    executor: str | None,
    store_folder: Path | None,
    store_limit: int | None,
    **options: Any,
) -> None:
    """Search all pruned versions of MODEL for the best one for the images in --data.

    Each module is pre-trained at each of its rates once, against the full network, and scored in its place; networks
    are assembled from these pieces, and an integer program says which are worth a fine-tuning. Beside best.onnx the
    folder front/ gets networks that trade accuracy for size, FLOPs or latency, whichever the objective is about.

    MODEL, objective and solvers are as in `wootz run`. What was interrupted goes on when the same command is given
    again; with another objective, all that is known is found in the store.
    """
    carry_out("search", model, out, fresh, dry_run, workers, executor, store_folder, store_limit, {**OF_RUN, **options})
