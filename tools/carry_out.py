"""Carries out what `wootz run` and `wootz search` are asked for."""

from __future__ import annotations

import os
import shlex
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource
from rich.console import Console

from wootz.passes.errors import NO_SPACE, StorageError, WootzError
from wootz.runtime.delivery.finish import check_finishing, finish
from wootz.runtime.delivery.finish_pipelines import read_pipelines
from wootz.runtime.delivery.finished import finished_result, has_chosen_files, is_finished_as
from wootz.runtime.events import EventLog, set_aside_if_damaged
from wootz.runtime.executors.retrying import Retrying
from wootz.runtime.executors.team import Team, gathered
from wootz.runtime.expected_time import expected_time, trainings_of
from wootz.runtime.job import Job, Searching, check, inputs_of
from wootz.runtime.machine import gpu_count
from wootz.runtime.plan import RunPlan, plan_run, rehearse
from wootz.runtime.result import RunResult
from wootz.runtime.run import run as run_job
from wootz.runtime.run_directory import (
    DAMAGED_EVENTS_FILE,
    EVENTS_FILE,
    LOG_FOLDER,
    CommandName,
    check_continued,
    check_folder,
    check_inputs,
    check_name,
    open_run_directory,
    read_run_mark,
    whole_file,
)
from wootz.runtime.speed import speed
from wootz.runtime.status import time_spent
from wootz.runtime.store import Store
from wootz.runtime.store.amounts import counted, show_seconds
from wootz.runtime.survey import show_space
from wootz.runtime.tasks.perform import Site, perform, provide
from wootz.runtime.tasks.recipe import Digests
from wootz.runtime.tasks.workshop import Workshop
from wootz.runtime.watch import Watch
from wootz.tools.budget import show_expected
from wootz.tools.commands.blocks import show as show_survey
from wootz.tools.job import NOTHING_GIVEN, Given, make_job, run_name
from wootz.tools.lasting_output import lasting_console
from wootz.tools.request import Request, requested
from wootz.tools.run_display import RunDisplay
from wootz.tools.summary import nothing_found, print_summary

ARGUMENTS = "wootz.arguments"


class CommandThatKeepsArguments(click.Command):
    """Its context has the arguments as they were written, for the report."""

    def parse_args(self, context: click.Context, arguments: list[str]) -> list[str]:
        context.meta[ARGUMENTS] = tuple(arguments)
        return super().parse_args(context, arguments)


def carry_out(
    command: CommandName,
    model: str | None,
    out: str | None,
    fresh: bool,
    dry_run: bool,
    workers: int,
    executor: str | None,
    store_folder: Path | None,
    store_limit: int | None,
    given: Given = NOTHING_GIVEN,
    quiet: bool = False,
    **options: Any,
) -> tuple[Path, RunResult] | None:
    """Does what a command was given, of which `options` say what is computed, and gives the run's folder and result; or
    shows what that would be. `given` is what a program hands over; `quiet` prints nothing."""
    options = {**options, "command": command}
    context = click.get_current_context()
    for parameter in context.command.params:
        if context.params.get(parameter.name or "") == "":
            raise WootzError(f"{parameter.opts[0]} is empty: leave it out")
    written = [name for name in options if context.get_parameter_source(name) is ParameterSource.COMMANDLINE]
    request = requested(command, model, options, written)
    folder = (Path(out) if out else request.repeats or Path("runs") / run_name(command, model)).absolute()
    check_name(str(folder))
    try:
        with gathered(workers, executor or "", options["threads"], gpu_count()) as team:
            if team is None:  # a process that mpiexec started, which has served the first one
                return None
            open_store = partial(Store.open, store_folder, store_limit)
            if dry_run:
                _show_plan(request, folder, fresh, team, partial(open_store, click.echo), given)
                return None
            console = Console(quiet=True) if quiet else lasting_console()
            return folder, _run(request, folder, fresh, team, open_store, given, console)
    except KeyboardInterrupt as interrupt:
        raise click.Abort("interrupted: the same command goes on from here") from interrupt


