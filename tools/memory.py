"""Amounts of memory on the command line."""

from __future__ import annotations

import re

import click

UNITS = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12}


class Memory(click.ParamType):
    """Bytes, also as 500M or 4G (powers of 1000)."""

    name = "bytes"

    def convert(self, value: str | int, param: click.Parameter | None, ctx: click.Context | None) -> int:
        match = re.fullmatch(r"(\d+(?:\.\d+)?)([KMGT]?)B?", str(value).upper())
        if match is None:
            self.fail(f"{value!r} is no amount of memory: a number of bytes, or 500M, 4G", param, ctx)
        return int(float(match[1]) * UNITS[match[2]])
