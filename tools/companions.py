"""What goes with a network: objective, subspace and solvers, read where they are given, chosen where they aren't."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from wootz.frontend.caffe.solver import print_solver, read_solver, solver_notes
from wootz.frontend.objective import parse_objective, read_objective
from wootz.frontend.subspace import print_subspace
from wootz.passes.errors import InputError, WootzError
from wootz.passes.plan.metrics import Metric
from wootz.passes.plan.objective import Objective
from wootz.passes.plan.solver import Solver
from wootz.passes.plan.subspace import SKIP, Rate, Subspace
from wootz.passes.pruning.block_pruner import BlockPruner
from wootz.passes.pruning.rounding import Rounding
from wootz.runtime.defaults import (
    FEWEST_LOOKS,
    GRID,
    NOTHING_TO_PRUNE,
    RATES,
    Circumstances,
    default_objective,
    default_subspace,
    fine_tuning_solver,
    looks,
    networks_to_search,
    networks_to_try,
    pretraining_solver,
    rounding,
    teacher_solver,
)
from wootz.runtime.job import Searching
from wootz.runtime.latency_table.measuring import read_fitting_table
from wootz.runtime.run_directory import (
    OBJECTIVE_FILE,
    PRETRAIN_SOLVER_FILE,
    SOLVER_FILE,
    SUBSPACE_FILE,
    TEACHER_SOLVER_FILE,
)
from wootz.runtime.survey import space_of
from wootz.tools.networks import read_networks

CONVENTIONAL = {
    "objective": OBJECTIVE_FILE,
    "subspace": SUBSPACE_FILE,
    "solver": SOLVER_FILE,
    "pretrain_solver": PRETRAIN_SOLVER_FILE,
    "teacher_solver": TEACHER_SOLVER_FILE,
}
"""Options, and the files that stand in for them in a folder with the network, or in that of a run."""


@dataclass(frozen=True)
class RunFiles:
    """The companions in the folder of a run that is repeated or continued, but for those that are chosen `anew`."""

    folder: Path
    anew: Collection[str] = ()

    def find(self, option: str) -> Path | None:
        return None if option in self.anew else _in(self.folder, option)


@dataclass(frozen=True)
class CompanionFiles:
    """Where companions are: options, else files of a run, else those in the folder of the network."""

    options: Mapping[str, Any]
    network: Path | None = None
    run: RunFiles | None = None

    def find(self, option: str) -> Path | None:
        if self.options[option]:
            return Path(self.options[option])
        of_run = self.run.find(option) if self.run is not None else None
        return of_run or (_in(self.network, option) if self.network is not None else None)

    def of_run(self) -> dict[str, bytes]:
        """The content of the files that come from a run's folder, by name."""
        run = self.run
        if run is None:
            return {}
        found = {name: run.find(option) for option, name in CONVENTIONAL.items() if not self.options[option]}
        return {name: file.read_bytes() for name, file in found.items() if file is not None}


def _in(folder: Path, option: str) -> Path | None:
    file = folder / CONVENTIONAL[option]
    return file if file.is_file() else None


@dataclass(frozen=True)
class Solvers:
    """The solvers that were given, and notes on their files. Without a teacher's, `fine_tuning` serves for it."""

    fine_tuning: Solver | None
    teacher: Solver | None
    pretraining: Solver | None
    notes: tuple[str, ...] = ()

    @property
    def are_complete(self) -> bool:
        return self.fine_tuning is not None and self.pretraining is not None


def read_solvers(files: CompanionFiles) -> Solvers:
    found = {option: files.find(option) for option in ("solver", "teacher_solver", "pretrain_solver")}
    read = {option: None if file is None else read_solver(file) for option, file in found.items()}
    distinct = dict.fromkeys(file for file in found.values() if file is not None)
    notes = tuple(note for file in distinct for note in solver_notes(file))
    return Solvers(read["solver"], read["teacher_solver"] or read["solver"], read["pretrain_solver"], notes)


