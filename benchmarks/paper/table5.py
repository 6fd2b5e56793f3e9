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
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import geometric_mean

sys.path.append(str(Path(__file__).parents[1]))

from arguments import experiment_arguments, seeds
from courses import Course
from explorer import Explorer, course_in, full_network, is_finished
from machine import machine
from spread import spread
from table4 import Exploration, explored

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

    def explored(self, identifier: str, drop: float) -> Exploration:
        """Up to the first network that loses no more than the drop; the time has pre-training in it."""
        run = self.folder / identifier
        course = course_in(run, is_default=False, by_processor=True)
        assert isinstance(course, Course)
        configurations = {network.index for network in course.networks}
        found = explored(course.networks, configurations, full_network(run).quality - drop)
        return replace(found, seconds=course.pretraining + found.seconds)


def collections(folder: Path, name: str) -> list[Collection]:
    """Those of one kind that are finished."""
    found = (Collection(seed / name) for seed in sorted(folder.glob("seed-*")))
    return [collection for collection in found if collection.is_finished]


def lines(folder: Path, drops: Sequence[float]) -> Iterator[str]:
    yield "| collection | seeds | drop | blocks: single modules, joined | tried | seconds | extra speedup |"
    yield "| --- | --- | --- | --- | --- | --- | --- |"
    for name in COLLECTIONS:
        found, speedups = collections(folder, name), []
        for drop in drops if found else ():
            explorations = [[c.explored(identifier, drop) for c in found] for identifier in IDENTIFIERS]
            blocks = [[c.blocks(identifier) for c in found] for identifier in IDENTIFIERS]
            tried = [[e.tried for e in kind] for kind in explorations]
            seconds = [[e.seconds for e in kind] for kind in explorations]
            extra = [modules / joined for modules, joined in zip(*seconds, strict=True)]
            speedups += extra
            cells = " | ".join(", ".join(spread(kind, digits=0) for kind in both) for both in (blocks, tried, seconds))
            yield f"| {name} | {len(found)} | {drop:g} | {cells} | {spread(extra)} |"
        if speedups:
            yield f"| {name} | {len(found)} | geometric mean | | | | {geometric_mean(speedups):.2f} |"


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
