"""`wootz run`: the main job."""

from __future__ import annotations

import os
import shlex
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, get_args

import click
from click.core import ParameterSource
from rich.console import Console

from wootz.passes.errors import NO_SPACE, StorageError, WootzError
from wootz.passes.plan.transform import Resize
from wootz.runtime.delivery.finish import check_finishing, finish
from wootz.runtime.delivery.finish_pipelines import read_pipelines
from wootz.runtime.delivery.finished import finished_result, has_chosen_files, is_finished_as
from wootz.runtime.events import EventLog, set_aside_if_damaged
from wootz.runtime.executors.retrying import Retrying
from wootz.runtime.executors.team import Team, gathered
from wootz.runtime.expected_time import expected_time, trainings_of
from wootz.runtime.job import Job, check, inputs_of
from wootz.runtime.machine import gpu_count
from wootz.runtime.plan import RunPlan, plan_run, rehearse
from wootz.runtime.result import RunResult
from wootz.runtime.run import run as run_job
from wootz.runtime.run_directory import (
    DAMAGED_EVENTS_FILE,
    EVENTS_FILE,
    LOG_FOLDER,
    check_continued,
    check_folder,
    check_inputs,
    check_name,
    open_run_directory,
    read_run_mark,
)
from wootz.runtime.speed import speed
from wootz.runtime.status import time_spent
from wootz.runtime.store import Store
from wootz.runtime.store.amounts import show_seconds
from wootz.runtime.tasks.perform import Site, perform, provide
from wootz.runtime.tasks.recipe import Digests
from wootz.runtime.tasks.workshop import Workshop
from wootz.runtime.watch import Watch
from wootz.tools.budget import show_expected
from wootz.tools.commands.blocks import show as show_survey
from wootz.tools.duration import Duration
from wootz.tools.job import make_job, run_name
from wootz.tools.lasting_output import lasting_console
from wootz.tools.memory import Memory
from wootz.tools.models import round_to_option, size_option
from wootz.tools.opset import Opset
from wootz.tools.request import Request, requested
from wootz.tools.run_display import RunDisplay
from wootz.tools.summary import nothing_found, print_summary

ARGUMENTS = "wootz.arguments"


class CommandThatKeepsArguments(click.Command):
    """Its context has the arguments as they were written, for the report."""

    def parse_args(self, context: click.Context, arguments: list[str]) -> list[str]:
        context.meta[ARGUMENTS] = tuple(arguments)
        return super().parse_args(context, arguments)


@click.command(cls=CommandThatKeepsArguments)
@click.argument("model", required=False)
@click.option(
    "--weights", metavar="FILE", help="Weights of a prototxt, .caffemodel[.h5] (default: that of its name beside it)."
)
@click.option("--scores", "--output", metavar="NAME", help="The network's output with the scores, of several.")
@size_option
@click.option("--new-head/--keep-head", default=None,
              help="Whether the last layer starts anew (default: where the data have other classes).")  # fmt: skip
@click.option("--data", metavar="DIR|FILE",
              help="Folder of class folders, .npy, IDX or LMDB; .npz, .csv, .jsonl, .parquet; 'digits'.")  # fmt: skip
@click.option("--classes", metavar="FILE",
              help="Which output of the network each class is: a class a line, or JSON {class: output}.")  # fmt: skip
@click.option("--resize", type=click.Choice(get_args(Resize)),
              help="How photographs get the network's size (default: crop; for Caffe's networks squash).")  # fmt: skip
@click.option("--cache", type=click.Path(path_type=Path), metavar="DIR",
              help="Keeps decoded photographs (default: $WOOTZ_CACHE, else one a user).")  # fmt: skip
