"""What a run leaves behind: the networks as ONNX files, and its result."""

from __future__ import annotations

import platform
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, fields
from importlib import metadata
from pathlib import Path
from typing import Any

import msgspec

from wootz.passes.ir.files import write_atomically
from wootz.passes.ir.model import Model
from wootz.passes.plan.blocks import TuningBlock
from wootz.passes.plan.metrics import Metric
from wootz.passes.plan.solver import Solver
from wootz.passes.plan.subspace import format_configuration
from wootz.runtime.delivery.delivered import (
    for_inference,
    latencies_beside_full,
    with_interface,
    write_network,
)
from wootz.runtime.delivery.description import Delivered, describe, given_inputs, image_input, write_description
from wootz.runtime.delivery.explored import Explored
from wootz.runtime.delivery.front import write_front
from wootz.runtime.delivery.misses import misses_of_best
from wootz.runtime.delivery.postprocessing import write_whole
from wootz.runtime.job import Job
from wootz.runtime.outcome import Failed
from wootz.runtime.plan import RunPlan
from wootz.runtime.result import (
    BestNetwork,
    BlockResult,
    Environment,
    Exploration,
    FailedBlockResult,
    FailedNetworkResult,
    FullNetworkResult,
    Images,
    InfeasibleNetworkResult,
    NetworkResult,
    QualityResult,
    Reuse,
    RunResult,
    SearchResult,
    SolverFields,
    Solvers,
    Speed,
    TrainedBlockResult,
    TrainedNetworkResult,
    UntriedNetworkResult,
    block_symbols,
    objective_result,
)
from wootz.runtime.run_directory import ASSIGNMENT_FILE, BEST_FILE, DESCRIPTION_FILE, TEACHER_FILE, whole_file
from wootz.runtime.session import runtime_version
from wootz.runtime.strategies.enumeration import assignment
from wootz.runtime.strategies.selection import Candidate, violated
from wootz.runtime.tasks.task import Finished, Order, curve_of, steps_saved
from wootz.runtime.tasks.workshop import Workshop
from wootz.runtime.teacher import Teacher
from wootz.runtime.uncertainty import Share, margin_note
from wootz.runtime.watch import Watch

NOT_OF_TRAINING = ("snapshot", "snapshot_prefix", "average_loss", "display", "solver_mode", "data", "machines")
"""Fields of solvers that change nothing of what is trained."""
ALWAYS_TOLD = ("type", "base_lr", "lr_policy", "max_iter", "batch_size")


def deliver(
    workshop: Workshop,
    plan: RunPlan,
    teacher: Teacher,
    executor: str,
    workers: int,
    watch: Watch,
    block_trained: Explored | None = None,
    default: Explored | None = None,
    search: SearchResult | None = None,
) -> RunResult:
    """Writes the full network and the best one with its description into the run directory, and gives the result; of a
    search also the networks of its front."""
    watch.delivery()
    job, data = workshop.job, workshop.job.dataset
    full, full_form = teacher.full, with_interface(job, teacher.model)
    reference = workshop.trainer.reference(teacher.model)
    known = full.measured(job.quality.metric) if isinstance(full, FullNetworkResult) else plan.full
    objective = objective_result(job.objective, known)
    best: BestNetwork | None = None
    speed: Speed | None = None
    if block_trained is not None:
        assert isinstance(full, FullNetworkResult), "networks are tried with a teacher alone"
        full_file = write_network(job, full_form, TEACHER_FILE, full.quality, watch.note, reference)
        full = msgspec.structs.replace(full, file_bytes=full_file.bytes)
        for text in _failures(plan, block_trained, default):
            watch.note(text)
        if block_trained.best is not None:
            model, best = _best_network(workshop, plan, teacher, block_trained, BEST_FILE)
            for text in _narrow_margins(job, teacher, best):
                watch.note(text)
            best_file = write_network(job, for_inference(job, model), BEST_FILE, best.quality, watch.note, reference)
            for text in write_whole(job, best_file):
                watch.note(text)
            has_whole = (job.out / whole_file(BEST_FILE)).is_file()
            whole = whole_file(BEST_FILE) if has_whole else None
            best = msgspec.structs.replace(best, file_bytes=best_file.bytes, whole=whole)
            speed = _speed(job)
            meets = not misses_of_best(objective, job.quality.metric, best, speed)
            delivered = Delivered(best, best_file, full, full_file, speed, meets)
            write_description(describe(job, delivered), job.out / DESCRIPTION_FILE)
        if search is not None:
            search = write_front(workshop, plan, teacher.model, block_trained, search, full, watch)
    blocks = block_trained.blocks if block_trained else {}
    positions = {block: position for position, block in enumerate(blocks)}
    return RunResult(
        quality=QualityResult.of(job.quality.metric),
        best=best,
        full=full,
        networks_evaluated=len(block_trained.networks) if block_trained else 0,
        networks_feasible=len(plan.order),
        networks_total=len(plan.candidates),
        baseline=None if default is None else _baseline(workshop, plan, teacher, default, watch),
        seconds=watch.seconds(),
        reuse=_reuse(teacher, block_trained, default),
        seed=job.seed,
        network=job.title,
        data=job.data_title,
        objective=objective,
        classes=job.dataset.classes,
        images=Images(
            train=len(data.train), validation=len(data.validation), test=len(data.test) if data.test else None
        ),
        input=image_input(job, full_form),
        inputs=given_inputs(job, full_form),
        input_source=job.pixels_source,
        learned_from=job.lesson.text,
        solvers=Solvers(
            teacher=_solver_fields(job.teacher_solver) if job.untrained else None,
            fine_tuning=_solver_fields(job.solver),
            pretraining=_solver_fields(job.pretrain_solver),
        ),
        speed=speed,
        search=search,
        modules=job.subspace.modules,
        modules_source=job.modules_source,
        networks=_network_results(job, plan, block_trained, positions),
        blocks=tuple(_block_result(plan, job.subspace.modules, block, f) for block, f in blocks.items()),
        groups=tuple(tuple(positions[block] for block in group) for group in plan.groups if blocks),
        notes=watch.all_notes(),
        environment=_environment(job, executor, workers),
    )


