"""How pruned networks learn, by the options of a command and by what there is to learn from."""

import numpy as np
import pytest

from wootz.passes.errors import WootzError
from wootz.passes.ir.text import parse_text
from wootz.passes.plan.lesson import LABELLED, Lesson, TargetLoss
from wootz.passes.plan.metrics import Metric
from wootz.runtime.data.dataset import Dataset, Split
from wootz.runtime.quality.quality import ACCURACY, AGREEMENT, OUTPUT_ERROR, Quality
from wootz.runtime.targets import Found
from wootz.tools.lesson import (
    are_of_classes,
    found_losses,
    lesson_notes,
    lesson_of,
    output_weights,
    suggested_lesson,
)

CLASSIFIER = parse_text('<ir_version: 8, opset_import: ["" : 18]> g (float[N,2] x) => (float[N,2] y) { y = Relu (x) }')
MAPS = parse_text(
    '<ir_version: 8, opset_import: ["" : 18]> g (float[N,2,4,4] x) => (float[N,2,4,4] y) { y = Relu (x) }'
)
IMAGES = np.zeros((4, 2, 4, 4), np.uint8)
CLASSES, CLASS_MAPS = np.array([0, 1, 0, 1]), np.arange(64).reshape(4, 4, 4) % 2
OWN = Quality(Metric("own", needs_training=True), AGREEMENT.begin, "own")
UNLABELLED = Lesson((), distill=1.0, scores=True)


def options(share=None, temperature=None, features=0.0, loss=None, ignored=None, mirror=None):
    learned = {"distill": share, "temperature": temperature, "distill_features": features}
    return {**learned, "loss": loss, "ignore_label": ignored, "mirror": mirror}


def data(labels):
    split = Split(IMAGES, labels)
    return Dataset(("a", "b") if split.has_classes else (), split, split, None)


def test_a_full_network_teaches_where_it_came_with_its_weights():
    assert lesson_of(options(), LABELLED, is_given=True) == Lesson(distill=0.5)
    assert lesson_of(options(), LABELLED, is_given=False) == LABELLED


@pytest.mark.parametrize("is_given", [True, False])
def test_options_say_otherwise(is_given):
    assert lesson_of(options(0.0), LABELLED, is_given) == LABELLED
    found = lesson_of(options(0.9, 4.0, 0.1), LABELLED, is_given)
    assert found == Lesson(distill=0.9, temperature=4.0, features=0.1)
    with pytest.raises(WootzError, match=r"^--temperature is that of the full network's scores"):
        lesson_of(options(0.0, 4.0), LABELLED, is_given)


@pytest.mark.parametrize("share", [None, 1.0])
def test_without_labels_all_is_learned_from_the_full_network(share):
    assert lesson_of(options(share, 3.0), UNLABELLED, is_given=True) == Lesson((), 1.0, 3.0, scores=True)
    with pytest.raises(WootzError, match=r"^--distill 0.5: there are no labels"):
        lesson_of(options(0.5), UNLABELLED, is_given=True)


HEADER = '<ir_version: 8, opset_import: ["" : 18]> '
DETECTOR = parse_text(HEADER + "g (float[N,2] x) => (boxes, chances) { boxes = Exp (x) chances = Sigmoid (x) }")
SINGLE = parse_text(HEADER + "g (float[N,2] x) => (y) { y = Relu (x) }")


def test_outputs_have_weights():
    assert output_weights(None, DETECTOR) == ()
    assert output_weights("boxes=0", DETECTOR) == (("boxes", 0.0), ("chances", 1.0))
    found = output_weights("chances=2.5, boxes=0.5", DETECTOR)
    assert found == (("boxes", 0.5), ("chances", 2.5))
    lesson = lesson_of(options(), UNLABELLED, is_given=True, output_weights=found)
    assert lesson.output_weights == found
    assert "boxes 0.5, chances 2.5" in " ".join(lesson_notes(lesson, has_classes=False))


def test_losses_of_targets_count_as_their_outputs_do():
    """The mean by weights; of halves as they were found."""
    losses = TargetLoss("l1", "boxes", 0.5), TargetLoss("bce-with-logits", "chances", 0.5)
    weighted = suggested_lesson(losses, OWN, DETECTOR, (("boxes", 3.0), ("chances", 1.0)))
    assert weighted.losses == (TargetLoss("l1", "boxes", 0.75), TargetLoss("bce-with-logits", "chances", 0.25))
    one = suggested_lesson(losses, OWN, DETECTOR, (("boxes", 0.0), ("chances", 1.0)))
    assert one.losses == (TargetLoss("bce-with-logits", "chances", 1.0),)
    none = suggested_lesson(losses[:1], OWN, DETECTOR, (("boxes", 0.0), ("chances", 1.0)))
    assert none == Lesson((), distill=1.0)


