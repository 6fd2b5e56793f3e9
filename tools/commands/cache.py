"""`wootz cache`: photographs that were decoded once, and the room that they take."""

from __future__ import annotations

import time
from pathlib import Path

import click

from wootz.runtime.data.cache import Cache, Tidied, default_cache_folder
from wootz.runtime.store.amounts import show_bytes, show_seconds
from wootz.tools.commands.store import Duration
from wootz.tools.memory import Memory

cache_option = click.option(
    "--cache",
    "folder",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="The cache. Default: $WOOTZ_CACHE, or the user's own.",
)


@click.group()
def cache() -> None:
    """Show and tidy decoded photographs: what is removed is decoded again when a run needs it."""


@cache.command()
@cache_option
def ls(folder: Path | None) -> None:
    """List the data sets, those first that were used last."""
    opened = _opened(folder)
    held, now = opened.holdings(), time.time()
    if held:
        click.echo(f"{'IMAGES':>9}  {'CxHxW':11}  {'RESIZE':6}  {'SIZE':>8}  {'LAST USED':>12}  OF")
    for holding in held:
        entry = holding.entry
        shape, used = "x".join(map(str, entry.image_shape)), f"{show_seconds(max(0.0, now - holding.used))} ago"
        click.echo(
            f"{entry.images:>9,}  {shape:11}  {entry.resize:6}  {show_bytes(holding.size):>8}  {used:>12}  "
            f"{''.join(c if c.isprintable() else '?' for c in entry.location)}"
        )
    click.echo(f"{opened.folder}: {_data_sets(len(held))}, {show_bytes(sum(h.size for h in held))}")


@cache.command()
@cache_option
@click.option("--limit", type=Memory(), metavar="BYTES|4G",
              help="Remove what was not used for longest, until so much stays.")  # fmt: skip
@click.option("--older-than", type=Duration(), metavar="30min|12h|7d", help="Remove what was not used for so long.")
def gc(folder: Path | None, limit: int | None, older_than: float | None) -> None:
    """Remove what ended processes left, and what is not wanted any more. Runs under way keep what they have open."""
    opened = _opened(folder)
    _show(opened, opened.tidy(limit, older_than))


@cache.command()
@cache_option
def clear(folder: Path | None) -> None:
    """Remove everything."""
    opened = _opened(folder)
    _show(opened, opened.tidy(limit=0))


def _opened(folder: Path | None) -> Cache:
    return Cache(folder or default_cache_folder())


def _show(opened: Cache, done: Tidied) -> None:
    left = f", and what ended processes left ({done.leftovers})" if done.leftovers else ""
    click.echo(f"{opened.folder}: removed {_data_sets(done.entries)}, {show_bytes(done.freed)}{left}")


def _data_sets(number: int) -> str:
    return "1 data set" if number == 1 else f"{number:,} data sets"