def write_assignment(folder: Path, networks: Sequence[int], workers: int) -> None:
    """The file that says which process gets which networks, by their positions in the subspace: a list a process."""
    content = msgspec.json.encode(assignment(networks, workers))
    write_atomically(folder / ASSIGNMENT_FILE, msgspec.json.format(content, indent=1) + b"\n")


def _best_network(
    workshop: Workshop, plan: RunPlan, teacher: Teacher, explored: Explored, file: str | None
) -> tuple[Model, BestNetwork]:
    """The chosen network, and what is known of it; it alone is tested on the test images."""
    assert explored.best is not None
    job, found = workshop.job, explored.networks[explored.best]
    assert not isinstance(found.outcome, Failed)
    model = workshop.trained_network(explored.orders[explored.best], found.key)
    test = job.dataset.test
    return model, BestNetwork(
        model=file,
        quality=plan.quality_of(found.outcome),
        test_quality=None if test is None else workshop.trainer.quality_of(model, test, teacher.model),
        **_known_before(plan, plan.candidates[explored.best]),
    )


def _baseline(workshop: Workshop, plan: RunPlan, teacher: Teacher, default: Explored, watch: Watch) -> Exploration:
    best = None if default.best is None else _best_network(workshop, plan, teacher, default, None)[1]
    return Exploration(
        best=best,
        networks=_network_results(workshop.job, plan, default, {}),
        networks_evaluated=len(default.networks),
        seconds=watch.seconds().baseline,
    )


def _network_results(
    job: Job, plan: RunPlan, explored: Explored | None, positions: Mapping[TuningBlock, int]
) -> tuple[NetworkResult, ...]:
    """Those to be tried, in their order, then those that miss a constraint which is known before training."""
    found = explored.networks if explored else {}
    feasible = {candidate.index for candidate in plan.order}
    return (
        *(_network_result(job, plan, c, found.get(c.index), explored, positions) for c in plan.order),
        *(
            InfeasibleNetworkResult(violates=violated(c, job.objective, plan.full), **_known_before(plan, c))
            for c in plan.candidates
            if c.index not in feasible and job.search is None
        ),
    )


def _network_result(
    job: Job,
    plan: RunPlan,
    candidate: Candidate,
    found: Finished | None,
    explored: Explored | None,
    positions: Mapping[TuningBlock, int],
) -> NetworkResult:
    known = _known_before(plan, candidate)
    if found is None or explored is None:
        return UntriedNetworkResult(**known)
    started_from = _blocks_of_modules(len(job.subspace.modules), explored.orders[candidate.index], positions)
    if isinstance(found.outcome, Failed):
        return FailedNetworkResult(reason=found.outcome.reason, blocks=started_from, reused=found.reused, **known)
    record = found.outcome
    return TrainedNetworkResult(
        quality=plan.quality_of(record),
        initial_quality=record["curve"][0][1],
        blocks=started_from,
        curve=curve_of(record),
        kept=record["kept"],
        steps=record["steps"],
        steps_saved=steps_saved(job.solver, record),
        ended=record["ended"],
        seconds=record["seconds"],
        reused=found.reused,
        **known,
    )


