"""What is measured to find out how pixels become the input is kept in the store, for the same network and images."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from wootz.frontend.caffe.importer import ImportedNetwork
from wootz.passes.errors import WootzError
from wootz.passes.ir.text import parse_text
from wootz.passes.plan.transform import InputTransform
from wootz.runtime import pixels as runtime_pixels
from wootz.runtime.data.dataset import Dataset, Split
from wootz.runtime.session import Device, InferenceSession
from wootz.runtime.store import Store
from wootz.tools.pixels import find_pixels

AS_EXPORTED = InputTransform(channel_order="RGB")
UNSAID = dict.fromkeys(("normalize", "mean", "scale", "channel_order", "allow_untrained"))
LABELS = np.arange(200) % 2
NOISE = np.random.default_rng(0).integers(-2, 3, (200, 3, 4, 4))
SPLIT = Split((np.where(LABELS, 135, 120)[:, None, None, None] + NOISE).astype(np.uint8), LABELS)
BATCH_NORMALIZATION = """
    o = Constant<value = float[3] {1, 1, 1}>() z = Constant<value = float[3] {0, 0, 0}>()
    h = Constant<value = float[3] {0.5, 0.5, 0.5}>() v = Constant<value = float[3] {0.001, 0.001, 0.001}>()
    e = Constant<value = float[3,3,1,1] {1,0,0,0,1,0,0,0,1}>() i = Conv(x, e) n = BatchNormalization(i, o, z, h, v)"""


def network(threshold: float, stem: str = "n = Identity(x)") -> ImportedNetwork:
    """Tells images apart by whether the mean of `n`, which the stem makes of `x`, is above the threshold."""
    model = parse_text(
        f"""<ir_version: 8, opset_import: ["" : 18]> g (float[N,3,4,4] x) => (float[N,2] y) {{
            {stem} k = Constant<value = float[2,3,1,1] {{-1, -1, -1, 1, 1, 1}}>()
            b = Constant<value = float[2] {{{3 * threshold}, {-3 * threshold}}}>()
            c = Conv(n, k, b) p = GlobalAveragePool(c) y = Flatten(p) }}"""
    )
    return ImportedNetwork(model, AS_EXPORTED, AS_EXPORTED, says_pixels=False)


@pytest.fixture
def asked(tmp_path, monkeypatch):
    """Asks with a store, and says whether the network was executed for the answer."""
    store, executed = Store.open(tmp_path / "store"), []

    class Counted(InferenceSession):
        def run(self, images):
            executed.append(len(images))
            return super().run(images)

    def ask(network, split=SPLIT, numbers="pixels", **options):
        executed.clear()
        dataset = Dataset(("dark", "light"), split, split, None, numbers=numbers)
        transforms = (network.train_transform, network.test_transform)
        pixels = find_pixels(
            network, dataset, transforms, {**UNSAID, **options}, None, Device(threads=1), lambda: store
        )
        return pixels, bool(executed)

    monkeypatch.setattr(runtime_pixels, "InferenceSession", Counted)
    return ask


def test_a_trial_is_made_once_for_a_network_and_images(asked):
    first, executed = asked(network(0.5))
    assert executed
    assert "0..1 is taken" in first.notes[0]
    assert asked(network(0.5)) == (first, False)
    other, executed = asked(network(127.5))
    assert executed
    assert "raw is taken" in other.notes[0]
    lighter = Split(SPLIT.images + np.uint8(3), SPLIT.labels)
    assert asked(network(0.5), lighter)[1]
    assert asked(network(0.5), Split(SPLIT.images, 1 - SPLIT.labels), allow_untrained=True)[1]


def test_a_refusal_and_a_check_of_what_is_stated_are_made_once_too(asked):
    wrong = replace(network(0.5), test_transform=replace(AS_EXPORTED, scale=(-1.0,)))
    with pytest.raises(
        WootzError, match=r"as --scale has them the network only guesses: 0\.\.1 100.*--normalize 0"
    ) as first:
        asked(wrong, scale="-1")
    with pytest.raises(WootzError) as again:
        asked(wrong, scale="-1")
    assert str(again.value) == str(first.value)
    pixels, executed = asked(wrong, scale="-1", allow_untrained=True)
    assert not executed
    assert "the network only guesses" in pixels.notes[0]


def test_statistics_are_measured_once(asked):
    new_head = replace(network(0.0, BATCH_NORMALIZATION), initialised=("c",))
    first, executed = asked(new_head)
    assert executed
    assert "0..1 is taken" in first.notes[0]
    assert asked(new_head) == (first, False)


def normalised(threshold: float = 0.0) -> Split:
    return Split((SPLIT.images.astype(np.float32) - 127.5) / 64 + threshold, SPLIT.labels)


def test_what_was_normalised_is_given_as_it_is(asked):
    pixels, _ = asked(network(0.0), normalised(), numbers="as given")
    assert pixels.test_transform == AS_EXPORTED
    with pytest.raises(WootzError, match="--normalize imagenet is for pixels, and the arrays have negative numbers"):
        asked(network(0.0), normalised(), numbers="as given", normalize="imagenet")
    with pytest.raises(
        WootzError, match=r"the network only guesses, .*: as given 5.*on other numbers \(--mean, --scale\)"
    ):
        asked(network(9.0), normalised(), numbers="as given")


def test_without_any_evidence_pixels_from_0_to_1_stay_so(asked):
    other = replace(network(0.0), initialised=("c",))
    assert "0..1 is taken" in asked(other, numbers="fractions")[0].notes[0]
    from_scratch = replace(other, says_pixels=True)
    assert asked(from_scratch, numbers="fractions")[0].test_transform.scale == (1 / 255,)
