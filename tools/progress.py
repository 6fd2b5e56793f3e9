"""Shows the progress of a run on a terminal, or as plain lines where there is none."""

from __future__ import annotations

import time

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from wootz.runtime.progress import Progress as RunProgress


class ConsoleProgress(RunProgress):
    """One line a finished stage; on a terminal, a bar for the stage that is running."""

    def __init__(self, console: Console):
        self._console = console
        self._bar: Progress | None = None
        self._task: TaskID | None = None
        self._title = ""
        self._total = self._display = 0
        self._begin = 0.0
        self._note = ""

    def message(self, text: str) -> None:
        self._print(text)

    def begin(self, title: str, total: int, display: int = 0) -> None:
        self._title, self._total, self._display = title, total, display
        self._begin, self._note = time.perf_counter(), ""
        if self._console.is_terminal:
            self._bar = Progress(
                TextColumn("{task.description}"),
                BarColumn(bar_width=24),
                MofNCompleteColumn(),
                TextColumn("{task.fields[note]}"),
                TimeRemainingColumn(),
                console=self._console,
                transient=True,
            )
            self._task = self._bar.add_task(title, total=total, note="")
            self._bar.start()

    def advance(self, done: int, note: str = "") -> None:
        self._note = note
        rate = f"{done / max(1e-9, time.perf_counter() - self._begin):.1f} steps/s"
        if self._bar is not None and self._task is not None:
            self._bar.update(self._task, completed=done, note=f"{note}, {rate}")
        elif self._display and done % self._display == 0 and done < self._total:
            self._print(f"  {self._title}: step {done} of {self._total}, {note}, {rate}")

    def end(self, note: str = "") -> None:
        if self._bar is not None:
            self._bar.stop()
            self._bar = None
        seconds = time.perf_counter() - self._begin
        details = ", ".join(part for part in (self._note, note, f"{seconds:.1f} s") if part)
        self._print(f"  {self._title}: {details}")

    def _print(self, text: str) -> None:
        self._console.print(text, highlight=False, markup=False, soft_wrap=True)
