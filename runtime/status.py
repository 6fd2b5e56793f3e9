"""Where a run stands, from its events alone: no network, data or result is opened."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Literal

from msgspec import Struct
from msgspec.structs import replace

from wootz.passes.errors import InputError
from wootz.passes.plan.metrics import Metric
from wootz.runtime.events import (
    HEARTBEAT_SECONDS,
    BestFound,
    Event,
    Note,
    Phase,
    PhaseStarted,
    Planned,
    Progress,
    RunEnded,
    RunOutcome,
    RunStarted,
    TaskCancelled,
    TaskEnded,
    TaskId,
    TaskKind,
    TaskRaised,
    TaskStarted,
    WorkerLost,
    events_of,
    read_events,
)
from wootz.runtime.run_directory import EVENTS_FILE

SILENT_SECONDS = 6 * HEARTBEAT_SECONDS
"""A process that has not been heard of for so long is taken for dead where its number can't be looked up."""

State = Literal["running", "silent", "dead"] | RunOutcome
"""`running`, or how it ended. `dead` processes ended without a word; of `silent` ones nothing is heard."""


class Work(Struct, frozen=True, kw_only=True):
    """A task under way, begun `since` seconds after the run, with its `steps` of training and those done.

    `worker` is None until it is known who does it.
    """

    task: TaskId
    title: str
    worker: int | None
    since: float
    steps: int
    display: int = 0
    step: int = 0
    loss: float | None = None
    quality: float | None = None


class Done(Struct, frozen=True, kw_only=True):
    """The tasks of a kind that have a result: `computed` ones took `seconds` in all, `reused` were known before."""

    tasks: int = 0
    failed: int = 0
    reused: int = 0
    computed: int = 0
    seconds: float = 0.0
    seconds_saved: float = 0.0


class RunStatus(Struct, frozen=True, kw_only=True):
    """What the events so far come to. `attempt` counts the processes that have worked on the run, from 1.

    `elapsed` is the time of the last event, in seconds since this attempt began, `phase_since` that at which its phase
    did; `phase_seconds` are those of the phases before it, in all attempts. `lost` are workers.
    """

    attempt: int = 0
    run: RunStarted | None = None
    plan: Planned | None = None
    phase: Phase = "plan"
    phase_since: float = 0.0
    phase_seconds: Mapping[Phase, float] = {}
    elapsed: float = 0.0
    blocks: int = 0
    blocks_reused: int = 0
    done: Mapping[TaskKind, Done] = {}
    best: BestFound | None = None
    under_way: tuple[Work, ...] = ()
    lost: tuple[int, ...] = ()
    notes: tuple[str, ...] = ()
    ended: RunEnded | None = None

    def of(self, kind: TaskKind) -> Done:
        return self.done.get(kind, Done())

    @property
    def metric(self) -> Metric:
        """What networks are judged by."""
        return Metric("quality") if self.run is None else self.run.quality.metric

    @property
    def spent(self) -> Mapping[Phase, float]:
        """Seconds of each phase so far, in all attempts."""
        now = self.phase_seconds.get(self.phase, 0.0) + self.elapsed - self.phase_since
        return {**self.phase_seconds, self.phase: now}

    @property
    def earlier(self) -> float:
        """Seconds of the attempts before this one."""
        return sum(self.spent.values()) - self.elapsed

    @property
    def seconds_saved(self) -> float:
        return sum(done.seconds_saved for done in self.done.values())


def fold(status: RunStatus, event: Event) -> RunStatus:
    """The status after one more event."""
    if isinstance(event, RunStarted):
        return RunStatus(attempt=status.attempt + 1, run=event, phase_seconds=status.spent)
    status = replace(status, elapsed=event.elapsed)
    match event:
        case Planned():
            return replace(status, plan=event)
        case PhaseStarted():
            return replace(status, phase=event.phase, phase_since=event.elapsed, phase_seconds=status.spent)
        case TaskStarted():
            return replace(status, under_way=(*_without(status, event.task), _begun(event)))
        case Progress():
            return replace(status, under_way=tuple(_advanced(work, event) for work in status.under_way))
        case TaskEnded():
            return _ended(status, event)
        case TaskCancelled() | TaskRaised():
            return replace(status, under_way=_without(status, event.task))
        case WorkerLost():
            return replace(status, under_way=_without(status, event.task), lost=(*status.lost, event.worker))
        case BestFound():
            return replace(status, best=event)
        case Note():
            return replace(status, notes=(*status.notes, event.text))
        case RunEnded():
            return replace(status, ended=event, under_way=())


