"""Carries out what a strategy proposes: begins tasks on an engine's workers, and tells the strategy how they ended."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Protocol

from wootz.passes.errors import StorageError
from wootz.runtime.executors.engine import Cancelled, Ended, Engine, Raised, Returned, WorkerLost
from wootz.runtime.outcome import Failed
from wootz.runtime.strategies.strategy import Strategy
from wootz.runtime.tasks.task import Finished, Order, Results, Task, results_of


class Watcher(Protocol):
    """What is told how a run goes on."""

    def started(self, task: Task) -> None: ...

    def finished(self, task: Task, results: Results, ended: Ended[Order, Results]) -> None: ...

    def cancelled(self, task: Task) -> None: ...

    def failed(self, task: Task, ended: Ended[Order, Results]) -> None:
        """It raised, or its worker was lost."""


def drive(
    strategy: Strategy,
    engine: Engine[Order, Results],
    order_of: Callable[[Task, Mapping[Task, Results]], Order],
    watcher: Watcher,
    on_results: Callable[[Mapping[Task, Results]], None] = lambda finished: None,
) -> dict[Task, Results]:
    """Does what `strategy` proposes until it proposes nothing more. `order_of` adds to a task what it
    needs of those before.

    `on_results` is told all results whenever there are new ones. A task that raises, or whose worker is lost, counts as
    failed, and the rest goes on. Raises StorageError where it is the disk that a task failed for.
    """
    finished: dict[Task, Results] = {}
    under_way: dict[Task, Order] = {}
    while proposed := strategy.propose(finished):
        wanted = set(proposed)
        for task, order in under_way.items():
            if task not in wanted:
                engine.cancel(order)
        for task in proposed:
            if task not in under_way and len(under_way) < engine.workers:
                under_way[task] = order_of(task, finished)
                watcher.started(task)
                engine.start(under_way[task])
        for ended in engine.wait():
            task = ended.task.task
            del under_way[task]
            match ended.how:
                case Returned(value):
                    finished[task] = value
                    watcher.finished(task, value, ended)
                case Cancelled():
                    watcher.cancelled(task)
                case Raised(reason, is_of_storage=True):
                    raise StorageError(reason)
                case Raised(reason) | WorkerLost(reason):
                    finished[task] = _failed(task, reason)
                    watcher.failed(task, ended)
        on_results(finished)
    for order in under_way.values():
        engine.cancel(order)
    while under_way:
        for ended in engine.wait():
            del under_way[ended.task.task]
            watcher.cancelled(ended.task.task)
    return finished


def _failed(task: Task, reason: str) -> Results:
    return (Finished("", Failed(reason)),) * results_of(task)
