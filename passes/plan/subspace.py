"""The promising subspace: the pruned configurations that are worth trying."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

Rate = float | tuple[float, ...]
"""The fraction of filters removed: one for all prunable convolutions of a module, or one for each of them.

A module of rate SKIP is left out.
"""

SKIP = 1.0
SKIP_TEXT = "skip"
"""How SKIP is written."""

Configuration = tuple[Rate, ...]
"""One rate a module, in order of data flow. A module whose convolutions have equal rates has a single one."""


@dataclass(frozen=True)
class PrunableConvolution:
    """A convolution of the unpruned network, as far as choosing its rate is concerned.

    `module` is the name of its module, None for a convolution outside of all modules. `locked` is the reason why
    none of its filters can be removed, empty when they can.
    """

    name: str
    module: str | None
    locked: str = ""

    @property
    def is_prunable(self) -> bool:
        return self.module is not None and not self.locked


@dataclass(frozen=True)
class PrunableNetwork:
    """What of the unpruned network rates can be chosen for: names of modules, and all convolutions.

    Both are in order of data flow; convolutions outside of modules and locked ones are among them. `unskippable` has
    the reason for each module that can't be left out.
    """

    modules: tuple[str, ...]
    convolutions: tuple[PrunableConvolution, ...]
    unskippable: Mapping[str, str] = field(default_factory=dict)

    def prunable(self, module: str) -> tuple[PrunableConvolution, ...]:
        """The convolutions of `module` that a rate of the module prunes."""
        return tuple(c for c in self.convolutions if c.module == module and c.is_prunable)


@dataclass(frozen=True)
class Subspace:
    """Configurations of the modules called `modules`; all different, each as long as `modules`."""

    modules: tuple[str, ...]
    configurations: tuple[Configuration, ...]

    @property
    def rates(self) -> tuple[float, ...]:
        """All fractions of filters that occur, ascending."""
        rates = (rate for configuration in self.configurations for rate in configuration if rate != SKIP)
        return tuple(sorted({r for rate in rates for r in (rate if isinstance(rate, tuple) else (rate,))}))


def single_rate(rates: tuple[float, ...]) -> Rate:
    """The rate of a module whose prunable convolutions have `rates`: one number when all are equal."""
    return rates if len(set(rates)) > 1 else rates[0] if rates else 0.0


def format_rate(rate: Rate) -> str:
    """`0.3`, `0.3/0.5` for one rate a convolution, `skip`."""
    if rate == SKIP:
        return SKIP_TEXT
    return "/".join(f"{r:g}" for r in rate) if isinstance(rate, tuple) else f"{rate:g}"


def format_configuration(configuration: Configuration) -> str:
    return "[" + ", ".join(format_rate(r) for r in configuration) + "]"
