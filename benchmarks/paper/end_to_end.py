"""The smallest network within a drop of accuracy, end to end: `wootz search`, and what one would do by hand instead.

    python benchmarks/paper/end_to_end.py NETWORK.onnx --data FOLDER --name NAME [--out FOLDER] [--seeds 0] \
        [--drop 0.01] [--trainings 6] [--threads 1] [--only WAY,…] [--report] [further options of `wootz search`]

FOLDER has {train,val,test}/CLASS/* of images of NETWORK's size. The objective is `min ModelSize constraint Accuracy >=
full - DROP`, `full` being NETWORK as it is. For each seed:

wootz           `wootz search` with the further options; it chooses how long networks are fine-tuned
torch-pruning   Torch-Pruning's global l1 and PyTorch (by_hand/with_torch_pruning.py): bisection over the ratio, with
                --trainings trainings of the same steps, batches, learning rates and lesson as the search's fine-tunings
onnxsim         its structured pruning and its tuning of blocks (by_hand/with_onnxsim.py): the same bisection, as many
                steps and images a block

What is finished isn't run again; an interrupted search goes on, what is done by hand begins anew. --report prints what
is there, and runs none of them.

Seconds are the processor's, until a way found its network and of all that it does. Accuracies and parameters are those
of the ONNX files that the ways leave, with BatchNormalization folded for the count; latencies are those of one image in
ONNX Runtime, side by side. Lines are those that a user writes: the command, or the script with what it imports from
beside it, without the network's definition in PyTorch; the arguments of the scripts stand for a user's constants.
"""

from __future__ import annotations

import json
import os
import pickle
import shutil
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import onnxruntime

sys.path.append(str(Path(__file__).parents[1]))

from arguments import experiment_arguments, seeds
from explorer import Explorer, course_in, full_network, is_finished, objective, processor_file
from machine import machine
from processor_time import ProcessorTime, run
from spread import spread
from written_lines import written_lines

from wootz.passes.analysis.cost import parameters
from wootz.passes.ir.files import load
from wootz.passes.pipeline import parse_pipeline, run_pipeline
from wootz.passes.plan.solver import SolverType
from wootz.runtime.data.dataset import Split
from wootz.runtime.evaluation import answers
from wootz.runtime.inputs import Data
from wootz.runtime.job import Job
from wootz.runtime.latency import side_by_side
from wootz.runtime.result import RunResult
from wootz.runtime.run_directory import BEST_FILE, JOB_FILE

OURS = "wootz"
BY_HAND = {"torch-pruning": "with_torch_pruning.py", "onnxsim": "with_onnxsim.py"}
GIVEN = {"given"}
"""What a user of PyTorch has before."""
FOUND, FINISHED = "found.onnx", "finished.json"
OUT = Path("runs/paper/end_to_end")


@dataclass(frozen=True)
class Outcome:
    """What a way has left: `file` and `seconds_to`, the time until it was there, are None where no network will do."""

    file: Path | None
    seconds_to: float | None
    seconds: float


