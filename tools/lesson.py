"""What the options of a command say of how pruned networks learn from the full one."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import replace
from typing import Any

from wootz.passes.errors import WootzError
from wootz.passes.ir.model import Model
from wootz.passes.plan.lesson import TEMPERATURE, Lesson
from wootz.runtime.defaults import SHARE_OF_A_GIVEN_NETWORK

OutputWeights = tuple[tuple[str, float], ...]
"""Of all outputs of a network, by name; empty where they count alike."""


def output_weights(text: str | None, network: Model) -> OutputWeights:
    """Those of `--output-weights NAME=W,…`: outputs that it doesn't name count 1. Raises WootzError for what names no
    output, is no weight, or leaves nothing."""
    if text is None:
        return ()
    weights = dict.fromkeys((tensor.name for tensor in network.graph.outputs), 1.0)
    if len(weights) == 1:
        raise WootzError(f"--output-weights {text}: the network has one output, {next(iter(weights))}")
    for part in text.split(","):
        name, _, weight = part.strip().rpartition("=")
        if name not in weights:
            raise WootzError(f"--output-weights {part}: NAME=W, and the outputs are {', '.join(weights)}")
        weights[name] = _weight(weight, part)
    if not any(weights.values()):
        raise WootzError(f"--output-weights {text}: one output at least has to count")
    return tuple(weights.items()) if len(set(weights.values())) > 1 else ()


def _weight(text: str, part: str) -> float:
    with suppress(ValueError):
        if 0 <= (weight := float(text)) < math.inf:
            return weight
    raise WootzError(f"--output-weights {part}: a weight is a number from 0 on")


def lesson_of(
    options: Mapping[str, Any], suggested: Lesson, is_given: bool, output_weights: OutputWeights = ()
) -> Lesson:
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
        output_weights=output_weights,
    )


def lesson_notes(lesson: Lesson) -> Iterator[str]:
    if lesson.distill and lesson.loss is not None:
        labels = "and nothing from labels" if lesson.distill == 1 else "the rest from labels"
        yield (
            f"Pruned networks learn {100 * lesson.distill:g} % of their loss from the full network's scores at "
            f"temperature {lesson.temperature:g}, {labels} (--distill)."
        )
    if lesson.output_weights:
        weights = ", ".join(f"{name} {weight:g}" for name, weight in lesson.output_weights)
        yield f"Outputs count by weights, in what networks learn from the full one and in OutputError: {weights}."
    if lesson.features:
        yield f"Their modules learn from the full network's, with weight {lesson.features:g} (--distill-features)."
