"""`wootz blocks`: which tuning blocks a run would pre-train, and what that costs; nothing is trained."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any, cast, get_args

import click
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from wootz.frontend.caffe.solver import read_solver
from wootz.passes.analysis.module_boundaries import check_modules, gap_notes
from wootz.passes.analysis.modules import find_modules
from wootz.passes.blocks.groups import Group, format_bytes, group_blocks
from wootz.passes.blocks.identifier import Method
from wootz.passes.errors import WootzError
from wootz.passes.ir.files import write_atomically
from wootz.passes.plan.blocks import Symbol, TuningBlock
from wootz.passes.plan.solver import Solver
from wootz.passes.plan.subspace import SKIP, Rate, format_configuration, format_rate
from wootz.passes.pruning.block_pruner import BlockPruner
from wootz.passes.training.joint_graph import group_memory, partition_by_memory
from wootz.runtime.defaults import rounding
from wootz.runtime.machine import default_memory_budget
from wootz.runtime.survey import Grouping, Survey, one_group, survey_subspace
from wootz.tools.block_picture import check_picture_path, draw_blocks
from wootz.tools.memory import Memory
from wootz.tools.models import open_trainable, round_to_option, scores_option, size_option
from wootz.tools.networks import read_networks

MOST_NETWORKS_SHOWN = 20
MOST_MODULES_LISTED = 12
"""Of more the rates of a network are shown as digits, and its blocks are counted: a row is one line then."""
DIGITS: dict[Rate, str] = {**{n / 10: str(n) for n in range(10)}, SKIP: "s"}
COMPOSITE_VECTORS = "composite vectors (a dash: from the teacher's remaining weights)"
RATES_IN_TENTHS = "networks (the rate of each module in tenths, s: left out)"


@click.command()
@click.argument("model")
@scores_option
@size_option
@click.option("--subspace", "subspace_file", type=click.Path(path_type=Path), required=True,
              help="Configurations: .json, .csv, .npy or pickle.")  # fmt: skip
@click.option("--identifier", type=click.Choice(get_args(Method)), default="maximal", show_default=True,
              help="How tuning blocks are identified.")  # fmt: skip
@click.option("--groups", type=click.Choice(["joint", "paper"]), default="joint", show_default=True,
              help="Blocks in one graph: all that fit into memory, or those that don't overlap.")  # fmt: skip
@click.option("--pretrain-solver", type=click.Path(path_type=Path), metavar="FILE",
              help="Solver prototxt for the tuning blocks: estimates the memory of groups.")  # fmt: skip
@click.option("--memory", type=Memory(), metavar="BYTES|4G",
              help="For pre-training (default: half of the machine's); goes with --pretrain-solver.")  # fmt: skip
@round_to_option
@click.option("-o", "--output", type=click.Path(path_type=Path, dir_okay=False), help="Write everything as JSON.")
@click.option("--picture", type=click.Path(path_type=Path, dir_okay=False),
              help="Draw networks × modules, coloured by block: .svg, .png.")  # fmt: skip
def blocks(
    model: str,
    scores: str | None,
    size: tuple[int, int] | None,
    subspace_file: Path,
    identifier: str,
    groups: str,
    pretrain_solver: Path | None,
    memory: int | None,
    round_to: int | None,
    output: Path | None,
    picture: Path | None,
) -> None:
    """Show the tuning blocks of MODEL for a subspace, what they cost and what they save. Nothing is trained."""
    if picture is not None:
        check_picture_path(picture)
    if memory is not None and (pretrain_solver is None or groups == "paper"):
        raise WootzError("--memory goes with --pretrain-solver, which has the batch size, and with --groups=joint")
    solver = None if pretrain_solver is None else read_solver(pretrain_solver)
    opened = open_trainable(model, scores=scores, size=size)
    network = opened.model
    modules, source = find_modules(network)
    check_modules(network, modules)
    pruner = BlockPruner.of(replace(network, modules=modules))
    subspace, warnings = read_networks(subspace_file, pruner, round_to)
    pruner = pruner.rounding_to(rounding(round_to, subspace.rates))
    for warning in (*opened.notes, *gap_notes(network, modules), *warnings):
        click.echo(f"warning: {warning}", err=True)
    if len(subspace.configurations) < 2:
        raise WootzError(f"{subspace_file} has a single network: blocks are what networks share; give at least two")
    if groups == "paper":
        grouping: Grouping = group_blocks
    else:
        grouping = partial(_joint_groups, pruner, solver, memory or default_memory_budget(1))
    survey = survey_subspace(pruner, subspace, cast(Method, identifier), grouping)
    taken = () if solver is None else tuple(group_memory(pruner, group, solver) for group in survey.groups)
    show(Console(), survey, f"{Path(model).name}: {len(modules)} modules (from its {source})", taken)
    if output is not None:
        write_atomically(output, f"{json.dumps(as_json(survey, identifier, taken), indent=1)}\n".encode())
    if picture is not None:
        draw_blocks(picture, survey.subspace, survey.plan, survey.names)


def _joint_groups(
    pruner: BlockPruner, solver: Solver | None, budget: int | None, blocks: Sequence[TuningBlock]
) -> tuple[Group, ...]:
    """As few groups as fit into `budget` bytes; without a solver one group, since its memory isn't known."""
    if solver is None:
        return one_group(blocks)
    return partition_by_memory(pruner, blocks, solver, budget)


