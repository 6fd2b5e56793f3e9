"""What a training tells while it goes on."""

from __future__ import annotations


class Progress:
    """Says nothing; the base of those that do."""

    def begin(self, title: str, total: int, display: int = 0) -> None:
        """A training of `total` steps starts; of each `display` steps one should be told, if that is not 0."""

    def advance(self, done: int, loss: float) -> None:
        """`done` steps are done; `loss` is the mean of the last ones."""

    def tested(self, done: int, quality: float) -> None:
        """The quality on the validation split after `done` steps."""
