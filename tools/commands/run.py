"""`wootz run`: the main job."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click
from rich.console import Console

from wootz.passes.errors import WootzError
from wootz.runtime.cluster import Cluster, abort, connect
from wootz.runtime.progress import Progress
from wootz.runtime.report import write_report
from wootz.runtime.run import Job, check
from wootz.runtime.run import run as run_job
from wootz.runtime.run_directory import check_run_directory, prepare_run_directory
from wootz.tools.job import make_job, run_name
from wootz.tools.memory import Memory
from wootz.tools.models import size_option
from wootz.tools.progress import ConsoleProgress
from wootz.tools.summary import nothing_found, print_summary


@click.command()
@click.argument("model", required=False)
@click.option("--weights", metavar="FILE", help="Weights of a prototxt: .caffemodel or .caffemodel.h5.")
@click.option("--scores", "--output", metavar="NAME", help="The network's output with the scores, of several.")
@size_option
@click.option(
    "--data", metavar="DIR", help="Data set: a folder with class folders, .npy, IDX or LMDB, an .npz, or 'digits'."
)
@click.option("--subspace", metavar="FILE", help="Configurations to try: .json, .csv, .npy or pickle.")
@click.option("--objective", metavar="TEXT|FILE", help="For example 'min ModelSize constraint Accuracy > 0.8'.")
@click.option("--solver", metavar="FILE", help="Solver prototxt for training and fine-tuning.")
@click.option("--teacher-solver", metavar="FILE", help="Solver for training the full network (default: --solver).")
@click.option("--pretrain-solver", metavar="FILE", help="Solver prototxt for the tuning blocks.")
@click.option("--out", metavar="RUN", help="Folder for the results (default: runs/NAME).")
@click.option("--baseline", is_flag=True, help="Explore the default networks too, and compare.")
@click.option("--resume", is_flag=True, help="Continue a run in --out: what is finished, or failed, is reused.")
@click.option("--overwrite", is_flag=True, help="Replace a run in --out.")
@click.option("--identifier", type=click.Choice(["maximal", "paper"]), default="maximal", show_default=True,
              help="How tuning blocks are identified.")  # fmt: skip
@click.option("--groups", type=click.Choice(["joint", "paper"]), default="joint", show_default=True,
              help="Blocks in one graph: all that fit into memory, or those that don't overlap.")  # fmt: skip
@click.option("--memory", type=Memory(), metavar="BYTES|4G",
              help="For pre-training in a process (default: half of the machine's, over the processes; no bound on "
                   "GPUs).")  # fmt: skip
@click.option(
    "--criterion",
    default="l1",
    show_default=True,
    help="Importance of a filter: l1, l2, fpgm, bn-scale, random; apoz and taylor look at training images.",
)
@click.option("--check/--no-check", default=True, show_default=True,
              help="Execute each pruned network beside the masked original before it is trained.")  # fmt: skip
@click.option("--mean", help="Mean of the input pixels (0-255), one or one a channel: overrides the model's.")
@click.option("--scale", help="Factor after the mean was subtracted, one or one a channel.")
@click.option("--channel-order", type=click.Choice(["BGR", "RGB"]), help="Order of the input's channels.")
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
@click.option("--embed-normalization", is_flag=True, help="best.onnx takes raw RGB pixels.")
@click.option(
    "--seed",
    type=int,
    default=0,
    show_default=True,
    help="For fillers, the validation split, and the test split of the digits.",
)
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
    folder = Path(out) if out else Path("runs") / run_name(model)

    def prepare() -> Job:
        check_run_directory(folder, resume, overwrite)
        job = make_job(model, folder, options, cluster.size)
        check(job)
        return job

    job = _on_all_processes(cluster, prepare)
    with _ending_all(cluster), _writing_into(folder):
        if cluster.rank == 0:
            prepare_run_directory(folder, keep_store=resume)
        for note in job.notes:
            progress.message(note)
        result = run_job(job, cluster, progress)
        report = write_report(folder) if cluster.rank == 0 else None
    if report is not None:
        print_summary(console, result, folder, report)
        if result.best is None:
            raise WootzError(nothing_found(result))


def _on_all_processes(cluster: Cluster, prepare: Callable[[], Job]) -> Job:
    """`prepare()` on every process; when one fails, process 0 tells why and all end."""
    job, fault = None, None
    with _ending_all(cluster):
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


@contextmanager
def _ending_all(cluster: Cluster) -> Iterator[None]:
    """With several processes, an error or an interrupt in this one ends the others, which would wait for it forever."""
    try:
        yield
    except (Exception, KeyboardInterrupt) as error:
        if cluster.size > 1:
            interrupted = isinstance(error, KeyboardInterrupt)
            click.echo("interrupted" if interrupted else f"error: process {cluster.rank}: {error}", err=True)
            abort(130 if interrupted else 1)
        raise


@contextmanager
def _writing_into(folder: Path) -> Iterator[None]:
    """Names `folder` where the system's error names no file, as that of a full disk."""
    try:
        yield
    except OSError as error:
        if error.filename is not None or error.strerror is None:
            raise
        said = f"{folder}: {error.strerror}: what was trained is kept; once that is mended, --resume continues"
        raise WootzError(said) from error
