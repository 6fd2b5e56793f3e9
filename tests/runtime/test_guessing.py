"""When answers are no better than guesses."""

import numpy as np
import pytest

from wootz.runtime.guessing import above_guessing, can_be_told

LABELS = np.arange(300) % 3


def test_all_answers_right():
    assert above_guessing(LABELS, LABELS) == pytest.approx(np.sqrt((3 - 1) * 300))


@pytest.mark.parametrize("frequent", [0.34, 0.9])
def test_one_answer_to_all_is_a_guess_however_frequent_it_is(frequent):
    labels = (np.arange(300) >= 300 * frequent).astype(int)
    assert above_guessing(np.zeros(300, int), labels) == 0
    assert above_guessing(np.full(300, -1), labels) == 0, "no answer at all"


def test_a_network_that_knows_a_rare_class_does_not_guess():
    """Even where one answer to all would be right more often."""
    labels = (np.arange(300) >= 270).astype(int)
    answers = np.where(np.arange(300) >= 235, 1, 0)
    assert np.mean(answers == labels) < np.mean(labels == 0)
    assert above_guessing(answers, labels) > 10


def test_of_shuffled_answers_it_is_a_standard_normal_number():
    generator = np.random.default_rng(0)
    labels = generator.choice(5, 400, p=[0.4, 0.3, 0.1, 0.1, 0.1])
    answers = generator.choice(5, 400, p=[0.1, 0.2, 0.3, 0.3, 0.1])
    values = [above_guessing(generator.permutation(answers), labels) for _ in range(2000)]
    assert abs(np.mean(values)) < 0.1
    assert 0.9 < np.std(values) < 1.1


def test_a_few_images_cannot_tell():
    assert not can_be_told(np.arange(8) % 2, 3)
    assert can_be_told(np.arange(10) % 2, 3)
    assert not can_be_told(np.zeros(100, int), 3)
