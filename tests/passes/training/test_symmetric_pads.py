"""Convolutions with the same pads on both sides compute what they did."""

from __future__ import annotations

import numpy as np
import pytest

from wootz.passes.ir.model import Model
from wootz.passes.ir.text import parse_text
from wootz.passes.training.symmetric_pads import SymmetricPads
from wootz.runtime.session import evaluate


def convolution(attributes: str, x: str = "2,3,8,7", w: str = "4,3,3,3") -> Model:
    y = ",".join("NMPQ"[: x.count(",") + 1])
    return parse_text(f"""<ir_version: 8, opset_import: ["" : 18]>
    g (float[{x}] x, float[{w}] w) => (float[{y}] y) {{
      [conv] y = Conv<{attributes}>(x, w)
    }}""")


def padded(model: Model) -> Model:
    result = SymmetricPads().apply(model)
    assert result.modified == (result.model is not model)
    assert SymmetricPads().apply(result.model).model is result.model, "it is a fixed point"
    return result.model


@pytest.mark.parametrize(
    ("attributes", "sizes"),
    [
        ("pads=[0,0,1,1], strides=[2,2]", {}),
        ("pads=[1,2,1,0], dilations=[2,1]", {}),
        ('auto_pad="SAME_UPPER", strides=[2,2]', {}),
        ('auto_pad="SAME_LOWER", strides=[2,2]', {}),
        ("pads=[0,1]", {"x": "2,3,8", "w": "4,3,3"}),
    ],
)
def test_pads_that_differ(attributes, sizes):
    model = convolution(attributes, **sizes)
    result = padded(model)
    assert [n.op for n in result.graph.nodes] == ["Pad", "Conv"]
    assert not any(result.graph.nodes[1].attrs["pads"])
    random = np.random.default_rng(0)
    feeds = {t.name: random.normal(size=t.shape).astype(np.float32) for t in model.graph.inputs}
    np.testing.assert_allclose(evaluate(result, feeds)["y"], evaluate(model, feeds)["y"], rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(
    ("attributes", "x"),
    [
        ("pads=[1,2,1,2]", "2,3,8,7"),
        ('auto_pad="SAME_UPPER"', "2,3,8,7"),
        ('auto_pad="SAME_UPPER", strides=[2,2]', "2,3,H,W"),
        ('auto_pad="SAME_UPPER", strides=[6,6]', "2,3,12,12"),
    ],
    ids=["they don't differ", "they come to equal ones", "sizes are symbolic", "elements are left out"],
)
def test_what_stays(attributes, x):
    model = convolution(attributes, x=x)
    assert padded(model) is model
