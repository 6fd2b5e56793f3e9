"""How well a run scales: two workers, the cost of a task, of a large plan, and of continuing; and what `simulate` says.

    python benchmarks/scaling.py [--json] [--rounds 3] [--configurations 100000] [--parts workers,plan,run]

All of it is the digits example on the CPU, a thread a process, but for the plan, which is of random configurations of
ResNet-50. `--json` prints as its last line

    {"efficiency_2_workers": …, "overhead_per_task_s": …, "planned_100k_s": …, "planned_100k_mb": …,
     "simulation_error": …, "resume_overhead_s": …}

- Two workers share twelve fine-tunings; two independent processes do six of them each, at the same time, so that what
  they take from each other is not blamed on the workers. The efficiency is the median ratio of the two times, over
  rounds that take turns. The workers are warm: each has opened network and data.
- The overhead of a task is what it takes from being given to a worker to its end, beside building the training graph,
  training and tests, of which the store tells. The digest of that graph, which is taken once for all runs, is shown
  beside it. `--no-check`: executing pruned networks is work of its own.
- A plan is made in a process of its own; megabytes are its peak, with imports and the network.
- Two runs of one worker go on at once, then one of two workers. From the first recording the times of all are
  simulated; the error is the largest.
- A finished run is given its command again: seconds beside a process that imports the same and reads the data.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from statistics import median

import numpy as np

from wootz.passes.analysis.modules import find_modules
from wootz.passes.plan.subspace import Subspace
from wootz.runtime.drive import drive
from wootz.runtime.executors.engine import Ended, Engine
from wootz.runtime.executors.team import gathered
from wootz.runtime.job import Job
from wootz.runtime.plan import plan_run
from wootz.runtime.result import RunResult
from wootz.runtime.simulation import Recording, simulate
from wootz.runtime.store import Store
from wootz.runtime.strategies.enumeration import Enumeration
from wootz.runtime.tasks.perform import Site, perform
from wootz.runtime.tasks.task import FineTune, Order, Results, Task
from wootz.runtime.tasks.workshop import Workshop
from wootz.tools.commands.run import run
from wootz.tools.job import make_job
from wootz.tools.models import open_trainable

TASKS = tuple(range(12))
"""Networks of the example that are fine-tuned; the two after them warm the workers."""
RESNET50 = Path(__file__).parents[1] / "examples" / "imagenet" / "resnet50.prototxt"
RATES = (0.3, 0.5, 0.7)
CONFIGURATIONS = tuple(map(tuple, json.loads((RESNET50.parents[1] / "digits" / "subspace.json").read_text())))
ALONE, PLAN, IMPORTS = "--alone", "--plan", "--imports"


def digits_job(out: Path) -> Job:
    return job_of(["--threads=1", "--no-check", "--round-to=1"], out)


def job_of(arguments: Sequence[str], out: Path) -> Job:
    """The job that `wootz run` makes of these arguments."""
    options = run.make_context("run", list(arguments)).params
    with gathered(threads=1) as team:
        assert team is not None
        return make_job(options["model"], out, options, team, partial(Store.open, out.with_name("store")))


def site_in(folder: Path, store_name: str = "store") -> Site:
    return Site.of(digits_job(folder / f"run-{store_name}"), Store.open(folder / store_name))


# Two workers, and two independent processes


@dataclass
class Watch:
    """Listens to `drive`: the seconds of each task from being given to a worker to its end, and what was computed."""

    seconds: list[float] = field(default_factory=list)
    keys: list[str] = field(default_factory=list)

    def started(self, task: Task) -> None:
        pass

    def finished(self, task: Task, results: Results, ended: Ended[Order, Results]) -> None:
        self.seconds.append(ended.end - ended.start)
        self.keys.append(results[0].key)

    def cancelled(self, task: Task) -> None:
        raise AssertionError(f"{task} was cancelled")

    def failed(self, task: Task, ended: Ended[Order, Results]) -> None:
        raise AssertionError(f"{task} failed: {ended.how}")


def order_of(task: Task) -> Order:
    assert isinstance(task, FineTune)
    return Order(task, configurations=(CONFIGURATIONS[task.network],))


def fine_tune(engine: Engine[Order, Results], networks: Sequence[int], watch: Watch) -> float:
    """Seconds that an engine takes for these networks."""
    tasks = tuple(FineTune(network, "default") for network in networks)
    strategy = Enumeration(tasks, meets=lambda task, results: False, stops_at_first=False)
    begin = time.perf_counter()
    drive(strategy, engine, lambda task, _: order_of(task), watch)
    return time.perf_counter() - begin


def two_workers(folder: Path) -> tuple[float, float]:
    """Seconds for all tasks, and those of a task beside its training."""
    site, watch = site_in(folder), Watch()
    with gathered(workers=2, threads=1) as team:
        assert team is not None
        with team.engine(partial(perform, site), folder / "logs") as engine:
            fine_tune(engine, (len(TASKS), len(TASKS) + 1), Watch())
            seconds = fine_tune(engine, TASKS, watch)
    entries = [Store.open(site.store).entry(key) for key in watch.keys]
    trained = sum(entry.seconds for entry in entries if entry is not None)
    return seconds, (sum(watch.seconds) - trained) / len(TASKS)


def digest_seconds(folder: Path) -> float:
    """Seconds for the digest of a training graph; the store that two workers use knows them then."""
    workshop, seconds = Workshop(digits_job(folder), Store.open(folder / "store")), 0.0
    for network in TASKS:
        order = order_of(FineTune(network, "default"))
        network_of_order = workshop.assembled(order, *order.configurations)
        program = workshop.trainer.network_program(network_of_order, workshop.job.solver, str(order))
        assert program.graph.graph.nodes, "built before the digest is timed"
        begin = time.perf_counter()
        assert program.digest
        seconds += time.perf_counter() - begin
    return seconds / len(TASKS)


def two_processes(folder: Path) -> float:
    """Seconds until the slower of two processes has done its half."""
    command = [sys.executable, __file__, ALONE, str(folder)]
    halves = [
        subprocess.Popen([*command, str(half)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for half in range(2)
    ]
    for process in halves:
        assert process.stdout is not None
        while "ready" not in process.stdout.readline():
            pass
    for process in halves:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    return max(float(process.communicate()[0].split()[-1]) for process in halves)


def alone(folder: Path, half: int) -> None:
    """One of the two processes: is warm, waits for a line, and tells how long its tasks took."""
    site = site_in(folder, f"store-{half}")
    with gathered(threads=1) as team:
        assert team is not None
        with team.engine(partial(perform, site), folder / "logs") as engine:
            fine_tune(engine, (len(TASKS),), Watch())
            print("ready", flush=True)
            sys.stdin.readline()
            print(fine_tune(engine, TASKS[half::2], Watch()), flush=True)


def measure_workers(rounds: int) -> dict[str, float]:
    ratios, overheads = [], []
    for number in range(rounds):
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            apart = two_processes(folder)
            digest = digest_seconds(folder)
            together, overhead = two_workers(folder)
        print(f"round {number + 1}: two processes {apart:.2f} s, two workers {together:.2f} s")
        print(f"  beside training {overhead:.3f} s a task, digest of a training graph {digest:.3f} s")
        ratios.append(apart / together)
        overheads.append(overhead)
    return {"efficiency_2_workers": median(ratios), "overhead_per_task_s": median(overheads)}


# A large plan


def plan(configurations: int) -> dict[str, float]:
    """The seconds of `plan_run` in this process, and its peak in megabytes."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        workshop = Workshop(resnet_job(configurations, folder), Store.open(folder / "store"))
        begin, processor = time.perf_counter(), time.process_time()
        planned = plan_run(workshop)
        seconds, processor = time.perf_counter() - begin, time.process_time() - processor
    of_processor = f"{seconds:.1f} s, of a processor {processor:.1f} s"
    print(f"{len(planned.order):,} networks to try, {len(planned.groups)} group: {of_processor}", file=sys.stderr)
    unit = 1 if sys.platform == "darwin" else 1024
    megabytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6
    return {"planned_100k_s": seconds, "planned_100k_mb": megabytes}


