"""How far something had come at what time that trains networks: which it had, how large and how good they were.

Seconds are those of the clock, or of the processor where `processor_time` has taken them down: on a machine that does
other work, too, these say more. A run that was continued took the time of all its attempts.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from processor_time import ProcessorTime

from wootz.runtime.events import Event, Phase, PhaseStarted, RunStarted, TaskEnded, TaskKind, events_of
from wootz.runtime.result import RunResult
from wootz.runtime.run_directory import RESULT_FILE

OF_BLOCK_TRAINED: frozenset[Phase] = frozenset({"plan", "teacher", "pretraining", "scoring", "exploration"})
OF_DEFAULT: frozenset[Phase] = frozenset({"plan", "teacher", "baseline"})
"""The phases of a run that one kind of networks needs. Default networks begin where the blocks would have."""


@dataclass(frozen=True)
class Network:
    """The configuration `index`, as it was trained, `seconds` after the beginning; `own` are those from the one before
    it, or from its phase's beginning."""

    index: int
    seconds: float
    own: float
    size: int
    accuracy: float


@dataclass(frozen=True)
class Course:
    """What was trained, in order, and how long all of it took, `pretraining` of blocks included."""

    networks: tuple[Network, ...]
    seconds: float
    pretraining: float = 0.0

    def best(self, least: float) -> Network | None:
        """The smallest network with an accuracy of at least that."""
        enough = [network for network in self.networks if network.accuracy >= least]
        return min(enough, key=lambda network: network.size, default=None)

    def first(self, least: float, size: float) -> Network | None:
        """The first one with that accuracy that is no larger than that."""
        return next((n for n in self.networks if n.accuracy >= least and n.size <= size), None)

    def seconds_to(self, least: float) -> float:
        """The time in which the best network is found; all of it, where there is none."""
        best = self.best(least)
        return self.seconds if best is None else best.seconds

    def tried(self, least: float) -> int:
        """How many networks that takes."""
        return sum(network.seconds <= self.seconds_to(least) for network in self.networks)


def course_of_run(folder: Path, is_default: bool = False, processor: ProcessorTime | None = None) -> Course | None:
    """What a finished run or search tells of its networks, or of its default ones; None for one that isn't finished."""
    if not (folder / RESULT_FILE).exists():
        return None
    result = RunResult.load(folder)
    explored = result.baseline.networks if is_default and result.baseline is not None else result.networks
    sizes = {network.index: network.model_size for network in explored}
    kind: TaskKind = "default network" if is_default else "network"
    needed = OF_DEFAULT if is_default else OF_BLOCK_TRAINED
    networks: dict[int, Network] = {}
    spent, ended = defaultdict[Phase, float](float), 0.0
    for event, phase, seconds in _steps(events_of(folder), processor):
        spent[phase] += seconds
        # a run that goes on tells again of what it has
        if isinstance(event, TaskEnded) and event.task.kind == kind and event.task.index not in networks:
            if event.quality is not None:
                so_far = sum(spent[phase] for phase in needed)
                own, index = spent[phase] - ended, event.task.index
                networks[index] = Network(index, so_far, own, sizes[index], event.quality)
            ended = spent[phase]
    of_blocks = spent["pretraining"] if "pretraining" in needed else 0.0
    return Course(tuple(networks.values()), sum(spent[phase] for phase in needed), of_blocks)


def _steps(events: Iterable[Event], processor: ProcessorTime | None) -> Iterator[tuple[Event, Phase, float]]:
    """Each event with the phase in which it happened, and the seconds since the one before it."""
    phase: Phase = "plan"
    before = 0.0
    for event in events:
        if isinstance(event, RunStarted):
            phase, before = "plan", before if processor is not None else 0.0
        now = event.elapsed if processor is None else processor.at(event.time)
        yield event, phase, now - before
        before = now
        if isinstance(event, PhaseStarted):
            phase = event.phase
