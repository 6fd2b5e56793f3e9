"""What networks learn from: targets of the data, the full network, or both, as options and data say."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import replace
from typing import Any

from wootz.passes.errors import WootzError
from wootz.passes.ir.model import Model
from wootz.passes.plan.lesson import LABELLED, NO_LOSS, TEMPERATURE, Lesson, TargetLoss
from wootz.passes.plan.metrics import Metric
from wootz.passes.transforms.image_classifier import is_classifier, may_be_classifier
from wootz.runtime.data.dataset import Dataset, Split
from wootz.runtime.defaults import SHARE_OF_A_GIVEN_NETWORK
from wootz.runtime.quality.quality import ACCURACY, Quality
from wootz.runtime.targets import Found, losses_for, losses_named

OutputWeights = tuple[tuple[str, float], ...]
"""Of all outputs of a network, by name; empty where they count alike."""


def found_losses(options: Mapping[str, Any], quality: Quality, dataset: Dataset, network: Model) -> Found:
    """The losses of `--loss` and `--ignore-label`; where nobody says it, those that follow from the data, unless the
    full network's outputs are what counts. Raises WootzError for a loss that the targets don't fit."""
    targets, asked, ignored = dataset.train.labels, options["loss"], options["ignore_label"]
    if asked is None and ignored is not None:
        asked = "softmax-cross-entropy"
    if asked == NO_LOSS and ignored is not None:
        raise WootzError(f"--ignore-label {ignored}: with --loss none nothing is learned from labels")
    if asked not in (None, NO_LOSS) and targets is None:
        raise WootzError(f"--loss {asked}: the data have no labels, and no targets")
    if asked == NO_LOSS or targets is None:
        return Found()
    has_class = dataset.train.has_classes and may_be_classifier(network)
    if asked == "softmax-cross-entropy" and has_class:
        return Found((TargetLoss(ignore_label=ignored),))
    if asked is not None:
        return losses_named(asked, ignored, network, targets)
    if quality.metric == Metric.OUTPUT_ERROR:
        note = "Networks are judged by the full one's outputs, and learn from these alone, not from targets (--loss)."
        return Found(notes=(note,))
    if has_class or quality == ACCURACY:
        return Found(LABELLED.losses)
    return losses_for(network, targets)


def are_of_classes(losses: tuple[TargetLoss, ...], split: Split) -> bool:
    """Whether networks are trained as classifiers: by the class that each image has."""
    return split.has_classes and any(loss.kind == "softmax-cross-entropy" and not loss.output for loss in losses)


def suggested_lesson(
    losses: tuple[TargetLoss, ...], quality: Quality, network: Model, output_weights: OutputWeights = ()
) -> Lesson:
    """From these losses, as far as their outputs count, or from the full network alone."""
    if counting := _weighted(losses, dict(output_weights)):
        return Lesson(counting)
    return Lesson((), distill=1.0, scores=is_classifier(network) and quality.metric != Metric.OUTPUT_ERROR)


def _weighted(losses: tuple[TargetLoss, ...], weights: Mapping[str, float]) -> tuple[TargetLoss, ...]:
    """The mean of losses by the weights of their outputs, where there are any; nothing is left of an output that
    doesn't count."""
    total = sum(weights.get(loss.output, 1.0) for loss in losses)
    shares = ((loss, len(losses) * weights.get(loss.output, 1.0) / total) for loss in losses) if total else ()
    return tuple(replace(loss, weight=loss.weight * share) for loss, share in shares if share)


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


def lesson_notes(lesson: Lesson, has_classes: bool) -> Iterator[str]:
    """What is learned, but for what goes without saying: labels, where each image `has_classes`."""
    are_labels = has_classes and lesson.losses == LABELLED.losses
    if lesson.reads_targets and not are_labels:
        yield f"Networks learn from the targets: {' and '.join(map(str, lesson.losses))} (--loss)."
    if lesson.distill and lesson.losses:
        has_scores = lesson.has_scores or lesson.outputs_of_scores
        what = f"scores at temperature {lesson.temperature:g}" if has_scores else "outputs"
        targets = "labels" if are_labels else "targets"
        rest = f"and nothing from {targets}" if lesson.distill == 1 else f"the rest from {targets}"
        yield (
            f"Pruned networks learn {100 * lesson.distill:g} % of their loss from the full network's {what}, {rest} "
            f"(--distill)."
        )
    if lesson.output_weights:
        weights = ", ".join(f"{name} {weight:g}" for name, weight in lesson.output_weights)
        yield f"Outputs count by weights, in what networks learn and in OutputError: {weights}."
    if lesson.features:
        yield f"Their modules learn from the full network's, with weight {lesson.features:g} (--distill-features)."
