"""The paper's Table 2: accuracies before and after fine-tuning, from the remaining weights and from pre-trained blocks.

    python benchmarks/paper/table2.py NETWORK --data DATA --name NAME [--out FOLDER] [--seeds 0,1,2] [--count 12] \
        [--default-only] [--report] [further options of `wootz run`]

NETWORK is the full network, as it was trained for DATA, whose validation photographs it has never seen. For each seed
COUNT random configurations of the rates 0.3, 0.5 and 0.7 are trained both ways, all of them to the last step. What is
finished isn't run again, and what was interrupted goes on; --report prints what is there, and runs nothing. With
--default-only nothing begins with blocks: that is half of the time, and all that `listed.py` needs.

A network of several seeds counts as several. Accuracies are those of the validation split, at the test at which each
network was best, as a run keeps it; the second table has those of the tests on the way: how much of the difference is
left depends on the length of fine-tuning.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median, quantiles

sys.path.append(str(Path(__file__).parents[1]))

from arguments import experiment_arguments, seeds
from explorer import Explorer, full_network, is_finished
from machine import machine

from wootz.runtime.result import RunResult, TrainedNetworkResult

OUT = Path("runs/paper/table2")
RUN = "both"
"""The run of a seed, which has both kinds of networks."""
DEFAULT = "default"
"""The one that has default networks alone."""


@dataclass(frozen=True)
class Both:
    """One configuration, trained both ways."""

    seed: int
    default: TrainedNetworkResult
    block_trained: TrainedNetworkResult

    @property
    def initial_gain(self) -> float:
        return self.block_trained.initial_quality - self.default.initial_quality

    @property
    def final_gain(self) -> float:
        return self.block_trained.quality - self.default.quality


def trained_both_ways(folder: Path) -> list[Both]:
    """Of all finished seeds in the folder of a network."""
    return [both for run in finished(folder) for both in _of_run(run)]


def finished(folder: Path, name: str = RUN) -> list[Path]:
    return [run for run in sorted(folder.glob(f"seed-*/{name}")) if is_finished(run)]


def _of_run(run: Path) -> Iterator[Both]:
    result = RunResult.load(run)
    assert result.baseline is not None
    default = {network.index: network for network in result.baseline.trained}
    for network in result.block_trained.trained:
        if network.index in default:
            yield Both(int(run.parent.name.removeprefix("seed-")), default[network.index], network)


def gains(folder: Path) -> tuple[float, float] | None:
    """By what the median of block-trained networks is better, before and after fine-tuning; None where none is done."""
    networks = trained_both_ways(folder)
    if not networks:
        return None
    initial, final = (
        median(values(b.block_trained) for b in networks) - median(values(b.default) for b in networks)
        for values in (lambda n: n.initial_quality, lambda n: n.quality)
    )
    return initial, final


# Reporting


def lines(folder: Path) -> Iterator[str]:
    networks = trained_both_ways(folder)
    if not networks:
        yield "nothing is finished"
        return
    full = [full_network(run).quality for run in finished(folder)]
    seeds = sorted({both.seed for both in networks})
    yield f"{len(networks)} configurations of {len(seeds)} seed(s); full network {_percent(median(full))}."
    yield "\n| accuracy | median | middle half | medians of the seeds |"
    yield "| --- | --- | --- | --- |"
    rows = {
        "init: default, before": [b.default.initial_quality for b in networks],
        "init+: block-trained, before": [b.block_trained.initial_quality for b in networks],
        "final: default, after": [b.default.quality for b in networks],
        "final+: block-trained, after": [b.block_trained.quality for b in networks],
        "init+ - init, of each configuration": [b.initial_gain for b in networks],
        "final+ - final, of each configuration": [b.final_gain for b in networks],
    }
    for what, values in rows.items():
        of_seeds = [median(v for v, b in zip(values, networks, strict=True) if b.seed == seed) for seed in seeds]
        low, _, high = quantiles(values, n=4) if len(values) > 1 else values * 3
        cells = (_percent(median(values)), f"{_percent(low)} to {_percent(high)}", ", ".join(map(_percent, of_seeds)))
        yield f"| {what} | {' | '.join(cells)} |"
    better = sum(b.final_gain > 0 for b in networks)
    yield f"\nBlock-trained networks are the better ones in {better} of {len(networks)} configurations.\n"
    yield from _on_the_way(networks)


def _on_the_way(networks: Sequence[Both]) -> Iterator[str]:
    """Medians at the tests that all networks have made."""
    curves = [(dict(both.default.curve), dict(both.block_trained.curve)) for both in networks]
    steps = sorted(set.intersection(*(set(curve) for pair in curves for curve in pair)))
    yield f"| steps | {' | '.join(map(str, steps))} |"
    yield "| --- |" + " --- |" * len(steps)
    for position, kind in enumerate(("default", "block-trained")):
        yield f"| {kind} | {' | '.join(_percent(median(pair[position][step] for pair in curves)) for step in steps)} |"


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def main() -> None:
    parser = experiment_arguments(__doc__, OUT)
    parser.add_argument("--seeds", type=seeds, default=(0, 1, 2))
    parser.add_argument("--count", type=int, default=12)
    parser.add_argument("--default-only", action="store_true")
    options, further = parser.parse_known_args()
    folder = options.out / options.name
    explorer = Explorer(options.network, options.data, options.threads, ("--reference", "given", *further))
    print(machine())
    name, *kinds = (DEFAULT, "--identifier", "none") if options.default_only else (RUN, "--baseline")
    for seed in () if options.report else options.seeds:
        explorer.enumerate(folder / f"seed-{seed}" / name, options.count, "max Accuracy", seed, *kinds)
    for line in lines(folder):
        print(line)


if __name__ == "__main__":
    main()
