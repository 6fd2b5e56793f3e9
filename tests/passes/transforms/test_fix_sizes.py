"""A network of any size, brought to one: it computes the same, and can be trained."""

from __future__ import annotations

from types import ModuleType

import numpy as np
import pytest

from wootz.passes.errors import PassError
from wootz.passes.ir.model import Model
from wootz.passes.ir.text import parse_text
from wootz.passes.ir.verifier import verify
from wootz.passes.pipeline import parse_pipeline, run_pipeline
from wootz.passes.transforms.fix_sizes import FixSizes

TRAINING = "training-mode,attach-loss{loss=mse},build-gradients,apply-optimizer,legalize"


def network(inputs: str = "float[N,1,H,W] x") -> Model:
    """Halves the image and brings it back to its size, by the size of its input."""
    return parse_text(f"""<ir_version: 8, opset_import: ["" : 18]> g ({inputs}) => (float[N,1,H,W] y)
    <float[2,1,3,3] w = {{1,-2,3,-4,5,-6,7,-8,9,9,-8,7,-6,5,-4,3,-2,1}}, float[1,2,1,1] v = {{0.5,-0.25}}> {{
      [down] a = Conv<pads = [1,1,1,1], strides = [2,2]>(x, w)
      [relu] b = Relu(a)
      [of_x] s = Shape<start = 2>(x)
      [of_b] t = Shape<end = 2>(b)
      [to] u = Concat<axis = 0>(t, s)
      [up] c = Resize<mode = "linear">(b, , , u)
      [last] y = Conv(c, v)
    }}""")


def test_the_network_computes_the_same_at_that_size(oracles: ModuleType) -> None:
    model = network()
    fixed = FixSizes(size=(6, 5)).apply(model).model
    verify(fixed)
    assert not {"Shape", "Concat"} & {node.op for node in fixed.graph.nodes}
    image = np.random.default_rng(0).standard_normal((2, 1, 6, 5)).astype(np.float32)
    np.testing.assert_allclose(*(oracles.run(m, {"x": image})[0] for m in (fixed, model)), rtol=1e-6)


def test_training_refuses_open_sizes_and_says_what_fixes_them() -> None:
    with pytest.raises(PassError, match=r"must have a fixed size, .* fix-sizes\{size=HEIGHT,WIDTH\} gives it one"):
        run_pipeline(network(), parse_pipeline(TRAINING))
    run_pipeline(network(), parse_pipeline(f"fix-sizes{{size=6,5}},{TRAINING}"))


def test_what_has_the_same_symbol_gets_the_same_size() -> None:
    model = network("float[N,1,H,W] x, float[N,H] weights")
    shapes = {t.name: t.shape for t in FixSizes(size=(6, 5), inputs=("x",)).apply(model).model.graph.inputs}
    assert shapes == {"x": ["N", 1, 6, 5], "weights": ["N", 6]}
    with pytest.raises(PassError, match="weights: it leaves 1 extents open"):
        FixSizes(size=(6, 5)).apply(model)
    with pytest.raises(PassError, match="x: S would be 6 and 5"):
        FixSizes(size=(6, 5)).apply(network("float[N,1,S,S] x"))
