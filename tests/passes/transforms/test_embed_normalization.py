from dataclasses import replace

import numpy as np
import pytest

from wootz.passes.ir.text import parse_text
from wootz.passes.ir.verifier import verify
from wootz.passes.plan.transform import TRANSFORM_KEY, InputTransform
from wootz.passes.transforms.embed_normalization import EmbedNormalization
from wootz.runtime.batches import normalize
from wootz.runtime.session import evaluate

COLOUR = """<ir_version: 8, opset_import: ["": 18]>
g (float[N,3,2,2] x) => (float[N,3,2,2] y) { y = Relu(x) }"""


def with_transform(transform: InputTransform):
    return replace(parse_text(COLOUR), metadata={TRANSFORM_KEY: transform.to_json(), "other": "kept"})


@pytest.mark.parametrize(
    ("transform", "nodes"),
    [
        (InputTransform(mean=(104.0, 117.0, 123.0), scale=(0.017,)), ["Gather", "Sub", "Mul", "Relu"]),
        (InputTransform(scale=(0.1, 0.2, 0.3), channel_order="RGB"), ["Mul", "Relu"]),
        (InputTransform(mean=(128.0,), channel_order="RGB"), ["Sub", "Relu"]),
    ],
)
def test_pixels_in_give_what_normalised_data_gave(transform, nodes):
    model = with_transform(transform)
    embedded = EmbedNormalization().apply(model).model
    verify(embedded)
    assert [n.op for n in embedded.graph.nodes] == nodes
    pixels = np.random.default_rng(0).integers(0, 255, (4, 3, 2, 2)).astype(np.float32)
    expected = evaluate(model, {"x": normalize(pixels, transform)})["y"]
    np.testing.assert_allclose(evaluate(embedded, {"x": pixels})["y"], expected, rtol=1e-6, atol=1e-5)


def test_afterwards_nothing_is_left_to_do():
    embedded = EmbedNormalization().apply(with_transform(InputTransform(mean=(1.0,), crop_size=2))).model
    left = InputTransform.from_json(embedded.metadata[TRANSFORM_KEY])
    assert left == InputTransform(crop_size=2, channel_order="RGB")
    assert embedded.metadata["other"] == "kept"
    again = EmbedNormalization().apply(embedded)
    assert not again.modified


def test_a_model_without_a_transform_stays():
    model = parse_text(COLOUR)
    result = EmbedNormalization().apply(model)
    assert (result.model, result.modified) == (model, False)


def test_names_of_the_network_are_not_taken_twice():
    """torch's newer exporter names the average over height and width "mean"."""
    model = parse_text("""<ir_version: 8, opset_import: ["": 18]>
    g (float[N,3,2,2] x) => (float[N,3,1,1] y) {
        x_normalized = Relu(x) mean = GlobalAveragePool(x_normalized) scale = Neg(mean)
        bgr = Neg(scale) to_bgr = Neg(bgr) centred = Neg(to_bgr) scaled = Neg(centred) y = Neg(scaled) }""")
    transform = InputTransform(mean=(104.0, 117.0, 123.0), scale=(0.017,))
    model = replace(model, metadata={TRANSFORM_KEY: transform.to_json()})
    embedded = EmbedNormalization().apply(model).model
    verify(embedded)
    assert [i.name for i in embedded.graph.inputs] == ["x"]
    pixels = np.random.default_rng(0).integers(0, 255, (4, 3, 2, 2)).astype(np.float32)
    expected = evaluate(model, {"x": normalize(pixels, transform)})["y"]
    np.testing.assert_allclose(evaluate(embedded, {"x": pixels})["y"], expected, rtol=1e-6, atol=1e-5)
