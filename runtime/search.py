"""A search: how a run explores where nobody says which networks."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Literal

from wootz.passes.blocks.identifier import symbols
from wootz.passes.errors import WootzError
from wootz.passes.plan.blocks import TuningBlock
from wootz.passes.plan.metrics import Metric
from wootz.passes.plan.objective import Measurements, Objective
from wootz.passes.plan.sampling import sample_subspace
from wootz.passes.plan.space import Space
from wootz.passes.plan.subspace import Configuration, Subspace
from wootz.runtime.defaults import RATES
from wootz.runtime.delivery.explored import Explored
from wootz.runtime.digest import digest
from wootz.runtime.drive import drive
from wootz.runtime.executors.engine import Engine
from wootz.runtime.job import inputs_of
from wootz.runtime.latency_table.table import LatencyTable
from wootz.runtime.outcome import Failed, Trained
from wootz.runtime.plan import RunPlan
from wootz.runtime.result import BlockScore, FullNetworkResult, SearchedNetwork, SearchResult
from wootz.runtime.store.amounts import counted
from wootz.runtime.strategies.search import Course, Search
from wootz.runtime.strategies.selection import Candidate, best_of
from wootz.runtime.survey import show_space
from wootz.runtime.tasks.recipe import combined
from wootz.runtime.tasks.task import (
    FineTune,
    LookAt,
    Order,
    Results,
    ScoreNetworks,
    Task,
)
from wootz.runtime.tasks.workshop import Workshop
from wootz.runtime.watch import Watch

COMPARED = 20
"""Random networks beside which those of a search are shown."""


def search(
    workshop: Workshop,
    plan: RunPlan,
    teacher: str,
    full: FullNetworkResult,
    engine: Engine[Order, Results],
    watch: Watch,
) -> tuple[RunPlan, Explored, SearchResult]:
    """Searches the job's space; gives the plan that knows all networks which were met."""
    job = workshop.job
    assert job.search is not None
    keys = workshop.block_keys(teacher, [block for group in plan.groups for block in group])
    watch.known_blocks(sum(workshop.trainer.store.entry(key) is not None for key in keys.values()), len(keys))
    space = job.search.space
    sources = workshop.architecture.input_sources.of_modules
    memory = Memory(workshop, teacher, combined(keys.values()))

    def blocks_of(configurations: Iterable[Configuration]) -> Iterator[TuningBlock]:
        networks = [{symbol.module: symbol for symbol in symbols(c, sources)} for c in configurations]
        return (block for block in keys if any(map(block.serves, networks)))

    def is_known(configuration: Configuration) -> bool:
        if not space.has(configuration):
            return False
        blocks = tuple((block, keys[block]) for block in blocks_of([configuration]))
        return workshop.is_known(Order(FineTune(0), teacher, (configuration,), blocks, full.reference_quality))

    strategy = Search(
        space=space,
        costs=plan.pieces,
        objective=job.objective,
        full=full.measured(job.quality.metric),
        groups=plan.groups,
        most=job.search.networks,
        looks=job.search.looks,
        steps=job.solver.max_iter,
        images=len(job.dataset.validation),
        quality=job.quality.metric,
        beside=() if space.listed else (*space.thinned.uniform, *random_networks(space.thinned, job.seed)),
        known=memory.known(is_known),
        workers=engine.workers,
    )

    def order_of(task: Task, finished: Mapping[Task, Results]) -> Order:
        match task:
            case FineTune(network):
                numbers: tuple[int, ...] = (network,)
            case ScoreNetworks(networks) | LookAt(networks):
                numbers = networks
            case _:
                return Order(task, teacher)
        course = strategy.course(finished)
        met, trained = tuple(course.networks), course.blocks
        configurations = tuple(met[number] for number in numbers)
        blocks = ((block, trained[block]) for block in blocks_of(configurations))
        usable = tuple((b, found.key) for b, found in blocks if not isinstance(found.outcome, Failed))
        return Order(task, teacher, configurations, usable, full.reference_quality)

    def tell(finished: Mapping[Task, Results]) -> None:
        course = strategy.course(finished)
        known = _with_networks(plan, strategy, course)
        watch.met(known, strategy.most + len(strategy.known))
        measured = _measured(known, course, finished)
        best = best_of(measured, job.objective, full.measured(job.quality.metric))
        if best is not None and (of_best := measured[best]) is not None:
            watch.best(best, of_best)
        memory.add(configuration for configuration in course.tried if course.accuracy(configuration) is not None)

    course = strategy.course({})
    first = sum(len(training.blocks) for training in course.trainings)
    watch.met(_with_networks(plan, strategy, course), strategy.most + len(strategy.known))
    watch.message(
        f"{show_space(space)} of {counted(len(keys), 'block')}{_trained_later(space, first, len(keys))}; "
        f"at most {_networks(job.search.networks)} fine-tuned."
    )
    if strategy.known:
        watch.message(f"{len(strategy.known)} of them were fine-tuned by earlier searches, and come first.")
    for text in _latency_notes(plan.latency_table):
        watch.message(text)
    with watch.phase("exploration"):
        finished = drive(strategy, engine, order_of, watch, tell)
    course = strategy.course(finished)
    if not course.tried:
        raise WootzError(_nothing_tried(finished, job.objective))
    met = _with_networks(plan, strategy, course)
    numbers = [course.networks[c] for c in course.tried]
    explored = Explored(
        start="block-trained",
        blocks=course.blocks,
        networks={number: finished[FineTune(number)][0] for number in numbers},
        orders={number: order_of(FineTune(number), finished) for number in numbers},
        best=best_of(_measured(met, course, finished), job.objective, full.measured(job.quality.metric)),
    )
    why_it_ended = _why_it_ended(course, explored.best is not None)
    watch.message(why_it_ended)
    return met, explored, _result(strategy, course, met, finished, why_it_ended)


