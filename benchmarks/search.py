"""Searching a space beside what else one may do in the same time: the same network, data, solvers and machine.

    python benchmarks/search.py net.onnx --data photographs/ [--seeds 0,1,2] [--drops 0.01,0.02,0.03] \
        [--only METHOD,…] [--out FOLDER] [--json] [further options of `wootz run` and `wootz search`]

The objective is `min ModelSize constraint Accuracy >= full - DROP`. For each seed:

enumeration     the paper's: COUNT random configurations of the rates 0.3, 0.5 and 0.7, from pre-trained blocks, the
                smallest first
default         the same from the remaining weights (of the seeds in --default-seeds: it takes long)
search          `wootz search`, once for each drop, with nothing known before
uniform         the networks whose modules all have one rate, from the remaining weights, the smallest first
torch-pruning   Torch-Pruning's global l1 at ten ratios, the smallest first (torch_pruning_ladder.py)
correlation     networks that the search with the middle drop has looked at for comparison, uniform and random ones,
                trained to the end: their accuracies beside those that its predictor, which doesn't know them, expected

All but the search go on until a network has the strictest drop, and so tell what they find at the others, too. What is
finished isn't run again; what was interrupted goes on, and has the time of all its attempts, of the processor with
--processor-time (but for torch-pruning). `--report` prints what is there.

The last line with --json: time_over_enumeration, the time in which the search finds a network that is as small as the
enumeration's best one or smaller, over that in which the enumeration finds it (all of its time, where it finds none);
size_over_enumeration and size_over_torch_pruning, of the networks found; all medians over seeds and drops. spearman is
the median over seeds; ilp_seconds that of one choice among 50 modules with 9 options each (choice.py).
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from choice import problem, questions
from courses import Course, Network
from explorer import Explorer, course_in, full_network, is_finished, objective, store_of
from scipy.stats import spearmanr
from spread import median, spread

from wootz.passes.plan.space import Space
from wootz.runtime.result import RunResult

METHODS = ("enumeration", "default", "search", "uniform", "torch-pruning", "correlation")
CORRELATED = 12
"""Random networks, beside the uniform ones, whose accuracies are compared with what was expected."""


@dataclass(frozen=True)
class Benchmark:
    explorer: Explorer
    drops: tuple[float, ...]
    count: int
    out: Path
    by_processor: bool

    # Running

    @property
    def _strictest(self) -> str:
        return objective(min(self.drops))

    def folder(self, seed: int, method: str, drop: float | None = None) -> Path:
        return self.out / f"seed-{seed}" / (method if drop is None else f"{method}-{drop}")

    def run(self, method: str, seed: int) -> None:
        folder = self.folder(seed, method)
        folder.parent.mkdir(parents=True, exist_ok=True)
        match method:
            case "enumeration":
                self.explorer.enumerate(folder, self.count, self._strictest, seed)
            case "default":
                self.explorer.enumerate(folder, self.count, self._strictest, seed, "--baseline")
            case "search":
                for drop in self.drops:
                    self.explorer.explore("search", self.folder(seed, method, drop), objective(drop), seed)
            case "uniform":
                self._uniform(seed, folder)
            case "torch-pruning":
                self._torch_pruning(seed, folder.with_suffix(".json"))
            case "correlation":
                self._correlation(seed, folder)

    def _uniform(self, seed: int, folder: Path) -> None:
        options = self._searched(seed).options
        subspace = folder.with_name("uniform.json")
        subspace.write_text(json.dumps(Space(tuple(map(str, range(len(options)))), options).uniform))
        self.explorer.explore("run", folder, self._strictest, seed, "--subspace", subspace, "--baseline")

    def _torch_pruning(self, seed: int, file: Path) -> None:
        if file.exists():
            return
        enumeration = self.folder(seed, "enumeration")
        _, full = self.full(seed)
        script = Path(__file__).with_name("torch_pruning_ladder.py")
        given = [self.explorer.model, "--job", enumeration / "job.pickle", "--bound", full - min(self.drops)]
        command = [sys.executable, script, *given, "--threads", self.explorer.threads, "--out", file]
        subprocess.run(list(map(str, command)), check=True, stdout=sys.stderr)

    def _middle(self, seed: int) -> Path:
        return self.folder(seed, "search", sorted(self.drops)[len(self.drops) // 2])

    def _searched(self, seed: int) -> Any:
        result = RunResult.load(self._middle(seed))
        assert result.search is not None
        return result.search

    def _correlation(self, seed: int, folder: Path) -> None:
        subspace, store = folder.with_name("compared.json"), store_of(self._middle(seed))
        subspace.write_text(json.dumps([n.configuration for n in self._compared(seed)]))
        self.explorer.explore("run", folder, "max Accuracy", seed, "--subspace", subspace, "--store", store)

    def _compared(self, seed: int) -> list[Any]:
        """Networks of which a search has predicted the accuracy, but which it has not trained."""
        unknown = [n for n in self._searched(seed).networks if n.predicted is not None and n.quality is None]
        uniform, random = ([n for n in unknown if n.origin == origin] for origin in ("uniform", "random"))
        return [*uniform, *random[:CORRELATED]]

    # Reading

    def course(self, method: str, seed: int, drop: float) -> Course | None:
        """What a method has come to; None where it was not run."""
        if method == "torch-pruning":
            return _course_of_ladder(self.folder(seed, method).with_suffix(".json"))
        folder = self.folder(seed, method, drop if method == "search" else None)
        return course_in(folder, method in ("default", "uniform"), self.by_processor)

    def full(self, seed: int) -> tuple[int, float]:
        """Parameters and accuracy of the full network."""
        full = full_network(self.folder(seed, "enumeration"))
        return full.model_size, full.reference_quality

    def spearman(self, seed: int) -> float | None:
        """Of expected and final accuracies, over networks that the predictor doesn't know."""
        folder = self.folder(seed, "correlation")
        if not is_finished(folder):
            return None
        reached = {tuple(n.configuration): n.quality for n in RunResult.load(folder).block_trained.trained}
        expected = {tuple(n.configuration): n.predicted for n in self._compared(seed)}
        both = [(expected[c], a) for c, a in reached.items() if c in expected]
        return float(spearmanr(*zip(*both, strict=True)).statistic)


