"""Running statistics measured anew, against numpy."""

import numpy as np
import pytest

from wootz.passes.ir.model import constants, with_weights
from wootz.passes.ir.text import parse_text
from wootz.passes.plan.transform import InputTransform
from wootz.runtime.data.dataset import Split
from wootz.runtime.quality import measuring as quality
from wootz.runtime.quality.quality import ACCURACY
from wootz.runtime.recalibration import (
    CALIBRATION_IMAGES,
    calibration_batches,
    measured_statistics,
    offsets,
    recalibrated,
)
from wootz.runtime.session import Device, InferenceSession

ONE_THREAD = Device(threads=1)
TRANSFORM = InputTransform(mean=(100.0,), scale=(0.01,), crop_size=4, channel_order="RGB")
LAYERS = """<ir_version: 8, opset_import: ["" : 18]>
g (float[N,1,4,4] x) => (float[N,2] y) <
  float[2] s1 = {1, 1}, float[2] b1 = {0, 0}, float[2] m1 = {0, 0}, float[2] v1 = {1, 1}, float[2,1,1,1] w1 = {1, -2},
  float[2] s2 = {3, 1}, float[2] b2 = {0, 0}, float[2] m2 = {0, 0}, float[2] v2 = {1, 1},
  float[2,2,1,1] w2 = {1, 0, 0.5, 1}> {
  c1 = Conv(x, w1)
  n1 = BatchNormalization(c1, s1, b1, m1, v1)
  r1 = Relu(n1)
  c2 = Conv(r1, w2)
  n2 = BatchNormalization(c2, s2, b2, m2, v2)
  p = GlobalAveragePool(n2)
  y = Flatten(p)
}"""
SPACE = (0, 2, 3)


def images(count, seed=0):
    """Dark and bright ones, sorted."""
    random = np.random.default_rng(seed)
    labels = np.sort(random.integers(0, 2, count))
    pixels = random.normal(80 + 60 * labels[:, None, None, None], 20, (count, 1, 6, 6))
    return Split(np.clip(pixels, 0, 255).astype(np.uint8), labels.astype(np.int64))


@pytest.fixture
def network():
    return parse_text(LAYERS)


@pytest.mark.parametrize("count", [3, 130, 700])
def test_batches_are_spread_over_a_split_that_is_sorted_by_class(count):
    split = images(count)
    batches = list(calibration_batches(split, TRANSFORM))
    taken = np.concatenate(batches)
    assert len(taken) == min(count, CALIBRATION_IMAGES)
    assert taken.shape[1:] == (1, 4, 4)
    assert len({image.tobytes() for image in taken}) == len(taken), "none twice"
    means = [batch.mean() for batch in batches]
    assert max(means) - min(means) < 0.1, "of classes that are 0.6 apart"


def measured(network, split):
    (measured,) = measured_statistics([network], split, TRANSFORM, ONE_THREAD)
    return measured


def test_statistics_are_those_of_all_batches_together(network):
    split = images(130)
    found = measured(network, split)
    batches = [batch.astype(np.float64) for batch in calibration_batches(split, TRANSFORM)]
    assert len(batches) == 2
    first = np.concatenate([batch * [[[1]], [[-2]]] for batch in batches])
    np.testing.assert_allclose(found["m1"], first.mean(SPACE), rtol=1e-4)
    np.testing.assert_allclose(found["v1"], first.var(SPACE), rtol=1e-4)
    seen = []
    for batch in batches:
        c1 = batch * [[[1]], [[-2]]]
        deviation = np.sqrt(c1.var(SPACE, keepdims=True) + 1e-5)
        r1 = np.maximum((c1 - c1.mean(SPACE, keepdims=True)) / deviation, 0)
        seen.append(np.stack([r1[:, 0], 0.5 * r1[:, 0] + r1[:, 1]], axis=1))
    second = np.concatenate(seen)
    np.testing.assert_allclose(found["m2"], second.mean(SPACE), rtol=1e-4)
    np.testing.assert_allclose(found["v2"], second.var(SPACE), rtol=1e-4)
    assert found.keys() == {"m1", "v1", "m2", "v2"}


def test_the_full_network_stays_as_it_is(network):
    """Though its statistics are not those of the images."""
    given = with_weights(network, {"m1": np.float32([0.5, -1]), "v1": np.float32([2, 1e-7])})
    found = measured(given, images(300))
    again = constants(recalibrated(given, found, offsets(given, found)).graph)
    for name, values in constants(given.graph).items():
        np.testing.assert_allclose(again[name], values, rtol=1e-4, atol=1e-6)


def test_what_the_full_network_has_beyond_its_images_is_added(network):
    split = images(300)
    full = with_weights(network, {"m1": np.float32([0.3, 0.4]), "v1": np.float32([2, 3])})
    of_full = measured(full, split)
    changed = with_weights(full, {"w1": np.float32([3, -2]).reshape(2, 1, 1, 1)})
    found = constants(recalibrated(changed, measured(changed, split), offsets(full, of_full)).graph)
    np.testing.assert_allclose(found["m1"], [3 * of_full["m1"][0] + 0.3 - of_full["m1"][0], 0.4], rtol=1e-3)
    np.testing.assert_allclose(found["v1"], [9 * 2, 3], rtol=1e-3)


def test_wrong_statistics_are_mended(network):
    """The second channel tells the classes apart, once both layers normalise by what they see."""
    training, validation = images(400), images(400, seed=1)
    right = measured(network, training)
    full = with_weights(network, right)
    spoiled = with_weights(full, {"m1": np.float32([9, -9]), "v1": np.float32([100, 0.01])})
    mended = recalibrated(spoiled, measured(spoiled, training), offsets(full, right))

    def share_right(model):
        return quality.measured(ACCURACY, InferenceSession(model, ONE_THREAD).outputs, validation, TRANSFORM)

    assert share_right(mended) == share_right(full)
    assert abs(share_right(mended) - 0.5) > 0.45 > 0.4 > abs(share_right(spoiled) - 0.5)


def test_a_network_without_these_layers_has_no_statistics():
    plain = parse_text("""<ir_version: 8, opset_import: ["" : 18]>
        g (float[N,1,4,4] x) => (float[N,16] y) { y = Flatten(x) }""")
    assert measured(plain, images(10)) == {}
    assert constants(recalibrated(plain, {}, {}).graph).keys() == constants(plain.graph).keys()


def test_of_layers_that_share_statistics_what_each_sees_is_averaged():
    shared = LAYERS.replace("c2, s2, b2, m2, v2", "c2, s1, b1, m1, v1")
    network, split = parse_text(shared), images(130)
    apart = measured(parse_text(LAYERS), split)
    found = measured(network, split)
    assert found.keys() == {"m1", "v1"}
    for kind in "mv":
        np.testing.assert_allclose(found[f"{kind}1"], (apart[f"{kind}1"] + apart[f"{kind}2"]) / 2, rtol=1e-5)
    again = constants(recalibrated(network, found, offsets(network, found)).graph)
    np.testing.assert_allclose(again["v1"], [1, 1], rtol=1e-4)
