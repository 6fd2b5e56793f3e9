"""Random subspaces, for trying things out where nobody has chosen the promising configurations."""

from __future__ import annotations

import random
from collections.abc import Callable, Collection, Sequence
from typing import Literal

from wootz.passes.errors import WootzError
from wootz.passes.plan.subspace import Configuration, Subspace

Sampling = Literal["spread", "independent", "runs"]

LONGEST_RUN = 4
"""Modules in the longest sequence that gets one rate; a stage of a ResNet-50 has 3 to 6."""


def sample_subspace(
    modules: Sequence[str],
    rates: Sequence[float],
    count: int,
    seed: int,
    sampling: Sampling = "spread",
    whole: Collection[str] = (),
) -> Subspace:
    """`count` different configurations, the same for the same arguments. Modules in `whole` have rate 0, the others
    rates that are drawn

    - `independent`: each for itself, all equally likely (the paper's collection-1, section 7.3). Many modules then
      average out, and the networks are of nearly one size;
    - `spread`: likelier low in some networks and high in others, so that sizes are spread nearly uniformly, as they
      are in the paper's section 7.1;
    - `runs`: one for a sequence of 1 to LONGEST_RUN modules at a time (the paper's collection-2).

    Raises WootzError for rates outside of [0, 1), and when fewer than `count` configurations are found.
    """
    choices = sorted({float(rate) for rate in rates})
    if not choices or not all(0 <= rate < 1 for rate in choices):
        raise WootzError(f"rates to sample from are fractions, from 0 to below 1, not {', '.join(map(str, rates))}")
    sampled = [module for module in modules if module not in whole]
    possible = len(choices) ** len(sampled)
    if not 1 <= count <= possible:
        raise WootzError(f"{len(choices)} rates for {len(sampled)} modules give {possible} configurations, not {count}")
    generator = random.Random(seed)
    draw = _DRAWS[sampling]
    found: dict[Configuration, None] = {}
    attempts = 0
    while len(found) < count:
        found.setdefault(draw(generator, choices, len(sampled)))
        attempts += 1
        if attempts == 1000 * count:
            raise WootzError(
                f"only {len(found)} of {count} configurations found by sampling {sampling!r}: ask for less"
            )
    return Subspace(tuple(modules), tuple(_with_whole(modules, whole, rates_drawn) for rates_drawn in found))


def _with_whole(modules: Sequence[str], whole: Collection[str], rates: Configuration) -> Configuration:
    following = iter(rates)
    return tuple(0.0 if module in whole else next(following) for module in modules)


def _independent(generator: random.Random, rates: Sequence[float], modules: int) -> Configuration:
    return tuple(generator.choices(rates, k=modules))


def _spread(generator: random.Random, rates: Sequence[float], modules: int) -> Configuration:
    """The position of each rate among `rates` is binomial, with a probability p drawn once a network.

    With p uniform, so is the mean position; and seen over all networks, every rate is equally likely.
    """
    p = generator.random()
    return tuple(rates[sum(generator.random() < p for _ in rates[1:])] for _ in range(modules))


def _runs(generator: random.Random, rates: Sequence[float], modules: int) -> Configuration:
    configuration: list[float] = []
    while len(configuration) < modules:
        configuration += [generator.choice(rates)] * generator.randint(1, LONGEST_RUN)
    return tuple(configuration[:modules])


_DRAWS: dict[Sampling, Callable[[random.Random, Sequence[float], int], Configuration]] = {
    "independent": _independent,
    "spread": _spread,
    "runs": _runs,
}
