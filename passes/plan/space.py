"""The space of a search: all networks that can be assembled from one option for each module."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import product

from wootz.passes.plan.blocks import Symbol

Quantity = Mapping[Symbol, float]
"""What each piece of a space adds to a network: of its loss, its parameters, its multiply-accumulates, its time."""


@dataclass(frozen=True)
class Space:
    """For each module its options, the rates that it can have: 0 first, 1 where it can be left out.

    `sources` has, by the position of a module, the modules that its input's channels come from: a piece is then the
    module at a rate behind these at theirs, as in `wootz.passes.blocks.identifier`. What is outside of all modules is
    one more piece, at position `len(modules)` and rate 0, with sources of its own where pruning takes channels from it.
    """

    modules: tuple[str, ...]
    options: tuple[tuple[float, ...], ...]
    sources: Mapping[int, tuple[int, ...]] = field(default_factory=dict)

    @property
    def count(self) -> int:
        """How many networks there are."""
        return math.prod(map(len, self.options))

    @property
    def is_open(self) -> bool:
        """Whether a module loses inputs with the modules before it."""
        return any(position < len(self.modules) for position in self.sources)

    def configurations(self) -> Iterator[tuple[float, ...]]:
        """All of them, the last module's option changing fastest."""
        return product(*self.options)

    def participants(self, position: int) -> tuple[int, ...]:
        """The modules whose options decide which piece stands at a position: its own first, then its sources."""
        own = (position,) if position < len(self.modules) else ()
        return *own, *self.sources.get(position, ())

    def piece(self, position: int, rates: tuple[float, ...]) -> Symbol:
        """The piece at a position when its participants have these rates."""
        own, behind = (rates[0], rates[1:]) if position < len(self.modules) else (0.0, rates)
        return Symbol(position, own, behind, self.is_open)

    def pieces(self, position: int) -> Iterator[Symbol]:
        """All that can stand at a position, in the order of its participants' options."""
        return (self.piece(position, rates) for rates in self._rates(position))

    def spell(self, configuration: tuple[float, ...]) -> tuple[Symbol, ...]:
        """The pieces of a network, what is outside of modules last."""
        positions = range(len(self.modules) + 1)
        return tuple(self.piece(p, tuple(configuration[m] for m in self.participants(p))) for p in positions)

    def total(self, quantity: Quantity, configuration: tuple[float, ...]) -> float:
        """The sum over a network's pieces, rounded once: exact for integers below 2^53."""
        return math.fsum(quantity[piece] for piece in self.spell(configuration))

    def by_option(self, values: Mapping[tuple[int, float], float]) -> Quantity:
        """What (module, rate) alone decide, such as losses of blocks, whatever stands before; 0 outside of modules."""
        within = {self.piece(m, r): values[m, r[0]] for m in range(len(self.modules)) for r in self._rates(m)}
        return within | dict.fromkeys(self.pieces(len(self.modules)), 0.0)

    def _rates(self, position: int) -> Iterator[tuple[float, ...]]:
        return product(*(self.options[module] for module in self.participants(position)))