@click.option("--subspace", metavar="FILE", help="Configurations to try: .json, .csv, .npy or pickle.")
@click.option("--objective", metavar="TEXT|FILE", help="For example 'min ModelSize constraint Accuracy > 0.8'.")
@click.option("--solver", metavar="FILE", help="Solver prototxt for training and fine-tuning.")
@click.option("--teacher-solver", metavar="FILE", help="Solver for training the full network (default: --solver).")
@click.option("--pretrain-solver", metavar="FILE", help="Solver prototxt for the tuning blocks.")
@click.option("--effort", type=click.Choice(["quick", "normal", "thorough"]), show_default="normal",
              help="How long trainings are, and how many networks are tried, where that is chosen.")  # fmt: skip
@click.option("--budget", type=Duration(), metavar="30m|2h",
              help="Time into which the run shall fit: steps and networks that are chosen are cut.")  # fmt: skip
@click.option("--out", metavar="RUN", help="Folder for the results (default: runs/NAME).")
@click.option("--baseline", is_flag=True, help="Explore the default networks too, and compare.")
@click.option("--fresh", is_flag=True, help="Replace a run in --out instead of continuing it.")
@click.option("--dry-run", is_flag=True, help="Show what would be trained, and train nothing.")
@click.option("--workers", type=click.IntRange(min=0), default=0, metavar="N",
              help="Processes that train side by side, cores and GPUs divided (default: this one).")  # fmt: skip
@click.option("--executor", metavar="URL", help="dask://HOST:PORT: the workers of a Dask cluster.")
@click.option("--static", is_flag=True,
              help="Assign networks to workers beforehand and in rounds, as the paper does.")  # fmt: skip
@click.option("--store", "store_folder", type=click.Path(path_type=Path), metavar="DIR",
              help="Keeps what is trained, for all runs (default: $WOOTZ_STORE, else one a user).")  # fmt: skip
@click.option("--store-limit", type=Memory(), metavar="BYTES|20G",
              help="From which size on the store forgets what was not used for longest (default: 20G).")  # fmt: skip
@click.option("--early-end/--no-early-end", default=True, show_default=True,
              help="A network is done at a test that meets the objective's bounds on accuracy.")  # fmt: skip
@click.option("--give-up", is_flag=True, help="A training ends when its accuracy won't meet the bounds any more.")
@click.option("--reference", type=click.Choice(["better", "given", "tuned"]), default="better", show_default=True,
              help="What 'full' in the objective means: the full network as given (or trained), after the fine-tuning "
                   "that the pruned ones get, or the better of both.")  # fmt: skip
@click.option("--identifier", type=click.Choice(["maximal", "paper"]), default="maximal", show_default=True,
              help="How tuning blocks are identified.")  # fmt: skip
@click.option("--groups", type=click.Choice(["joint", "paper"]), default="joint", show_default=True,
              help="Blocks in one graph: all that fit into memory, or those that don't overlap.")  # fmt: skip
@click.option("--block-start", type=click.Choice(["closed-form", "remaining"]), default="closed-form",
              show_default=True, help="What pre-training begins with: layers solved for on training images, or the "
                                      "teacher's remaining weights.")  # fmt: skip
@click.option("--memory", type=Memory(), metavar="BYTES|4G",
              help="For pre-training in a process (default: half of the machine's, over the processes; no bound on "
                   "GPUs).")  # fmt: skip
@click.option(
    "--criterion",
    default="l1",
    show_default=True,
    help="Importance of a filter: l1, l2, fpgm, bn-scale, random; apoz and taylor look at training images.",
)
@round_to_option
@click.option("--check/--no-check", default=True, show_default=True,
              help="Execute each pruned network beside the masked original before it is trained.")  # fmt: skip
@click.option("--normalize", metavar="NAME|MEAN:STD",
              help="How pixels become the input: imagenet, 0..1, -1..1, caffe, raw, or mean and standard deviation "
                   "(default: what the network's file says, else what is found out).")  # fmt: skip
@click.option("--mean", help="Mean of the input pixels (0-255), one or one a channel: overrides the model's.")
@click.option("--scale", help="Factor after the mean was subtracted, one or one a channel.")
@click.option("--channel-order", type=click.Choice(["BGR", "RGB"]), help="Order of the input's channels.")
@click.option("--allow-untrained", is_flag=True,
              help="Go on with a full network that only guesses, as it came or after its training.")  # fmt: skip
