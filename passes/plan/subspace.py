"""The promising subspace: the pruned configurations that are worth trying."""

from __future__ import annotations

from dataclasses import dataclass

Rate = float | tuple[float, ...]
"""The fraction of filters removed: one for all prunable convolutions of a module, or one for each of them."""

Configuration = tuple[Rate, ...]
"""One rate a module, in order of data flow."""


@dataclass(frozen=True)
class Subspace:
    """Configurations of the modules called `modules`; all different, each as long as `modules`."""

    modules: tuple[str, ...]
    configurations: tuple[Configuration, ...]


def format_rate(rate: Rate) -> str:
    """`0.3`, or `0.3/0.5` for one rate a convolution."""
    return "/".join(f"{r:g}" for r in rate) if isinstance(rate, tuple) else f"{rate:g}"


def format_configuration(configuration: Configuration) -> str:
    return "[" + ", ".join(format_rate(r) for r in configuration) + "]"
