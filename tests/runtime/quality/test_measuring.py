"""Qualities of networks on a split, beside the full one."""

from dataclasses import replace

import numpy as np
import pytest

from wootz.passes.ir.text import parse_text
from wootz.passes.plan.transform import InputTransform
from wootz.runtime.data.dataset import Split
from wootz.runtime.quality import measuring
from wootz.runtime.quality.measuring import Reference, measured
from wootz.runtime.quality.quality import AGREEMENT, OUTPUT_ERROR
from wootz.runtime.session import CPU, InferenceSession

PLAIN = InputTransform(channel_order="RGB")
HALVED = replace(PLAIN, scale=(0.5,))
IMAGES = Split(np.random.default_rng(0).normal(size=(230, 2, 2, 2)).astype(np.float32))


def network(factor: float, second: str = "s"):
    return parse_text(f"""<ir_version: 8, opset_import: ["" : 18]>
        g (float[N,2,2,2] x) => (float[N,8] y, float[N,2,2,2] {second}) <float factor = {{{factor}}}> {{
            t = Mul (x, factor)
            y = Flatten (t)
            {second} = Relu (x)
        }}""")


def quality(model, transform=PLAIN, full=None, limit=0, of=OUTPUT_ERROR):
    reference = Reference(full or network(1.0), PLAIN, CPU)
    return measured(of, InferenceSession(model).outputs, IMAGES, transform, reference, limit)


def test_outputs_are_compared_by_their_order():
    assert quality(network(1.0)) == 0
    assert quality(network(1.5)) == pytest.approx(0.25 / 2)
    assert quality(network(1.5, second="other")) == pytest.approx(0.25 / 2)


def test_each_network_is_fed_as_it_is_to_be():
    """A network with the factor in it, and one that gets halved pixels."""
    doubled = parse_text("""<ir_version: 8, opset_import: ["" : 18]>
        g (float[N,2,2,2] x) => (float[N,8] y, float[N,2,2,2] s) <float two = {2}> {
            t = Mul (x, two)
            y = Flatten (t)
            s = Relu (t)
        }""")
    assert quality(doubled, HALVED) == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("limit", [0, 30, 150])
@pytest.mark.parametrize("most_kept", [0, 5_000, 2**30])
def test_what_is_kept_of_the_full_network_changes_nothing(monkeypatch, limit, most_kept):
    monkeypatch.setattr(measuring, "MOST_KEPT", most_kept)
    reference = Reference(network(1.0), PLAIN, CPU)
    predict = InferenceSession(network(1.25)).outputs
    found = {measured(OUTPUT_ERROR, predict, IMAGES, PLAIN, reference, part) for part in (limit, 110, limit)}
    first = measured(
        OUTPUT_ERROR, predict, IMAGES.part(slice(limit or 230)), PLAIN, Reference(network(1.0), PLAIN, CPU)
    )
    assert first in found
    assert reference._bytes <= most_kept


def test_agreement_is_of_the_largest_scores():
    plain = parse_text("""<ir_version: 8, opset_import: ["" : 18]>
        g (float[N,2,2,2] x) => (float[N,8] y) { y = Flatten (x) }""")
    turned = parse_text("""<ir_version: 8, opset_import: ["" : 18]>
        g (float[N,2,2,2] x) => (float[N,8] y) { t = Neg (x) y = Flatten (t) }""")
    assert quality(plain, full=plain, of=AGREEMENT) == 1
    assert quality(turned, full=plain, of=AGREEMENT) == 0
