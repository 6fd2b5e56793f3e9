"""Lines of any length on a console of some width."""

from __future__ import annotations

import textwrap

from rich.console import Console

from wootz.runtime.store.amounts import NO_BREAK_SPACE, untorn


def say(console: Console, text: str, indent: int = 0) -> None:
    """`text` as it is, whatever is in it, in as many lines as it takes; all but the first one begin with an indent.

    A word that is longer than a line, as paths may be, stays whole, so that it can be copied.
    """
    console.print(wrapped(text, console.width, indent), highlight=False, markup=False, soft_wrap=True)


def wrapped(text: str, width: int, indent: int = 0) -> str:
    """Numbers stay with what they are counted in: `4.8 ± 0.3 %`."""
    lines = textwrap.wrap(
        untorn(text), width, subsequent_indent=" " * indent, break_long_words=False, break_on_hyphens=False
    )
    return "\n".join(lines).replace(NO_BREAK_SPACE, " ")