@dataclass(frozen=True)
class Experiment:
    """`threads` are also the cores that a way gets."""

    folder: Path
    explorer: Explorer
    drop: float
    trainings: int

    def of(self, seed: int, way: str) -> Path:
        return self.folder / f"seed-{seed}" / way

    # Running

    def run(self, seed: int, ways: Sequence[str]) -> None:
        if OURS in ways:
            self.explorer.explore("search", self.of(seed, OURS), objective(self.drop), seed)
        for way in BY_HAND:
            if way in ways and is_finished(self.of(seed, OURS)):
                self._run_by_hand(seed, way)

    def _run_by_hand(self, seed: int, way: str) -> None:
        folder = self.of(seed, way)
        if (folder / FINISHED).exists():
            return
        shutil.rmtree(folder, ignore_errors=True)
        processor_file(folder).unlink(missing_ok=True)
        folder.mkdir(parents=True)
        given = (self.explorer.model, "--data", self.explorer.data, "--out", folder / FOUND, "--seed", seed)
        bounds = ("--drop", self.drop, "--trainings", self.trainings)
        settings = settings_of(job_of(self.of(seed, OURS)), way)
        if run((sys.executable, _script(way), *given, *bounds, *settings), processor_file(folder)) == 0:
            (folder / FINISHED).write_text(json.dumps(_times(folder)))

    # Reading

    def outcome(self, seed: int, way: str) -> Outcome | None:
        """None for a way that wasn't gone to its end."""
        folder = self.of(seed, way)
        return self._of_search(folder) if way == OURS else _by_hand(folder)

    def _of_search(self, folder: Path) -> Outcome | None:
        course, processor = course_in(folder, False, True), ProcessorTime.load(processor_file(folder))
        if course is None or processor is None:
            return None
        best = course.best(full_network(folder).reference_quality - self.drop)
        if best is None or RunResult.load(folder).best is None:
            return Outcome(None, None, processor.seconds[-1])
        return Outcome(folder / BEST_FILE, best.seconds, processor.seconds[-1])


def _by_hand(folder: Path) -> Outcome | None:
    if not (folder / FINISHED).exists():
        return None
    file = folder / FOUND
    return Outcome(file if file.exists() else None, **json.loads((folder / FINISHED).read_text()))


def _times(folder: Path) -> dict[str, float | None]:
    """Until the last network was written, and until the end: each one that is written is smaller than those before."""
    processor, file = ProcessorTime.load(processor_file(folder)), folder / FOUND
    assert processor is not None
    return {
        "seconds_to": processor.at(file.stat().st_mtime) if file.exists() else None,
        "seconds": processor.seconds[-1],
    }


def _script(way: str) -> Path:
    return Path(__file__).with_name("by_hand") / BY_HAND[way]


def job_of(search: Path) -> Job:
    job: Job = pickle.loads((search / JOB_FILE).read_bytes())
    return job


def settings_of(job: Job, way: str) -> list[object]:
    """A script's arguments with which it trains as the search does. Exits with a message where it can't."""
    solver, pixels = job.solver, job.test_transform
    if (
        solver.type is not SolverType.SGD
        or solver.lr_policy != "cosine"
        or not 0 < solver.warmup_iter < solver.max_iter
    ):
        sys.exit("what is done by hand trains by SGD with a warm-up and cosine decay, and nothing else")
    shared = ("--steps", solver.max_iter, "--batch-size", solver.batch_size)
    normalization = ("--mean", *pixels.mean, "--scale", *pixels.scale, "--channel-order", pixels.channel_order)
    if way == "onnxsim":
        return [*shared, *normalization]
    rates = ("--learning-rate", solver.base_lr, "--warm-up", solver.warmup_iter, "--momentum", solver.momentum)
    regularization = ("--weight-decay", solver.weight_decay, *(["--mirror"] if job.train_transform.mirror else ()))
    lesson = ("--distill", job.lesson.distill, "--temperature", job.lesson.temperature)
    tests = ("--test-interval", solver.test_interval or solver.max_iter)
    return [*shared, *normalization, *rates, *regularization, *lesson, *tests]


# Reporting


@dataclass(frozen=True)
class Judged:
    """A network's file, as plain ONNX Runtime finds it."""

    parameters: int
    validation: float
    test: float | None
    milliseconds: float


def judged(files: Sequence[Path], job: Job, threads: int) -> list[Judged]:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    sessions = [onnxruntime.InferenceSession(file, options) for file in files]
    image = np.zeros((1, *job.image_shape), np.float32)
    latencies = side_by_side([partial(_predict, session, image) for session in sessions])
    return [
        Judged(
            parameters(run_pipeline(load(file), parse_pipeline("fold-constants,fold-batchnorm")).model),
            _accuracy(session, job.dataset.validation, job),
            None if job.dataset.test is None else _accuracy(session, job.dataset.test, job),
            latency.median_ms,
        )
        for file, session, latency in zip(files, sessions, latencies, strict=True)
    ]


