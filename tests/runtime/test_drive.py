"""What becomes of a run whose tasks fail."""

from functools import partial
from pathlib import Path

import pytest

from wootz.passes.errors import StorageError, WootzError
from wootz.runtime.drive import drive
from wootz.runtime.executors.control import Control, Place
from wootz.runtime.executors.this_process import ThisProcess
from wootz.runtime.outcome import Failed
from wootz.runtime.strategies.enumeration import Enumeration
from wootz.runtime.tasks.task import FineTune, Finished, Order, Results


class Watcher:
    def __init__(self) -> None:
        self.seen: list[str] = []

    def started(self, task) -> None:
        self.seen.append(f"{task.network} started")

    def finished(self, task, results, ended) -> None:
        self.seen.append(f"{task.network} finished")

    def cancelled(self, task) -> None:
        self.seen.append(f"{task.network} cancelled")

    def failed(self, task, ended) -> None:
        self.seen.append(f"{task.network} failed")


def fails_at_the_second(kind: type[WootzError], order: Order, control: Control) -> Results:
    if order.task == FineTune(1):
        raise kind("it can't be done")
    return (Finished("", {}),)


def driven(folder: Path, kind: type[WootzError], watcher: Watcher):
    networks = tuple(FineTune(i) for i in range(3))
    strategy = Enumeration(networks, meets=lambda task, results: True, stops_at_first=False)
    with ThisProcess(Place(0, "here", 1), partial(fails_at_the_second, kind), folder) as engine:
        return drive(strategy, engine, lambda task, finished: Order(task), watcher)


def test_a_task_that_fails_is_one_without_a_result(tmp_path):
    finished = driven(tmp_path, WootzError, watcher := Watcher())
    assert finished[FineTune(1)] == (Finished("", Failed("it can't be done")),)
    assert watcher.seen[-4:] == ["1 started", "1 failed", "2 started", "2 finished"]


def test_a_disk_that_fails_ends_the_run(tmp_path):
    with pytest.raises(StorageError, match="it can't be done"):
        driven(tmp_path, StorageError, watcher := Watcher())
    assert watcher.seen == ["0 started", "0 finished", "1 started"]
