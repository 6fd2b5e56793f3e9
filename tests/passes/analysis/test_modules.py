"""Modules by table, by names and by structure."""

from __future__ import annotations

from dataclasses import replace

import pytest

from wootz.passes.analysis.modules import find_modules, find_segments
from wootz.passes.ir.model import Model, Module
from wootz.passes.ir.text import parse_text


def network(body: str, *weights: str) -> Model:
    constants = ", ".join(f'float[2,2,1,1] "{name}" = {{1,2,3,4}}' for name in weights)
    return parse_text(
        '<ir_version: 8, opset_import: ["" : 18]> g (float[N,2,4,4] x) => (float[N,2,4,4] y) '
        f"<{constants}> {{ {body} }}"
    )


CHAIN = (
    "[c1] a = Conv(x, w1) [r1] b = Relu(a) "
    "[c2] c = Conv(b, w2) [p] d = MaxPool<kernel_shape = [1,1]>(c) [r] y = Relu(d)"
)
RESIDUAL = (
    '[c0] s = Conv(x, stem) [c1] a = Conv(s, "{0}") [r1] b = Relu(a) [c2] c = Conv(b, "{1}") [a1] d = Add(c, s) '
    '[r2] e = Relu(d) [c3] f = Conv(e, "{2}") [c4] g = Conv(e, "{3}") [a2] h = Add(f, g) [o] y = Relu(h)'
)


def residual(*names: str) -> Model:
    return network(RESIDUAL.format(*names), "stem", *names)


def test_the_table_comes_first() -> None:
    table = (Module("mine", "a", "c"),)
    assert find_modules(replace(network(CHAIN, "w1", "w2"), modules=table)) == (table, "table")


@pytest.mark.parametrize(
    ("names", "modules"),
    [
        (("res1_branch2a.weight", "res1_branch2b.weight", "res2_branch1.weight", "res2_branch2a.weight"), "res1 res2"),
        (("mix_1/1x1.weight", "mix_1/3x3.weight", "mix_2/1x1.weight", "mix_2/3x3.weight"), "mix_1 mix_2"),
    ],
)
def test_names_of_layers(names: tuple[str, ...], modules: str) -> None:
    found, source = find_modules(residual(*names))
    assert source == "names"
    one, two = modules.split()
    assert found == (Module(one, "s", "e"), Module(two, "e", "y"))


def test_the_structure_decides_where_names_tell_nothing() -> None:
    found, source = find_modules(residual("w1", "w2", "w3", "w4"))
    assert source == "structure"
    assert found == (Module("module1", "s", "e"), Module("module2", "e", "y"))


def test_names_that_tear_a_block_apart_are_not_believed() -> None:
    _, source = find_modules(residual("a/1.weight", "b/1.weight", "a/2.weight", "b/2.weight"))
    assert source == "structure"


def test_in_a_chain_each_convolution_is_a_module() -> None:
    found, source = find_modules(network(CHAIN, "w1", "w2"))
    assert source == "structure"
    assert found == (Module("module1", "x", "b"), Module("module2", "b", "y"))


def test_cuts_do_not_see_computations_of_shapes() -> None:
    body = "[s] s = Shape(x) [c] a = Conv(x, w1) [r] b = Reshape(a, s) [o] y = Relu(b)"
    segments = find_segments(network(body, "w1").graph)
    assert [(segment.entry, segment.exit) for segment in segments] == [("x", "a"), ("a", "b"), ("b", "y")]


def test_a_network_of_two_inputs_has_no_first_cut_before_they_meet() -> None:
    text = """<ir_version: 8, opset_import: ["" : 18]> g (float[1] x, float[1] z) => (float[1] y)
    { [a] s = Add(x, z) [r] y = Relu(s) }"""
    assert [(s.entry, s.exit) for s in find_segments(parse_text(text).graph)] == [("s", "y")]


def test_an_inverted_bottleneck_without_a_skip_is_a_module_beside_residual_ones() -> None:
    """Widening, depthwise, gate and projection; the pooling before it and the convolution behind it are outside."""
    text = """<ir_version: 8, opset_import: ["" : 18]> g (float[N,1,4,4] x) => (float[N,1,4,4] y)
    <float[2,1,1,1] widen = {1,2}, float[2,1,1,1] depth = {1,2}, float[2,2,1,1] gate = {1,2,3,4},
     float[1,2,1,1] narrow = {1,2}, float[1,1,1,1] one = {1}>
    {
      [p] a = MaxPool<kernel_shape = [1,1]>(x)
      [w] b = Conv(a, widen) [s] c = Sigmoid(b) [m] d = Mul(b, c)
      [d] e = Conv<group = 2>(d, depth) [r] f = Relu(e)
      [g] h = Conv(f, gate) [gs] i = Sigmoid(h) [gm] j = Mul(f, i)
      [n] k = Conv(j, narrow) [nr] l = Relu(k)
      [c1] m = Conv(l, one) [add] o = Add(l, m) [last] y = Conv(o, one)
    }"""
    assert find_modules(parse_text(text)) == ((Module("module1", "a", "l"), Module("module2", "l", "o")), "structure")