def _trained_later(space: Space, first: int, blocks: int) -> str:
    if first == blocks:
        return ""
    return f", of which {first} are {'in networks within the bounds' if space.listed else 'trained at first'}"


def _networks(count: int) -> str:
    return "one network is" if count == 1 else f"{count} networks are"


def _why_it_ended(course: Course, has_best: bool) -> str:
    search = course.search
    if course.is_complete:
        better = "be better than the best one" if has_best else "meet the objective"
        return f"No other network is expected to {better}: the search is complete."
    if len(course.tried) < search.most + len(search.known):
        if course.is_doubtful:
            missed = "missed the bound by less than so few images can tell"
            return f"The search ends: networks like one that {missed} were not tried. They may be better."
        others = "" if search.looks_at_all_listed else "; others may be (--looks)"
        return f"The search ends: of those that it looked at, none that is left may be better{others}."
    networks = f"{search.most} networks" if search.most > 1 else "one network"
    return f"The search ends with the {networks} that it may fine-tune (--networks): others may be better."


def _latency_notes(table: LatencyTable | None) -> Iterator[str]:
    """How far the latencies can be trusted that a search goes by."""
    if table is not None and table.error is not None:
        error = table.error
        yield (
            f"Latencies are predicted from what each module takes: by {100 * error.median:.1f} % off, at worst by "
            f"{100 * error.worst:.1f} %, for {error.networks} networks that were measured as a whole."
        )
        yield from (f"Latency table: {warning}." for warning in table.warnings)


def _nothing_tried(finished: Mapping[Task, Results], objective: Objective) -> str:
    """Why a search has fine-tuned nothing."""
    of_measuring = (results for task, results in finished.items() if isinstance(task, ScoreNetworks | LookAt))
    reasons = [r.outcome.reason for results in of_measuring for r in results if isinstance(r.outcome, Failed)]
    return f"no network could be measured: {reasons[0]}" if reasons else f"no network is expected to meet '{objective}'"


def random_networks(space: Space, seed: int, count: int = COMPARED) -> tuple[Configuration, ...]:
    """Networks as the paper samples them (section 7.1), of those options that are nearest to its rates."""
    taken = {
        module: {rate: _nearest(options, rate) for rate in RATES}
        for module, options in zip(space.modules, space.options, strict=True)
    }
    possible = math.prod(len(set(of_module.values())) for of_module in taken.values())
    return sample_subspace(space.modules, RATES, min(count, possible), seed, "spread", taken).configurations


class Memory:
    """The networks that searches with the same teacher, blocks, data and solver have fine-tuned: a record in the store
    says which, and for which searches. What came of it is known by the keys of the trainings."""

    def __init__(self, workshop: Workshop, teacher: str, blocks: str):
        trainer, job = workshop.trainer, workshop.job
        program = trainer.digests.program(workshop.teacher(teacher))
        parts = (
            "tried by searches",
            program,
            blocks,
            repr(job.solver),
            repr(job.train_transform),
            *job.dataset.train.digests,
        )
        self._store, self._what = trainer.store, f"networks that searches of {job.title} have tried"
        self._key = _digest_of(*parts)
        self._search = _digest_of(*(f"{name}: {text}" for name, text in inputs_of(job, trainer.digests).items()))
        self._begun = _digest_of("known when it began", job.run, self._key)

    def known(self, is_known: Callable[[Configuration], bool]) -> tuple[Configuration, ...]:
        """Those of other searches whose results are there: the same whenever a run is continued, so that it goes on in
        the way in which it began."""
        record = self._store.get_record(self._begun)
        if record is None:
            of_others = (c for c, searches in self._read().items() if set(searches) != {self._search})
            record = {"configurations": list(filter(is_known, of_others))}
            self._store.put(self._begun, Trained({}, record), what=self._what, seconds=0.0)
        return tuple(tuple(rates) for rates in record["configurations"])

    def add(self, configurations: Iterable[Configuration]) -> None:
        before = self._read()
        new = {c: (*before.get(c, ()), self._search) for c in configurations if self._search not in before.get(c, ())}
        if new:
            rows = list({**before, **new}.items())
            self._store.put(self._key, Trained({}, {"tried": rows}), what=self._what, seconds=0.0)

    def _read(self) -> dict[Configuration, tuple[str, ...]]:
        record = self._store.get_record(self._key) or {"tried": ()}
        return {tuple(rates): tuple(searches) for rates, searches in record["tried"]}