def show(console: Console, survey: Survey, title: str, memory: Sequence[int] = ()) -> None:
    """Prints the tables and the estimate; `memory` is what each group takes, in bytes, where that is known."""
    console.print(title, highlight=False, soft_wrap=True)
    console.print(_block_table(survey))
    for number, group in enumerate(survey.groups, start=1):
        members = " ".join(survey.names[block] for block in group)
        about = f" (about {format_bytes(memory[number - 1])})" if memory else ""
        console.print(f"group {number}{about}: {members}", highlight=False, soft_wrap=True)
    in_tenths = _all_in_tenths(survey)
    console.print(RATES_IN_TENTHS if in_tenths else COMPOSITE_VECTORS, highlight=False, soft_wrap=True)
    console.print(_network_table(survey, in_tenths))
    left_out = len(survey.costs) - MOST_NETWORKS_SHOWN
    if left_out > 0:
        console.print(f"and {left_out} more networks: -o FILE.json has all", highlight=False)
    for line in (*_uncovered_lines(survey), *_work_lines(survey)):
        console.print(line, highlight=False, soft_wrap=True)


def _block_table(survey: Survey) -> Table:
    table = Table()
    for column in ("block", "modules", "rates"):
        table.add_column(column)
    for column in ("networks", "parameters", "MACs an image"):
        table.add_column(column, justify="right")
    for use in survey.uses:
        named = [survey.subspace.modules[m] for m in use.block.modules]
        span = named[0] if len(named) == 1 else f"{named[0]} to {named[-1]}"
        table.add_row(
            survey.names[use.block],
            span,
            _rates_text(use.block.symbols),
            str(len(use.networks)),
            f"{use.cost.parameters:,}",
            f"{use.cost.macs:,}" if _differs(use.block) else "as the teacher",
        )
    return table


def _differs(block: TuningBlock) -> bool:
    """Whether the block lacks filters or modules."""
    return block.is_pruned or any(symbol.is_skipped for symbol in block.symbols)


def _rates_text(run: Sequence[Symbol]) -> str:
    """The rates of consecutive modules, and those of the first one's input."""
    of_input = f" behind {', '.join(map(format_rate, run[0].input_rates))}" if run[0].input_rates else ""
    return ", ".join(format_rate(symbol.rate) for symbol in run) + of_input


def _all_in_tenths(survey: Survey) -> list[str]:
    """The rates of each network in tenths, a digit each, where there are so many that a list of them takes lines."""
    networks = survey.subspace.configurations
    rates = [rate for configuration in networks for rate in configuration]
    if len(survey.subspace.modules) <= MOST_MODULES_LISTED or not all(rate in DIGITS for rate in rates):
        return []
    digits = ("".join(DIGITS[rate] for rate in configuration) for configuration in networks)
    return [" ".join(text[first : first + 5] for first in range(0, len(text), 5)) for text in digits]


