"""The paper's Tables 3 and 4: how much sooner block-trained networks reach an accuracy, by drop and subspace.

    python benchmarks/paper/table4.py FOLDER [--drops 0,0.01,0.02] [--sizes 4,16,64,256]

FOLDER is that of a network in what `table2.py` has left: configurations that were all trained both ways, to the last
step. With the smallest first, the exploration ends at the first that loses no more than the drop. A subspace that is
smaller than the run's is drawn from it, DRAWS times; all blocks of the run count in its time, as in the paper.

Seconds are the processor's, on one worker, from the first training on: planning and the checks before are left out.
`wootz simulate` tells what more workers make of a run.
"""

from __future__ import annotations

import argparse
import random
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median, quantiles

sys.path.append(str(Path(__file__).parents[1]))

from courses import Course, Network
from explorer import course_in, full_network
from table2 import finished

DRAWS = 500


@dataclass(frozen=True)
class Exploration:
    """How many networks were tried, in which time, and the size of the last one; None where none will do."""

    tried: int
    seconds: float
    size: int | None


@dataclass(frozen=True)
class Comparison:
    default: Exploration
    block_trained: Exploration
    pretraining: float
    full_size: int

    @property
    def speedup(self) -> float:
        return self.default.seconds / (self.pretraining + self.block_trained.seconds)


@dataclass(frozen=True)
class Trained:
    """A run with both kinds of all its networks."""

    full_size: int
    full_accuracy: float
    default: Course
    block_trained: Course

    @staticmethod
    def load(run: Path) -> Trained:
        full = full_network(run)
        default, block_trained = (course_in(run, is_default, by_processor=True) for is_default in (True, False))
        assert default is not None
        assert block_trained is not None
        return Trained(full.model_size, full.quality, default, block_trained)

    @property
    def configurations(self) -> list[int]:
        """Those that were trained, by their positions in the run's subspace."""
        return sorted(network.index for network in self.default.networks)

    def compared(self, configurations: Sequence[int], drop: float) -> Comparison:
        """In the subspace of these."""
        among, least = set(configurations), self.full_accuracy - drop
        default, block_trained = (explored(c.networks, among, least) for c in (self.default, self.block_trained))
        return Comparison(default, block_trained, self.block_trained.pretraining, self.full_size)


def explored(networks: Sequence[Network], among: set[int], least: float) -> Exploration:
    tried, seconds = 0, 0.0
    for network in sorted((n for n in networks if n.index in among), key=lambda n: n.size):
        tried, seconds = tried + 1, seconds + network.own
        if network.accuracy >= least:
            return Exploration(tried, seconds, network.size)
    return Exploration(tried, seconds, None)


def comparisons(runs: Sequence[Trained], size: int, drop: float) -> list[Comparison]:
    """Of subspaces of `size` configurations, drawn from each run; of the run's own where it has no more."""
    drawn = random.Random(0)
    return [
        run.compared(drawn.sample(run.configurations, size), drop)
        for run in runs
        if size <= len(run.configurations)
        for _ in range(DRAWS if size < len(run.configurations) else 1)
    ]


def lines(runs: Sequence[Trained], drops: Sequence[float], sizes: Sequence[int]) -> Iterator[str]:
    yield "| drop | configurations | tried: default, blocks | seconds | of full | pre-training | speedup |"
    yield "| --- | --- | --- | --- | --- | --- | --- |"
    for drop in drops:
        for size in sizes:
            found = comparisons(runs, size, drop)
            if found:
                yield f"| {drop:g} | {size} | {' | '.join(_cells(found))} |"


def _cells(found: Sequence[Comparison]) -> Iterator[str]:
    """Medians; of the speedup its middle half, too."""
    of_default, of_blocks = [c.default for c in found], [c.block_trained for c in found]
    total = [c.pretraining + c.block_trained.seconds for c in found]
    yield f"{median(e.tried for e in of_default):g}, {median(e.tried for e in of_blocks):g}"
    yield f"{median(e.seconds for e in of_default):.0f}, {median(total):.0f}"
    yield ", ".join(
        f"{100 * median((e.size or c.full_size) / c.full_size for e, c in zip(kind, found, strict=True)):.0f} %"
        for kind in (of_default, of_blocks)
    )
    yield f"{100 * median(c.pretraining / t for c, t in zip(found, total, strict=True)):.0f} %"
    speedups = [c.speedup for c in found]
    low, _, high = quantiles(speedups, n=4) if len(speedups) > 1 else speedups * 3
    yield f"{median(speedups):.1f} ({low:.1f} to {high:.1f})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--drops", type=lambda text: [float(part) for part in text.split(",")], default=[0, 0.01, 0.02])
    parser.add_argument("--sizes", type=lambda text: [int(part) for part in text.split(",")], default=[4, 16, 64, 256])
    options = parser.parse_args()
    runs = [Trained.load(run) for run in finished(options.folder)]
    if not runs:
        sys.exit(f"{options.folder}: no run in it is finished: table2.py makes them")
    for line in lines(runs, options.drops, options.sizes):
        print(line)


if __name__ == "__main__":
    main()
