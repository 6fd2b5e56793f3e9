"""What the experiments of this folder have left, in one line: `null` for what wasn't run to its end.

    python benchmarks/paper/summary.py [--lite0 FOLDER] [--table2 FOLDER] [--budgets FOLDER] [--json]

speedup_16, speedup_64          time in which default networks find one as good as the full network, over that of
                                block-trained ones, pre-training counted (Table 4), of so many configurations:
                                EfficientNet-Lite0's, or else of those networks that Table 2 has as many of, or more,
                                which a search of their list chooses, or else which are tried one after the other
init_gain, final_gain           by what the median of block-trained networks is better than that of default ones, before
                                and after fine-tuning (Table 2): the median over networks
lite0_size_at_full_minus_0.01   parameters of the smallest EfficientNet-Lite0 that block training or a search has found,
                                of the full one's: the median over seeds
resnet56_2.1x                   test accuracy of ResNet-56 with 0.476 of its FLOPs, from blocks (flops_budget.py)
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from pathlib import Path

import flops_budget
import lite0_flowers
import table2
from listed import searches_of, trained_runs
from table4 import Trained, comparisons

sys.path.append(str(Path(__file__).parents[1]))

from spread import median


def speedup(lite0: Path, tables: Path, count: int) -> float | None:
    results = lite0_flowers.Results(lite0, count)
    for way in ("listed", "enumeration"):
        found = median(results.speedup(seed, way, drop=0.0) for seed in _seeds(lite0))
        if found is not None:
            return found
    folders = sorted(tables.glob("*/"))
    runs = [run for folder in folders for run in trained_runs(folder)]
    listed = [search.speedup for run in runs for search in searches_of(run, count, drop=0.0)]
    chosen = median(speedup for speedup in listed if speedup is not None)
    both = [Trained.load(run) for folder in folders for run in table2.finished(folder)]
    one_by_one = median(c.speedup for c in comparisons(both, count, drop=0.0))
    return one_by_one if chosen is None else chosen


def gain(tables: Path, position: int) -> float | None:
    """Before fine-tuning (position 0) or after it (1)."""
    known = [gains for folder in sorted(tables.glob("*/")) if (gains := table2.gains(folder)) is not None]
    return median(gains[position] for gains in known)


def size(lite0: Path, drop: float) -> float | None:
    return median(_smallest(lite0, seed, drop) for seed in _seeds(lite0))


def _smallest(lite0: Path, seed: int, drop: float) -> float | None:
    ways = [(way, count) for way in ("enumeration", "listed", "search") for count in (16, 64)]
    found = [lite0_flowers.Results(lite0, count).found(seed, way, drop) for way, count in ways]
    return min((f.share for f in found if f is not None), default=None)


def accuracy(budget: flops_budget.Budget) -> float | None:
    best = flops_budget.best_of(budget.blocks)
    return None if best is None else best.network.test_quality


def _seeds(lite0: Path) -> Iterator[int]:
    for folder in sorted(lite0.glob("seed-*/")):
        yield int(folder.name.removeprefix("seed-"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lite0", type=Path, default=lite0_flowers.OUT)
    parser.add_argument("--table2", type=Path, default=table2.OUT)
    parser.add_argument("--budgets", type=Path, default=flops_budget.OUT)
    parser.add_argument("--json", action="store_true", help="one line of JSON")
    options = parser.parse_args()
    summary = {
        "speedup_16": speedup(options.lite0, options.table2, 16),
        "speedup_64": speedup(options.lite0, options.table2, 64),
        "init_gain": gain(options.table2, 0),
        "final_gain": gain(options.table2, 1),
        "lite0_size_at_full_minus_0.01": size(options.lite0, 0.01),
        "resnet56_2.1x": accuracy(flops_budget.Budget(options.budgets / "resnet56", 0.476)),
    }
    print(json.dumps(summary, indent=None if options.json else 1))


if __name__ == "__main__":
    main()
