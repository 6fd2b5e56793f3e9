"""The form in which networks of any inputs are trained, and the way back."""

import numpy as np
import pytest

from wootz.passes.errors import PassError
from wootz.passes.ir.text import parse_text
from wootz.passes.transforms.image_classifier import as_trainable_network, takes_images
from wootz.passes.transforms.set_interface import interface_of
from wootz.runtime.inputs import inputs_of_network
from wootz.runtime.session import evaluate

HEADER = '<ir_version: 8, opset_import: ["" : 18]>'
FIXED = """g (float16[2,3,4] x, int64[2,3] kind, bool[2,3,1] mask) => (float16[2,12] y) <int64[2] flat = {2,-1}>
{
  a = Cast <to = 10> (kind)
  b = Unsqueeze (a, last)
  c = Add (x, b)
  d = Where (mask, c, x)
  y = Reshape (d, flat)
}"""


def network(text):
    return parse_text(f"{HEADER} {text}")


@pytest.fixture
def fixed():
    return network(FIXED.replace("{2,-1}>", "{2,-1}, int64[1] last = {2}>"))


def feeds(count):
    generator = np.random.default_rng(0)
    return {
        "x": generator.normal(size=(count, 3, 4)).astype(np.float16),
        "kind": generator.integers(0, 5, (count, 3)),
        "mask": generator.integers(0, 2, (count, 3, 1)).astype(bool),
    }


def test_a_fixed_batch_becomes_open_for_all_inputs_and_floats_become_float32(fixed):
    trained, changes = as_trainable_network(fixed)
    assert not takes_images(trained.graph)
    assert [str(each) for each in inputs_of_network(trained)] == [
        "x float32[N, 3, 4]", "kind int64[N, 3]", "mask bool[N, 3, 1]"
    ]  # fmt: skip
    assert any("the batch, fixed to 2 by the exporter" in change for change in changes)
    given = feeds(5)
    (whole,) = evaluate(trained, {**given, "x": given["x"].astype(np.float32)}).values()
    for rows in (slice(0, 2), slice(2, 4)):
        (both,) = evaluate(fixed, {name: values[rows] for name, values in given.items()}).values()
        np.testing.assert_allclose(whole[rows], both, rtol=1e-2)


def test_the_way_back_restores_types_and_batch(fixed):
    trained, _ = as_trainable_network(fixed)
    interface = interface_of(fixed, trained)
    back = interface.apply(trained).model
    described = [(t.name, np.dtype(t.dtype).name, list(t.shape)) for t in (*back.graph.inputs, *back.graph.outputs)]
    assert described == [
        (t.name, np.dtype(t.dtype).name, list(t.shape)) for t in (*fixed.graph.inputs, *fixed.graph.outputs)
    ]
    given = feeds(2)
    np.testing.assert_allclose(evaluate(back, given)["y"], evaluate(fixed, given)["y"], rtol=1e-2)


def test_batches_of_several_names_become_one():
    trained, _ = as_trainable_network(
        network("g (float[N,2,4] x, float[M,2,4] z) => (float[N,2,4] y) { y = Add (x, z) }")
    )
    assert [tuple(t.shape) for t in (*trained.graph.inputs, *trained.graph.outputs)] == 3 * [("N", 2, 4)]


REFUSED = {
    "a state behind its layers": (
        "g (float[N,2,4] x, float[1,N,4] state) => (float[N,2,4] y) { y = Add (x, state) }",
        r"the batch has to come first in all inputs, x \[N, 2, 4\], state \[1, N, 4\]",
    ),
    "a number": (
        "g (float[N,2,4] x, float factor) => (float[N,2,4] y) { y = Mul (x, factor) }",
        "input factor: the batch has to come first",
    ),
    "batches of two sizes": (
        "g (float[4,2,4] x, float[1,2,4] z) => (float[4,2,4] y) { y = Add (x, z) }",
        "input z: the batch has to come first",
    ),
    "an open length": (
        "g (float[N,2,L] x) => (float[N,2,L] y) { y = Relu (x) }",
        r"x \[N, 2, L\] leaves another extent than the batch open",
    ),
    "floats of two types": (
        "g (float[N,2] x, double[N,2] z) => (float[N,2] y) { a = Cast <to = 1> (z) y = Add (x, a) }",
        "its inputs hold float32 and float64",
    ),
    "text": (
        "g (float[N,2] x, string[N] name) => (float[N,2] y, string[N] same) { y = Relu (x) same = Identity (name) }",
        "input name: its inputs are numbers or booleans",
    ),
}


@pytest.mark.parametrize("fault", REFUSED)
def test_what_has_no_batch_in_front_or_no_size_is_refused(fault):
    text, reason = REFUSED[fault]
    with pytest.raises(PassError, match=reason):
        as_trainable_network(network(text))


def test_a_size_is_for_images_alone():
    with pytest.raises(PassError, match="a size is for networks of images alone"):
        as_trainable_network(network("g (float[N,2,4] x) => (float[N,2,4] y) { y = Relu (x) }"), size=(4, 4))


def test_answers_of_an_image_keep_their_rank():
    """Scores [N, classes, 1, 1] are flattened, and what is chosen by them is no score."""
    body = "p = GlobalAveragePool (x) y = ArgMax <axis = 1> (p)"
    chosen = network(f"g (float[N,3,4,4] x) => (int64[N,1,1,1] y) {{ {body} }}")
    assert as_trainable_network(chosen) == (chosen, ())
    scores, (change,) = as_trainable_network(
        network("g (float[N,3,4,4] x) => (float[N,3,1,1] y) { y = GlobalAveragePool (x) }")
    )
    assert change == "output y: [N, 3, 1, 1] is now [N, classes]"
    assert scores.graph.outputs[0].shape == ["N", 3]
