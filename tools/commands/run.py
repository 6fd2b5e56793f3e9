"""`wootz run`: the main job."""

from __future__ import annotations

from typing import Any

import click

from wootz.tools.carry_out import CommandThatKeepsArguments, carry_out
from wootz.tools.exploration_options import options_of


@click.command(cls=CommandThatKeepsArguments)
@options_of("run")
def run(**options: Any) -> None:
    """Find the best pruned version of MODEL for the images in --data.

    MODEL is a .prototxt, .onnx or .onnxtxt file, or a folder with net.prototxt. Objective, subspace and solvers are
    chosen where neither options nor files beside net.prototxt say them (objective.txt, subspace.json, solver.prototxt,
    pretrain.prototxt, teacher.prototxt), and written into the run's folder. The folder of a run as MODEL repeats it,
    with what was changed in these files. Without MODEL, the digits example is run.

    The full network is trained first if its weights are not given; layers that the weights file lacks start anew. What
    was interrupted goes on when the same command is given again.
    """
    carry_out("run", **options)
