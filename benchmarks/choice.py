"""How long the best network of 50 modules with 9 options each takes to find.

    python benchmarks/choice.py [--modules 50] [--options 9] [--seeds 3] [--gap 0]

Closed modules, whose costs depend on their own rate, and a chain of layers, where each loses inputs with the one before
it: losses that grow with the rate, by another factor for each module; parameters, multiply-accumulates and times of a
network whose width doubles four times. Timed is `choose`, the least loss under one, two and three bounds and the least
cost under a bound of the loss, and then the 20 best that differ in two modules, and a front of 10 budgets. Seconds are
those of the processor: everything takes one thread.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Iterator
from functools import partial

import numpy as np

from wootz.passes.plan.space import Quantity, Space
from wootz.runtime.strategies.choice import Bound, choose, front, k_best

Problem = tuple[Space, Quantity, list[Quantity]]
"""A space, the loss, and the costs: parameters, multiply-accumulates, milliseconds."""


def problem(modules: int, options: int, is_chain: bool, seed: int) -> Problem:
    random = np.random.default_rng(seed)
    rates = tuple(i / options for i in range(options))
    names = tuple(f"m{i}" for i in range(modules))
    space = Space(names, (rates,) * modules, {m: (m - 1,) for m in range(1, modules + 1)} if is_chain else {})
    sensitivity = random.exponential(1e-4, modules)
    noise = random.uniform(0.8, 1.2, (modules, options))
    losses = {(m, r): sensitivity[m] * r**2 * noise[m, i] for m in range(modules) for i, r in enumerate(rates)}
    parameters, macs, milliseconds = {}, {}, {}
    for m in range(modules + 1):
        stage = min(4 * m // modules, 3)
        for piece in space.pieces(m):
            kept = np.prod(1 - np.array([piece.rate, *piece.input_rates], np.float64))
            parameters[piece] = round(float(kept) * 9 * (64 << stage) ** 2)
            macs[piece] = parameters[piece] * (32 >> stage) ** 2
            milliseconds[piece] = 0.01 + macs[piece] * 1e-8 * random.uniform(0.8, 1.2)
    return space, space.by_option(losses), [parameters, macs, milliseconds]


def questions(
    space: Space, loss: Quantity, costs: list[Quantity], gap: float
) -> Iterator[tuple[str, Callable[[], object]]]:
    full = (0.0,) * len(space.modules)
    smallest = tuple(options[-1] for options in space.options)
    for share in (0.3, 0.5, 0.7):
        bounds = [Bound(cost, share * space.total(cost, full)) for cost in costs]
        for count in (1, 2, 3):
            yield f"{count} bounds", partial(choose, space, loss, bounds[:count], gap)
        most = Bound(loss, share**2 * space.total(loss, smallest))
        yield "least cost", partial(choose, space, costs[1], [most], gap)
    yield "20 best", partial(k_best, space, loss, bounds[:1], 20, differ_in=2, gap=gap)
    yield "front of 10", partial(front, space, loss, costs[0], 10, gap=gap)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--modules", type=int, default=50)
    parser.add_argument("--options", type=int, default=9)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--gap", type=float, default=0.0)
    arguments = parser.parse_args()
    for is_chain in (False, True):
        seconds: dict[str, list[float]] = {}
        for seed in range(arguments.seeds):
            space, loss, costs = problem(arguments.modules, arguments.options, is_chain, seed)
            for name, ask in questions(space, loss, costs, arguments.gap):
                begin = time.process_time()
                found = ask()
                seconds.setdefault(name, []).append(time.process_time() - begin)
                assert found
        print(f"{'chain' if is_chain else 'closed'}, {arguments.modules} modules, {arguments.options} options")
        for name, taken in seconds.items():
            print(f"  {name:12} median {statistics.median(taken):6.2f} s   longest {max(taken):6.2f} s")


if __name__ == "__main__":
    main()