@dataclass(frozen=True)
class Companions:
    """What goes with a network. `chosen` are the files, by name, that a run writes of what nobody gave.

    `is_adjustable` says that solvers or the subspace were chosen just now, and not by a run that is repeated.
    """

    objective: Objective
    subspace: Subspace
    search: Searching | None
    solver: Solver
    teacher_solver: Solver
    pretrain_solver: Solver
    chosen: Mapping[str, bytes]
    is_adjustable: bool
    notes: tuple[str, ...]

    @property
    def rates(self) -> tuple[float, ...]:
        """That networks are made of."""
        return self.subspace.rates if self.search is None else self.search.rates


def complete_companions(
    files: CompanionFiles,
    solvers: Solvers,
    pruner: BlockPruner,
    image_shape: tuple[int, ...],
    objective: Objective | None,
    quality: Metric,
    circumstances: Circumstances,
) -> Companions:
    """Reads what is given and chooses the rest, for a network that `pruner` prunes; without an `objective` one that is
    about `quality`. Raises WootzError for files that
    don't fit the network, and where nothing of it can be pruned."""
    chosen: dict[str, str] = {}
    searches = files.options.get("command") == "search"
    subspace, warnings = _listed(files, pruner) if searches else _subspace(files, pruner)
    fine_tuning, teacher, pretraining = solvers.fine_tuning, solvers.teacher, solvers.pretraining
    search: Searching | None = None
    if searches:
        solver = fine_tuning or fine_tuning_solver(circumstances)
        search = _searching(files.options, pruner, image_shape, circumstances, solver, subspace)
        space = search.space
        subspace = Subspace(space.modules, (*space.stars, *(space.listed or space.uniform)))
    if objective is None:
        objective = default_objective(quality)
        chosen[OBJECTIVE_FILE] = f"{objective}\n"
    if subspace is None:
        least = _least_rates(pruner.rounding_to(Rounding(files.options["round_to"] or 1)), RATES)
        subspace = default_subspace(least, networks_to_try(circumstances), circumstances.seed)
        chosen[SUBSPACE_FILE] = print_subspace(subspace)
    images = f"{circumstances.training_images:,} images"
    if fine_tuning is None:
        fine_tuning = fine_tuning_solver(circumstances)
        chosen[SOLVER_FILE] = print_solver(fine_tuning, f"Fine-tuning of the pruned networks on {images}.")
    if pretraining is None:
        pretraining = pretraining_solver(circumstances)
        comment = f"Pre-training of the tuning blocks against the full network on {images}."
        chosen[PRETRAIN_SOLVER_FILE] = print_solver(pretraining, comment)
    if teacher is None and circumstances.untrained == "none":
        teacher = fine_tuning
    if teacher is None:
        teacher = teacher_solver(circumstances)
        what = "all" if circumstances.untrained == "all" else "new layers"
        chosen[TEACHER_SOLVER_FILE] = print_solver(teacher, f"Training of the full network ({what}) on {images}.")
    return Companions(
        objective=objective,
        subspace=subspace,
        search=search,
        solver=fine_tuning,
        teacher_solver=teacher,
        pretrain_solver=pretraining,
        chosen={name: text.encode() for name, text in chosen.items()} | files.of_run(),
        is_adjustable=search is not None or not chosen.keys() <= {OBJECTIVE_FILE},
        notes=(*warnings, *solvers.notes, *_choice_notes(chosen)),
    )


