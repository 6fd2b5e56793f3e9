from __future__ import annotations

import numpy as np
import pytest

from wootz.passes.errors import InputError


@pytest.mark.parametrize("transpose", [False, True])
@pytest.mark.parametrize(("shape", "axis"), [((3, 8), 1), ((3, 2, 2, 2), 1), ((2, 3, 4), 2), ((2, 3, 4, 2), -2)])
def test_inner_product(run_layer, random, close, shape, axis, transpose) -> None:
    x = random.normal(size=shape).astype(np.float32)
    features = int(np.prod(shape[axis % len(shape) :]))
    weight, bias = random.normal(size=(features, 5) if transpose else (5, features)), random.normal(size=5)
    text = f"""type: "InnerProduct" inner_product_param {{ num_output: 5 axis: {axis}
        transpose: {str(transpose).lower()} }}"""
    leading = shape[: axis % len(shape)]
    wanted = x.reshape(-1, features) @ (weight if transpose else weight.T) + bias
    close(run_layer(text, x, [weight, bias]), wanted.reshape(*leading, 5).astype(np.float32))


def test_a_matrix_needs_no_flatten(load) -> None:
    result = load("""input: "x" input_shape { dim: 2 dim: 8 }
        layer { name: "f" type: "InnerProduct" bottom: "x" top: "y" inner_product_param { num_output: 3 } }""")
    assert [n.op for n in result.model.graph.nodes] == ["Gemm"]


@pytest.mark.parametrize("bias_term", [True, False])
def test_embed(run_layer, random, close, bias_term) -> None:
    x = random.integers(0, 7, size=(4, 3)).astype(np.float32)
    weight, bias = random.normal(size=(7, 5)), random.normal(size=5)
    text = f"""type: "Embed" embed_param {{ num_output: 5 input_dim: 7 bias_term: {str(bias_term).lower()} }}"""
    found = run_layer(text, x, [weight, bias] if bias_term else [weight])
    close(found, (weight[x.astype(int)] + (bias if bias_term else 0)).astype(np.float32))


def test_an_axis_that_is_not_there_is_refused(load) -> None:
    with pytest.raises(InputError, match="axis 2 of a blob with 2 dimensions"):
        load("""input: "x" input_shape { dim: 2 dim: 8 } layer { name: "f" type: "InnerProduct" bottom: "x" top: "y"
            inner_product_param { num_output: 3 axis: 2 } }""")