def _course_of_ladder(file: Path) -> Course | None:
    if not file.exists():
        return None
    rows = json.loads(file.read_text())
    ends = [row["seconds"] for row in rows]
    own = [end - begin for begin, end in pairwise([0.0, *ends])]
    networks = tuple(
        Network(i, end, took, row["model_size"], row["accuracy"])
        for i, (end, took, row) in enumerate(zip(ends, own, rows, strict=True))
    )
    return Course(networks, ends[-1])


# Reporting


@dataclass(frozen=True)
class Report:
    benchmark: Benchmark
    seeds: tuple[int, ...]

    def lines(self) -> Iterator[str]:
        yield "| drop | method | parameters of full | seconds | all seconds | at a third of the enumeration's time |"
        yield "| --- | --- | --- | --- | --- | --- |"
        for drop in self.benchmark.drops:
            for method in METHODS[:-1]:
                rows = [row for seed in self.seeds if (row := self._row(method, seed, drop)) is not None]
                if rows:
                    yield f"| {drop} | {method} | {' | '.join(spread(column) for column in zip(*rows, strict=True))} |"
        rhos = [rho for seed in self.seeds if (rho := self.benchmark.spearman(seed)) is not None]
        yield f"\nSpearman of expected and final accuracy: {spread(rhos)}"

    def _row(self, method: str, seed: int, drop: float) -> tuple[float | None, ...] | None:
        course = self.benchmark.course(method, seed, drop)
        if course is None:
            return None
        size, full = self.benchmark.full(seed)
        best, enumeration = course.best(full - drop), self.benchmark.course("enumeration", seed, drop)
        assert enumeration is not None
        third = enumeration.seconds_to(full - drop) / 3
        early = Course(tuple(n for n in course.networks if n.seconds <= third), third).best(full - drop)
        found = (None, None) if best is None else (best.size / size, best.seconds)
        return *found, course.seconds, None if early is None else early.size / size

    def summary(self) -> dict[str, float | None]:
        pairs = [(seed, drop) for seed in self.seeds for drop in self.benchmark.drops]
        return {
            "time_over_enumeration": median(self._time(*pair) for pair in pairs),
            "size_over_enumeration": median(self._size("enumeration", *pair) for pair in pairs),
            "size_over_torch_pruning": median(self._size("torch-pruning", *pair) for pair in pairs),
            "spearman": median(self.benchmark.spearman(seed) for seed in self.seeds),
            "ilp_seconds": round(self._ilp_seconds(), 4),
        }

    def _time(self, seed: int, drop: float) -> float | None:
        size, full = self.benchmark.full(seed)
        courses = [self.benchmark.course(method, seed, drop) for method in ("search", "enumeration")]
        search, enumeration = courses
        if search is None or enumeration is None:
            return None
        best = enumeration.best(full - drop)
        found = search.first(full - drop, size if best is None else best.size)
        return math.inf if found is None else found.seconds / enumeration.seconds_to(full - drop)

    def _size(self, other: str, seed: int, drop: float) -> float | None:
        """Of the search's network over the other's; the full network stands for one that was not found."""
        size, full = self.benchmark.full(seed)
        courses = [self.benchmark.course(method, seed, drop) for method in ("search", other)]
        if None in courses:
            return None
        best = [course.best(full - drop) for course in courses if course is not None]
        ours, others = (size if network is None else network.size for network in best)
        return ours / others

    @staticmethod
    def _ilp_seconds() -> float:
        """One choice of 50 modules with 9 options each, under one bound to three."""
        seconds = []
        for seed in range(3):
            for name, ask in questions(*problem(50, 9, is_chain=False, seed=seed), gap=0.0):
                if name.endswith("bounds"):
                    begin = time.process_time()
                    ask()
                    seconds.append(time.process_time() - begin)
        return statistics.median(seconds)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--data", required=True)
    parser.add_argument("--seeds", type=_numbers(int), default=(0, 1, 2))
    parser.add_argument("--default-seeds", type=_numbers(int), default=(0,))
    parser.add_argument("--drops", type=_numbers(float), default=(0.01, 0.02, 0.03))
    parser.add_argument("--count", type=int, default=64)
    parser.add_argument("--only", type=_numbers(str), default=METHODS)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, default=Path("runs/benchmark-search"))
    parser.add_argument("--processor-time", action="store_true")
    parser.add_argument("--report", action="store_true")
    parser.add_argument("--json", action="store_true")
    options, further = parser.parse_known_args()
    explorer = Explorer(options.model, options.data, options.threads, tuple(further))
    benchmark = Benchmark(explorer, options.drops, options.count, options.out, options.processor_time)
    if not options.report:
        for method in (m for m in METHODS if m in options.only):
            for seed in options.default_seeds if method == "default" else options.seeds:
                benchmark.run(method, seed)
    report = Report(benchmark, options.seeds)
    for line in report.lines():
        print(line)
    if options.json:
        print(json.dumps(report.summary()))


def _numbers(kind: Callable[[str], Any]) -> Callable[[str], tuple[Any, ...]]:
    return lambda text: tuple(kind(part) for part in text.split(","))


if __name__ == "__main__":
    main()
