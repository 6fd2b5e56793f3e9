"""Opsets on the command line of `wootz`."""

from __future__ import annotations

import click

from wootz.passes.ir.model import NEWEST_OPSET, OLDEST_OPSET

ORIGINAL = 0
"""The opset that the network had."""


class Opset(click.ParamType):
    """A number, or `original`."""

    name = "opset"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> int:
        text = str(value)
        if text in ("original", str(ORIGINAL)):
            return ORIGINAL
        if not text.isdecimal() or not OLDEST_OPSET <= int(text) <= NEWEST_OPSET:
            self.fail(f"{text!r} is none of {OLDEST_OPSET} to {NEWEST_OPSET}, nor original", param, ctx)
        return int(text)
