"""Qualities against plain formulas on all outputs at once, and how they are shown."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from wootz.passes.plan.metrics import Metric
from wootz.runtime.quality.quality import (
    ACCURACY,
    AGREEMENT,
    OUTPUT_ERROR,
    WORST,
    Quality,
    weighted_output_error,
)
from wootz.runtime.quality.showing import show, show_amount, show_difference, show_of_full, show_reached

scores = arrays.arrays(np.float32, (12, 4), elements=st.floats(-9, 9, width=32))


def value(quality: Quality, outputs, full, targets=None, batch=5):
    """Of arrays by name, in batches."""
    tally = quality.begin()
    count = len(next(iter(outputs.values())))
    for start in range(0, count, batch):
        part = slice(start, start + batch)
        cut = [{name: values[part] for name, values in arrays.items()} for arrays in (outputs, full)]
        tally.add(*cut, None if targets is None else targets[part])
    return tally.value


@given(scores, scores, arrays.arrays(np.int64, 12, elements=st.integers(0, 3)), st.integers(1, 13))
def test_shares_are_exact(own, full, labels, batch):
    assert value(ACCURACY, {"y": own}, {}, labels, batch) == np.mean(own.argmax(1) == labels)
    assert value(AGREEMENT, {"y": own}, {"y": full}, None, batch) == np.mean(own.argmax(1) == full.argmax(1))


def test_a_score_that_is_no_number_is_neither_right_nor_in_agreement():
    broken = np.array([[np.nan, 1.0], [0.0, 1.0]], np.float32)
    assert value(ACCURACY, {"y": broken}, {}, np.array([1, 1])) == 0.5
    assert value(AGREEMENT, {"y": broken}, {"y": broken}) == 0.5


@given(scores, scores, scores, st.integers(1, 13))
def test_the_error_of_outputs_is_the_mean_of_theirs(own, full, mask, batch):
    full, mask = full + np.float32(10), np.abs(mask) + np.float32(1)
    found = value(OUTPUT_ERROR, {"y": own, "m": 2 * mask}, {"y": full, "m": mask}, None, batch)
    of_y = np.sum((own.astype(float) - full) ** 2) / np.sum(full.astype(float) ** 2)
    assert found == pytest.approx((of_y + 1.0) / 2)
    weighted = weighted_output_error({"y": 3.0, "m": 1.0})
    found = value(weighted, {"y": own, "m": 2 * mask}, {"y": full, "m": mask}, None, batch)
    assert found == pytest.approx((3 * of_y + 1.0) / 4)


@pytest.mark.parametrize("broken", [np.nan, np.inf])
def test_an_error_that_is_no_number_is_the_worst(broken):
    one = np.ones((2, 3), np.float32)
    assert value(OUTPUT_ERROR, {"y": one * np.float32(broken)}, {"y": one}) == WORST
    assert value(OUTPUT_ERROR, {"y": one}, {"y": 0 * one}) == WORST
    assert value(OUTPUT_ERROR, {"y": 0 * one}, {"y": 0 * one}) == 0
    assert value(OUTPUT_ERROR, {"y": one * np.float32(broken), "z": one}, {"y": one, "z": one}) == WORST


def test_an_output_that_is_0_in_both_networks_does_not_count():
    one = np.ones((2, 3), np.float32)
    found = value(OUTPUT_ERROR, {"y": one / 2, "silent": 0 * one}, {"y": one, "silent": 0 * one})
    assert found == 0.25
    assert value(OUTPUT_ERROR, {"y": one, "silent": one / 9}, {"y": one, "silent": 0 * one}) == WORST


def test_an_output_of_weight_0_does_not_count_whatever_it_gives():
    one = np.ones((2, 3), np.float32)
    of_y = weighted_output_error({"y": 1.0, "silent": 0.0})
    assert value(of_y, {"y": one / 2, "silent": one}, {"y": one, "silent": 0 * one}) == 0.25


@pytest.mark.parametrize(
    ("metric", "number", "images", "text"),
    [
        (Metric.ACCURACY, 0.984, 250, "98.4 ± 1.0 %"),
        (Metric.ACCURACY, 0.5, 1_000_000, "50.00 ± 0.05 %"),
        (Metric.AGREEMENT, 0.5, None, "50.00 %"),
        (Metric.OUTPUT_ERROR, 0.0123456, 250, "0.01235"),
        (Metric.ACCURACY, None, 10, "–"),
    ],
)
def test_a_quality_is_shown_as_what_it_is(metric, number, images, text):
    assert show(metric, number, images) == text


def test_what_the_full_network_has_by_definition_is_exact():
    assert show_of_full(Metric.AGREEMENT, 1.0, 240) == "100.0 %"
    assert show_of_full(Metric.OUTPUT_ERROR, 0.0, 240) == "0"
    assert show_of_full(Metric.ACCURACY, 0.984, 250) == "98.4 ± 1.0 %"
    assert show(Metric.AGREEMENT, 1.0, 240) == "100.0 ± 0.6 %", "of another network it is what these images say"


def test_differences_and_what_a_network_came_to():
    assert show_difference(Metric.ACCURACY, 0.974, 0.984) == "-1.0 points"
    assert show_difference(Metric.OUTPUT_ERROR, 0.012, 0.0) == "+0.012"
    assert show_difference(Metric.OUTPUT_ERROR, None, 0.0) == ""
    assert show_reached(Metric.ACCURACY, 0.974) == "97.4 % right"
    assert show_reached(Metric.AGREEMENT, 0.974) == "97.4 % agreement"
    assert show_reached(Metric.OUTPUT_ERROR, 0.0123) == "OutputError 0.0123"
    assert show_amount(Metric.ACCURACY, 0.0123) == "1.23 points"
    assert show_amount(Metric.LATENCY, 1.5) == "1.5 ms"
    assert show_amount(Metric.MODEL_SIZE, 12345) == "12,345"
