"""How many tuning blocks are found in collections like those of the paper's Table 5, and how long it takes.

    python benchmarks/tuning_blocks.py [--json]

Collections have 8 configurations at rates 0.3, 0.5 and 0.7: collection-1 with a rate of its own for each module,
collection-2 with one rate for a run of 1 to 4 modules; 5 seeds each, as in the paper. Beside them stand mean and
standard deviation over 300 seeds, which tell how far five of them can be off. `--json` prints as its last line

    {"blocks": {"ResNet-50": {"collection-1": {"paper": [5 counts], "maximal": [5 counts]}, …}, …},
     "seconds": {"paper": …, "maximal": …}}

where `seconds` are for 500 configurations of a ResNet-101 (33 modules), the shortest of 10 runs.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from statistics import mean, stdev

from wootz.passes.blocks.identifier import Method, identify_blocks
from wootz.passes.plan.sampling import Sampling, sample_subspace
from wootz.passes.plan.subspace import Subspace

RATES = (0.3, 0.5, 0.7)
SEEDS, MANY_SEEDS = 5, 300
MODULES = {"ResNet-50": 16, "Inception-V3": 11}
COLLECTIONS: dict[str, Sampling] = {"collection-1": "independent", "collection-2": "runs"}
METHODS: tuple[Method, ...] = ("paper", "maximal")
IN_PAPER = {
    ("ResNet-50", "collection-1"): "41",
    ("Inception-V3", "collection-1"): "27",
    ("Inception-V3", "collection-2"): "23",
}


def collection(modules: int, sampling: Sampling, count: int, seed: int) -> Subspace:
    return sample_subspace([f"module {i + 1}" for i in range(modules)], RATES, count, seed, sampling)


def block_counts(modules: int, sampling: Sampling, method: Method, seeds: int) -> list[int]:
    return [len(identify_blocks(collection(modules, sampling, 8, seed), method).blocks) for seed in range(seeds)]


def seconds(method: Method) -> float:
    subspace = collection(33, "independent", 500, seed=0)
    times = []
    for _ in range(10):
        start = time.perf_counter()
        identify_blocks(subspace, method)
        times.append(time.perf_counter() - start)
    return min(times)


def main(arguments: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print the figures as JSON on the last line")
    options = parser.parse_args(arguments)
    blocks: dict[str, dict[str, dict[str, list[int]]]] = {}
    print(f"{'network':14}{'collection':14}{'method':10}{'blocks, 5 seeds':18}{'mean':>5}{'300 seeds':>14}{'paper':>7}")
    for network, modules in MODULES.items():
        for name, sampling in COLLECTIONS.items():
            for method in METHODS:
                counts = block_counts(modules, sampling, method, MANY_SEEDS)
                few = counts[:SEEDS]
                blocks.setdefault(network, {}).setdefault(name, {})[method] = few
                usual = f"{mean(counts):.1f} ± {stdev(counts):.1f}"
                paper = IN_PAPER.get((network, name), "-")
                line = (
                    f"{network:14}{name:14}{method:10}{' '.join(map(str, few)):18}{mean(few):5.1f}{usual:>14}{paper:>7}"
                )
                print(line)
    times = {method: seconds(method) for method in METHODS}
    print("500 configurations of 33 modules: " + ", ".join(f"{m} {s * 1000:.0f} ms" for m, s in times.items()))
    if options.json:
        print(json.dumps({"blocks": blocks, "seconds": times}))


if __name__ == "__main__":
    main(sys.argv[1:])