def _searching(
    options: Mapping[str, Any],
    pruner: BlockPruner,
    image_shape: tuple[int, ...],
    circumstances: Circumstances,
    solver: Solver,
    listed: Subspace | None,
) -> Searching:
    """The space of a search, and how much of it is tried: of those that are `listed`, if they are. Raises WootzError
    where no module can be pruned."""
    if not pruner.can_prune:
        raise WootzError(NOTHING_TO_PRUNE)
    rates = (options["rates"] or GRID) if listed is None else listed.rates
    pruner = pruner.rounding_to(rounding(options["round_to"], rates))
    networks = options["networks"] or networks_to_search(circumstances)
    if listed is not None:
        networks = min(networks, len(listed.configurations))
        configurations = [tuple(map(_single, configuration)) for configuration in listed.configurations]
        options_of_modules = [sorted({0.0, *of_module}) for of_module in zip(*configurations, strict=True)]
        space = space_of(pruner, options_of_modules, configurations)
    else:
        least = _least_rates(pruner, rates)
        left_out = pruner.skippable if options["skip"] else ()
        of_modules = (
            {0.0, *of_module.values(), *({SKIP} if module in left_out else ())} for module, of_module in least.items()
        )
        space = space_of(pruner, tuple(map(tuple, map(sorted, of_modules))))
    file = options["latency_table"]
    return Searching(
        space=space,
        rates=rates,
        networks=networks,
        looks=options["looks"] or (FEWEST_LOOKS if space.listed else looks(circumstances, solver, networks)),
        latency_table=None if file is None else read_fitting_table(Path(file), pruner, space.options, image_shape),
    )


def _least_rates(pruner: BlockPruner, rates: Sequence[float]) -> Mapping[str, Mapping[float, float]]:
    """For each module the rate that stands for each of `rates`. Raises WootzError where rounding leaves none."""
    least, rounding = pruner.least_rates(rates), pruner.planner.rounding
    if rounding.multiple > 1 and pruner.can_prune and not any(any(of_module.values()) for of_module in least.values()):
        raise WootzError(
            f"--round-to {rounding.multiple}: no module has so many filters that one of the rates "
            f"{', '.join(map(str, rates))} leaves another multiple of {rounding.multiple}: give a smaller one"
        )
    return least


def _choice_notes(chosen: Mapping[str, str]) -> tuple[str, ...]:
    if not chosen:
        return ()
    return (f"Chosen, since not given, and kept in the run's folder: {', '.join(chosen)}.",)


def read_given_objective(files: CompanionFiles, metrics: Mapping[str, Metric]) -> Objective | None:
    """The objective that was given, about `metrics` by their names; None where nobody gave one."""
    given = files.options["objective"]
    if given and not os.path.isfile(given):
        if len(given.split()) == 1 and Path(given).suffix:  # a file's name: the shortest objective has two words
            raise InputError("no such file: --objective takes a file, or a text such as 'min ModelSize'", given)
        return parse_objective(given, "--objective", metrics)
    file = files.find("objective")
    return None if file is None else read_objective(file, metrics)


def _listed(files: CompanionFiles, pruner: BlockPruner) -> tuple[Subspace | None, tuple[str, ...]]:
    """The networks that a search is told to keep to, pruned ones at the rates that stand for theirs, and notes on them.

    Raises WootzError where there are none, for one rate a convolution, and for options that a list leaves nothing to.
    """
    if not files.options["subspace"]:
        return None, ()
    if files.options["rates"]:
        raise WootzError("--rates is for a search of a whole space: leave it out, or --subspace")
    found, notes = _subspace(files, pruner)
    assert found is not None
    least = pruner.rounding_to(rounding(files.options["round_to"], found.rates)).least_rates(found.rates)
    of_modules = [{**least[module], SKIP: SKIP} for module in found.modules]
    networks = [
        tuple(of_module[_single(rate)] for of_module, rate in zip(of_modules, configuration, strict=True))
        for configuration in found.configurations
    ]
    if not files.options["skip"] and any(SKIP in network for network in networks):
        raise WootzError("--no-skip: --subspace has configurations without some modules")
    pruned = tuple(filter(any, networks))
    if not pruned:
        raise WootzError("--subspace: it has the unpruned network alone, and there is nothing to choose")
    if len(pruned) < len(networks):
        notes = (*notes, "--subspace: the unpruned network is left out: a search is for smaller ones.")
    return replace(found, configurations=pruned), notes


def _single(rate: Rate) -> float:
    if isinstance(rate, tuple):
        raise WootzError("--subspace: a search takes one rate a module, not one a convolution: wootz run takes both")
    return rate


def _subspace(files: CompanionFiles, pruner: BlockPruner) -> tuple[Subspace | None, tuple[str, ...]]:
    file = files.find("subspace")
    return (None, ()) if file is None else read_networks(file, pruner, files.options["round_to"])
