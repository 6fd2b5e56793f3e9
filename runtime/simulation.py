"""What a finished run would take with other numbers of workers: the same strategy, driven by recorded durations.

docs/simulation.md says what is recorded, what is modelled, and how far that is from real runs.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import mean, median
from typing import Literal

import numpy as np
from msgspec import Struct

from wootz.passes.blocks.costs import TRAINING_FACTOR
from wootz.passes.blocks.groups import Group, group_blocks, partition_blocks
from wootz.passes.errors import InputError
from wootz.passes.plan.blocks import Symbol, TuningBlock
from wootz.passes.plan.subspace import Configuration, Rate
from wootz.runtime.drive import drive
from wootz.runtime.events import Event, Planned, RunStarted, TaskEnded, TaskId, TaskKind, TaskStarted, events_of
from wootz.runtime.executors.engine import Ended
from wootz.runtime.executors.simulated import Simulated
from wootz.runtime.result import (
    EvaluatedNetworkResult,
    Exploration,
    FailedFullNetworkResult,
    InfeasibleNetworkResult,
    NetworkResult,
    RunResult,
    TrainedNetworkResult,
)
from wootz.runtime.strategies.enumeration import Enumeration
from wootz.runtime.tasks.task import FineTune, Finished, Order, PretrainBlocks, Results, Start, Task

Assignment = Literal["static", "dynamic"]


class Schedule(Struct, frozen=True, kw_only=True):
    """An exploration on so many workers: the seconds until its choice is made, those of pre-training among them.

    `networks` were begun, of which `cancelled` were given up. `idle_seconds` are those of all workers together.
    `speedup` is over one worker.
    """

    workers: int
    assignment: Assignment
    seconds: float
    pretraining_seconds: float
    networks: int
    cancelled: int
    idle_seconds: float
    speedup: float

    @property
    def efficiency(self) -> float:
        return self.speedup / self.workers

    @property
    def idle(self) -> float:
        """The share of the workers' time in which they have nothing to do."""
        return self.idle_seconds / (self.workers * self.seconds) if self.seconds else 0.0


class Simulation(Struct, frozen=True, kw_only=True):
    """A recorded run on other numbers of workers; `default` is None where it had no baseline.

    `estimated` counts the networks to be tried, of both kinds, whose training was not recorded. `overhead_seconds` is
    what a task took beside its training.
    """

    recorded_workers: int
    recorded_seconds: float
    recorded_default_seconds: float
    estimated: int
    overhead_seconds: Mapping[TaskKind, float]
    block_trained: tuple[Schedule, ...]
    default: tuple[Schedule, ...] | None


@dataclass(frozen=True)
class Recording:
    """A finished run, and what its events tell of its tasks."""

    result: RunResult
    stops_at_first: bool
    seconds: Mapping[TaskId, float]
    overheads: Mapping[TaskKind, float]

    @staticmethod
    def load(folder: Path) -> Recording:
        """Raises InputError for a folder without a finished run, one in which nothing was tried, or a search's, which
        chooses each network by what those before came to: with other workers it may try some that it hasn't tried."""
        result = RunResult.load(folder)
        if result.search is not None:
            raise InputError("of a search it isn't known which networks it would try on other workers", folder)
        if isinstance(result.full, FailedFullNetworkResult):
            raise InputError("the full network of this run could not be trained: nothing was tried", folder)
        return recording(result, events_of(folder))

    def explorations(self) -> dict[Start, Exploration]:
        found: dict[Start, Exploration] = {"block-trained": self.result.block_trained}
        return found if self.result.baseline is None else {**found, "default": self.result.baseline}

    def blocks(self) -> tuple[TuningBlock, ...]:
        position = {module: number for number, module in enumerate(self.result.modules)}
        return tuple(
            TuningBlock(tuple(Symbol(position[s.module], s.rate, s.input_rates) for s in block.symbols))
            for block in self.result.blocks
        )


def recording(result: RunResult, events: Iterable[Event]) -> Recording:
    """What tasks took: their training, whenever that was, and beside it what this run's own took from start to end."""
    seconds: dict[TaskId, float] = {}
    beside: defaultdict[TaskKind, list[float]] = defaultdict(list)
    began: dict[TaskId, float] = {}
    stops_at_first = False
    for event in events:
        match event:
            case RunStarted():
                began.clear()
            case Planned():
                stops_at_first = event.stops_at_first
            case TaskStarted():
                began[event.task] = event.elapsed
            case TaskEnded():
                from_start = event.elapsed - began.pop(event.task, event.elapsed)
                trained_now = event.outcome == "trained" and not event.reused and from_start >= event.seconds
                if trained_now:
                    beside[event.task.kind].append(from_start - event.seconds)
                seconds[event.task] = event.seconds if event.outcome == "trained" else from_start
    return Recording(result, stops_at_first, seconds, {kind: median(values) for kind, values in beside.items()})


