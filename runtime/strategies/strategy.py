"""What a strategy is."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from wootz.runtime.tasks.task import Results, Task


class Strategy(Protocol):
    """Decides what is worth doing from what has been found: a pure function, without a memory of its own.

    It knows neither processes nor files, so that it can be tested, and simulated, with invented results.
    """

    def propose(self, finished: Mapping[Task, Results]) -> tuple[Task, ...]:
        """All tasks that can be begun and are still worth doing, best first, those under way included.

        What is under way and no longer proposed is of no use any more. Nothing to propose is the end.
        """
