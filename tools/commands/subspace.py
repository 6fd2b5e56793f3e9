"""`wootz subspace`: makes subspaces."""

from __future__ import annotations

from pathlib import Path
from typing import cast

import click

from wootz.frontend.subspace import write_subspace
from wootz.passes.errors import WootzError
from wootz.passes.plan.sampling import Sampling, sample_subspace
from wootz.passes.plan.subspace import SKIP, SKIP_TEXT
from wootz.passes.pruning.block_pruner import BlockPruner
from wootz.passes.pruning.rounding import Rounding
from wootz.tools.models import open_trainable, scores_option, size_option


class Rates(click.ParamType):
    """`0.3,0.5,skip`: `skip`, or 1, leaves a module out."""

    name = "rates"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> tuple[float, ...]:
        try:
            return tuple(SKIP if part.strip() == SKIP_TEXT else float(part) for part in str(value).split(","))
        except ValueError:
            self.fail(f"{value!r} is not numbers with commas between them, as in 0.3,0.5,skip", param, ctx)


@click.group()
def subspace() -> None:
    """Make promising subspaces."""


@subspace.command()
@click.argument("model")
@scores_option
@size_option
@click.option("--rates", type=Rates(), default="0.3,0.5,0.7", show_default=True,
              help="Rates to choose from; skip leaves out a module that can be left out.")  # fmt: skip
@click.option("--count", type=click.IntRange(min=1), required=True, help="How many configurations.")
@click.option("--seed", default=0, show_default=True, help="Equal seeds give equal subspaces.")
@click.option("--sampling", type=click.Choice(["spread", "independent", "runs"]), default="spread", show_default=True,
              help="spread: network sizes nearly uniform; independent: each rate for itself; "
                   "runs: one rate for several modules in a row.")  # fmt: skip
@click.option("--round-to", type=click.IntRange(min=1), default=1, metavar="N",
              help="What the run gets as --round-to: no two configurations are then the same network.")  # fmt: skip
@click.option("-o", "--output", type=click.Path(path_type=Path), required=True, help="The .json or .csv to write.")
def sample(
    model: str,
    scores: str | None,
    size: tuple[int, int] | None,
    rates: tuple[float, ...],
    count: int,
    seed: int,
    sampling: str,
    round_to: int,
    output: Path,
) -> None:
    """Write a random subspace of MODEL: one rate for each module, 0 where nothing can be pruned."""
    pruner = BlockPruner.of(open_trainable(model, scores=scores, size=size).model, rounding=Rounding(round_to))
    if not pruner.can_prune and not (SKIP in rates and pruner.skippable):
        raise WootzError(f"{model} has no module in which filters can be removed: name some by hand (docs/modules.md)")
    least = pruner.least_rates_or_skip(rates)
    sampled = sample_subspace(tuple(least), rates, count, seed, cast(Sampling, sampling), least)
    write_subspace(output, sampled)
    click.echo(f"{output}: {len(sampled.configurations)} configurations of {len(least)} modules")
