"""How far outputs are apart, in whatever form they come."""

import numpy as np
import pytest

from wootz.passes.ir.text import parse_text
from wootz.runtime.variants.divergence import KullbackLeibler, RelativeSquaredError, divergences_for

P, Q = np.array([[0.5, 0.25, 0.25], [0.1, 0.1, 0.8]]), np.array([[0.25, 0.25, 0.5], [0.1, 0.8, 0.1]])
IN_NATS = (0.5 * np.log(2) - 0.25 * np.log(2) + 0.1 * np.log(1 / 8) + 0.8 * np.log(8)) / 2


@pytest.mark.parametrize(
    ("kind", "scores"),
    [
        ("probabilities", lambda p: p),
        ("log-probabilities", np.log),
        ("logits", lambda p: np.log(p) + np.array([[3.0], [-200.0]])),
        ("probabilities", lambda p: 0.3 * p),  # a sigmoid's don't sum up to one
    ],
)
def test_classes_are_compared_by_their_probabilities(kind, scores):
    divergence = KullbackLeibler(kind)
    for i in range(2):
        divergence.add(*(scores(x)[i : i + 1].astype(np.float32) for x in (P, Q)))
    assert divergence.value == pytest.approx(IN_NATS, abs=1e-5)


def test_a_probability_that_underflows_is_far_off_but_not_infinitely():
    divergence = KullbackLeibler("probabilities")
    divergence.add(np.array([[0.5, 0.5]], np.float32), np.array([[1.0, 0.0]], np.float32))
    assert divergence.value == pytest.approx(0.5 * np.log(0.25 / np.finfo(np.float32).tiny))


def test_other_outputs_are_compared_by_squares():
    divergence = RelativeSquaredError()
    divergence.add(np.array([[3.0, 0.0]], np.float32), np.array([[3.0, 1.0]], np.float32))
    divergence.add(np.array([[0.0, 4.0]], np.float32), np.array([[2.0, 4.0]], np.float32))
    assert divergence.value == pytest.approx((1 + 4) / (9 + 16))


def test_a_constant_is_no_measure_of_differences():
    divergence = RelativeSquaredError()
    divergence.add(np.zeros((1, 2), np.float32), np.zeros((1, 2), np.float32))
    assert divergence.value == 0
    divergence.add(np.zeros((1, 2), np.float32), np.ones((1, 2), np.float32))
    assert divergence.value == float("inf")


@pytest.mark.parametrize(
    ("output", "last", "expected"),
    [
        ("[N,3]", "y = Flatten(a)", KullbackLeibler("logits")),
        ("[N,3,1,1]", "y = Identity(a)", KullbackLeibler("logits")),
        ("[N,3]", "b = Flatten(a) y = Softmax(b)", KullbackLeibler("probabilities")),
        ("[N,3]", "b = Flatten(a) y = LogSoftmax(b)", KullbackLeibler("log-probabilities")),
        ("[N,3,4,4]", "y = Expand(a, size)", RelativeSquaredError()),
    ],
)
def test_what_a_network_gives_says_how_it_is_compared(output, last, expected):
    model = parse_text(f"""<ir_version: 8, opset_import: ["" : 18]>
        g (float[N,3,4,4] x) => (float{output} y) <int64[4] size = {{1, 3, 4, 4}}> {{
            a = GlobalAveragePool(x) {last}
        }}""")
    assert {name: begin() for name, begin in divergences_for(model).items()} == {"y": expected}
