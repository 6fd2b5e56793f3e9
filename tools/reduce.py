"""`wootz-reduce`: makes the model of a failing command small."""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import click

from wootz.tools.cli import run_command

if TYPE_CHECKING:
    from wootz.passes.ir.model import Model


@click.command(
    context_settings={"help_option_names": ["-h", "--help"], "ignore_unknown_options": True},
    epilog="Example: wootz-reduce big.onnx -o small.onnxtxt -- wootz-opt {} --pass=my-pass",
)
@click.version_option(package_name="wootz")
@click.argument("model")
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED)
@click.option("-o", "--output", required=True, help="Where the reduced model goes: .onnx or .onnxtxt.")
@click.option(
    "--match", metavar="REGEX", help="What the command's output has to contain, for it to be the same failure."
)
@click.option("--timeout", default=60.0, show_default=True, help="Seconds after which a run counts as passed.")
def reduce(model: str, command: tuple[str, ...], output: str, match: str | None, timeout: float) -> None:
    """Reduces MODEL while COMMAND fails on it; {} in COMMAND stands for the model's file.

    A command fails that ends with the exit code that it ends with for MODEL, which must not be 0.
    """
    from wootz.passes.errors import WootzError
    from wootz.passes.ir.files import load, save
    from wootz.passes.reduction import reduce_model, size

    if not any("{}" in part for part in command):
        raise click.UsageError("COMMAND needs {} where the model's file belongs.")
    original = load(model)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, f"candidate{Path(output).suffix}")

        def run(candidate: Model) -> tuple[int, str]:
            save(candidate, file)
            parts = [part.replace("{}", str(file)) for part in command]
            try:
                done = subprocess.run(parts, capture_output=True, text=True, errors="replace", timeout=timeout)
            except subprocess.TimeoutExpired:
                return 0, ""
            return done.returncode, done.stdout + done.stderr

        code, printed = run(original)
        if code == 0:
            raise WootzError(f"{model}: the command does not fail on it")
        if match and not re.search(match, printed):
            raise WootzError(f"{model}: the command fails, but its output has no match of {match!r}")

        def still_fails(candidate: Model) -> bool:
            found, text = run(candidate)
            fails = found == code and (match is None or re.search(match, text) is not None)
            if fails:
                save(candidate, output)
                nodes, elements = size(candidate)
                click.echo(f"{nodes} nodes, {elements:,} elements", err=True)
            return fails

        save(reduce_model(original, still_fails), output)


def main() -> None:
    """Entry point of the console script `wootz-reduce`."""
    run_command(reduce, sys.argv[1:])