def _network_table(survey: Survey, in_tenths: Sequence[str]) -> Table:
    """A row a network; of networks with their rates `in_tenths` it has the number of blocks alone."""
    table = Table()
    table.add_column("network", justify="right")
    table.add_column("configuration")
    table.add_column("parameters", justify="right")
    table.add_column("of full", justify="right")
    table.add_column("blocks", justify="right" if in_tenths else "left")
    for n, composite in enumerate(survey.plan.composites[:MOST_NETWORKS_SHOWN]):
        listed = " ".join("-" if block is None else survey.names[block] for block in composite)
        table.add_row(
            str(n + 1),
            in_tenths[n] if in_tenths else escape(format_configuration(survey.subspace.configurations[n])),
            f"{survey.costs[n].parameters:,}",
            f"{100 * survey.costs[n].parameters / survey.full.parameters:.0f} %",
            str(sum(block is not None for block in composite)) if in_tenths else listed,
        )
    return table


def _uncovered_lines(survey: Survey) -> list[str]:
    count = len(survey.costs) * len(survey.subspace.modules)
    texts = [f"{_symbol_text(survey, symbol)} in network {n + 1}" for n, symbol in survey.plan.uncovered]
    more = f" and {len(texts) - 10} more" if len(texts) > 10 else ""
    if not texts:
        return []
    return [f"in no block: {len(texts)} of {count} modules of networks ({', '.join(texts[:10])}{more})"]


def _symbol_text(survey: Survey, symbol: Symbol) -> str:
    return f"{survey.subspace.modules[symbol.module]}({_rates_text([symbol])})"


def _work_lines(survey: Survey) -> list[str]:
    work = survey.work
    pruned = sum(use.block.is_pruned for use in survey.uses)
    if not pruned:
        return ["nothing to pre-train: no pruned piece is in two networks"]
    return [
        f"pre-training {_counted(pruned, 'block')} in {_counted(len(survey.groups), 'group')}: "
        f"{_work(work.pretraining)} an image and step (students {_work(work.students)}, "
        f"teacher {_work(work.teacher)})",
        f"the same pieces trained in each network for itself: {_work(work.separate)}, "
        f"{work.separate / work.students:.1f} times as much as the students take",
        f"fine-tuning all {len(survey.costs)} networks: {_work(work.fine_tuning)} an image and step; with as many "
        f"steps, pre-training pays when it saves more than {100 * work.break_even:.1f} % of them",
    ]


def _counted(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def _work(macs: int) -> str:
    for size, unit in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if macs >= size:
            return f"{macs / size:.1f} {unit}MACs"
    return f"{macs} MACs"


def as_json(survey: Survey, identifier: str, memory: Sequence[int] = ()) -> dict[str, Any]:
    """The survey as plain data. Networks are positions in the subspace, from 0; work is in MACs an image and step."""
    modules = survey.subspace.modules
    return {
        "identifier": identifier,
        "modules": list(modules),
        "full": asdict(survey.full),
        "blocks": [
            {
                "name": survey.names[use.block],
                "modules": [modules[m] for m in use.block.modules],
                "rates": [symbol.rate for symbol in use.block.symbols],
                "input_rates": [symbol.input_rates for symbol in use.block.symbols],
                "networks": use.networks,
                "trained": use.block.is_pruned,
                **asdict(use.cost),
            }
            for use in survey.uses
        ],
        "groups": [[survey.names[block] for block in group] for group in survey.groups],
        "memory": list(memory),
        "networks": [
            {
                "configuration": configuration,
                "blocks": [None if block is None else survey.names[block] for block in composite],
                **asdict(cost),
            }
            for configuration, composite, cost in zip(
                survey.subspace.configurations, survey.plan.composites, survey.costs, strict=True
            )
        ],
        "uncovered": [
            {"network": n, "module": modules[symbol.module], "rate": symbol.rate} for n, symbol in survey.plan.uncovered
        ],
        "work": {**asdict(survey.work), "break_even": survey.work.break_even},
    }