def status_of(events: Iterable[Event]) -> RunStatus:
    status = RunStatus()
    for event in events:
        status = fold(status, event)
    return status


def read_status(folder: Path) -> RunStatus:
    """The status of the run in `folder`. Raises InputError where there is none."""
    return status_of(events_of(folder))


def time_spent(file: Path) -> Mapping[Phase, float]:
    """Seconds of each phase in the attempts that `file` has events of; it may be missing, or have none."""
    with suppress(InputError):
        return status_of(read_events(file) if file.is_file() else ()).spent
    return {}


def state(status: RunStatus, folder: Path) -> State:
    """Whether the process of a run is alive, as far as this machine can tell.

    Whether a process of this machine has ended is known. Any has its file touched every HEARTBEAT_SECONDS.
    """
    if status.ended is not None:
        return status.ended.outcome
    if status.run is not None and status.run.process.has_ended():
        return "dead"
    with (folder / EVENTS_FILE).open("rb") as file:  # opened: a network file system asks its server then
        silent = time.time() - os.fstat(file.fileno()).st_mtime > SILENT_SECONDS
    return "silent" if silent else "running"


def seconds_left(status: RunStatus, elapsed: float) -> float | None:
    """The time that the tasks left will take, `elapsed` seconds after the run began.

    None where nothing is known of a kind. Tasks take as long as those before; of a kind of which none is finished, as
    long as those under way will at their pace. Networks that may prove unnecessary are counted: it may be less, seldom
    more.
    """
    if status.plan is None or status.run is None:
        return None
    left = 0.0
    for kind, total in _totals(status.plan).items():
        missing = total - status.of(kind).tasks
        under_way = [work for work in status.under_way if work.task.kind == kind]
        if missing <= 0:
            continue
        one = _expected(status, kind, under_way, elapsed)
        if one is None:
            return None
        left += one * missing - sum(min(one, elapsed - work.since) for work in under_way)
    return max(0.0, left) / status.run.workers


def _totals(plan: Planned) -> dict[TaskKind, int]:
    networks = plan.networks_feasible
    return {
        "teacher": int(plan.teacher),
        "tuned": int(plan.tuned),
        "blocks": plan.groups,
        "network": networks,
        "default network": networks if plan.baseline else 0,
    }


def _expected(status: RunStatus, kind: TaskKind, under_way: list[Work], elapsed: float) -> float | None:
    """Seconds of one task of a kind."""
    done = status.of(kind)
    if done.computed:
        return done.seconds / done.computed
    if kind in ("default network", "tuned"):
        return _expected(status, "network", [w for w in status.under_way if w.task.kind == "network"], elapsed)
    paces = [(elapsed - work.since) * work.steps / work.step for work in under_way if work.step]
    return sum(paces) / len(paces) if paces else None


def _begun(event: TaskStarted) -> Work:
    return Work(
        task=event.task,
        title=event.title,
        worker=event.worker,
        since=event.elapsed,
        steps=event.steps,
        display=event.display,
    )


def _advanced(work: Work, event: Progress) -> Work:
    if work.task != event.task:
        return work
    quality = work.quality if event.quality is None else event.quality
    loss = work.loss if event.loss is None else event.loss
    return replace(work, worker=event.worker, step=event.step, loss=loss, quality=quality)


def _without(status: RunStatus, task: TaskId) -> tuple[Work, ...]:
    return tuple(work for work in status.under_way if work.task != task)


def _ended(status: RunStatus, event: TaskEnded) -> RunStatus:
    before = status.of(event.task.kind)
    begun = next((work.since for work in status.under_way if work.task == event.task), None)
    took = event.seconds if begun is None else event.elapsed - begun
    done = Done(
        tasks=before.tasks + 1,
        failed=before.failed + (event.outcome == "failed"),
        reused=before.reused + event.reused,
        computed=before.computed + (not event.reused),
        seconds=before.seconds + (0.0 if event.reused else took),
        seconds_saved=before.seconds_saved + (event.seconds if event.reused else 0.0),
    )
    return replace(
        status,
        under_way=_without(status, event.task),
        done={**status.done, event.task.kind: done},
        blocks=status.blocks + event.blocks,
        blocks_reused=status.blocks_reused + (event.blocks if event.reused else 0),
    )
