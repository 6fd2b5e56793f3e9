"""`wootz search`: the best network of a whole space."""

from __future__ import annotations

from typing import Any

import click

from wootz.tools.carry_out import CommandThatKeepsArguments, carry_out
from wootz.tools.exploration_options import options_of

OF_RUN: dict[str, Any] = {
    "baseline": False,
    "static": False,
    "identifier": "maximal",
    "groups": "joint",
}
"""What a search has in place of the options that `wootz run` alone has."""


@click.command(cls=CommandThatKeepsArguments)
@options_of("search")
def search(**options: Any) -> None:
    """Search all pruned versions of MODEL for the best one for the images in --data.

    Each module is pre-trained at each of its rates once, against the full network, and scored in its place; networks
    are assembled from these pieces, and an integer program says which are worth a fine-tuning. Beside best.onnx the
    folder front/ gets networks that trade accuracy for size, FLOPs or latency, whichever the objective is about.

    With --subspace it chooses among given configurations, of which it fine-tunes few where `wootz run` takes them one
    after the other.

    MODEL, objective and solvers are as in `wootz run`. What was interrupted goes on when the same command is given
    again; with another objective, all that is known is found in the store.
    """
    carry_out("search", **OF_RUN, **options)
