"""How pruned networks learn, by the options of a command and by what there is to learn from."""

import pytest

from wootz.passes.errors import WootzError
from wootz.passes.ir.text import parse_text
from wootz.passes.plan.lesson import LABELLED, Lesson
from wootz.tools.lesson import lesson_notes, lesson_of, output_weights

UNLABELLED = Lesson(loss=None, distill=1.0, scores=True)


def options(share=None, temperature=None, features=0.0):
    return {"distill": share, "temperature": temperature, "distill_features": features}


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
    assert lesson_of(options(share, 3.0), UNLABELLED, is_given=True) == Lesson(None, 1.0, 3.0, scores=True)
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
    assert "boxes 0.5, chances 2.5" in " ".join(lesson_notes(lesson))


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
