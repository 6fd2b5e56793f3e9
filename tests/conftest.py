"""Settings for the whole suite, and the events of a run."""

import os
import shutil
import subprocess
import uuid
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from pathlib import Path

import msgspec
import pytest
from hypothesis import HealthCheck, settings

from wootz.passes.plan.metrics import Metric
from wootz.runtime.events import (
    BestFound,
    Event,
    Note,
    PhaseStarted,
    Planned,
    Progress,
    RunEnded,
    RunStarted,
    TaskEnded,
    TaskId,
    TaskStarted,
    WorkerLost,
)
from wootz.runtime.result import QualityResult
from wootz.runtime.run_directory import EVENTS_FILE
from wootz.runtime.store.process import Process

# A busy machine is no failure: no test asserts a time. In CI the same examples are drawn each time.
settings.register_profile(
    "wootz", deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize="CI" in os.environ
)
settings.load_profile("wootz")


@pytest.fixture(scope="session", autouse=True)
def _store_of_the_session(tmp_path_factory):
    """The user's own store is never touched, neither by fixtures that many tests share nor by processes they start."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WOOTZ_STORE", str(tmp_path_factory.getbasetemp() / "stores" / "session"))
        patch.setenv("WOOTZ_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))
        yield


@pytest.fixture(autouse=True)
def _store_of_the_test(_store_of_the_session, tmp_path_factory, monkeypatch):
    """Each test has a store of its own, so that none finds what another has trained."""
    monkeypatch.setenv("WOOTZ_STORE", str(tmp_path_factory.getbasetemp() / "stores" / uuid.uuid4().hex))


@pytest.fixture
def mount(tmp_path) -> Iterator[Callable[[str], Path]]:
    """Mounts a file system of a size such as `4m`, for the test."""
    with ExitStack() as mounted:

        def mount(size: str) -> Path:
            folder = tmp_path / "disk"
            folder.mkdir()
            command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)]
            if not shutil.which("mount") or subprocess.run(command, capture_output=True, check=False).returncode:
                pytest.skip("no file system can be mounted")
            mounted.callback(subprocess.run, ["umount", str(folder)], check=True)
            return folder

        yield mount


@pytest.fixture
def started():
    """The first event of a run that this process drives."""
    process = Process.current()
    return RunStarted(
        wootz="0.1.0", host="node3", machine=process.machine, pid=process.pid, started=process.started,
        network="examples/digits", data="digits", objective="min ModelSize constraint Accuracy >= 0.8",
        quality=QualityResult.of(Metric.ACCURACY),
        executor="local processes", workers=2,
    )  # fmt: skip


@pytest.fixture
def whole_run(started):
    """The events of a whole run by two workers: a group of 3 blocks, one of 2 that was known, 6 of 8 networks."""

    def at(elapsed: float, event: Event) -> Event:
        return msgspec.structs.replace(event, time=1.8e9 + elapsed, elapsed=elapsed)

    events = [
        at(0, started),
        at(0, PhaseStarted(phase="plan")),
        at(2, Planned(model_size=24_690, networks_total=9, networks_feasible=8, blocks=5, groups=2, teacher=True,
                      baseline=False, stops_at_first=True)),
        at(2, PhaseStarted(phase="teacher")),
        at(2, TaskStarted(task=TaskId("teacher"), title="the full network", worker=0, steps=40)),
        at(5, Progress(task=TaskId("teacher"), worker=0, step=20, loss=0.7, quality=0.6)),
        at(8, TaskEnded(task=TaskId("teacher"), worker=0, outcome="trained", key="ab", seconds=6, quality=0.9)),
        at(8, PhaseStarted(phase="exploration")),
        at(8, TaskStarted(task=TaskId("blocks", 0), title="3 blocks, group 1 of 2", worker=1, steps=30)),
        at(8, TaskEnded(task=TaskId("blocks", 1), worker=0, outcome="trained", seconds=9, reused=True, blocks=2)),
        at(14, TaskEnded(task=TaskId("blocks", 0), worker=1, outcome="trained", seconds=6, blocks=3)),
    ]  # fmt: skip
    for i in range(6):
        task, worker, begin = TaskId("network", i), i % 2, 14 + 4.0 * (i // 2)
        title = f"network {i + 1} of 8, {50 + i} % of full"
        events.append(at(begin, TaskStarted(task=task, title=title, worker=worker, steps=100, display=50)))
        events.append(at(begin + 1, Progress(task=task, worker=worker, step=50, loss=0.5, quality=0.5 + i / 20)))
        if i == 1:
            events.append(at(begin + 3, WorkerLost(task=task, worker=worker, reason="it was killed", again=True)))
            continue
        outcome = "failed" if i == 3 else "trained"
        events.append(at(begin + 4, TaskEnded(task=task, worker=worker, outcome=outcome, seconds=4, key="cd",
                                              reason="it diverged" if i == 3 else None,
                                              quality=None if i == 3 else 0.6 + i / 20, bound=None if i == 3 else 0.8,
                                              meets_bound=None if i == 3 else i >= 4)))  # fmt: skip
    events += [
        at(26, BestFound(index=4, configuration=(0.4, (0.5, 0.3)), model_size=12_345, quality=0.8)),
        at(26, Note(text="network 4: it diverged")),
        at(27, RunEnded(outcome="found")),
    ]
    return sorted(events, key=lambda event: event.elapsed)


@pytest.fixture
def write_events():
    """Writes the events of a run into a folder, as the run does."""

    def write(folder: Path, events: Iterable[Event]) -> Path:
        (folder / EVENTS_FILE).write_bytes(b"".join(msgspec.json.encode(event) + b"\n" for event in events))
        return folder

    return write
