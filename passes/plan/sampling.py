"""Random subspaces, for trying things out where nobody has chosen the promising configurations."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Mapping, Sequence
from typing import Literal

from wootz.passes.errors import WootzError
from wootz.passes.plan.subspace import SKIP, Configuration, Subspace

Sampling = Literal["spread", "independent", "runs"]

LONGEST_RUN = 4
"""Modules in the longest sequence that gets one rate; a stage of a ResNet-50 has 3 to 6."""


def sample_subspace(
    modules: Sequence[str],
    rates: Sequence[float],
    count: int,
    seed: int,
    sampling: Sampling = "spread",
    standing_for: Mapping[str, Mapping[float, float]] | None = None,
) -> Subspace:
    """`count` different configurations, the same for the same arguments, of rates that are drawn

    - `independent`: each for itself, all equally likely (the paper's collection-1, section 7.3). Many modules then
      average out, and the networks are of nearly one size;
    - `spread`: likelier low in some networks and high in others, so that sizes are spread nearly uniformly, as they
      are in the paper's section 7.1;
    - `runs`: one for a sequence of 1 to LONGEST_RUN modules at a time (the paper's collection-2).

    SKIP among the rates leaves a module out, as the greatest of them.

    `standing_for` has for modules the rate that is taken instead of each that was drawn: the same for rates that leave
    the same of a module, 0 where nothing of it can be removed.

    Raises WootzError for rates outside of [0, 1], and when fewer than `count` configurations are found.
    """
    choices = sorted({float(rate) for rate in rates})
    if not choices or not all(0 <= rate <= SKIP for rate in choices):
        raise WootzError(
            f"rates to sample from are fractions, from 0 to below 1, or skip, not {', '.join(map(str, rates))}"
        )
    taken = [(standing_for or {}).get(module, {rate: rate for rate in choices}) for module in modules]
    different = [len({of_module[rate] for rate in choices}) for of_module in taken]
    possible = math.prod(different)
    if not 1 <= count <= possible:
        pruned = sum(any(of_module[rate] for rate in choices) for of_module in taken)
        raise WootzError(f"{len(choices)} rates for {pruned} modules give {possible} different networks, not {count}")
    generator = random.Random(seed)
    draw = _DRAWS[sampling]
    found: dict[Configuration, None] = {}
    attempts = 0
    while len(found) < count:
        rates_drawn = draw(generator, choices, len(modules))
        found.setdefault(tuple(of_module[rate] for of_module, rate in zip(taken, rates_drawn, strict=True)))
        attempts += 1
        if attempts == 1000 * count:
            raise WootzError(
                f"only {len(found)} of {count} configurations found by sampling {sampling!r}: ask for less"
            )
    return Subspace(tuple(modules), tuple(found))


def _independent(generator: random.Random, rates: Sequence[float], modules: int) -> tuple[float, ...]:
    return tuple(generator.choices(rates, k=modules))


def _spread(generator: random.Random, rates: Sequence[float], modules: int) -> tuple[float, ...]:
    """The position of each rate among `rates` is binomial, with a probability p drawn once a network.

    With p uniform, so is the mean position; and seen over all networks, every rate is equally likely.
    """
    p = generator.random()
    return tuple(rates[sum(generator.random() < p for _ in rates[1:])] for _ in range(modules))


def _runs(generator: random.Random, rates: Sequence[float], modules: int) -> tuple[float, ...]:
    drawn: list[float] = []
    while len(drawn) < modules:
        drawn += [generator.choice(rates)] * generator.randint(1, LONGEST_RUN)
    return tuple(drawn[:modules])


_DRAWS: dict[Sampling, Callable[[random.Random, Sequence[float], int], tuple[float, ...]]] = {
    "independent": _independent,
    "spread": _spread,
    "runs": _runs,
}