@click.option("--freeze", multiple=True, metavar="NAME",
              help="Don't train this constant, or those that begin with a NAME ending in / or * (filters that are "
                   "pruned go all the same).")  # fmt: skip
@click.option("--mirror/--no-mirror", default=None, help="Whether training flips images at random.")
@click.option(
    "--device", type=click.Choice(["cpu", "cuda"]), help="Default: the solver's solver_mode; without a GPU the CPU."
)
@click.option("--target", type=click.Choice(["onnx", "onnx-cuda", "ort-training"]),
              help="Operators of the training graphs (default: onnx, on CUDA onnx-cuda).")  # fmt: skip
@click.option("--precision", type=click.Choice(["float32", "float16"]), default="float32", show_default=True,
              help="Of convolutions and matrix products in training; float16 is for GPUs.")  # fmt: skip
@click.option("--tf32", is_flag=True, help="On CUDA: TensorFloat-32 in convolutions and matrix products.")
@click.option("--cuda-graphs", is_flag=True, help="On CUDA: start a training step as a whole, captured once.")
@click.option("--data-on-device/--no-data-on-device", default=None,
              help="Keep the training images on the device (default: on GPUs, if they fit a quarter).")  # fmt: skip
@click.option("--threads", type=click.IntRange(min=0), default=0, help="CPU threads a process (default: all cores).")
@click.option("--print-ir-after", multiple=True, metavar="PASS",
              help="Print training graphs behind that pass, to standard error (workers: to their logs).")  # fmt: skip
@click.option("--verify-each", is_flag=True, help="Verify training graphs between the passes that make them.")
@click.option("--embed-normalization", is_flag=True, help="best.onnx takes raw RGB pixels.")
@click.option("--opset", type=Opset(), default="original", show_default=True, metavar="N",
              help="Of the networks that are written; original: that of MODEL.")  # fmt: skip
@click.option("--keep-batchnorm", is_flag=True, help="Leave BatchNormalization in best.onnx as it is.")
@click.option("--finish", multiple=True, metavar="PIPELINE",
              help="Make a further file of best.onnx by passes, and measure it: int8, to-float16, "
                   "embed-normalization,int8; repeat for more.")  # fmt: skip