def simulate(recorded: Recording, workers: Sequence[int]) -> Simulation:
    """Each exploration of a run with each number of workers, in rounds and from a queue."""
    result, durations = recorded.result, _Durations(recorded)
    schedules = {
        start: tuple(_schedules(recorded, durations, start, exploration, workers))
        for start, exploration in recorded.explorations().items()
    }
    return Simulation(
        recorded_workers=result.environment.workers,
        recorded_seconds=result.seconds.pretraining + result.seconds.exploration,
        recorded_default_seconds=result.seconds.baseline,
        estimated=sum(
            durations.recorded(n, start) is None for start, e in recorded.explorations().items() for n in _feasible(e)
        ),
        overhead_seconds=recorded.overheads,
        block_trained=schedules["block-trained"],
        default=schedules.get("default"),
    )


def _schedules(
    recorded: Recording, durations: _Durations, start: Start, exploration: Exploration, workers: Sequence[int]
) -> list[Schedule]:
    def scheduled(count: int, assignment: Assignment, seconds_of_one: float | None = None) -> Schedule:
        return _schedule(recorded, durations, start, exploration, count, assignment, seconds_of_one)

    one = scheduled(1, "dynamic").seconds
    assignments: tuple[Assignment, ...] = ("static", "dynamic")
    return [scheduled(count, assignment, one) for count in workers for assignment in assignments]


def _schedule(
    recorded: Recording,
    durations: _Durations,
    start: Start,
    exploration: Exploration,
    workers: int,
    assignment: Assignment,
    seconds_of_one: float | None,
) -> Schedule:
    networks = {n.index: n for n in _feasible(exploration)}
    tasks = {index: FineTune(index, start) for index in networks}
    best = exploration.best
    blocks = recorded.blocks() if start == "block-trained" else ()
    groups = groups_for(recorded, workers) if blocks else ()
    group_of = {block: PretrainBlocks(group) for group in groups for block in group}
    strategy = Enumeration(
        networks=tuple(tasks.values()),
        meets=lambda task, _: best is not None and task.network == best.index,
        stops_at_first=recorded.stops_at_first,
        blocks=tuple(dict.fromkeys(group_of.values())),
        needs={
            tasks[index]: tuple(dict.fromkeys(group_of[block] for block in _blocks_of(network, blocks)))
            for index, network in networks.items()
            if blocks
        },
        rounds=workers if assignment == "static" else 0,
    )

    def seconds(order: Order) -> float:
        match order.task:
            case PretrainBlocks(blocks):
                return durations.of_group(blocks)
            case FineTune(network):
                return durations.of_network(networks[network], start)
            case _:
                raise AssertionError(f"{order.task} is no task of an exploration")

    engine = Simulated[Order, Results](workers, seconds, lambda _: (Finished("", {}),))
    with engine:
        timeline = _Timeline(engine)
        drive(strategy, engine, lambda task, _: Order(task), timeline)
        total = engine.now()
    one = total if seconds_of_one is None else seconds_of_one
    return Schedule(
        workers=workers,
        assignment=assignment,
        seconds=total,
        pretraining_seconds=timeline.blocks_until,
        networks=timeline.networks,
        cancelled=timeline.cancelled_networks,
        idle_seconds=max(0.0, workers * total - timeline.busy),
        speedup=one / total if total else 1.0,
    )


@dataclass
class _Timeline:
    """Listens to `drive`: how long workers are busy, with what."""

    engine: Simulated[Order, Results]
    busy: float = 0.0
    blocks_until: float = 0.0
    networks: int = 0
    cancelled_networks: int = 0
    _began: dict[Task, float] = field(default_factory=dict)

    def started(self, task: Task) -> None:
        self._began[task] = self.engine.now()
        self.networks += isinstance(task, FineTune)

    def finished(self, task: Task, results: Results, ended: Ended[Order, Results]) -> None:
        self.busy += ended.end - ended.start
        if isinstance(task, PretrainBlocks):
            self.blocks_until = max(self.blocks_until, ended.end)

    def cancelled(self, task: Task) -> None:
        self.busy += self.engine.now() - self._began[task]
        self.cancelled_networks += isinstance(task, FineTune)

    def failed(self, task: Task, ended: Ended[Order, Results]) -> None:
        raise AssertionError(f"{task} failed in invented time")


def groups_for(recorded: Recording, workers: int) -> tuple[Group, ...]:
    """The groups of blocks that so many workers would train.

    Those of `--groups=paper` are the same for all. Others are dealt out as a run does; where memory had a run make more
    groups than it had workers, none gets more blocks than the largest one recorded.
    """
    blocks = recorded.blocks()
    of_run = tuple(tuple(blocks[position] for position in group) for group in recorded.result.groups)
    bounded = len(of_run) > recorded.result.environment.workers
    if bounded and of_run == group_blocks(blocks):
        return of_run
    most = max(map(len, of_run), default=0) if bounded else len(blocks)
    return partition_blocks(blocks, len, most, workers)


