"""`wootz run`: the main job."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from importlib import resources
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.table import Table

from wootz.frontend.caffe.importer import ImportedNetwork
from wootz.frontend.caffe.solver import read_solver
from wootz.frontend.objective import parse_objective, read_objective
from wootz.frontend.subspace import read_subspace
from wootz.passes.analysis.modules import find_modules
from wootz.passes.errors import WootzError
from wootz.passes.ir.model import tensor_shape
from wootz.passes.plan.objective import Objective
from wootz.passes.plan.solver import Solver
from wootz.passes.plan.transform import InputTransform
from wootz.passes.transforms.prune_blocks import BlockPruner
from wootz.runtime.cluster import Cluster, abort, connect
from wootz.runtime.dataset import load_dataset
from wootz.runtime.progress import Progress
from wootz.runtime.report import write_report
from wootz.runtime.result import ExplorationResult, RunResult
from wootz.runtime.run import Job, check
from wootz.runtime.run import run as run_job
from wootz.runtime.run_directory import BEST_FILE, check_run_directory, clear_results
from wootz.runtime.session import Device
from wootz.tools.models import open_network, prunable_network
from wootz.tools.progress import ConsoleProgress

DEFAULT_EXAMPLE = "digits"


@click.command()
@click.argument("model", required=False)
@click.option("--weights", metavar="FILE", help="Weights of a prototxt: .caffemodel or .caffemodel.h5.")
@click.option("--data", metavar="DIR", help="Data set: class folders, .npz, .npy, IDX, or 'digits'.")
@click.option("--subspace", metavar="FILE", help="Configurations to try: .json, .csv, .npy or pickle.")
@click.option("--objective", metavar="TEXT|FILE", help="For example 'min ModelSize constraint Accuracy > 0.8'.")
@click.option("--solver", metavar="FILE", help="Solver prototxt for training and fine-tuning.")
@click.option("--teacher-solver", metavar="FILE", help="Solver for training the full network (default: --solver).")
@click.option("--pretrain-solver", metavar="FILE", help="Solver prototxt for the tuning blocks.")
@click.option("--out", metavar="RUN", help="Folder for the results (default: runs/NAME).")
@click.option("--baseline", is_flag=True, help="Explore the default networks too, and compare.")
@click.option("--resume", is_flag=True, help="Continue a run in --out: what is finished is reused.")
@click.option("--overwrite", is_flag=True, help="Replace a run in --out.")
@click.option("--identifier", type=click.Choice(["maximal", "paper"]), default="maximal", show_default=True,
              help="How tuning blocks are identified.")  # fmt: skip
@click.option("--groups", type=click.Choice(["joint", "paper"]), default="joint", show_default=True,
              help="Which blocks are pre-trained in one graph: all, or those that don't overlap.")  # fmt: skip
@click.option("--criterion", default="l1", show_default=True, help="Importance of a filter.")
@click.option("--mean", help="Mean of the input pixels (0-255), one or one a channel: overrides the model's.")
@click.option("--scale", help="Factor after the mean was subtracted, one or one a channel.")
@click.option("--channel-order", type=click.Choice(["BGR", "RGB"]), help="Order of the input's channels.")
@click.option("--mirror/--no-mirror", default=None, help="Whether training flips images at random.")
@click.option("--device", type=click.Choice(["cpu", "cuda"]), help="Default: the solver's solver_mode.")
@click.option("--threads", type=click.IntRange(min=0), default=0, help="CPU threads a process (default: all cores).")
@click.option("--embed-normalization", is_flag=True, help="best.onnx takes raw RGB pixels.")
@click.option("--seed", type=int, default=0, show_default=True, help="For fillers and the validation split.")
def run(model: str | None, out: str | None, resume: bool, overwrite: bool, **options: Any) -> None:
    """Find the best pruned version of MODEL.

    MODEL is a .prototxt, .onnx or .onnxtxt file, or a folder with net.prototxt, solver.prototxt,
    pretrain.prototxt, subspace.json and objective.txt (and perhaps teacher.prototxt), which options override.
    Without MODEL, the digits example is run.

    The full network is trained first if its weights are not given; layers that the weights file lacks start anew.
    """
    cluster = connect()
    console = Console()
    progress = ConsoleProgress(console) if cluster.rank == 0 else Progress()
    folder = Path(out) if out else Path("runs") / _run_name(model)

    def prepare() -> Job:
        check_run_directory(folder, resume, overwrite)
        job = _job(model, folder, options, cluster.size)
        check(job)
        return job

    job = _on_all_processes(cluster, prepare)
    if cluster.rank == 0:
        clear_results(folder, keep_store=resume)
    for note in job.notes:
        progress.message(note)
    result = _or_abort(cluster, lambda: run_job(job, cluster, progress))
    if cluster.rank == 0:
        report = write_report(folder)
        _show(console, result, folder, report)
        if result.block_trained.best is None:
            raise WootzError(_nothing_found(result))


def _run_name(model: str | None) -> str:
    if model is None:
        return DEFAULT_EXAMPLE
    path = Path(model)
    return path.parent.name if path.stem == "net" and path.parent.name else path.stem


def _on_all_processes(cluster: Cluster, prepare: Callable[[], Job]) -> Job:
    """`prepare()` on every process; when one fails, process 0 tells why and all end."""
    job, fault = None, None
    try:
        job = prepare()
    except WootzError as error:
        fault = str(error)
    faults = [f for f in cluster.gather(fault) if f]
    if faults and cluster.rank == 0:
        raise WootzError(faults[0])
    if faults or job is None:
        raise SystemExit(1)
    return job


def _or_abort(cluster: Cluster, work: Callable[[], RunResult]) -> RunResult:
    """`work()`; with several processes, an error in this one ends the others, which would wait for it forever."""
    try:
        return work()
    except WootzError as error:
        if cluster.size > 1:
            click.echo(f"error: process {cluster.rank}: {error}", err=True)
            abort(1)
        raise


@dataclass(frozen=True)
class _Inputs:
    """Where the inputs are: options, else files of conventional names beside the network."""

    network: str
    folder: Path | None
    options: Mapping[str, Any]

    def path(self, option: str, conventional: str) -> Path:
        """The file for `option`. Raises WootzError when it is neither given nor beside the network."""
        found = self.optional_path(option, conventional)
        if found is not None:
            return found
        flag = "--" + option.replace("_", "-")
        beside = f", or a file {conventional} in {self.folder}" if self.folder else ""
        raise WootzError(f"{flag} is missing{beside}")

    def optional_path(self, option: str, conventional: str) -> Path | None:
        if self.options[option]:
            return Path(self.options[option])
        if self.folder is not None and (self.folder / conventional).is_file():
            return self.folder / conventional
        return None


def _job(model: str | None, out: Path, options: Mapping[str, Any], processes: int) -> Job:
    folder = _example_folder() if model is None else Path(model) if Path(model).is_dir() else None
    network_file = str(folder / "net.prototxt") if folder else str(model)
    inputs = _Inputs(network_file, folder, options)
    network = open_network(network_file, options["weights"], options["seed"])
    modules, source = find_modules(network.model)
    full_network = replace(network.model, modules=modules)
    prunable = prunable_network(BlockPruner.of(full_network, options["criterion"]))
    subspace, warnings = read_subspace(inputs.path("subspace", "subspace.json"), prunable)
    solver = read_solver(inputs.path("solver", "solver.prototxt"))
    teacher_solver = inputs.optional_path("teacher_solver", "teacher.prototxt")
    data = options["data"] or solver.data or (DEFAULT_EXAMPLE if model is None else "")
    if not data:
        raise WootzError("--data is missing: the folder of the data set")
    train_transform, test_transform = (_override(t, options) for t in (network.train_transform, network.test_transform))
    dataset = load_dataset(data, _image_shape(network), train_transform.crop_size, options["seed"])
    return Job(
        title=_title(model),
        network=full_network,
        modules_source=source,
        untrained=network.initialised,
        all_untrained=network_file.endswith(".prototxt") and not options["weights"],
        train_transform=train_transform,
        test_transform=test_transform,
        data_title=data,
        dataset=dataset,
        subspace=subspace,
        objective=_objective(inputs),
        teacher_solver=solver if teacher_solver is None else read_solver(teacher_solver),
        solver=solver,
        pretrain_solver=read_solver(inputs.path("pretrain_solver", "pretrain.prototxt")),
        out=out,
        baseline=options["baseline"],
        identifier=options["identifier"],
        groups=options["groups"],
        criterion=options["criterion"],
        device=_device(solver, options),
        embed_normalization=options["embed_normalization"],
        notes=(*network.notes, *warnings, *_machine_notes(solver, processes)),
    )


def _machine_notes(solver: Solver, processes: int) -> tuple[str, ...]:
    if solver.machines in (0, processes):
        return ()
    return (f"The solver asks for {solver.machines} machines, {processes} take part: mpiexec -n {solver.machines}.",)


def _example_folder() -> Path:
    return Path(str(resources.files("wootz.examples"))) / DEFAULT_EXAMPLE


def _title(model: str | None) -> str:
    return f"the example {DEFAULT_EXAMPLE!r}" if model is None else model


def _objective(inputs: _Inputs) -> Objective:
    given = inputs.options["objective"]
    if given and not Path(given).is_file():
        return parse_objective(given, "--objective")
    return read_objective(inputs.path("objective", "objective.txt"))


def _image_shape(network: ImportedNetwork) -> tuple[int, int, int]:
    source = network.model.graph.inputs[0]
    shape = tensor_shape(source)
    if shape is None or len(shape) != 4 or not all(isinstance(extent, int) for extent in shape[1:]):
        raise WootzError(
            f"the network's input {source.name} is not [N, channels, height, width] with fixed sizes: {shape}"
        )
    channels, height, width = (int(extent) for extent in shape[1:])
    return channels, height, width


def _override(transform: InputTransform, options: Mapping[str, Any]) -> InputTransform:
    given: dict[str, Any] = {
        "mean": _numbers("--mean", options["mean"]),
        "scale": _numbers("--scale", options["scale"]),
        "channel_order": options["channel_order"],
        "mirror": options["mirror"],
    }
    return replace(transform, **{name: value for name, value in given.items() if value is not None})


def _numbers(flag: str, text: str | None) -> tuple[float, ...] | None:
    if text is None:
        return None
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError as error:
        raise WootzError(f"{flag} {text}: not a number, or numbers with commas between them") from error


def _device(solver: Solver, options: Mapping[str, Any]) -> Device:
    kind = options["device"] or ("cuda" if solver.solver_mode == "GPU" else "cpu")
    return Device(kind, options["threads"])


def _show(console: Console, result: RunResult, folder: Path, report: Path) -> None:
    table = Table(title=result.objective, title_justify="left")
    table.add_column("network")
    for column in ("parameters", "", "validation", "test", "tried", "time"):
        table.add_column(column, justify="right", no_wrap=True)
    full = result.full
    table.add_row(
        "full",
        f"{full.parameters:,}",
        "",
        _percent(full.accuracy),
        _percent(full.test_accuracy),
        "",
        _time(full.seconds),
    )
    _add_exploration(table, "best, block-trained", result.block_trained, result, result.pretraining_seconds)
    if result.default is not None:
        _add_exploration(table, "best, default", result.default, result, 0.0)
    console.print(table)
    if result.block_trained.best is not None:
        best = result.block_trained.network(result.block_trained.best)
        console.print(
            f"best:   {folder / BEST_FILE}  {best.configuration}", highlight=False, soft_wrap=True, markup=False
        )
    console.print(f"report: {report}", highlight=False, soft_wrap=True)


def _add_exploration(table: Table, title: str, found: ExplorationResult, result: RunResult, before: float) -> None:
    tried, time = f"{len(found.networks)} of {result.feasible}", _time(before + found.seconds)
    if found.best is None:
        table.add_row(title, "none meets the constraints", "", "", "", tried, time)
        return
    best = found.network(found.best)
    share = f"{100 * best.parameters / result.full.parameters:.0f} %"
    accuracies = (_percent(best.accuracy), _percent(found.best_test_accuracy))
    table.add_row(title, f"{best.parameters:,}", share, *accuracies, tried, time)


def _time(seconds: float) -> str:
    return f"{seconds:.1f} s"


def _percent(accuracy: float | None) -> str:
    return "-" if accuracy is None else f"{100 * accuracy:.2f} %"


def _nothing_found(result: RunResult) -> str:
    closest = max(result.block_trained.networks, key=lambda n: n.accuracy)
    return (
        f"none of the {len(result.block_trained.networks)} networks meets '{result.objective}': the most accurate is "
        f"{closest.configuration} with {closest.accuracy:.4f}; relax the constraint or add larger configurations"
    )
