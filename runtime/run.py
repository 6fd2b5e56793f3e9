"""What a run is: from a network, a subspace and an objective to the best pruned network."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from wootz.passes.plan.blocks import TuningBlock
from wootz.passes.plan.objective import Measurements
from wootz.passes.training.parameters import placeholder_notes
from wootz.runtime.defaults import default_objective, most_lost
from wootz.runtime.delivery.deliver import deliver, write_assignment
from wootz.runtime.delivery.explored import Explored
from wootz.runtime.delivery.finish import finish
from wootz.runtime.drive import drive
from wootz.runtime.executors.engine import Engine
from wootz.runtime.job import Job, check
from wootz.runtime.outcome import Failed, Trained
from wootz.runtime.plan import RunPlan, plan_run, rehearse
from wootz.runtime.quality.showing import show_loss
from wootz.runtime.result import FailedFullNetworkResult, FullNetworkResult, RunResult
from wootz.runtime.run_directory import OBJECTIVE_FILE
from wootz.runtime.strategies.enumeration import Enumeration
from wootz.runtime.strategies.selection import best_of, check_quality_bounds, meets, nearest
from wootz.runtime.tasks.task import (
    FineTune,
    FineTuneFull,
    Finished,
    Order,
    PretrainBlocks,
    Results,
    Start,
    Task,
    TrainTeacher,
)
from wootz.runtime.tasks.workshop import Workshop
from wootz.runtime.teacher import Teacher, how_trained, measure_teacher, with_tuned
from wootz.runtime.watch import Watch

FEWEST_USELESS = 3
"""Fine-tunings that gained nothing, from which on that is worth a word."""


def run(workshop: Workshop, engine: Engine[Order, Results], executor: str, watch: Watch) -> RunResult:
    """Does the whole job and writes `teacher.onnx`, `best.onnx` with its further files, and `result.json` into its run
    directory.

    The workers of `engine` train, each in a workshop of its own, and share what they trained through the store;
    `executor` says for the result who they are. `watch` is told of what happens. Raises WootzError, before anything is
    trained or written, for inputs that don't fit.
    """
    job = workshop.job
    check(job)
    with watch.phase("plan"):
        for note in placeholder_notes(workshop.network.graph):
            watch.note(f"{note[:1].upper()}{note[1:]}.")
        plan = plan_run(workshop, engine.workers)
        watch.planned(plan, rehearse(workshop, plan))
        if job.static:
            write_assignment(job.out, [candidate.index for candidate in plan.order], engine.workers)
    with watch.phase("teacher"):
        teacher = _prepare_teacher(workshop, plan, engine, watch)
    full = teacher.full
    if isinstance(full, FailedFullNetworkResult):
        return finish(job, deliver(workshop, plan, teacher, executor, engine.workers, watch), watch)
    of_full = full.measured(job.quality.metric)
    check_quality_bounds(job.objective, of_full)
    watch.full_network(of_full)
    if job.search is None and len(plan.tried.configurations) == 1:
        watch.note("There is a single network to try: it shares no block with another, so nothing is pre-trained.")
    if job.search is not None:
        from wootz.runtime.search import search  # here: importing scipy takes half a second

        plan, found, searched = search(workshop, plan, teacher.key, full, engine, watch)
        _note_useless_training(found, watch)
        found = _with_nearest(job, plan, found, full, watch)
        result = deliver(workshop, plan, teacher, executor, engine.workers, watch, found, search=searched)
        return finish(job, result, watch)
    block_trained = _explore("block-trained", workshop, plan, teacher.key, full, engine, watch)
    _note_useless_training(block_trained, watch)
    block_trained = _with_nearest(job, plan, block_trained, full, watch)
    default = _explore("default", workshop, plan, teacher.key, full, engine, watch) if job.baseline else None
    result = deliver(workshop, plan, teacher, executor, engine.workers, watch, block_trained, default)
    return finish(job, result, watch)


def _prepare_teacher(workshop: Workshop, plan: RunPlan, engine: Engine[Order, Results], watch: Watch) -> Teacher:
    """The full network, trained first if it has untrained layers, and what was measured of it and of itself tuned."""
    trained: Finished | None = None
    if workshop.job.untrained:
        task = TrainTeacher()
        watch.message(f"The full network is {how_trained(workshop.job)}.")
        trained = _train_full(task, "", engine, watch)
    teacher = measure_teacher(workshop, plan, trained, watch)
    if workshop.job.reference == "given" or isinstance(teacher.full, FailedFullNetworkResult):
        return teacher
    return with_tuned(workshop, teacher, _train_full(FineTuneFull(), teacher.key, engine, watch), watch)


def _train_full(
    task: TrainTeacher | FineTuneFull, teacher: str, engine: Engine[Order, Results], watch: Watch
) -> Finished:
    training = Enumeration((task,), meets=lambda task, results: True, stops_at_first=False)
    (finished,) = drive(training, engine, lambda task, _: Order(task, teacher), watch)[task]
    return finished


def _explore(
    start: Start,
    workshop: Workshop,
    plan: RunPlan,
    teacher: str,
    full: FullNetworkResult,
    engine: Engine[Order, Results],
    watch: Watch,
) -> Explored:
    """Trains blocks, if the networks are to start from them, and tries the networks in the objective's order."""
    job, of_full = workshop.job, full.measured(workshop.job.quality.metric)
    networks = {candidate.index: FineTune(candidate.index, start) for candidate in plan.order}
    groups = {block: PretrainBlocks(group) for group in plan.groups for block in group}
    if start == "default":
        groups = {}
    keys = workshop.block_keys(teacher, groups).values()
    watch.known_blocks(sum(workshop.trainer.store.entry(key) is not None for key in keys), len(keys))

    def order_of(task: Task, finished: Mapping[Task, Results]) -> Order:
        if not isinstance(task, FineTune):
            return Order(task, teacher)
        configurations, blocks = (plan.configuration(task.network),), usable_blocks(task.network, finished)
        return Order(task, teacher, configurations, blocks, full.reference_quality)

    def usable_blocks(network: int, finished: Mapping[Task, Results]) -> tuple[tuple[TuningBlock, str], ...]:
        """Those of a network's blocks whose training did not fail, with the keys that their workers found for them."""
        of_network = ((b, _of_block(b, groups[b], finished)) for b in plan.composites[network] if b in groups)
        return tuple((block, found.key) for block, found in of_network if not isinstance(found.outcome, Failed))

    def measured(task: FineTune, results: Results) -> Measurements | None:
        (result,) = results
        return None if isinstance(result.outcome, Failed) else plan.measured(task.network, result.outcome)

    def may_be_chosen(task: FineTune, results: Results) -> bool:
        return meets(measured(task, results), job.objective, of_full)

    def tell_of_best(finished: Mapping[Task, Results]) -> None:
        tried = {task: measured(task, finished[task]) for task in networks.values() if task in finished}
        best = best_of(tried, job.objective, of_full)
        if best is not None and start == "block-trained":
            watch.best(best.network, tried[best] or {})

    strategy = Enumeration(
        networks=tuple(networks.values()),
        meets=may_be_chosen,
        stops_at_first=not job.objective.metric.needs_training,
        blocks=tuple(dict.fromkeys(groups.values())),
        needs={
            task: tuple(dict.fromkeys(groups[block] for block in plan.composites[index] if block in groups))
            for index, task in networks.items()
        },
        rounds=engine.workers if job.static else 0,
    )
    with watch.phase("exploration" if start == "block-trained" else "baseline"):
        finished = drive(strategy, engine, order_of, watch, tell_of_best)
    decisive = strategy.decisive(finished)
    found = {task: measured(task, finished[task]) for task in decisive}
    best = best_of(found, job.objective, of_full)
    return Explored(
        start=start,
        blocks={b: _of_block(b, groups[b], finished) for b in plan.survey.plan.blocks if b in groups},
        networks={task.network: finished[task][0] for task in decisive},
        orders={task.network: order_of(task, finished) for task in decisive},
        best=None if best is None else best.network,
    )