def _run(
    request: Request,
    folder: Path,
    fresh: bool,
    team: Team,
    open_store: Callable[[Callable[[str], None]], Store],
    given: Given,
    console: Console,
) -> RunResult:
    further = _further(request)
    check_inputs(folder, request.inputs, further)
    with open_run_directory(folder, fresh, console.print) as directory, _writing_into(folder):
        if not fresh and (shown := _finished_without_inputs(request, folder)) is not None:
            console.print(
                f"{folder}: this run is finished; {request.missing} is no longer there, so it can't be repeated",
                highlight=False,
                soft_wrap=True,
            )
            return _shown(console, shown, folder)
        store = partial(open_store, console.print)
        job = make_job(request.model, folder, request.options, team, store, request.files_of(folder, fresh), given)
        check(job)
        before = None if fresh else finished_result(folder)
        if before is None or not is_finished_as(before, job.finish):
            check_finishing(job)
        directory.claim(inputs_of(job, Digests()), request.command, job.chosen, further)
        known = finished_result(folder)
        if known is not None and is_finished_as(known, job.finish):
            console.print(f"{folder}: this run is finished; --fresh replaces it", highlight=False, soft_wrap=True)
            return _shown(console, known, folder)
        written = click.get_current_context().meta[ARGUMENTS]
        job = replace(job, run=directory.id, command=shlex.join(("wootz", request.command.name, *written)))
        events = folder / EVENTS_FILE
        damage = set_aside_if_damaged(events, folder / DAMAGED_EVENTS_FILE)
        earlier = time_spent(events)
        display = RunDisplay(console)
        log = EventLog(events, [display])
        with display, log, _watching(Watch(log, job, earlier), team) as watch, _writing_into(folder):
            for note in filter(None, (damage, *job.notes)):
                watch.message(note)
            for note in job.result_notes:
                watch.note(note)
            if known is not None:
                watch.delivery()
                result = finish(job, known, watch)
            else:
                result = _train(job, team, open_store(watch.message), watch)
            from wootz.runtime.reporting.report import (
                write_report,  # here: matplotlib and jinja2 take a second to import
            )

            write_report(folder)
            directory.end()
            if result.best is None:
                watch.end("nothing found", nothing_found(result))
            else:
                watch.end("found")
    return _shown(console, result, folder)


def _finished_without_inputs(request: Request, folder: Path) -> RunResult | None:
    """What the run in `folder` found, if nothing else is asked for, and inputs of it are gone."""
    is_asked_for = request.is_same and request.repeats is not None and request.repeats.absolute() == folder
    if not is_asked_for or request.missing is None or not has_chosen_files(folder):
        return None
    known = finished_result(folder)
    return known if known and is_finished_as(known, read_pipelines(request.options["finish"])) else None


def _further(request: Request) -> list[str]:
    """The files of networks that the run writes beside the usual ones."""
    files = (pipeline.file for pipeline in read_pipelines(request.options["finish"]))
    return [name for file in files for name in (file, whole_file(file))]


def _train(job: Job, team: Team, store: Store, watch: Watch) -> RunResult:
    site = Site.of(job, store)
    workshop = Workshop(job, store)
    provide(site, workshop)
    workers = team.engine(partial(perform, site), job.out / LOG_FOLDER, listener=watch.told)
    engine = Retrying(workers, watch.tried_again)
    with store.using(job.title), engine:
        return run_job(workshop, engine, team.description, watch)


def _shown(console: Console, result: RunResult, folder: Path) -> RunResult:
    """Raises WootzError where a run found nothing."""
    print_summary(console, result, folder)
    if result.best is None:
        raise WootzError(nothing_found(result))
    return result


