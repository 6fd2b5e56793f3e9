"""When the training of a block is over: its error no longer falls."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Plateau:
    """Of the errors of all steps, those of each `window` are averaged. Where the average falls by less than the share
    `least_fall` for the `windows_in_turn`-th time in turn, and `first` steps have been made, the learning rate begins
    to fall, evenly, to 0 within `fade` steps: then the block is done. A schedule that comes to its end before that is
    followed to its end.
    """

    window: int = 25
    least_fall: float = 0.02
    windows_in_turn: int = 2
    first: int = 100
    fade: int = 50

    def begins(self, errors: np.ndarray) -> int | None:
        """The number of steps after which the learning rate begins to fall; `errors` [steps] are those so far."""
        whole = len(errors) // self.window
        means = errors[: whole * self.window].reshape(whole, self.window).mean(axis=1, dtype=np.float64)
        in_turn = 0
        for i, (before, now) in enumerate(itertools.pairwise(means), start=2):
            in_turn = in_turn + 1 if now >= (1 - self.least_fall) * before else 0
            if in_turn >= self.windows_in_turn and i * self.window >= self.first:
                return i * self.window
        return None

    def end(self, errors: np.ndarray) -> int | None:
        """The number of steps after which the block is done, or at the next end of a window."""
        begun = self.begins(errors)
        return None if begun is None else begun + self.fade

    def __str__(self) -> str:
        return (
            f"when the mean error of {self.window} steps falls by less than {self.least_fall:g} "
            f"{self.windows_in_turn} times in turn, from step {self.first} on: the rate falls to 0 in {self.fade} steps"
        )


PLATEAU = Plateau()