def _predict(session: onnxruntime.InferenceSession, images: Data) -> np.ndarray:
    scores: np.ndarray = session.run(None, {session.get_inputs()[0].name: images})[0]
    return scores


def _accuracy(session: onnxruntime.InferenceSession, split: Split, job: Job) -> float:
    return float(np.mean(answers(partial(_predict, session), split, job.test_transform) == split.labels))


@dataclass(frozen=True)
class Row:
    """A way with a seed. What it has found is None where no network will do."""

    outcome: Outcome
    found: Judged | None
    full: Judged
    meets: bool


def rows(experiment: Experiment, seed: int) -> dict[str, Row]:
    search = experiment.of(seed, OURS)
    if not is_finished(search):
        return {}
    known = {way: o for way in (OURS, *BY_HAND) if (o := experiment.outcome(seed, way)) is not None}
    files = {way: o.file for way, o in known.items() if o.file is not None}
    network = Path(experiment.explorer.model)
    full, *others = judged([network, *files.values()], job_of(search), experiment.explorer.threads)
    found = dict(zip(files, others, strict=True))
    least = full.validation - experiment.drop
    return {
        way: Row(outcome, found.get(way), full, way in found and found[way].validation >= least)
        for way, outcome in known.items()
    }


def lines(experiment: Experiment, seeds: Sequence[int]) -> Iterator[str]:
    of_seeds = [found for seed in seeds if (found := rows(experiment, seed))]
    if not of_seeds:
        yield "nothing is finished"
        return
    full = of_seeds[0][OURS].full
    test = "none" if full.test is None else f"{full.test:.4f}"
    yield (
        f"The full network has {full.parameters:,} parameters, {full.validation:.4f} on validation, {test} on test "
        f"images, and takes {full.milliseconds:.3f} ms.\n"
    )
    yield "| way | lines | seconds to it | all seconds | parameters of full | validation | test | ms | meets it |"
    yield "| --- | --- | --- | --- | --- | --- | --- | --- | --- |"
    for way in (OURS, *BY_HAND):
        gone = [found[way] for found in of_seeds if way in found]
        if gone:
            yield f"| {way} | {lines_of(way)} | {' | '.join(_columns(gone))} |"


def _columns(rows: Sequence[Row]) -> Iterator[str]:
    networks = [row.found for row in rows]
    yield spread([row.outcome.seconds_to for row in rows], digits=0)
    yield spread([row.outcome.seconds for row in rows], digits=0)
    yield spread([n.parameters / row.full.parameters if n else None for row, n in zip(rows, networks, strict=True)], 3)
    yield spread([network.validation if network else None for network in networks], digits=4)
    yield spread([network.test if network else None for network in networks], digits=4)
    yield spread([network.milliseconds if network else None for network in networks], digits=3)
    yield f"{sum(row.meets for row in rows)} of {len(rows)}"


def lines_of(way: str) -> int:
    return 1 if way == OURS else written_lines(_script(way), GIVEN)


def main() -> None:
    parser = experiment_arguments(__doc__, OUT)
    parser.add_argument("--seeds", type=seeds, default=(0,))
    parser.add_argument("--drop", type=float, default=0.01)
    parser.add_argument("--trainings", type=int, default=6, help="of what is done by hand")
    parser.add_argument("--only", type=lambda text: text.split(","), default=(OURS, *BY_HAND))
    options, further = parser.parse_known_args()
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: options.threads])
    explorer = Explorer(options.network, options.data, options.threads, ("--reference", "given", *further))
    experiment = Experiment(options.out / options.name, explorer, options.drop, options.trainings)
    print(machine())
    for seed in () if options.report else options.seeds:
        experiment.run(seed, options.only)
    for line in lines(experiment, options.seeds):
        print(line)


if __name__ == "__main__":
    main()
