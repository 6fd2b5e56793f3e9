"""How fast this machine trains and evaluates a network: measured by a few steps."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass

from wootz.passes.ir.model import Model
from wootz.passes.plan.lesson import LABELLED, Lesson
from wootz.passes.plan.solver import Solver
from wootz.runtime.batches import ordered_batches
from wootz.runtime.evaluation import EVALUATION_BATCH
from wootz.runtime.session import InferenceSession
from wootz.runtime.tasks.recipe import EvaluationRecipe
from wootz.runtime.tasks.trainer import Trainer

MOST_STEPS = 5
LONGEST_SECONDS = 5.0
"""From then on no further step is measured."""


@dataclass(frozen=True)
class Speed:
    """Seconds: of a training `step` with `batch_size` images, of an `image` in a test, and what it takes to `prepare` a
    training, to build its graph and to open it. `runs_teacher` says that the full network ran in the step, too."""

    step: float
    batch_size: int
    image: float
    prepare: float
    runs_teacher: bool = False


def speed(
    trainer: Trainer, model: Model, solver: Solver, lesson: Lesson = LABELLED, teacher: Model | None = None
) -> Speed:
    """That of a network, measured once a store and machine."""
    measure = f"speed with {solver.type.value}, {solver.batch_size} images on {trainer.device.numerics_threads} threads"
    if trainer.examples_once(model, solver, lesson, teacher):
        measure += ", given what the full network says"
    data = f"{trainer.dataset.train.digests} {trainer.train_transform}"
    recipe = EvaluationRecipe(trainer.digests.program(model), f"{measure}, {lesson}", data, trainer.machine)
    found = recipe.measured(trainer.store, lambda: asdict(measured_speed(trainer, model, solver, lesson, teacher)))
    return Speed(**found)


def measured_speed(
    trainer: Trainer, model: Model, solver: Solver, lesson: Lesson = LABELLED, teacher: Model | None = None
) -> Speed:
    begin = time.perf_counter()
    _, steps = trainer.open_to_try(model, solver, lesson, teacher)
    prepare = time.perf_counter() - begin
    steps.advance(0, 1)
    begin, made = time.perf_counter(), 0
    while made < MOST_STEPS and time.perf_counter() - begin < LONGEST_SECONDS:
        made += len(steps.advance(1 + made, 2 + made))
    step = (time.perf_counter() - begin) / made
    tested = trainer.dataset.validation.part(slice(EVALUATION_BATCH))
    session = InferenceSession(model, trainer.device)
    begin = time.perf_counter()
    for batch in ordered_batches(tested, trainer.test_transform, EVALUATION_BATCH):
        session.run(batch.data)
    image = (time.perf_counter() - begin) / len(tested)
    runs_teacher = teacher is not None and not trainer.examples_once(model, solver, lesson, teacher)
    return Speed(step, solver.batch_size, image, prepare, runs_teacher)
