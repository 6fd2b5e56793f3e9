"""Shows how far the decoding of photographs is."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from wootz.runtime.data.decoding import Listener
from wootz.runtime.store.amounts import show_bytes


class DecodingBar(Listener):
    """A line that says what is written where, and a bar while it is, on a terminal."""

    def __init__(self, console: Console | None = None):
        self._console = console or Console()
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            console=self._console,
            transient=True,
            disable=not self._console.is_terminal,
        )

    def begin(self, photographs: int, size: int, folder: Path) -> None:
        self._console.print(
            f"{photographs:,} photographs are decoded once, into {folder} ({show_bytes(size)}).",
            highlight=False,
            soft_wrap=True,
        )
        self._progress.start()
        self._task = self._progress.add_task("decoding", total=photographs)

    def advance(self, photographs: int) -> None:
        self._progress.advance(self._task, photographs)

    def end(self) -> None:
        self._progress.stop()
