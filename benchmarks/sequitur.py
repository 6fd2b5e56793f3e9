"""How fast Sequitur is, and how its time a symbol grows with the input.

    python benchmarks/sequitur.py [--json] [--sizes 10000,100000,1000000,10000000]

Inputs: networks of 16, 33 and 100 modules at one of 4 rates each, with a separator after each network; random symbols
of an alphabet of 100; and equal symbols. Timed is `infer_grammar`, from an array to the finished grammar, in one
thread. `--json` prints as its last line

    {"symbols_per_second": …, "slowest_over_fastest": …}

the first for the slowest input at the size nearest to 10^6, the second the greatest ratio, over the inputs, of the
times a symbol at two sizes. Memory a symbol is the growth of the resident set, the input and the grammar included, in a
process of its own.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import resource
import sys
import time
from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from wootz.passes.blocks.sequitur import infer_grammar

RATES = 4
Symbols = npt.NDArray[np.int32]


def networks(size: int, modules: int) -> Symbols:
    """Networks of so many modules at random rates, each followed by a separator of its own."""
    count = -(-size // (modules + 1))
    symbols = np.empty((count, modules + 1), np.int32)
    random_rates = np.random.default_rng(0).integers(0, RATES, (count, modules))
    symbols[:, :-1] = np.arange(modules) * RATES + random_rates
    symbols[:, -1] = modules * RATES + np.arange(count)
    return symbols.ravel()[:size]


INPUTS: dict[str, Callable[[int], Symbols]] = {
    "networks of 16 modules": lambda size: networks(size, 16),
    "networks of 33 modules": lambda size: networks(size, 33),
    "networks of 100 modules": lambda size: networks(size, 100),
    "random": lambda size: np.random.default_rng(0).integers(0, 100, size, np.int32),
    "all equal": lambda size: np.zeros(size, np.int32),
}


def seconds_a_symbol(symbols: Symbols) -> float:
    """The shortest of several runs: more of them when they are short."""
    runs = max(3, 1_000_000 // len(symbols))
    return min(timed(symbols) for _ in range(runs)) / len(symbols)


def timed(symbols: Symbols) -> float:
    start = time.perf_counter()
    infer_grammar(symbols)
    return time.perf_counter() - start


def bytes_a_symbol(name: str, size: int) -> float:
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(resident_growth, (name, size)) / size


def resident_growth(name: str, size: int) -> int:
    """Bytes by which the peak of the resident set grows, including the input and the grammar."""
    infer_grammar([0, 1])
    before = peak_resident()
    infer_grammar(INPUTS[name](size))
    return peak_resident() - before


def peak_resident() -> int:
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def main(arguments: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print the two figures as JSON on the last line")
    parser.add_argument("--sizes", default="10000,100000,1000000,10000000", help="symbols, separated by commas")
    options = parser.parse_args(arguments)
    sizes = [int(size) for size in options.sizes.split(",")]
    million = min(sizes, key=lambda size: abs(size - 1_000_000))
    # Memory first: a process begins with the peak of the one that started it.
    memory = {name: bytes_a_symbol(name, max(sizes)) for name in INPUTS}
    slowest_at_million, worst_ratio = 0.0, 0.0
    print(f"{'nanoseconds a symbol':24}{''.join(f'{size:>12,}' for size in sizes)}{'bytes a symbol':>18}")
    for name, make in INPUTS.items():
        seconds = {size: seconds_a_symbol(make(size)) for size in sizes}
        times = "".join(f"{seconds[size] * 1e9:12.0f}" for size in sizes)
        print(f"{name:24}{times}{memory[name]:18.0f}", flush=True)
        slowest_at_million = max(slowest_at_million, seconds[million])
        worst_ratio = max(worst_ratio, max(seconds.values()) / min(seconds.values()))
    if options.json:
        print(json.dumps({"symbols_per_second": round(1 / slowest_at_million), "slowest_over_fastest": worst_ratio}))


if __name__ == "__main__":
    main(sys.argv[1:])
