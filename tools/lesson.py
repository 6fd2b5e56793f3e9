"""What the options of a command say of how pruned networks learn from the full one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from wootz.passes.errors import WootzError
from wootz.passes.plan.lesson import TEMPERATURE, Lesson
from wootz.runtime.defaults import SHARE_OF_A_GIVEN_NETWORK


def lesson_of(options: Mapping[str, Any], suggested: Lesson, is_given: bool) -> Lesson:
    """That of `--distill`, `--temperature` and `--distill-features`, beside the targets that are `suggested`; where
    nobody says it, that of a full network that `is_given` with its weights. Raises WootzError for options that mean
    nothing there."""
    share = options["distill"]
    if not suggested.reads_targets:
        if share not in (None, suggested.distill):
            raise WootzError(f"--distill {share:g}: there are no labels that the rest could be learned from")
        share = suggested.distill
    elif share is None:
        share = SHARE_OF_A_GIVEN_NETWORK if is_given else 0.0
    if options["temperature"] is not None and not share:
        raise WootzError("--temperature is that of the full network's scores: it goes with --distill SHARE")
    return replace(
        suggested,
        distill=share,
        temperature=options["temperature"] or TEMPERATURE,
        features=options["distill_features"],
    )


def lesson_notes(lesson: Lesson) -> Iterator[str]:
    if lesson.distill and lesson.loss is not None:
        labels = "and nothing from labels" if lesson.distill == 1 else "the rest from labels"
        yield (
            f"Pruned networks learn {100 * lesson.distill:g} % of their loss from the full network's scores at "
            f"temperature {lesson.temperature:g}, {labels} (--distill)."
        )
    if lesson.features:
        yield f"Their modules learn from the full network's, with weight {lesson.features:g} (--distill-features)."
