"""Models as one: what they compute alike is there once, and each computes what it did."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from wootz.passes.errors import WootzError
from wootz.passes.ir.merge import merge
from wootz.passes.ir.model import Model
from wootz.passes.ir.text import parse_text
from wootz.passes.ir.verifier import verify
from wootz.runtime.session import evaluate

HEADER = '<ir_version: 8, opset_import: ["" : 18]>'
OPERATORS = (
    *("Relu(h)", "Abs(h)", "Add(h, one)", "Add(h, two)", "Add(h, x)", "Clip(h, , one)"),
    *("LeakyRelu<alpha = 0.5>(h)", "LeakyRelu<alpha = 0.25>(h)"),
)


def a_chain(steps: list[str], names: str = "t") -> Model:
    """`steps`, each of which reads the result `h` of the one before."""
    lines, last = [], "x"
    for number, step in enumerate(steps):
        lines.append(f"{names}{number} = {step.replace('(h', f'({last}')}")
        last = f"{names}{number}"
    lines.append(f"y = Identity({last})")
    return parse_text(
        f"{HEADER} g (float[2,3] x) => (float[2,3] y) <float one = {{1}}, float two = {{2}}> {{ {' '.join(lines)} }}"
    )


def operators(model: Model) -> list[str]:
    return [node.op for node in model.graph.nodes]


@given(st.lists(st.lists(st.sampled_from(OPERATORS), max_size=5), min_size=1, max_size=5))
def test_each_model_computes_what_it_did_and_equal_beginnings_are_there_once(chains):
    merged = merge([a_chain(steps, names) for steps, names in zip(chains, "abcde", strict=False)])
    verify(merged.model)
    x = {"x": np.arange(-3, 3, dtype=np.float32).reshape(2, 3)}
    found = evaluate(merged.model, x)
    for steps, names in zip(chains, merged.outputs, strict=True):
        np.testing.assert_array_equal(found[names["y"]], evaluate(a_chain(steps), x)["y"])
    beginnings = {tuple(steps[: end + 1]) for steps in chains for end in range(len(steps))}
    ends = {tuple(steps) for steps in chains}
    assert len(merged.model.graph.nodes) == len(beginnings) + len(ends)


def test_constants_are_the_same_by_their_values_and_types():
    def scaled(name: str, values: str) -> Model:
        return parse_text(
            f"{HEADER} g (float[2] x) => (float[2] y) <float[2] {name} = {{{values}}}> {{ y = Mul(x, {name}) }}"
        )

    assert operators(merge([scaled("w", "1,2"), scaled("v", "1,2")]).model) == ["Mul"]
    assert operators(merge([scaled("w", "1,2"), scaled("w", "1,3")]).model) == ["Mul", "Mul"]
    whole = "<int64[1] axes = {0}> { y = Unsqueeze(x, axes) }"
    model = parse_text(f"{HEADER} g (float[2] x) => (float[1,2] y) {whole}")
    merged = merge([model, model])
    assert operators(merged.model) == ["Unsqueeze"]
    assert merged.outputs == ({"y": "0/y"}, {"y": "0/y"})


def test_an_input_may_be_an_output():
    model = parse_text(f"{HEADER} g (float[2] x) => (float[2] y, float[2] x) {{ y = Relu(x) }}")
    other = parse_text(f"{HEADER} g (float[2] x) => (float[2] y) {{ y = Neg(x) }}")
    assert merge([model, other]).outputs == ({"y": "0/y", "x": "x"}, {"y": "1/y"})


def test_models_stay_as_they_were():
    models = [a_chain(["Relu(h)"]), a_chain(["Abs(h)"])]
    before = [model.to_proto().SerializeToString() for model in models]
    merge(models)
    assert [model.to_proto().SerializeToString() for model in models] == before


def test_other_inputs_and_subgraphs_are_refused():
    with pytest.raises(WootzError, match="models have other inputs than x"):
        merge([a_chain([]), parse_text(f"{HEADER} g (float[2,4] x) => (float[2,4] y) {{ y = Relu(x) }}")])
    branches = """<bool[1] c = {1}> { y = If(c) <
        then_branch = t () => (float[2,3] a) { a = Relu(x) }, else_branch = e () => (float[2,3] b) { b = Abs(x) }> }"""
    with_if = parse_text(f"{HEADER} g (float[2,3] x) => (float[2,3] y) {branches}")
    with pytest.raises(WootzError, match="If, Loop and Scan"):
        merge([with_if, a_chain([])])
    assert merge([with_if]).model is with_if
