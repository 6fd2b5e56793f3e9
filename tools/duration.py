"""Times on the command line."""

from __future__ import annotations

import re

import click

UNITS = {"h": 3600.0, "m": 60.0, "s": 1.0}


class Duration(click.ParamType):
    """Seconds, written as `30m`, `2h`, `90s` or `1h30m`."""

    name = "time"

    def convert(self, value: str | float, param: click.Parameter | None, ctx: click.Context | None) -> float:
        if isinstance(value, float):
            return value
        parts = re.fullmatch(r"(?:(\d+(?:\.\d+)?)h)?(?:(\d+(?:\.\d+)?)m)?(?:(\d+(?:\.\d+)?)s)?", value.strip())
        seconds = (
            sum(float(part or 0) * unit for part, unit in zip(parts.groups(), UNITS.values(), strict=True))
            if parts
            else 0
        )
        if not seconds:
            self.fail(f"{value!r} is no time: give hours, minutes or seconds, as in 2h, 30m or 90s", param, ctx)
        return seconds
