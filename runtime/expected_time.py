"""How long a run is going to take at most: from the work that is known before it, and the full network's speed."""

from __future__ import annotations

from dataclasses import dataclass, fields

from wootz.passes.blocks.costs import TRAINING_FACTOR
from wootz.passes.plan.solver import Solver
from wootz.runtime.job import Job, Searching
from wootz.runtime.recalibration import CALIBRATION_IMAGES
from wootz.runtime.speed import Speed
from wootz.runtime.survey import Survey
from wootz.runtime.tasks.rehearsal import representatives, structure

SECONDS_OF_A_LOOK = 0.3
"""For building and opening a network, beside running it."""
UNPRUNABLE_SHARE = 0.3
"""Of the time of a step: what doesn't shrink with the multiply-accumulates (batches, starting kernels)."""


@dataclass(frozen=True)
class ExpectedTime:
    """Seconds of each phase, with everything trained to the end and nothing known before."""

    plan: float
    teacher: float
    blocks: float
    networks: float
    scoring: float = 0.0

    @property
    def total(self) -> float:
        return sum(getattr(self, f.name) for f in fields(self))


@dataclass(frozen=True)
class Trainings:
    """What a run trains: the full network by `teacher`, None where it is given; itself by `solver` as the others are,
    if it `tunes` it; the blocks by `pretrain_solver`; and all networks by `solver`, once or with a baseline twice.
    Where these learn from the full network, it runs beside them, or once on `examples_once`."""

    teacher: Solver | None
    solver: Solver
    pretrain_solver: Solver
    tunes: bool
    explorations: int
    validation_images: int
    search: Searching | None = None
    learns_from_full: bool = False
    examples_once: int = 0


def trainings_of(job: Job, examples_once: int) -> Trainings:
    return Trainings(
        teacher=job.teacher_solver if job.untrained else None,
        solver=job.solver,
        pretrain_solver=job.pretrain_solver,
        tunes=job.reference != "given",
        explorations=2 if job.baseline else 1,
        validation_images=len(job.dataset.validation),
        search=job.search,
        learns_from_full=job.lesson.needs_teacher,
        examples_once=examples_once,
    )


def expected_time(survey: Survey, trainings: Trainings, speed: Speed) -> ExpectedTime:
    """What a single worker needs for the networks of a survey; the step that was measured is one of fine-tuning."""
    full_macs = max(1, survey.full.macs)
    beside = speed.image if trainings.learns_from_full and not trainings.examples_once else 0.0  # in each step
    measured_beside = speed.image if speed.runs_teacher else 0.0
    image = max(speed.step / speed.batch_size - measured_beside, measured_beside)  # of the full network, forward, back

    def training(solver: Solver, macs: int) -> float:
        share = UNPRUNABLE_SHARE + (1 - UNPRUNABLE_SHARE) * macs / full_macs
        tests = 1 + (solver.max_iter // solver.test_interval if solver.test_interval else 1)
        tested = tests * trainings.validation_images * speed.image
        return speed.prepare + share * (solver.max_iter * solver.iter_size * solver.batch_size * image + tested)

    def taught(macs: int) -> float:
        solver = trainings.solver
        images = solver.max_iter * solver.iter_size * solver.batch_size
        return training(solver, macs) + images * beside

    pretrain = trainings.pretrain_solver
    images = pretrain.max_iter * pretrain.iter_size * pretrain.batch_size
    structures = [structure(configuration) for configuration in survey.subspace.configurations]
    rehearsed = len(representatives(structures))
    blocks = len([use for use in survey.uses if use.block.is_pruned])
    shared = survey.work.pretraining / (TRAINING_FACTOR * full_macs)
    teacher = [training(trainings.teacher, full_macs)] if trainings.teacher is not None else []
    tuned = [taught(full_macs)] if trainings.tunes else []
    networks = [taught(cost.macs) for cost in survey.costs]
    once = trainings.examples_once * speed.image
    if trainings.search is not None:
        networks = [sum(networks) / len(networks)] * trainings.search.networks
    return ExpectedTime(
        plan=rehearsed * (speed.prepare + 2 * speed.step),
        teacher=sum((*teacher, *tuned)),
        blocks=(len(survey.groups) + 1) * speed.prepare + images * image * shared if blocks else 0.0,
        networks=trainings.explorations * sum(networks) + once,
        scoring=0.0 if trainings.search is None else _scoring(trainings.search, trainings.validation_images, speed),
    )


def _scoring(search: Searching, validation_images: int, speed: Speed) -> float:
    """Seconds for the scores of a search's blocks, on average half a network each, and for its looks."""
    looked_at = CALIBRATION_IMAGES + validation_images
    listed = len(search.space.listed)
    looks = min(search.looks, listed) if listed else search.looks
    scored = 0.0 if looks == listed else 0.5 * len(search.space.stars) * validation_images
    return speed.image * (scored + looks * looked_at) + looks * SECONDS_OF_A_LOOK
