"""Rates of a space on the command line."""

from __future__ import annotations

import click


class Rates(click.ParamType):
    """`0.25,0.5,0.75`: what of a module's filters is removed, ascending and different."""

    name = "rates"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> tuple[float, ...]:
        if isinstance(value, list | tuple):
            return tuple(map(float, value))
        try:
            rates = sorted({float(text) for text in str(value).split(",")})
        except ValueError:
            hint = " (--skip leaves whole modules out)" if "skip" in str(value) else ""
            self.fail(f"{value!r} are no rates: numbers with commas between them, as in 0.25,0.5{hint}", param, ctx)
        if not all(0 < rate < 1 for rate in rates):
            self.fail(f"{value!r}: rates are between 0 and 1 (--skip leaves whole modules out)", param, ctx)
        return tuple(rates)