def _note_useless_training(explored: Explored, watch: Watch) -> None:
    """Says it where no fine-tuning has made a network better than it was when it was assembled."""
    ended = (task.outcome for task in explored.networks.values())
    kept = [o.record["kept"] for o in ended if isinstance(o, Trained) and o.record["steps"]]
    if len(kept) >= FEWEST_USELESS and not any(kept):
        watch.note(
            f"None of the {len(kept)} fine-tunings made its network better than it was when it was assembled: a lower "
            f"base_lr may, or more images; without them the networks are the same."
        )


def _with_nearest(job: Job, plan: RunPlan, explored: Explored, full: FullNetworkResult, watch: Watch) -> Explored:
    """With the network of the best quality as the best one where none meets an objective that nobody gave."""
    if explored.best is not None or not _nobody_gave_the_objective(job):
        return explored
    found = {
        network: None if isinstance(ended.outcome, Failed) else plan.measured(network, ended.outcome)
        for network, ended in explored.networks.items()
    }
    quality = job.quality.metric
    of_full = full.measured(quality)
    best = nearest(found, quality, of_full, most_lost(quality, of_full[quality]))
    if best is None or (of_best := found[best]) is None:
        return explored
    watch.best(best, of_best)
    watch.note(_nearest_note(job, len(found), full.reference_quality, of_best[quality]))
    return replace(explored, best=best)


def _nobody_gave_the_objective(job: Job) -> bool:
    """Then a network that misses it is worth more than none. One that was changed in the run's folder is given."""
    return OBJECTIVE_FILE in job.chosen and job.objective == default_objective(job.quality.metric)


def _nearest_note(job: Job, tried: int, of_full: float, of_best: float) -> str:
    none = "The one network that was tried misses" if tried == 1 else f"None of the {tried} networks meets"
    return (
        f"{none} '{job.objective}', which nobody asked for: the nearest is taken, which "
        f"{show_loss(job.quality.metric, of_full, of_best)}. With --effort thorough trainings are longer, --objective "
        f"sets a bound."
    )


def _of_block(block: TuningBlock, task: PretrainBlocks, finished: Mapping[Task, Results]) -> Finished:
    return finished[task][task.blocks.index(block)]
