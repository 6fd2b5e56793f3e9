"""Tuning blocks and composite vectors (paper, section 5)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from wootz.passes.plan.subspace import SKIP, Rate, format_rate


@dataclass(frozen=True)
class Symbol:
    """A module (by its position in the module table) pruned at a rate: one letter of the identifier's alphabet.

    `input_rates` is empty where the module's input keeps its channels whatever the modules before it lose. In a chain
    of layers it has the rates of the modules that the input's channels come from: equal modules of different input
    width differ. There modules are open: what the rate removes is missing behind the module, and the rest of its output
    is as before.
    """

    module: int
    rate: Rate
    input_rates: tuple[Rate, ...] = ()
    is_open: bool = False

    @property
    def is_skipped(self) -> bool:
        """Whether the module is left out."""
        return self.rate == SKIP

    @property
    def is_pruned(self) -> bool:
        """Whether the module lacks something that it can learn to do without.

        False when it computes what the teacher's does, in the channels that it has, and when it is left out.
        """
        if self.is_skipped:
            return False
        rates = self.input_rates if self.is_open else (self.rate, *self.input_rates)
        return any(any(rate) if isinstance(rate, tuple) else rate > 0 for rate in rates)

    def __str__(self) -> str:
        after = f" after {', '.join(map(format_rate, self.input_rates))}" if self.input_rates else ""
        return f"{self.module + 1}({format_rate(self.rate)}{after})"


@dataclass(frozen=True)
class TuningBlock:
    """Consecutive modules pruned at certain rates, pre-trained as one unit."""

    symbols: tuple[Symbol, ...]

    @property
    def is_pruned(self) -> bool:
        """False when no symbol is: there is nothing to train then."""
        return any(s.is_pruned for s in self.symbols)

    @property
    def modules(self) -> tuple[int, ...]:
        return tuple(s.module for s in self.symbols)

    def overlaps(self, other: TuningBlock) -> bool:
        """Whether a module belongs to both blocks."""
        return not set(self.modules).isdisjoint(other.modules)

    def serves(self, network: Mapping[int, Symbol]) -> bool:
        """Whether a network of these symbols, by their modules, can have the block's weights: all of them, or of open
        modules that lose part of their output, the part that is left."""
        return all(s.module in network and _serves(s, network[s.module]) for s in self.symbols)

    def __str__(self) -> str:
        return " ".join(str(s) for s in self.symbols)


def _serves(trained: Symbol, wanted: Symbol) -> bool:
    is_part = trained.is_open and not trained.rate and trained.input_rates == wanted.input_rates
    return trained == wanted or is_part


@dataclass(frozen=True)
class BlockPlan:
    """The blocks to pre-train, and for each configuration its composite vector.

    A composite vector lists, from input to output, the blocks that the network is assembled from; None stands for
    a symbol in no block, which starts from the teacher's remaining weights. `uncovered` are these symbols, each with
    the one network (by position) that has it.
    """

    blocks: tuple[TuningBlock, ...]
    composites: tuple[tuple[TuningBlock | None, ...], ...]
    uncovered: tuple[tuple[int, Symbol], ...]