@click.option(
    "--seed",
    type=int,
    default=0,
    show_default=True,
    help="For fillers, the validation split, and the test split of the digits.",
)
def run(
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
    """Find the best pruned version of MODEL for the images in --data.

    MODEL is a .prototxt, .onnx or .onnxtxt file, or a folder with net.prototxt. Objective, subspace and solvers are
    chosen where neither options nor files beside net.prototxt say them (objective.txt, subspace.json, solver.prototxt,
    pretrain.prototxt, teacher.prototxt), and written into the run's folder. The folder of a run as MODEL repeats it,
    with what was changed in these files. Without MODEL, the digits example is run.

    The full network is trained first if its weights are not given; layers that the weights file lacks start anew. What
    was interrupted goes on when the same command is given again.
    """
    context = click.get_current_context()
    given = [name for name in options if context.get_parameter_source(name) is ParameterSource.COMMANDLINE]
    request = requested(model, options, given)
    folder = (Path(out) if out else request.repeats or Path("runs") / run_name(model)).absolute()
    check_name(str(folder))
    try:
        with gathered(workers, executor or "", options["threads"], gpu_count()) as team:
            if team is None:  # a process that mpiexec started, which has served the first one
                return
            open_store = partial(Store.open, store_folder, store_limit)
            if dry_run:
                _show_plan(request, folder, fresh, team, partial(open_store, click.echo))
            else:
                _run(request, folder, fresh, team, open_store)
    except KeyboardInterrupt as interrupt:
        raise click.Abort("interrupted: the same command goes on from here") from interrupt


def _run(
    request: Request, folder: Path, fresh: bool, team: Team, open_store: Callable[[Callable[[str], None]], Store]
) -> None:
    console = lasting_console()
    further = _further(request)
    check_inputs(folder, request.inputs, further)
    with open_run_directory(folder, fresh, console.print) as directory, _writing_into(folder):
        if not fresh and (shown := _finished_without_inputs(request, folder)) is not None:
            console.print(
                f"{folder}: this run is finished; {request.missing} is no longer there, so it can't be repeated",
                highlight=False,
                soft_wrap=True,
            )
            _show(console, shown, folder)
            return
        store = partial(open_store, console.print)
        job = make_job(request.model, folder, request.options, team, store, request.files_of(folder, fresh))
        check(job)
        before = None if fresh else finished_result(folder)
        if before is None or not is_finished_as(before, job.finish):
            check_finishing(job)
        directory.claim(inputs_of(job, Digests()), request.command, job.chosen, further)
        known = finished_result(folder)
        if known is not None and is_finished_as(known, job.finish):
            console.print(f"{folder}: this run is finished; --fresh replaces it", highlight=False, soft_wrap=True)
            _show(console, known, folder)
            return
        written = click.get_current_context().meta[ARGUMENTS]
        job = replace(job, run=directory.id, command=shlex.join(("wootz", "run", *written)))
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
    _show(console, result, folder)


def _finished_without_inputs(request: Request, folder: Path) -> RunResult | None:
    """What the run in `folder` found, if nothing else is asked for, and inputs of it are gone."""
    is_asked_for = request.is_same and request.repeats is not None and request.repeats.absolute() == folder
    if not is_asked_for or request.missing is None or not has_chosen_files(folder):
        return None
    known = finished_result(folder)
    return known if known and is_finished_as(known, read_pipelines(request.options["finish"])) else None


def _further(request: Request) -> list[str]:
    """The files of networks that the run writes beside the usual ones."""
    return [pipeline.file for pipeline in read_pipelines(request.options["finish"])]


def _train(job: Job, team: Team, store: Store, watch: Watch) -> RunResult:
    site = Site.of(job, store)
    workshop = Workshop(job, store)
    provide(site, workshop)
    workers = team.engine(partial(perform, site), job.out / LOG_FOLDER, listener=watch.told)
    engine = Retrying(workers, watch.tried_again)
    with store.using(job.title), engine:
        return run_job(workshop, engine, team.description, watch)


def _show(console: Console, result: RunResult, folder: Path) -> None:
    """Raises WootzError where a run found nothing."""
    print_summary(console, result, folder)
    if result.best is None:
        raise WootzError(nothing_found(result))


def _show_plan(request: Request, folder: Path, fresh: bool, team: Team, open_store: Callable[[], Store]) -> None:
    """What a run would do, after all has been tried that can be without training or writing anything."""
    check_inputs(folder, request.inputs, _further(request))
    check_folder(folder)
    job = make_job(request.model, folder, request.options, team, open_store, request.files_of(folder, fresh))
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
    title = f"{len(plan.order)} of {len(plan.candidates)} configurations to try for '{job.objective}'"
    show_survey(Console(), plan.survey, title, memory)
    if not job.untrained:
        keys = workshop.block_keys("", [block for group in plan.groups for block in group])
        known = sum(workshop.trainer.store.entry(key) is not None for key in keys.values())
        click.echo(f"in the store: {known} of {len(keys)} blocks")
    for pipeline in job.finish:
        click.echo(f"the best network gets a further file {pipeline.file} ({pipeline.text})")
    for line in (*_solver_lines(job), _expected_line(workshop, plan)):
        click.echo(line)
    click.echo(f"All networks and trainings can be built. They would be trained by {team.description}.")


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
    its_speed = speed(workshop.trainer, workshop.network, job.solver)
    expected = expected_time(plan.survey, trainings_of(job), its_speed)
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