class _Durations:
    """Seconds of a run's tasks: recorded, or in proportion to the work of those that were."""

    def __init__(self, recorded: Recording):
        self._recorded = recorded
        result = recorded.result
        blocks = recorded.blocks()
        groups = [tuple(blocks[position] for position in group) for group in result.groups]
        of_groups = {g: recorded.seconds.get(TaskId("blocks", i), 0.0) for i, g in enumerate(groups)}
        self._of_groups = {frozenset(group): seconds for group, seconds in of_groups.items()}
        self._module_flops = _module_flops(result)
        work = sum(self._work(group) for group in groups)
        self._seconds_of_work = sum(of_groups.values()) / work if work else 0.0
        self._seconds_a_step, self._steps = _seconds_a_step(
            [n for exploration in recorded.explorations().values() for n in exploration.trained]
        )

    def recorded(self, network: NetworkResult, start: Start) -> float | None:
        """The seconds of a network's training; None where it had none, or a failed one of before."""
        if isinstance(network, TrainedNetworkResult):
            return network.seconds
        return self._recorded.seconds.get(TaskId(_kind(start), network.index)) or None

    def of_network(self, network: NetworkResult, start: Start) -> float:
        known = self.recorded(network, start)
        overhead = self._recorded.overheads.get(_kind(start), self._recorded.overheads.get("network", 0.0))
        if known is None:
            slope, constant, least = self._seconds_a_step
            known = self._steps * max(least, slope * network.flops + constant)
        return known + overhead

    def of_group(self, group: Group) -> float:
        seconds = self._of_groups.get(frozenset(group), self._seconds_of_work * self._work(group))
        return seconds + self._recorded.overheads.get("blocks", 0.0)

    def _work(self, group: Sequence[TuningBlock]) -> float:
        """Of a step of a group, in units of FLOPs: the teacher forward as far as it is needed, and its students."""
        last = max(block.modules[-1] for block in group)
        teacher = self._module_flops[: last + 1].sum()
        students = sum(self._module_flops[s.module] * (1 - _mean(s.rate)) for block in group for s in block.symbols)
        return float(teacher + TRAINING_FACTOR * students)


def _module_flops(result: RunResult) -> np.ndarray:
    """Those of each unpruned module, as if a module's grew with what is kept of its filters.

    They are fitted to the FLOPs of all networks of the subspace, and of the full one.
    """
    networks: list[tuple[Configuration, int]] = [(n.configuration, n.flops) for n in result.networks]
    if not isinstance(result.full, FailedFullNetworkResult):
        networks.append((result.full.configuration, result.full.flops))
    kept = np.array([[1.0, *(1 - _mean(rate) for rate in configuration)] for configuration, _ in networks])
    flops = np.array([flops for _, flops in networks], float)
    fitted = np.linalg.lstsq(kept, flops, rcond=None)[0][1:]
    return np.maximum(fitted, 0.0) if (fitted > 0).any() else np.ones_like(fitted)


def _seconds_a_step(trained: Sequence[TrainedNetworkResult]) -> tuple[tuple[float, float, float], int]:
    """(slope, constant, least) of the seconds a step as a linear function of FLOPs; the steps of a whole training."""
    steps = max((n.steps + n.steps_saved for n in trained), default=0)
    points = [(n.flops, n.seconds / n.steps) for n in trained if n.steps]
    if not points:
        return (0.0, 0.0, 0.0), steps
    flops, seconds = zip(*points, strict=True)
    if len(set(flops)) < 2:
        return (0.0, mean(seconds), 0.0), steps
    slope, constant = np.polyfit(flops, seconds, 1)
    return (float(slope), float(constant), min(seconds)), steps


def _blocks_of(network: NetworkResult, blocks: Sequence[TuningBlock]) -> list[TuningBlock]:
    """Those of the run's `blocks` that a network starts from; of one not tried all that have its rates."""
    if isinstance(network, EvaluatedNetworkResult):
        return [blocks[position] for position in network.blocks if position is not None]
    rates = network.configuration
    return [block for block in blocks if all(rates[symbol.module] == symbol.rate for symbol in block.symbols)]


def _feasible(exploration: Exploration) -> list[NetworkResult]:
    """The networks to be tried, in their order."""
    return [n for n in exploration.networks if not isinstance(n, InfeasibleNetworkResult)]


def _kind(start: Start) -> TaskKind:
    return "network" if start == "block-trained" else "default network"


def _mean(rate: Rate) -> float:
    return float(np.mean(rate))