def test_equal_weights_are_none():
    assert output_weights("boxes=3,chances=3", DETECTOR) == ()


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("scores=1", "scores=1: NAME=W, and the outputs are boxes, chances"),
        ("boxes", "boxes: NAME=W, and the outputs are boxes, chances"),
        ("boxes=-1", "boxes=-1: a weight is a number from 0 on"),
        ("boxes=inf", "boxes=inf: a weight is a number from 0 on"),
        ("boxes=nan", "boxes=nan: a weight is a number from 0 on"),
        ("boxes=2,chances=much", "chances=much: a weight is a number from 0 on"),
        ("boxes=0,chances=0", "boxes=0,chances=0: one output at least has to count"),
    ],
)
def test_weights_that_mean_nothing(text, reason):
    with pytest.raises(WootzError, match=f"^--output-weights {reason}$"):
        output_weights(text, DETECTOR)


def test_a_single_output_needs_no_weight():
    with pytest.raises(WootzError, match=r"^--output-weights y=2: the network has one output, y$"):
        output_weights("y=2", SINGLE)


@pytest.mark.parametrize(
    ("network", "labels", "quality", "losses"),
    [
        (CLASSIFIER, CLASSES, ACCURACY, LABELLED.losses),
        (CLASSIFIER, CLASSES, AGREEMENT, LABELLED.losses),
        (CLASSIFIER, CLASSES, OWN, LABELLED.losses),
        (CLASSIFIER, CLASSES, OUTPUT_ERROR, ()),
        (CLASSIFIER, None, AGREEMENT, ()),
        (MAPS, None, OUTPUT_ERROR, ()),
        (MAPS, CLASSES, OWN, ()),
        (MAPS, CLASS_MAPS, OWN, LABELLED.losses),
        (MAPS, CLASS_MAPS, OUTPUT_ERROR, ()),
    ],
)
def test_data_outputs_and_what_counts_say_what_is_learned(network, labels, quality, losses):
    found = found_losses(options(), quality, data(labels), network).losses
    assert found == losses
    lesson = suggested_lesson(found, quality, network)
    assert lesson.needs_teacher == (not losses)
    assert are_of_classes(found, Split(IMAGES, labels)) == (bool(losses) and labels is CLASSES)


def test_a_note_says_why_targets_are_not_learned():
    (note,) = found_losses(options(), OUTPUT_ERROR, data(CLASS_MAPS), MAPS).notes
    assert "learn from these alone, not from targets (--loss)" in note
    (note,) = found_losses(options(), OWN, data(CLASSES), MAPS).notes
    assert "whole numbers [n] beside y [n, 2, 4, 4]" in note


def test_a_loss_that_is_asked_for():
    assert found_losses(options(loss="none"), ACCURACY, data(CLASSES), CLASSIFIER) == Found()
    asked = options(loss="softmax-cross-entropy")
    assert found_losses(asked, OUTPUT_ERROR, data(CLASS_MAPS), MAPS).losses == LABELLED.losses
    assert found_losses(options(ignored=1), OWN, data(CLASS_MAPS), MAPS).losses == (TargetLoss(ignore_label=1),)
    assert found_losses(options(ignored=1), ACCURACY, data(CLASSES), CLASSIFIER).losses == (TargetLoss(ignore_label=1),)
    with pytest.raises(WootzError, match=r"^--loss mse: the targets are .n, 4, 4., and y is .n, 2, 4, 4."):
        found_losses(options(loss="mse"), OWN, data(CLASS_MAPS), MAPS)
    with pytest.raises(WootzError, match=r"^--loss mse: the data have no labels, and no targets"):
        found_losses(options(loss="mse"), OUTPUT_ERROR, data(None), MAPS)
    with pytest.raises(WootzError, match=r"^--ignore-label 3: with --loss none nothing is learned from labels"):
        found_losses(options(loss="none", ignored=3), OWN, data(CLASS_MAPS), MAPS)


def test_what_is_learned_from_is_told():
    (mixed,) = lesson_notes(Lesson(distill=0.5), has_classes=True)
    assert mixed == (
        "Pruned networks learn 50 % of their loss from the full network's scores at temperature 2, the rest from "
        "labels (--distill)."
    )
    ignoring = (TargetLoss(ignore_label=255),)
    assert [*lesson_notes(Lesson(ignoring), has_classes=True)] == [
        "Networks learn from the targets: softmax-cross-entropy, without label 255 (--loss)."
    ]
    of_images, shared = lesson_notes(Lesson((TargetLoss("mse", "y", 2.0),), distill=0.25), has_classes=False)
    assert of_images == "Networks learn from the targets: mse of y (--loss)."
    assert "25 % of their loss from the full network's outputs, the rest from targets" in shared
    of_maps, _ = lesson_notes(Lesson(distill=0.5), has_classes=False)
    assert of_maps == "Networks learn from the targets: softmax-cross-entropy (--loss)."
    assert not [*lesson_notes(UNLABELLED, has_classes=False)]