def _show_plan(
    request: Request, folder: Path, fresh: bool, team: Team, open_store: Callable[[], Store], given: Given
) -> None:
    """What a run would do, after all has been tried that can be without training or writing anything."""
    check_inputs(folder, request.inputs, _further(request))
    check_folder(folder)
    job = make_job(request.model, folder, request.options, team, open_store, request.files_of(folder, fresh), given)
    check(job)
    check_finishing(job)
    if not fresh and (mark := read_run_mark(folder)) is not None:
        check_continued(folder, mark.inputs, inputs_of(job, Digests()))
        if (found := finished_result(folder)) is not None:
            click.echo(f"{folder}: this run is finished, and nothing would be trained; --fresh replaces it")
            if not is_finished_as(found, job.finish):
                click.echo(f"Its further files would be: {', '.join(p.file for p in job.finish) or 'none'}")
            return
    for note in (*job.notes, *job.result_notes):
        click.echo(note)
    workshop = Workshop(job, open_store())
    plan = plan_run(workshop, team.workers)
    rehearse(workshop, plan)
    memory = [workshop.block_memory(group) for group in plan.groups]
    modules = ", ".join(job.subspace.modules)
    click.echo(f"{len(job.subspace.modules)} modules (from the network's {job.modules_source}): {modules}")
    if job.search is None:
        title = f"{len(plan.order)} of {len(plan.candidates)} configurations to try for '{job.objective}'"
        show_survey(Console(), plan.survey, title, memory)
    else:
        click.echo(_space_line(job.search, plan))
    if not job.untrained:
        keys = workshop.block_keys("", [block for group in plan.groups for block in group])
        known = sum(workshop.trainer.store.entry(key) is not None for key in keys.values())
        click.echo(f"in the store: {known} of {len(keys)} blocks")
    for pipeline in job.finish:
        click.echo(f"the best network gets a further file {pipeline.file} ({pipeline.text})")
    for line in (*_solver_lines(job), _expected_line(workshop, plan)):
        click.echo(line)
    click.echo(f"All networks and trainings can be built. They would be trained by {team.description}.")


def _space_line(search: Searching, plan: RunPlan) -> str:
    blocks = sum(map(len, plan.groups))
    looks = min(search.looks, search.space.count)
    return (
        f"{show_space(search.space)} of {counted(blocks, 'block')} to be trained in "
        f"{counted(len(plan.groups), 'group')}; at most {looks} are looked at without training, at most "
        f"{search.networks} fine-tuned"
    )


def _solver_lines(job: Job) -> Iterator[str]:
    solvers = {"fine-tuning": job.solver, "pre-training": job.pretrain_solver}
    if job.untrained:
        solvers = {"full network": job.teacher_solver, **solvers}
    for name, solver in solvers.items():
        yield (
            f"{name}: {solver.max_iter} steps of {solver.batch_size * solver.iter_size} images by {solver.type.value}, "
            f"learning rate {solver.base_lr:g} ({solver.lr_policy})"
        )


def _expected_line(workshop: Workshop, plan: RunPlan) -> str:
    job = workshop.job
    its_speed = speed(
        workshop.trainer, workshop.network, job.solver, job.lesson, workshop.instructor(workshop.architecture)
    )
    expected = expected_time(plan.survey, trainings_of(job, workshop.examples_once(job)), its_speed)
    return (
        f"expected: at most {show_seconds(expected.total)} by one worker, with nothing in the store "
        f"({show_expected(expected)}){'; further files come on top' if job.finish else ''}"
    )


@contextmanager
def _watching(watch: Watch, team: Team) -> Iterator[Watch]:
    """The watch of a run, which is told of an early end; where the disk is full, what led to that matters more."""
    watch.begin(team.description, team.workers)
    try:
        yield watch
    except KeyboardInterrupt:
        with suppress(OSError):
            watch.end("interrupted")
        raise
    except BaseException as error:
        with suppress(OSError):
            watch.end("failed", str(error))
        raise


@contextmanager
def _writing_into(folder: Path) -> Iterator[None]:
    """Says of a file in `folder` that can't be written what to do, and names `folder` where the system says that there
    is no room, but not for which file."""
    try:
        yield
    except OSError as error:
        is_named = isinstance(error.filename, str | bytes | os.PathLike)
        file = Path(os.fsdecode(error.filename)) if is_named else folder
        is_of_folder = file.is_relative_to(folder) if is_named else error.errno in NO_SPACE
        if error.strerror is None or not is_of_folder:
            raise
        raise StorageError.of(file, error.strerror) from error