def resnet_job(configurations: int, folder: Path) -> Job:
    """ResNet-50, whose data play no part in the plan, with random configurations."""
    model = open_trainable(str(RESNET50)).model
    modules, source = find_modules(model)
    rates = np.unique(np.random.default_rng(0).choice(RATES, (configurations, len(modules))), axis=0)
    return replace(
        digits_job(folder),
        network=replace(model, modules=modules),
        modules_source=source,
        subspace=Subspace(tuple(module.name for module in modules), tuple(map(tuple, rates.tolist()))),
        memory_budget=None,
    )


def measure_plan(configurations: int) -> dict[str, float]:
    command = [sys.executable, __file__, PLAN, "--configurations", str(configurations)]
    found: dict[str, float] = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
    return found


# Whole runs


def wootz(folder: Path, name: str, *options: str) -> subprocess.Popen[bytes]:
    """`wootz run` of the example in a process of its own, with a store of its own."""
    command = "from wootz.tools.cli import main; main()"
    out, store = folder / name, folder / f"store-{name}"
    return subprocess.Popen(
        [
            sys.executable,
            "-c",
            command,
            "run",
            "--threads=1",
            "--round-to=1",
            f"--out={out}",
            f"--store={store}",
            *options,
        ],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


def finish(process: subprocess.Popen[bytes]) -> None:
    if process.wait():
        raise SystemExit(f"{process.args!r} failed")


def measure_runs() -> dict[str, float]:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for process in [wootz(folder, run_name) for run_name in ("one", "another")]:
            finish(process)
        finish(wootz(folder, "two", "--workers=2"))
        error = simulation_error(folder)
        begin = time.perf_counter()
        finish(wootz(folder, "one"))
        again = time.perf_counter() - begin
        begin = time.perf_counter()
        subprocess.run([sys.executable, __file__, IMPORTS], check=True)
        imports = time.perf_counter() - begin
    print(f"a finished run: {again:.2f} s, of which imports and data {imports:.2f} s")
    return {"simulation_error": error, "resume_overhead_s": max(0.0, again - imports)}


def simulation_error(folder: Path) -> float:
    """The largest relative error of the times that the recording of the run `one` gives for the others."""
    found = simulate(Recording.load(folder / "one"), (1, 2)).block_trained
    simulated = {s.workers: s.seconds for s in found if s.assignment == "dynamic"}
    errors = []
    for name, workers in (("one", 1), ("another", 1), ("two", 2)):
        took = RunResult.load(folder / name).seconds
        real = took.pretraining + took.exploration
        print(f"{workers} worker(s): simulated {simulated[workers]:.1f} s, run {real:.1f} s")
        errors.append(abs(simulated[workers] / real - 1))
    return max(errors)


def main(arguments: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print the figures as JSON on the last line")
    parser.add_argument("--rounds", type=int, default=3, help="of two workers and two processes")
    parser.add_argument("--configurations", type=int, default=100_000)
    parser.add_argument("--parts", default="workers,plan,run", help="what is measured, separated by commas")
    parser.add_argument(ALONE, nargs=2, help=argparse.SUPPRESS)
    parser.add_argument(PLAN, action="store_true", help=argparse.SUPPRESS)
    parser.add_argument(IMPORTS, action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.alone:
        alone(Path(options.alone[0]), int(options.alone[1]))
    elif options.plan:
        print(json.dumps(plan(options.configurations)))
    elif options.imports:
        digits_job(Path("digits"))
    else:
        measure(options.parts.split(","), options)


def measure(parts: Sequence[str], options: argparse.Namespace) -> None:
    found: dict[str, float] = {}
    if "workers" in parts:
        found |= measure_workers(options.rounds)
    if "plan" in parts:
        found |= measure_plan(options.configurations)
    if "run" in parts:
        found |= measure_runs()
    for name, value in found.items():
        print(f"{name}: {value:.3f}")
    if options.json:
        print(json.dumps(found))


if __name__ == "__main__":
    main(sys.argv[1:])
