"""`wootz store`: what has been trained, and the room that it takes."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path

import click

from wootz.passes.errors import WootzError
from wootz.runtime.store import Store
from wootz.runtime.store.amounts import parse_seconds, show_bytes, show_seconds
from wootz.runtime.store.archive import export_entries, import_entries
from wootz.runtime.store.inventory import Holding, holdings
from wootz.runtime.store.inventory import verify as verify_all
from wootz.tools.memory import Memory

SHOWN_DIGITS = 12
SORTS: dict[str, Callable[[Holding], float]] = {
    "used": lambda holding: -holding.used,
    "size": lambda holding: -holding.entry.size,
    "seconds": lambda holding: -holding.entry.seconds,
}

store_option = click.option(
    "--store",
    "folder",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="The store. Default: $WOOTZ_STORE, or the user's own.",
)


class Duration(click.ParamType):
    """Seconds, from 30min, 12h or 7d."""

    name = "duration"

    def convert(self, value: str | float, param: click.Parameter | None, ctx: click.Context | None) -> float:
        try:
            return value if isinstance(value, float) else parse_seconds(str(value))
        except ValueError as error:
            self.fail(str(error), param, ctx)


@click.group()
def store() -> None:
    """Show and tidy what has been trained: runs take from the store what they need, and never train it twice."""


@store.command()
@store_option
@click.option("--sort", type=click.Choice(list(SORTS)), default="used", show_default=True,
              help="used: last used first; size, seconds: largest first.")  # fmt: skip
def ls(folder: Path | None, sort: str) -> None:
    """List the outcomes and the checkpoints of trainings under way."""
    opened = Store.existing(folder)
    held = sorted(holdings(opened), key=SORTS[sort])
    now = time.time()
    if held:
        click.echo(f"{'KEY':{SHOWN_DIGITS}}  {'KIND':10}  {'SIZE':>8}  {'TOOK':>7}  {'LAST USED':>12}  WHAT")
    for holding in held:
        entry = holding.entry
        used = f"{show_seconds(max(0.0, now - holding.used))} ago"
        click.echo(
            f"{entry.key[:SHOWN_DIGITS]}  {entry.kind:10}  {show_bytes(entry.size):>8}  "
            f"{show_seconds(entry.seconds):>7}  {used:>12}  {_line(entry.what)}"
        )
    size, seconds = sum(h.entry.size for h in held), sum(h.entry.seconds for h in held)
    click.echo(f"{opened.folder}: {_entries(len(held))}, {show_bytes(size)}, which took {show_seconds(seconds)}")


@store.command()
@click.argument("key")
@store_option
def show(key: str, folder: Path | None) -> None:
    """Show what is recorded under KEY (its first digits suffice), and its arrays."""
    entry = _found(holdings(Store.existing(folder)), key).entry
    click.echo(f"key:     {entry.key}\nwhat:    {_line(entry.what)}\nkind:    {entry.kind}")
    click.echo(f"size:    {show_bytes(entry.size)}\ntook:    {show_seconds(entry.seconds)}")
    if entry.record:
        click.echo("record:")
    for name, value in entry.record.items():
        click.echo(f"  {_line(name)}: {json.dumps(value)}")
    if entry.arrays:
        click.echo("arrays:")
    for array in entry.arrays:
        click.echo(f"  {_line(array.name)}: {array.dtype}[{','.join(map(str, array.shape))}]")


@store.command()
@store_option
def verify(folder: Path | None) -> int:
    """Read everything and compare it with its checksums. What is damaged is set aside; exits with 1 if anything was."""
    opened = Store.existing(folder, note=click.echo)
    found = verify_all(opened)
    damaged = f", {found.damaged} damaged" if found.damaged else ""
    click.echo(f"{opened.folder}: {_entries(found.whole)} whole, {show_bytes(found.size)}{damaged}")
    return 1 if found.damaged else 0


@store.command()
@store_option
@click.option("--limit", type=Memory(), metavar="BYTES|4G", help="Default: $WOOTZ_STORE_LIMIT, or 20G.")
@click.option("--older-than", type=Duration(), metavar="30min|12h|7d", help="Remove what was not used for so long.")
def gc(folder: Path | None, limit: int | None, older_than: float | None) -> None:
    """Remove what dead processes left, and what was not used for longest. What live runs use stays."""
    opened = Store.existing(folder)
    done = opened.collect(limit, older_than)
    leftovers = f", and what ended processes left ({done.leftovers} files)" if done.leftovers else ""
    click.echo(
        f"{opened.folder}: removed {_entries(done.entries)}, {show_bytes(done.freed)}{leftovers}; "
        f"{show_bytes(done.size)} stay"
    )


@store.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.argument("keys", nargs=-1)
@store_option
def export(file: Path, keys: tuple[str, ...], folder: Path | None) -> None:
    """Write the entries of KEYS (none: all outcomes) into FILE, a .tar or .tar.gz."""
    opened = Store.existing(folder, note=click.echo)
    held = [holding for holding in holdings(opened) if holding.entry.kind != "checkpoint"]
    wanted = {_found(held, key).entry.key for key in keys} or {holding.entry.key for holding in held}
    size = export_entries(opened, file, sorted(wanted))
    click.echo(f"{file}: {_entries(len(wanted))}, {show_bytes(size)}")


@store.command("import")
@click.argument("file", type=click.Path(path_type=Path))
@store_option
def import_(file: Path, folder: Path | None) -> int:
    """Take the entries of FILE, written by export. Each is verified; exits with 1 if one is damaged."""
    opened = Store.open(folder, note=click.echo)
    done = import_entries(opened, file)
    damaged = f", {done.damaged} damaged and not taken" if done.damaged else ""
    click.echo(f"{opened.folder}: {_entries(done.new)} new, {done.known} known before{damaged}")
    return 1 if done.damaged else 0


def _found(held: list[Holding], key: str) -> Holding:
    """The entry whose key begins with `key`; an outcome before a checkpoint. Raises WootzError unless it is one."""
    found = [holding for holding in held if holding.entry.key.startswith(key)]
    if len({holding.entry.key for holding in found}) != 1:
        problem = (
            f"{len(found)} entries have keys that begin so: give more digits" if found else "no entry has this key"
        )
        raise WootzError(f"{key}: {problem} (wootz store ls shows them)")
    return min(found, key=lambda holding: holding.entry.kind == "checkpoint")


def _entries(number: int) -> str:
    return "1 entry" if number == 1 else f"{number:,} entries"


def _line(text: str) -> str:
    return "".join(c if c.isprintable() else "?" for c in text)
