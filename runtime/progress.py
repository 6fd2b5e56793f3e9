"""What a run tells while it works. The runtime calls it; `tools` shows it."""

from __future__ import annotations


class Progress:
    """Says nothing; the base of those that do."""

    def message(self, text: str) -> None:
        """A line worth reading later."""

    def begin(self, title: str, total: int, display: int = 0) -> None:
        """A stage of `total` steps starts; where lines are shown, one every `display` steps (0: none)."""

    def advance(self, done: int, note: str = "") -> None:
        """`done` steps of the stage are done."""

    def end(self, note: str = "") -> None:
        """The stage is over."""
