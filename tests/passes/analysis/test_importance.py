"""Criteria, and how many filters a rate keeps."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from wootz.passes.analysis.channels import analyse_channels
from wootz.passes.analysis.importance import channel_scores, geometric_median, kept_count, l1, l2, most_important
from wootz.passes.errors import WootzError
from wootz.passes.ir.text import parse_text


@pytest.mark.parametrize(
    ("filters", "rate", "count"),
    [
        *((64, 0.3, 44), (64, 0.5, 32), (64, 0.7, 19), (10, 0.7, 3), (10, 0.9, 1), (3, 0.99, 1), (5, 0.0, 5)),
        *((1, 0.5, 1), (20, 0.9, 2), (30, 0.9, 3), (100, 0.99, 1), (5, 0.8, 1)),
    ],
)
def test_kept_count(filters: int, rate: float, count: int) -> None:
    """floor(20 * (1 - 0.9)) is 1 in floating point: the 1e-9 makes it 2."""
    assert kept_count(filters, rate) == count


@given(st.integers(1, 3000), st.floats(0, 1, exclude_max=True), st.integers(1, 64))
def test_kept_count_is_in_range(filters: int, rate: float, multiple: int) -> None:
    count = kept_count(filters, rate, round_to=multiple)
    assert 1 <= count <= filters
    assert count % multiple == 0 or count == filters or rate == 0


@pytest.mark.parametrize("rate", [1.0, -0.1, 2.0, math.nan, math.inf])
def test_other_numbers_are_no_rates(rate: float) -> None:
    with pytest.raises(WootzError, match="is not a pruning rate"):
        kept_count(8, rate)


def test_the_least_filters_are_kept() -> None:
    assert kept_count(8, 0.9, at_least=4) == 4
    assert kept_count(3, 0.9, at_least=4) == 3


def test_ties_go_to_the_lowest_index() -> None:
    assert most_important(np.asarray([1.0, 3.0, 3.0, 2.0, 3.0]), 2).tolist() == [1, 2]
    assert most_important(np.asarray([2.0, 1.0, 3.0]), 2).tolist() == [0, 2]


def test_norms() -> None:
    filters = np.asarray([[3.0, -4.0], [1.0, 1.0]], np.float32)
    np.testing.assert_allclose(l1(filters), [7, 2])
    np.testing.assert_allclose(l2(filters), [5, math.sqrt(2)])


def test_geometric_median_by_its_definition() -> None:
    filters = np.random.default_rng(0).standard_normal((6, 5)).astype(np.float32)
    expected = [sum(np.linalg.norm(a - b) for b in filters) for a in filters]
    np.testing.assert_allclose(geometric_median(filters), expected, rtol=1e-5)


NETWORK = parse_text("""<ir_version: 8, opset_import: ["" : 18]>
g (float[1,1,1,1] x) => (float[1,1,1,1] y)
<float[3,1,1,1] w = {1,2,-3}, float[3] s = {-9,1,5}, float[3] v = {1,1,1}, float[1,3,1,1] u = {1,1,1}>
{ [a] a = Conv(x, w) [b] b = BatchNormalization(a, s, v, v, v) [c] y = Conv(b, u) }""")


@pytest.mark.parametrize(("criterion", "scores"), [("l1", [1, 2, 3]), ("bn-scale", [9, 1, 5])])
def test_scores_of_a_network(criterion: str, scores: list[float]) -> None:
    found = channel_scores(NETWORK, analyse_channels(NETWORK), criterion)
    assert found[:3].tolist() == scores


def test_random_scores_are_seeded() -> None:
    analysis = analyse_channels(NETWORK)
    one, same, other = (channel_scores(NETWORK, analysis, "random", seed).tolist() for seed in (1, 1, 2))
    assert one == same != other


def test_an_unknown_criterion_is_refused() -> None:
    with pytest.raises(WootzError, match="no criterion 'l3'"):
        channel_scores(NETWORK, analyse_channels(NETWORK), "l3")


def test_bn_scale_knows_nothing_of_layers_without_normalization() -> None:
    found = channel_scores(NETWORK, analyse_channels(NETWORK), "bn-scale")
    assert np.isnan(found[3:]).all()


def test_a_channel_has_the_scores_of_those_of_its_filters_that_have_one() -> None:
    model = parse_text(
        """<ir_version: 8, opset_import: ["" : 18]>
    g (float[1,1,1,1] x) => (float[1,1,1,1] y)
    <float[3,1,1,1] w = {1,2,-3}, float[3] s = {-9,1,5}, float[3] v = {1,1,1}, float[1,3,1,1] u = {1,1,1}>
    { [a] a = Conv(x, w) [b] b = BatchNormalization(a, s, v, v, v) [d] d = Conv(x, w2) [e] e = Add(b, d)
      [c] y = Conv(e, u) }""".replace("float[1,3,1,1] u", "float[3,1,1,1] w2 = {4,4,4}, float[1,3,1,1] u")
    )
    assert channel_scores(model, analyse_channels(model), "bn-scale")[:3].tolist() == [9, 1, 5]