def _digest_of(*parts: str) -> str:
    return digest(*(part.encode() for part in parts))


def _nearest(options: Iterable[float], rate: float) -> float:
    return min(options, key=lambda option: abs(option - rate))


def _with_networks(plan: RunPlan, strategy: Search, course: Course) -> RunPlan:
    """The plan with all networks that a search has met, and the blocks that it trains; those networks that were
    fine-tuned are in the order of trying."""
    candidates = tuple(Candidate(number, strategy.measured(c)) for c, number in course.networks.items())
    sources = strategy.space.sources
    own = {number: {s.module: s for s in symbols(c, sources)} for c, number in course.networks.items()}
    tried = tuple(course.networks[c] for c in course.tried)
    groups = tuple(training.blocks for training in course.trainings)
    trained = {block for group in groups for block in group}
    uses = tuple(
        replace(use, networks=tuple(n for n in tried if use.block.serves(own[n])))
        for use in plan.survey.uses
        if use.block in trained
    )
    return replace(
        plan,
        subspace=Subspace(plan.subspace.modules, tuple(course.networks)),
        candidates=candidates,
        order=tuple(candidates[number] for number in tried),
        survey=replace(plan.survey, uses=uses, groups=groups),
    )


def _measured(plan: RunPlan, course: Course, finished: Mapping[Task, Results]) -> dict[int, Measurements | None]:
    """What is known of the networks that were tried and are finished; None for those that failed."""
    found: dict[int, Measurements | None] = {}
    for number in (course.networks[c] for c in course.tried):
        (result,) = finished[FineTune(number)]
        found[number] = None if isinstance(result.outcome, Failed) else plan.measured(number, result.outcome)
    return found


def _result(
    strategy: Search, course: Course, plan: RunPlan, finished: Mapping[Task, Results], why_it_ended: str
) -> SearchResult:
    space = strategy.space
    compared = set(course.looked) | set(course.tried)
    return SearchResult(
        options=space.options,
        space=float(space.count),
        cost=strategy.cost.name,
        scores=tuple(_scores(strategy, course, finished)),
        networks=tuple(_searched(strategy, course, plan, c) for c in course.networks if c in compared),
        prediction_error=course.prediction_error,
        is_complete=course.is_complete,
        why_it_ended=why_it_ended,
        gap=course.gap,
        exponent=course.exponent,
    )


def _scores(strategy: Search, course: Course, finished: Mapping[Task, Results]) -> Iterable[BlockScore]:
    for task, results in finished.items():
        if isinstance(task, ScoreNetworks):
            for number, result in zip(task.networks, results, strict=True):
                ((module, rate),) = ((m, r) for m, r in enumerate(strategy.space.stars[number]) if r)
                if not isinstance(result.outcome, Failed) and math.isfinite(result.outcome["divergence"]):
                    yield BlockScore(module=strategy.space.modules[module], rate=rate, **result.outcome)


def _searched(strategy: Search, course: Course, plan: RunPlan, configuration: Configuration) -> SearchedNetwork:
    measured, predicted = strategy.measured(configuration), course.predicted(configuration)
    return SearchedNetwork(
        configuration=configuration,
        model_size=int(measured[Metric.MODEL_SIZE]),
        flops=int(measured[Metric.FLOPS]),
        latency_ms=measured.get(Metric.LATENCY),
        origin=_origin(strategy, configuration),
        loss=course.loss(configuration) if course.losses else None,
        looked=_signed(strategy, course.looked.get(configuration)),
        predicted=_signed(strategy, predicted),
        quality=_signed(strategy, course.accuracy(configuration)),
    )


def _origin(strategy: Search, configuration: Configuration) -> Literal["listed", "solver", "uniform", "random"]:
    space = strategy.space
    if space.listed:
        return "listed"
    if configuration in space.thinned.uniform:
        return "uniform"
    return "random" if configuration in strategy.beside else "solver"


def _signed(strategy: Search, accuracy: float | None) -> float | None:
    """What a strategy calls accuracy as the quality that it is of."""
    if accuracy is None:
        return None
    metric = strategy.quality
    return min(metric.most, max(metric.least, metric.sign * accuracy))
