"""`wootz import`: a Caffe network becomes an ONNX model."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import click
import onnx

from wootz.frontend.caffe.importer import import_caffe
from wootz.passes.errors import InputError, WootzError
from wootz.passes.ir.files import LARGEST_MESSAGE, check_output, save
from wootz.passes.ir.model import Model, constants


class InputShape(click.ParamType):
    """`NAME=1,3,224,224`."""

    name = "name=dims"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[str, tuple[int, ...]]:
        name, _, dimensions = str(value).partition("=")
        sizes = [d.strip() for d in dimensions.split(",")]
        if not name or not all(size.isdigit() for size in sizes):
            self.fail(f"{value!r} is not of the form data=1,3,224,224", param, ctx)
        return name, tuple(int(size) for size in sizes)


@click.command("import")
@click.argument("prototxt", metavar="MODEL.prototxt", type=click.Path(path_type=Path))
@click.option("--weights", type=click.Path(path_type=Path), help="Weights: .caffemodel or .caffemodel.h5.")
@click.option("-o", "--output", required=True, help="The ONNX file to write: .onnx, .onnxtxt, or - for text.")
@click.option("--seed", default=0, show_default=True, help="Of the fillers that layers without weights start from.")
@click.option("--phase", default="TEST", show_default=True, type=click.Choice(["TEST", "TRAIN"]), help="Which layers.")
@click.option("--level", default=0, show_default=True, help="Of the rules by which layers are chosen.")
@click.option("--stage", "stages", multiple=True, help="Of the rules by which layers are chosen.")
@click.option("--input-shape", "shapes", multiple=True, type=InputShape(), help="Shape of an input fed from data.")
def import_model(
    prototxt: Path,
    weights: Path | None,
    output: str,
    seed: int,
    phase: str,
    level: int,
    stages: Sequence[str],
    shapes: Sequence[tuple[str, tuple[int, ...]]],
) -> None:
    """Reads a Caffe network and writes it as an ONNX model."""
    check_output(output)
    if prototxt.suffix in (".onnx", ".onnxtxt"):
        raise InputError("an ONNX model already: import is for Caffe's .prototxt", prototxt)
    network = import_caffe(
        prototxt, weights, seed=seed, phase=phase, level=level, stages=stages, input_shapes=dict(shapes)
    )
    for note in network.notes:
        click.echo(f"note: {note}", err=True)
    if weights and network.initialised:
        click.echo(f"note: from fillers, as {weights} lacks them: {', '.join(network.initialised)}", err=True)
    _check(network.model, prototxt)
    save(network.model, output)


def _check(model: Model, source: Path) -> None:
    """Raises InputError, before anything is written, for what ONNX's checker or ONNX Runtime would refuse."""
    if sum(values.nbytes for values in constants(model.graph).values()) > LARGEST_MESSAGE:
        click.echo("note: a model of more than 2 GB: it is verified, but not tried in ONNX Runtime", err=True)
        return
    try:
        from wootz.runtime.session import check_loadable
    except WootzError as missing:
        click.echo(f"note: not tried in ONNX Runtime: {missing}", err=True)
        return
    try:
        onnx.checker.check_model(model.to_proto(), full_check=True)
        check_loadable(model)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError, WootzError) as error:
        raise InputError(
            f"what it describes is no valid ONNX model, and nothing was written: {error}", source
        ) from error
