"""What is told of a run while it goes on: to the event log, and through it to whoever shows it."""

from __future__ import annotations

import math
import socket
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib import metadata

from wootz.passes.plan.metrics import Metric
from wootz.passes.plan.objective import Measurements
from wootz.passes.plan.solver import Solver
from wootz.runtime.events import (
    BestFound,
    EventLog,
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
    TaskRaised,
    TaskStarted,
)
from wootz.runtime.events import WorkerLost as LostWorker
from wootz.runtime.executors.engine import Ended, Raised, WorkerLost
from wootz.runtime.job import Job
from wootz.runtime.outcome import Failed
from wootz.runtime.plan import RunPlan
from wootz.runtime.result import PhaseSeconds, QualityResult
from wootz.runtime.run_directory import LOG_FOLDER
from wootz.runtime.store.process import Process
from wootz.runtime.tasks.task import (
    FineTune,
    FineTuneFull,
    LookAt,
    Order,
    PretrainBlocks,
    Results,
    ScoreNetworks,
    Task,
    TrainTeacher,
    reached,
    steps_saved,
)
from wootz.runtime.tasks.telling import read_step


class Watch:
    """Listens to a run: what happens goes into the event log, what the result needs of it is kept.

    `earlier` are the seconds of each phase in earlier attempts at the same run.
    """

    def __init__(self, log: EventLog, job: Job, earlier: Mapping[Phase, float] | None = None):
        self._job = job
        self._log = log
        self._notes: list[str] = []
        self._best: int | None = None
        self._seconds: dict[Phase, float] = {**(earlier or {})}
        self._phase: Phase = "plan"
        self._since = time.monotonic()
        self._last_block_ended: float | None = None
        self._plan: RunPlan | None = None
        self._full: Measurements = {}
        self._groups: list[PretrainBlocks] = []
        self._groups_left = 0
        self._searched: dict[FineTune, int] = {}
        self._most = 0

    def begin(self, executor: str, workers: int) -> None:
        job, process = self._job, Process.current()
        self._log.emit(
            RunStarted(
                wootz=metadata.version("wootz"),
                host=socket.gethostname(),
                machine=process.machine,
                pid=process.pid,
                started=process.started,
                network=job.title,
                data=job.data_title,
                objective=str(job.objective),
                quality=QualityResult.of(job.quality.metric),
                executor=executor,
                workers=workers,
            )
        )

    def end(self, outcome: RunOutcome, reason: str | None = None) -> None:
        self._log.emit(RunEnded(outcome=outcome, reason=reason))

    @contextmanager
    def phase(self, name: Phase) -> Iterator[None]:
        """One after the other; the exploration begins with the last block."""
        self._last_block_ended = None
        first = "pretraining" if self._groups else self._after_blocks
        self._enter(first if name == "exploration" else name)
        yield
        if self._phase == "pretraining" and self._last_block_ended is not None:  # other blocks were not needed any more
            self._pass_to(self._after_blocks, self._last_block_ended)

    def delivery(self) -> None:
        """The last phase begins; the result that it writes has its time until then."""
        self._enter("delivery")

    def _enter(self, phase: Phase) -> None:
        self._pass_to(phase, time.monotonic())
        self._log.emit(PhaseStarted(phase=phase))

    def _pass_to(self, phase: Phase, now: float) -> None:
        self._seconds[self._phase] = self._seconds.get(self._phase, 0.0) + now - self._since
        self._phase, self._since = phase, now

    def seconds(self) -> PhaseSeconds:
        """What each phase took so far: blocks until the last one was finished, networks from then on."""
        self._pass_to(self._phase, time.monotonic())
        return PhaseSeconds(**self._seconds, total=sum(self._seconds.values()))

    def note(self, text: str) -> None:
        """Something that belongs into the result, too."""
        self._notes.append(text)
        self.message(text)

    def message(self, text: str) -> None:
        self._log.emit(Note(text=text))

    def all_notes(self) -> tuple[str, ...]:
        return tuple(self._notes)

    def planned(self, plan: RunPlan, seconds: float) -> None:
        """`seconds` is what the rehearsal took, 0 where all was known."""
        job = self._job
        self._plan = plan
        self._groups = [PretrainBlocks(group) for group in plan.groups]
        self._groups_left = len(self._groups)
        self._tell_plan(plan, len(plan.order) if job.search is None else job.search.networks)
        if seconds:
            self.message(f"All networks and trainings can be built (checked in {seconds:.1f} s).")

    def _tell_plan(self, plan: RunPlan, networks: int) -> None:
        self._log.emit(
            Planned(
                model_size=int(plan.full[Metric.MODEL_SIZE]),
                networks_total=len(plan.candidates),
                networks_feasible=networks,
                blocks=sum(map(len, plan.groups)),
                groups=len(plan.groups),
                teacher=bool(self._job.untrained),
                tuned=self._job.reference != "given",
                baseline=self._job.baseline,
                stops_at_first=self._job.search is not None or not self._job.objective.metric.needs_training,
            )
        )

    def met(self, plan: RunPlan, most: int) -> None:
        """A search has met more networks, of which it tries so many at most, or trains more blocks."""
        groups = [PretrainBlocks(group) for group in plan.groups]
        if most != self._most or groups != self._groups:
            self._groups_left += len(groups) - len(self._groups)
            self._groups = groups
            self._tell_plan(plan, most)
        self._plan, self._most = plan, most

    def full_network(self, measured: Measurements) -> None:
        """What `full` in the objective means, as soon as it is known."""
        self._full = measured

    def known_blocks(self, known: int, wanted: int) -> None:
        if known:
            self.message(f"{known} of {wanted} tuning blocks are in the store.")

    def best(self, network: int, measured: Measurements) -> None:
        """The best network so far."""
        if self._best == network:
            return
        assert self._plan is not None, "networks are tried by a plan"
        self._best = network
        self._log.emit(
            BestFound(
                index=network,
                configuration=self._plan.configuration(network),
                model_size=int(measured[Metric.MODEL_SIZE]),
                quality=measured[self._job.quality.metric],
            )
        )

    def told(self, order: Order, text: str) -> None:
        """By a worker, in the middle of a task."""
        step = read_step(text)
        if step is not None:
            loss = step.loss if step.loss is not None and math.isfinite(step.loss) else None
            self._log.emit(
                Progress(task=self._id(order.task), worker=step.worker, step=step.step, loss=loss, quality=step.quality)
            )

    # What `drive` tells

    def started(self, task: Task) -> None:
        solver = self._solver(task)
        steps, display = (0, 0) if solver is None else (solver.max_iter, solver.display)
        if self._phase == "scoring" and isinstance(task, FineTune):
            self._enter("exploration")
        if isinstance(task, PretrainBlocks) and self._phase != "pretraining":
            self._enter("pretraining")
        self._log.emit(TaskStarted(task=self._id(task), title=self._title(task), steps=steps, display=display))

    def finished(self, task: Task, results: Results, ended: Ended[Order, Results]) -> None:
        failures = [result.outcome.reason for result in results if isinstance(result.outcome, Failed)]
        solver = self._solver(task)
        record = None if failures or solver is None or isinstance(task, PretrainBlocks) else results[0].outcome
        assert not isinstance(record, Failed)
        quality = None if record is None else reached(record)
        bound, meets_bound = self._bound(quality) if isinstance(task, FineTune) else (None, None)
        self._log.emit(
            TaskEnded(
                task=self._id(task),
                worker=ended.worker,
                outcome="failed" if len(failures) == len(results) else "trained",
                key=results[0].key,
                seconds=ended.end - ended.start if solver is None else sum(result.seconds for result in results),
                reused=not any(result.computed for result in results),
                blocks=len(results) if isinstance(task, PretrainBlocks) else 0,
                quality=quality,
                bound=bound,
                meets_bound=meets_bound,
                ended="all steps" if record is None else record["ended"],
                steps_saved=0 if record is None or solver is None else steps_saved(solver, record),
                reason=failures[0] if failures else None,
            )
        )
        self._count_blocks(task)

    def cancelled(self, task: Task) -> None:
        self._log.emit(TaskCancelled(task=self._id(task)))

    def failed(self, task: Task, ended: Ended[Order, Results]) -> None:
        """An attempt that was the last one."""
        self._log.emit(_failure(self._id(task), ended, again=False))
        self._log.emit(TaskEnded(task=self._id(task), worker=ended.worker, outcome="failed", reason=_reason(ended)))
        self.note(f"{task}: {_reason(ended)} (see {LOG_FOLDER}/worker-{ended.worker}.log)")
        self._count_blocks(task)

    def tried_again(self, ended: Ended[Order, Results]) -> None:
        """An attempt that is followed by another one."""
        self._log.emit(_failure(self._id(ended.task.task), ended, again=True))

    def _count_blocks(self, task: Task) -> None:
        """The exploration proper begins with the last group, whichever that is."""
        if isinstance(task, PretrainBlocks):
            self._last_block_ended = time.monotonic()
            self._groups_left -= 1
            if not self._groups_left:
                self._enter(self._after_blocks)

    @property
    def _after_blocks(self) -> Phase:
        return "exploration" if self._job.search is None else "scoring"

    def _title(self, task: Task) -> str:
        """In words that a reader understands without the subspace: `network 3 of 10, 54 % of full`."""
        plan = self._plan
        if plan is None or not isinstance(task, PretrainBlocks | FineTune):
            return str(task)
        if isinstance(task, PretrainBlocks):
            group = f", group {self._groups.index(task) + 1} of {len(self._groups)}" if len(self._groups) > 1 else ""
            return f"{len(task.blocks)} block{'s'[: len(task.blocks) != 1]}{group}"
        share = 100 * plan.candidates[task.network].measured[Metric.MODEL_SIZE] / plan.full[Metric.MODEL_SIZE]
        return f"{self._id(task).kind} {self._number(task, plan)}, {share:.0f} % of full"

    def _number(self, task: FineTune, plan: RunPlan) -> str:
        """`3 of 10`; a search may end before it has tried as many as it may."""
        if self._job.search is not None:
            self._searched.setdefault(task, len(self._searched) + 1)
            return f"{self._searched[task]} of at most {self._most}"
        number = next(n for n, candidate in enumerate(plan.order, 1) if candidate.index == task.network)
        return f"{number} of {len(plan.order)}"

    def _bound(self, quality: float | None) -> tuple[float | None, bool | None]:
        """What the objective asks of a quality, the strictest bound, and whether this one meets all."""
        bounds = [c for c in self._job.objective.bounds_of_quality if c.asks_for_quality]
        if quality is None or not bounds:
            return None, None
        metric = bounds[0].metric
        strictest = max((c.bound(self._full) for c in bounds), key=lambda bound: metric.sign * bound)
        return strictest, all(c.holds({metric: quality}, self._full) for c in bounds)

    def _solver(self, task: Task) -> Solver | None:
        """What a task trains by; None where it trains nothing."""
        match task:
            case TrainTeacher():
                return self._job.teacher_solver
            case PretrainBlocks():
                return self._job.pretrain_solver
            case FineTune() | FineTuneFull():
                return self._job.solver
            case ScoreNetworks() | LookAt():
                return None

    def _id(self, task: Task) -> TaskId:
        match task:
            case TrainTeacher():
                return TaskId("teacher")
            case FineTuneFull():
                return TaskId("tuned")
            case PretrainBlocks():
                return TaskId("blocks", self._groups.index(task))
            case ScoreNetworks(networks):
                return TaskId("scores", networks[0])
            case LookAt(networks):
                return TaskId("look", networks[0])
            case FineTune(network, start):
                return TaskId("network" if start == "block-trained" else "default network", network)


def _failure(task: TaskId, ended: Ended[Order, Results], again: bool) -> TaskRaised | LostWorker:
    kind = LostWorker if isinstance(ended.how, WorkerLost) else TaskRaised
    return kind(task=task, worker=ended.worker, reason=_reason(ended), again=again)


def _reason(ended: Ended[Order, Results]) -> str:
    match ended.how:
        case Raised(error):
            return error
        case WorkerLost(reason):
            return f"its worker was lost: {reason}"
        case _:
            return ""
