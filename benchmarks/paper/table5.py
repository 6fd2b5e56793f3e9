"""The paper's Table 5: what it brings to pre-train runs of modules together that the same networks share.

    python benchmarks/paper/table5.py NETWORK --data DATA --name NAME [--out FOLDER] [--seeds 0,1,2] [--count 8] \
        [--drops 0,0.01,0.02] [--report] [further options of `wootz run`]

For each seed there are two collections of COUNT configurations of the rates 0.3, 0.5 and 0.7: in collection-1 each
module has a rate of its own, in collection-2 runs of one to four modules share one. All are trained from blocks that
are single modules (`--identifier modules`), and from those that `--identifier maximal` joins. With the smallest network
first, an exploration ends at the first that loses no more than the drop, and its time is the processor's, pre-training
included. The extra speedup is that of single modules over that of joined ones.

What is finished isn't run again, and what was interrupted goes on; --report prints what is there, and runs nothing.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import geometric_mean

sys.path.append(str(Path(__file__).parents[1]))

from arguments import experiment_arguments, seeds
from courses import Course
from explorer import Explorer, course_in, full_network, is_finished
from machine import machine
from spread import spread
from table4 import explored

from wootz.passes.plan.sampling import Sampling
from wootz.runtime.result import RunResult

OUT = Path("runs/paper/table5")
COLLECTIONS: dict[str, Sampling] = {"collection-1": "independent", "collection-2": "runs"}
IDENTIFIERS = ("modules", "maximal")


@dataclass(frozen=True)
class Collection:
    """A collection of configurations, trained from both kinds of blocks; its runs are beside each other in `folder`."""

    folder: Path

    def run(self, explorer: Explorer, count: int, seed: int, sampling: Sampling) -> None:
        for identifier in IDENTIFIERS:
            own = ("--identifier", identifier)
            explorer.enumerate(self.folder / identifier, count, "max Accuracy", seed, *own, sampling=sampling)

    @property
    def is_finished(self) -> bool:
        return all(is_finished(self.folder / identifier) for identifier in IDENTIFIERS)

    def blocks(self, identifier: str) -> int:
        """How many are pre-trained."""
        return len(RunResult.load(self.folder / identifier).blocks)

    def seconds(self, identifier: str, drop: float) -> float:
        """Of the exploration that ends at the first network that loses no more than the drop."""
        run = self.folder / identifier
        course = course_in(run, is_default=False, by_processor=True)
        assert isinstance(course, Course)
        configurations = {network.index for network in course.networks}
        least = full_network(run).quality - drop
        return course.pretraining + explored(course.networks, configurations, least).seconds

    def speedup(self, drop: float) -> float:
        modules, maximal = (self.seconds(identifier, drop) for identifier in IDENTIFIERS)
        return modules / maximal


def collections(folder: Path, name: str) -> list[Collection]:
    """Those of one kind that are finished."""
    found = (Collection(seed / name) for seed in sorted(folder.glob("seed-*")))
    return [collection for collection in found if collection.is_finished]


def lines(folder: Path, drops: Sequence[float]) -> Iterator[str]:
    yield "| collection | seeds | blocks: single modules | joined | drop | extra speedup |"
    yield "| --- | --- | --- | --- | --- | --- |"
    for name in COLLECTIONS:
        found = collections(folder, name)
        if not found:
            continue
        single, joined = (spread([c.blocks(i) for c in found], digits=0) for i in IDENTIFIERS)
        speedups = {drop: [c.speedup(drop) for c in found] for drop in drops}
        for drop, values in speedups.items():
            yield f"| {name} | {len(found)} | {single} | {joined} | {drop:g} | {spread(values)} |"
        mean = geometric_mean(value for values in speedups.values() for value in values)
        yield f"| {name} | {len(found)} | | | geometric mean | {mean:.2f} |"


def main() -> None:
    parser = experiment_arguments(__doc__, OUT)
    parser.add_argument("--seeds", type=seeds, default=(0, 1, 2))
    parser.add_argument("--count", type=int, default=8)
    parser.add_argument("--drops", type=lambda text: [float(part) for part in text.split(",")], default=[0, 0.01, 0.02])
    options, further = parser.parse_known_args()
    folder = options.out / options.name
    explorer = Explorer(options.network, options.data, options.threads, ("--reference", "given", *further))
    print(machine())
    for seed in () if options.report else options.seeds:
        for name, sampling in COLLECTIONS.items():
            Collection(folder / f"seed-{seed}" / name).run(explorer, options.count, seed, sampling)
    for line in lines(folder, options.drops):
        print(line)


if __name__ == "__main__":
    main()
