"""Rounding is allowed for; what isn't rounding is found, whatever rounding does."""

from __future__ import annotations

from wootz.passes.equivalence import model_difference
from wootz.passes.ir.model import Model
from wootz.passes.ir.text import parse_text
from wootz.runtime.session import evaluate


def network(last: str) -> Model:
    return parse_text(f"""<ir_version: 8, opset_import: ["" : 18]> g (float[N,2,6,6] x) => (float[N,2,9,9] y)
        <float[4] scales = {{1, 1, 1.5, 1.5}}> {{
            u = Resize<mode = "nearest">(x, , scales)
            y = {last}(u)
        }}""")


def test_a_scale_that_makes_a_shape_is_no_rounding() -> None:
    """Moved by a unit in the last place, 6 × 1.5 is 8, and every difference would pass as rounding."""
    assert model_difference(network("Relu"), network("Relu"), evaluate) is None
    difference = model_difference(network("Relu"), network("Sigmoid"), evaluate)
    assert difference is not None
    assert difference.tensor == "y"