def _blocks_of_modules(modules: int, order: Order, positions: Mapping[TuningBlock, int]) -> tuple[int | None, ...]:
    """For each module the block that its weights come from."""
    block_of = {module: positions[block] for block, _ in order.blocks for module in block.modules}
    return tuple(block_of.get(module) for module in range(modules))


def _known_before(plan: RunPlan, candidate: Candidate) -> dict[str, Any]:
    """The fields of a network's result that its architecture decides."""
    return {
        "index": candidate.index,
        "configuration": plan.configuration(candidate.index),
        "model_size": int(candidate.measured[Metric.MODEL_SIZE]),
        "flops": int(candidate.measured[Metric.FLOPS]),
        "latency_ms": candidate.measured.get(Metric.LATENCY),
    }


def _block_result(plan: RunPlan, modules: Sequence[str], block: TuningBlock, found: Finished) -> BlockResult:
    known: dict[str, Any] = {
        "symbols": block_symbols(block, modules),
        "networks": plan.networks_with[block],
        "reused": found.reused,
    }
    if isinstance(found.outcome, Failed):
        return FailedBlockResult(reason=found.outcome.reason, **known)
    return TrainedBlockResult(
        **{name: found.outcome[name] for name in ("initial_error", "final_error", "kept", "steps")}, **known
    )


def _failures(plan: RunPlan, block_trained: Explored, default: Explored | None) -> list[str]:
    texts = [
        f"Block {block}: {f.outcome.reason}. Its modules start from the teacher's remaining weights."
        for block, f in block_trained.blocks.items()
        if isinstance(f.outcome, Failed)
    ]
    for explored in filter(None, (block_trained, default)):
        texts += [
            f"{explored.start} network {format_configuration(plan.configuration(index))}: {f.outcome.reason}"
            for index, f in explored.networks.items()
            if isinstance(f.outcome, Failed)
        ]
    return texts


def _speed(job: Job) -> Speed:
    """Of both networks side by side, on the machine that delivers."""
    full, best = latencies_beside_full(job, [job.out / BEST_FILE])
    return Speed(full=full, best=best, threads=job.device.numerics_threads)


def _narrow_margins(job: Job, teacher: Teacher, best: BestNetwork) -> Iterator[str]:
    """Notes of bounds on a share of images that the best network meets, but may miss on other images."""
    assert isinstance(teacher.full, FullNetworkResult)
    metric = job.quality.metric
    if not metric.is_share:
        return
    measured = Share(best.quality, len(job.dataset.validation))
    full, found = teacher.full.measured(metric), {metric: best.quality}
    met = (c for c in job.objective.bounds_of_quality if c.asks_for_quality and c.holds(found, full))
    yield from filter(None, (margin_note(metric.name.lower(), measured, c.bound(full)) for c in met))


def _reuse(teacher: Teacher, block_trained: Explored | None, default: Explored | None) -> Reuse:
    blocks = list(block_trained.blocks.values()) if block_trained else []
    networks = list(block_trained.networks.values()) if block_trained else []
    of_baseline = list(default.networks.values()) if default else []
    return Reuse(
        teacher=teacher.full.reused,
        blocks=sum(f.reused for f in blocks),
        networks=sum(f.reused for f in networks),
        baseline_networks=sum(f.reused for f in of_baseline),
        seconds_saved=sum(f.seconds for f in (*blocks, *networks, *of_baseline) if f.reused)
        + (getattr(teacher.full, "seconds", 0.0) if teacher.full.reused else 0.0),
    )


def _solver_fields(solver: Solver) -> SolverFields:
    """Those that say how is trained, where they are not the default; some always."""
    values = {**asdict(solver), "type": solver.type.value}
    shown = (f for f in fields(Solver) if f.name not in NOT_OF_TRAINING)
    return {f.name: values[f.name] for f in shown if f.name in ALWAYS_TOLD or values[f.name] != f.default}


def _environment(job: Job, executor: str, workers: int) -> Environment:
    return Environment(
        wootz=metadata.version("wootz"),
        python=platform.python_version(),
        platform=platform.platform(),
        runtime=runtime_version(),
        executor=executor,
        workers=workers,
        device=job.device.kind,
        precision=job.precision,
        target=job.target,
        command=job.command,
    )
