"""The full network: what is measured of it before it serves as teacher."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import msgspec

from wootz.passes.errors import WootzError
from wootz.passes.ir.model import Model, with_weights
from wootz.passes.plan.metrics import Metric
from wootz.runtime.data.dataset import Split
from wootz.runtime.guessing import can_be_told
from wootz.runtime.job import Job
from wootz.runtime.outcome import Failed
from wootz.runtime.plan import RunPlan
from wootz.runtime.quality.showing import show_reached
from wootz.runtime.result import FailedFullNetworkResult, FullNetworkResult, TunedResult
from wootz.runtime.run_directory import TEACHER_FILE
from wootz.runtime.seen_validation import COMPARED_IMAGES, seen_validation_note
from wootz.runtime.tasks.task import Finished, curve_of, reached
from wootz.runtime.tasks.workshop import Workshop
from wootz.runtime.uncertainty import CLEARLY, Share
from wootz.runtime.watch import Watch


@dataclass(frozen=True)
class Teacher:
    """The full network, the key of its training (empty where its weights were given), and what was measured of it."""

    key: str
    model: Model
    full: FullNetworkResult | FailedFullNetworkResult


def measure_teacher(workshop: Workshop, plan: RunPlan, trained: Finished | None, watch: Watch) -> Teacher:
    """The teacher after its training, None where its weights are given. What is odd about it is noted.

    Raises WootzError for one that has learned nothing, unless the job's network may guess.
    """
    job = workshop.job
    known: dict[str, Any] = {
        "configuration": (0.0,) * len(job.subspace.modules),
        "model_size": int(plan.full[Metric.MODEL_SIZE]),
        "flops": int(plan.full[Metric.FLOPS]),
        "latency_ms": plan.full.get(Metric.LATENCY),
        "origin": _origin(job),
    }
    if trained is not None:
        known |= {"new_layers": () if job.all_untrained else job.untrained, "reused": trained.reused}
        if isinstance(trained.outcome, Failed):
            watch.note(f"full network: {trained.outcome.reason}")
            return Teacher("", workshop.network, FailedFullNetworkResult(reason=trained.outcome.reason, **known))
        known |= {name: trained.outcome[name] for name in ("steps", "seconds")}
        known["curve"] = curve_of(trained.outcome)
    key = "" if trained is None else trained.key
    model = workshop.teacher(key)
    test = job.dataset.test
    full = FullNetworkResult(
        model=TEACHER_FILE,
        quality=_of_full(workshop, model, job.dataset.validation),
        test_quality=None if test is None else _of_full(workshop, model, test),
        **known,
    )
    if trained is None:
        _note_what_is_odd(workshop, model, full, watch)
    elif _guesses(workshop, model):
        fault = f"the full network, {how_trained(job)}, only guesses: {show_reached(job.quality.metric, full.quality)}"
        if not job.may_guess:
            raise WootzError(
                f"{fault}; does it get its pixels as it wants them (--normalize), are the labels right, was it trained "
                f"long enough (--effort, --teacher-solver)? --allow-untrained goes on"
            )
        watch.note(f"{fault[:1].upper()}{fault[1:]}.")
    watch.message(f"Full network: {show_reached(job.quality.metric, full.quality)}, {full.model_size:,} parameters.")
    return Teacher(key, model, full)


def with_tuned(workshop: Workshop, teacher: Teacher, tuned: Finished, watch: Watch) -> Teacher:
    """The teacher with what its fine-tuning came to, and the choice of what `full` in the objective means."""
    full, outcome = teacher.full, tuned.outcome
    assert isinstance(full, FullNetworkResult)
    if isinstance(outcome, Failed):
        watch.note(f"The full network's fine-tuning failed: {outcome.reason}. `full` means the network as it was.")
        return teacher
    curve, job = curve_of(outcome), workshop.job
    model = with_weights(teacher.model, workshop.weights(tuned.key, "the full network, fine-tuned"))
    test = job.dataset.test
    result = TunedResult(
        quality=reached(outcome),
        test_quality=None if test is None else workshop.trainer.quality_of(model, test, teacher.model),
        curve=curve,
        steps=outcome["steps"],
        seconds=outcome["seconds"],
        reused=tuned.reused,
    )
    metric = job.quality.metric
    is_reference = job.reference == "tuned" or metric.sign * result.quality > metric.sign * full.quality
    watch.message(
        f"Fine-tuned as the pruned ones are it has {show_reached(metric, result.quality)}: "
        f"{'that' if is_reference else 'the former'} is what 'full' means in the objective."
    )
    reference = "tuned" if is_reference else "given"
    return replace(teacher, full=msgspec.structs.replace(full, tuned=result, reference=reference))


def _of_full(workshop: Workshop, model: Model, split: Split) -> float:
    """The full network's quality on a split: beside itself it is what it is by definition."""
    known = workshop.job.quality.metric.of_full
    return workshop.trainer.quality_of(model, split, model) if known is None else known


def _origin(job: Job) -> str:
    if not job.untrained:
        return "given"
    return "trained from scratch" if job.all_untrained else "fine-tuned"


def how_trained(job: Job) -> str:
    """`trained from scratch`, or `fine-tuned; new layers: fc5`."""
    new_layers = "" if job.all_untrained else f"; new layers: {', '.join(job.untrained)}"
    return f"{_origin(job)}{new_layers}"


def _guesses(workshop: Workshop, model: Model) -> bool:
    """Whether a network isn't clearly above guessing, neither on validation nor on training images, of which there are
    enough to tell."""
    data = workshop.job.dataset
    if not data.validation.has_classes or not workshop.job.quality.of_classes:
        return False
    compared = [split.part(slice(COMPARED_IMAGES)) for split in (data.validation, data.train)]
    telling = [split for split in compared if can_be_told(split.classes, CLEARLY)]
    return bool(telling) and all(workshop.trainer.above_guessing(model, split) < CLEARLY for split in telling)


def _note_what_is_odd(workshop: Workshop, model: Model, full: FullNetworkResult, watch: Watch) -> None:
    """A network that came with its weights may have been trained on the validation images."""
    data = workshop.job.dataset
    if workshop.job.quality.metric != Metric.ACCURACY:
        return
    images = min(len(data.train), COMPARED_IMAGES)
    compared = data.train.part(slice(images))
    note = seen_validation_note(
        training=Share(_of_full(workshop, model, compared), images),
        validation=Share(full.quality, len(data.validation)),
        test=None if data.test is None or full.test_quality is None else Share(full.test_quality, len(data.test)),
        splits_training=data.splits_training,
    )
    if note:
        watch.note(note)
