"""The paper's exploration: blocks first, then networks in the objective's order (section 6.2)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from wootz.runtime.tasks.task import Results, Task

T = TypeVar("T", bound=Task)
N = TypeVar("N")


@dataclass(frozen=True)
class Enumeration(Generic[T]):
    """Blocks are pre-trained, and the networks tried in order, each as soon as what it `needs` is finished.

    Where the metric is known before training, the first network in the order that `meets` the constraints is the best
    (`stops_at_first`): no later one is begun, those under way are given up, and it is over when all earlier ones are
    finished. Otherwise all networks are tried.

    With `rounds` of so many networks a round begins when the one before is finished, and the exploration ends with the
    round in which a network meets the constraints: the paper's static assignment, by which process i of p gets the
    networks i + p·j. Without rounds any idle process gets the next network.
    """

    networks: tuple[T, ...]
    meets: Callable[[T, Results], bool]
    stops_at_first: bool
    blocks: tuple[Task, ...] = ()
    needs: Mapping[Task, tuple[Task, ...]] = field(default_factory=dict)
    rounds: int = 0

    def propose(self, finished: Mapping[Task, Results]) -> tuple[Task, ...]:
        blocks = tuple(task for task in self.blocks if task not in finished)
        if self.rounds and blocks:
            return blocks
        left = (task for task in self._worth_trying(finished) if task not in finished)
        return *blocks, *(task for task in left if all(needed in finished for needed in self.needs.get(task, ())))

    def _worth_trying(self, finished: Mapping[Task, Results]) -> tuple[T, ...]:
        """The networks up to the first that meets the constraints; in rounds, up to the end of a round."""
        end = self._end(finished)
        if not self.rounds:
            return self.networks[:end]
        first_open = next((i for i, task in enumerate(self.networks) if task not in finished), len(self.networks))
        return self.networks[: min(_round_up(end, self.rounds), _round_up(first_open + 1, self.rounds))]

    def decisive(self, finished: Mapping[Task, Results]) -> tuple[T, ...]:
        """The networks, in order, whose results the choice rests on: the same for any number of processes.

        What was finished beside them, because a process had nothing better to do, is not among them.
        """
        return tuple(task for task in self.networks[: self._end(finished)] if task in finished)

    def _end(self, finished: Mapping[Task, Results]) -> int:
        """How many networks there are up to the first that meets the constraints; all where that ends nothing."""
        if not self.stops_at_first:
            return len(self.networks)
        met = (i + 1 for i, task in enumerate(self.networks) if task in finished and self.meets(task, finished[task]))
        return next(met, len(self.networks))


def assignment(networks: Sequence[N], workers: int) -> tuple[tuple[N, ...], ...]:
    """For each of so many processes its networks: process i has i, i + p, i + 2p, … (paper, section 6.2)."""
    return tuple(tuple(networks[worker::workers]) for worker in range(workers))


def _round_up(count: int, multiple: int) -> int:
    return -(-count // multiple) * multiple
