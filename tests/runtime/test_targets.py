"""Which losses follow from targets and outputs, and which fit them, by tables; weights by the definition."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from wootz.passes.errors import WootzError
from wootz.passes.ir.text import parse_text
from wootz.passes.plan.lesson import TargetLoss
from wootz.runtime.targets import losses_for, losses_named

RANDOM = np.random.default_rng(0)
MAP = RANDOM.integers(0, 4, (6, 5, 3))
HOLES, NEGATIVE = (np.where(RANDOM.random(MAP.shape) < 0.3, label, MAP) for label in (255, -1))
NUMBERS = RANDOM.normal(size=(6, 4, 5, 3)).astype(np.float32)
SHARES = RANDOM.random(NUMBERS.shape).astype(np.float32)
BITS = np.round(SHARES).astype(np.int64)
CROSS_ENTROPY, BCE = TargetLoss("softmax-cross-entropy"), TargetLoss("bce-with-logits")


def network(outputs="float[N,4,5,3] y", body="y = Relu(x)", image="float[N,4,5,3]"):
    return parse_text(f'<ir_version: 8, opset_import: ["" : 18]> g ({image} x) => ({outputs}) {{ {body} }}')


PLAIN = network()
SIGMOID = network(body="y = Sigmoid(x)")
SOFTMAX = network(body="y = Softmax<axis=1>(x)")
LOGITS = network("float[N,4,5,3] my_logits", "my_logits = Relu(x)")
UNSHAPED = network("y")
ONE_CHANNEL = network("float[N,1,5,3] y", image="float[N,1,5,3]")
ONE_NUMBER = network("float[N,1] y", image="float[N,1]")
TWO = network("float[N,4,5,3] y, float[N,4,1,1] z", "y = Relu(x) z = GlobalAveragePool(x)")
LIKE = network("float[N,4,5,3] y, float[N,4,5,3] z", "y = Relu(x) z = Abs(x)")


def mse(targets, **settings):
    return TargetLoss("mse", weight=float(f"{1 / np.mean(targets.astype(np.float64) ** 2):.3g}"), **settings)


FOLLOWS = {
    "class maps": (PLAIN, MAP, CROSS_ENTROPY),
    "class maps with an axis for the channel": (PLAIN, MAP[:, None], CROSS_ENTROPY),
    "class maps behind a Softmax": (SOFTMAX, MAP, CROSS_ENTROPY),
    "an output whose shape has to be inferred": (UNSHAPED, MAP, CROSS_ENTROPY),
    "255 among classes": (PLAIN, HOLES, TargetLoss(ignore_label=255)),
    "-1 among classes": (PLAIN, NEGATIVE, TargetLoss(ignore_label=-1)),
    "numbers": (PLAIN, NUMBERS, mse(NUMBERS)),
    "numbers from 0 to 1": (PLAIN, SHARES, mse(SHARES)),
    "numbers without the axis of the channel": (ONE_CHANNEL, NUMBERS[:, 0], mse(NUMBERS[:, 0])),
    "a number an image": (ONE_NUMBER, NUMBERS[:, 0, 0, 0], mse(NUMBERS[:, 0, 0, 0])),
    "shares behind a Sigmoid": (SIGMOID, SHARES, BCE),
    "bits behind a Sigmoid": (SIGMOID, BITS, BCE),
    "bits beside logits": (LOGITS, BITS, BCE),
    "numbers beside logits": (LOGITS, NUMBERS, mse(NUMBERS)),
}
NO_LOSS = {
    "a class that has no score": (
        PLAIN,
        np.where(MAP == 0, 4, MAP),
        "beside y [n, 4, 5, 3]; the targets of y hold 4, and it",
    ),
    "a negative class": (
        PLAIN,
        np.where(MAP == 0, -5, MAP),
        "the targets of y hold -5, and it has scores of 4 classes",
    ),
    "labels for none alone": (PLAIN, np.full_like(MAP, 255), "the targets of y are 255 all over, which stands for no"),
    "both labels that stand for none": (PLAIN, np.where(HOLES == 0, -1, HOLES), "whole numbers [n, 5, 3]"),
    "maps of another size": (PLAIN, MAP[:, :4], "whole numbers [n, 4, 3] beside y [n, 4, 5, 3]"),
    "classes as floats": (
        PLAIN,
        MAP.astype(np.float32),
        "beside y [n, 4, 5, 3]; the targets of y are no whole",
    ),
    "bits of an output that may be anything": (PLAIN, BITS, "whole numbers [n, 4, 5, 3]"),
    "numbers behind a Softmax": (SOFTMAX, SHARES, "numbers [n, 4, 5, 3]"),
    "boxes": (PLAIN, NUMBERS[:, :3, 0], "numbers [n, 3, 3]"),
    "NaN": (
        PLAIN,
        np.full_like(NUMBERS, np.nan),
        "; the targets of y hold NaN or infinity: they",
    ),
    "two outputs of their shape": (LIKE, NUMBERS, "several outputs (y, z)"),
}


@pytest.mark.parametrize("case", FOLLOWS)
def test_the_loss_that_follows(case):
    model, targets, expected = FOLLOWS[case]
    found = losses_for(model, targets)
    assert found.losses == (expected,)
    assert found.notes == ()


@pytest.mark.parametrize("case", NO_LOSS)
def test_no_loss_follows_and_a_note_says_why(case):
    model, targets, reason = NO_LOSS[case]
    found = losses_for(model, targets)
    assert found.losses == ()
    (note,) = found.notes
    assert reason in note
    assert "for the metric alone (--loss)" in note


def test_targets_of_one_of_several_outputs():
    assert losses_for(TWO, NUMBERS).losses == (mse(NUMBERS, output="y"),)
    assert losses_for(TWO, NUMBERS[:, :, 0, 0]).losses == (mse(NUMBERS[:, :, 0, 0], output="z"),)


def test_targets_by_the_names_of_outputs():
    found = losses_for(TWO, {"y": HOLES, "z": MAP[:, 0, 0], "boxes": NUMBERS[:, 0]})
    halves = {"weight": 0.5}
    assert found.losses == (TargetLoss(output="y", ignore_label=255, **halves), TargetLoss(output="z", **halves))
    assert found.notes == ("No loss follows from the targets boxes: they are for the metric alone (--loss).",)
    (note,) = losses_for(PLAIN, {"y": np.full_like(NUMBERS, np.inf)}).notes
    assert "from the targets y (the targets of y hold NaN or infinity): they are for the metric alone" in note
    assert losses_for(PLAIN, {"y": MAP}).losses == (TargetLoss(output="y"),)


@given(
    size=st.floats(0.01, 1000),
    kind=st.sampled_from(["mse", "l1", "smooth-l1"]),
)
def test_a_loss_of_zeros_is_1_whatever_the_size_of_numbers(size, kind):
    targets = (NUMBERS * size).astype(np.float32)
    (loss,) = losses_named(kind, None, PLAIN, targets).losses
    distance = np.abs(targets.astype(np.float64))
    of_zeros = {
        "mse": distance**2,
        "l1": distance,
        "smooth-l1": np.where(distance < 1, distance**2 / 2, distance - 0.5),
    }
    assert loss.kind == kind
    assert loss.weight * of_zeros[kind].mean() == pytest.approx(1, rel=0.006)


def test_targets_of_zeros_have_a_weight():
    assert losses_for(PLAIN, np.zeros_like(NUMBERS)).losses == (TargetLoss("mse"),)


def test_losses_that_are_named():
    assert losses_named("bce-with-logits", None, PLAIN, BITS).losses == (BCE,)
    assert losses_named("mse", None, PLAIN, BITS).losses == (mse(BITS),)
    assert losses_named("softmax-cross-entropy", 7, PLAIN, np.where(MAP == 0, 7, MAP)).losses == (
        TargetLoss(ignore_label=7),
    )
    assert losses_named("softmax-cross-entropy", 2, PLAIN, MAP).losses == (TargetLoss(ignore_label=2),)
    assert losses_named("mse", None, TWO, {"y": NUMBERS, "other": MAP}).losses == (mse(NUMBERS, output="y"),)


REFUSED = [
    ("mse", None, MAP, "--loss mse: the targets are [n, 5, 3], and y is [n, 4, 5, 3]: both have to be the same"),
    ("softmax-cross-entropy", None, NUMBERS, "classes for scores [n, classes, …] are [n, …]"),
    ("softmax-cross-entropy", None, MAP * 2, "the targets of y hold 4, and it has scores of 4 classes"),
    ("softmax-cross-entropy", 9, HOLES, "the targets of y hold 255, and it has scores of 4 classes"),
    ("softmax-cross-entropy", 3, np.full_like(MAP, 3), "the targets of y are 3 all over, which stands for no class"),
    ("bce-with-logits", None, NUMBERS, "the targets of y aren't from 0 to 1"),
    ("l1", None, np.full_like(NUMBERS, np.inf), "the targets of y hold NaN or infinity"),
    ("l1", 3, NUMBERS, "--ignore-label is for the cross-entropy"),
    ("l1", None, {"z": NUMBERS}, "there are targets for z, and outputs y"),
]


@pytest.mark.parametrize(("kind", "ignored", "targets", "reason"), REFUSED)
def test_losses_that_do_not_fit(kind, ignored, targets, reason):
    with pytest.raises(WootzError) as refused:
        losses_named(kind, ignored, PLAIN, targets)
    assert reason in str(refused.value)
    assert "\n" not in str(refused.value)


def test_targets_that_fit_several_outputs_are_refused():
    with pytest.raises(WootzError, match="the targets fit y, z: choose one by --output NAME"):
        losses_named("l1", None, LIKE, NUMBERS)
