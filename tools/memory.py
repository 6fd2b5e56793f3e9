"""Amounts of memory on the command line."""

from __future__ import annotations

import click

from wootz.runtime.store.amounts import parse_bytes


class Memory(click.ParamType):
    """Bytes, also as 500M or 4G (powers of 1000)."""

    name = "bytes"

    def convert(self, value: str | int, param: click.Parameter | None, ctx: click.Context | None) -> int:
        try:
            return parse_bytes(str(value))
        except ValueError as error:
            self.fail(str(error), param, ctx)
