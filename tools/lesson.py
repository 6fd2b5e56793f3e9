"""What the options of a command say of how pruned networks learn from the full one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from wootz.passes.errors import WootzError
from wootz.passes.plan.lesson import TEMPERATURE, Lesson


def lesson_of(options: Mapping[str, Any]) -> Lesson:
    """That of `--distill`, `--temperature` and `--distill-features`, beside labels of classes."""
    if options["temperature"] is not None and not options["distill"]:
        raise WootzError("--temperature is that of the full network's scores: it goes with --distill SHARE")
    return Lesson(
        distill=options["distill"],
        temperature=options["temperature"] or TEMPERATURE,
        features=options["distill_features"],
    )


def lesson_notes(lesson: Lesson) -> Iterator[str]:
    if lesson.distill:
        labels = "and nothing from labels" if lesson.distill == 1 else "the rest from labels"
        yield (
            f"Pruned networks learn {100 * lesson.distill:g} % of their loss from the full network's scores at "
            f"temperature {lesson.temperature:g}, {labels} (--distill)."
        )
    if lesson.features:
        yield f"Their modules learn from the full network's, with weight {lesson.features:g} (--distill-features)."
