"""How pruned networks learn, by the options of a command and by what there is to learn from."""

import pytest

from wootz.passes.errors import WootzError
from wootz.passes.plan.lesson import LABELLED, Lesson
from wootz.tools.lesson import lesson_of

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
