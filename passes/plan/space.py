"""The space of a search: all networks that can be assembled from one option for each module."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import product

from wootz.passes.plan.blocks import Symbol
from wootz.passes.plan.subspace import SKIP, Configuration, Rate

THINNED_FROM = 5
"""Rates of a module, from which on every second one says enough to begin with."""

Quantity = Mapping[Symbol, float]
"""What each piece of a space adds to a network: of its loss, its parameters, its multiply-accumulates, its time."""


@dataclass(frozen=True)
class Space:
    """For each module its options, the rates that it can have: 0 first, 1 where it can be left out.

    `sources` has, by the position of a module, the modules that its input's channels come from: a piece is then the
    module at a rate behind these at theirs, as in `wootz.passes.blocks.identifier`. What is outside of all modules is
    one more piece, at position `len(modules)` and rate 0, with sources of its own where pruning takes channels from it.
    With `listed` networks these alone are in the space, each of them of the options.
    """

    modules: tuple[str, ...]
    options: tuple[tuple[float, ...], ...]
    sources: Mapping[int, tuple[int, ...]] = field(default_factory=dict)
    listed: tuple[tuple[float, ...], ...] = field(default=(), repr=False)

    @property
    def count(self) -> int:
        """How many networks there are."""
        return len(self.listed) or math.prod(map(len, self.options))

    @property
    def is_open(self) -> bool:
        """Whether a module loses inputs with the modules before it."""
        return any(position < len(self.modules) for position in self.sources)

    def has(self, configuration: Configuration) -> bool:
        """Whether a network is one of them."""
        if self.listed:
            return configuration in self.listed
        return all(rate in options for rate, options in zip(configuration, self.options, strict=True))

    def configurations(self) -> Iterator[tuple[float, ...]]:
        """All of them: as they are listed, or the last module's option changing fastest."""
        return iter(self.listed) if self.listed else product(*self.options)

    @property
    def stars(self) -> tuple[tuple[float, ...], ...]:
        """The networks that differ from the full one in a module: each option of each, in order."""
        full = (0.0,) * len(self.modules)
        return tuple(
            (*full[:module], rate, *full[module + 1 :])
            for module, options in enumerate(self.options)
            for rate in options
            if rate
        )

    @property
    def thinned(self) -> Space:
        """The space of every second rate of those modules that have many; what can be left out still can."""
        return replace(self, options=tuple(map(_thinned, self.options)))

    @property
    def uniform(self) -> tuple[tuple[float, ...], ...]:
        """For each rate the network whose modules all have it, or the next lower option that they have."""
        rates = sorted({rate for options in self.options for rate in options if rate})
        networks = (tuple(max(o for o in options if o <= rate) for options in self.options) for rate in rates)
        return tuple(dict.fromkeys(networks))

    def covering(self) -> tuple[Configuration, ...]:
        """Few networks in which all pieces occur: each has one that none before it has, and others as they come."""
        positions = range(len(self.modules) + 1)
        unknown = dict.fromkeys(piece for position in positions for piece in self.pieces(position))
        networks = []
        while unknown:
            network = self._network_with(next(iter(unknown)), unknown)
            networks.append(network)
            for piece in self.spell(network):
                unknown.pop(piece, None)
        return tuple(networks)

    def _network_with(self, wanted: Symbol, unknown: Collection[Symbol]) -> Configuration:
        """A network that has a piece, and in each module the option that makes most pieces which are unknown."""
        own = (wanted.rate,) if wanted.module < len(self.modules) else ()
        chosen: dict[int, Rate] = dict(zip(self.participants(wanted.module), (*own, *wanted.input_rates), strict=True))
        places = {position: self.participants(position) for position in range(len(self.modules) + 1)}

        def found(module: int, rate: float) -> int:
            tried = {**chosen, module: rate}
            known = [p for p, members in places.items() if module in members and tried.keys() >= set(members)]
            return sum(self.piece(p, tuple(tried[m] for m in places[p])) in unknown for p in known)

        for module, options in enumerate(self.options):
            if module not in chosen:
                chosen[module] = max(options, key=partial(found, module))
        return tuple(chosen[module] for module in range(len(self.modules)))

    def participants(self, position: int) -> tuple[int, ...]:
        """The modules whose options decide which piece stands at a position: its own first, then its sources."""
        own = (position,) if position < len(self.modules) else ()
        return *own, *self.sources.get(position, ())

    def piece(self, position: int, rates: tuple[Rate, ...]) -> Symbol:
        """The piece at a position when its participants have these rates."""
        own, behind = (rates[0], rates[1:]) if position < len(self.modules) else (0.0, rates)
        return Symbol(position, own, behind, self.is_open)

    def pieces(self, position: int) -> Iterator[Symbol]:
        """All that can stand at a position, in the order of its participants' options."""
        return (self.piece(position, rates) for rates in self._rates(position))

    def spell(self, configuration: Configuration) -> tuple[Symbol, ...]:
        """The pieces of a network, what is outside of modules last."""
        positions = range(len(self.modules) + 1)
        return tuple(self.piece(p, tuple(configuration[m] for m in self.participants(p))) for p in positions)

    def total(self, quantity: Quantity, configuration: Configuration) -> float:
        """The sum over a network's pieces, rounded once: exact for integers below 2^53."""
        return math.fsum(quantity[piece] for piece in self.spell(configuration))

    def by_option(self, values: Mapping[tuple[int, float], float]) -> Quantity:
        """What (module, rate) alone decide, such as losses of blocks, whatever stands before; 0 outside of modules."""
        within = {self.piece(m, r): values[m, r[0]] for m in range(len(self.modules)) for r in self._rates(m)}
        return within | dict.fromkeys(self.pieces(len(self.modules)), 0.0)

    def _rates(self, position: int) -> Iterator[tuple[float, ...]]:
        return product(*(self.options[module] for module in self.participants(position)))


def _thinned(options: tuple[float, ...]) -> tuple[float, ...]:
    rates = sorted(rate for rate in options if 0 < rate < SKIP)
    left_out = set(rates[::2]) if len(rates) >= THINNED_FROM else set()
    return tuple(rate for rate in options if rate not in left_out)
