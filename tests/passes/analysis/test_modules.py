"""Modules by table, by names and by structure."""

from __future__ import annotations

from dataclasses import replace

import pytest

from wootz.passes.analysis.module_names import layer_path, titles
from wootz.passes.analysis.modules import find_modules
from wootz.passes.analysis.segments import find_segments, reads_of_extents
from wootz.passes.ir.model import Model, Module, Node, Variable
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
    '[r2] e = Relu(d) [c3] f = Conv(e, "{2}") [r3] g = Relu(f) [c4] h = Conv(g, "{3}") [a2] i = Add(h, e) '
    "[o] y = Relu(i)"
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
      [c1] m = Conv(l, one) [r1] p = Relu(m) [add] o = Add(l, p) [last] y = Conv(o, one)
    }"""
    assert find_modules(parse_text(text)) == ((Module("module1", "a", "l"), Module("module2", "l", "o")), "structure")


def test_a_shape_that_is_needed_later_is_no_cut_where_it_is_read_between_two() -> None:
    body = (
        "[c0] a = Conv(x, w1) [s] s = Shape(a) [r0] b = Relu(a) [c1] c = Conv(b, w1) [a1] d = Add(c, a) "
        "[c2] e = Conv(d, w1) [r1] f = Relu(e) [c3] g = Conv(f, w1) [a2] h = Add(g, d) [v] y = Reshape(h, s)"
    )
    graph = network(body, "w1").graph
    segments = find_segments(graph)
    assert [s.exit for s in segments] == ["a", "d", "h", "y"]
    assert reads_of_extents(graph, segments) == ((0, 3),), "the Reshape needs the shape of the first convolution"
    inner = body.replace("Shape(a)", "Shape(b)").replace(
        "[s] s = Shape(b) [r0] b = Relu(a)", "[r0] b = Relu(a) [s] s = Shape(b)"
    )
    segments = find_segments(network(inner.replace("Conv(b, w1)", "Add(b, a)"), "w1").graph)
    assert [s.exit for s in segments] == ["a", "y"]


def test_a_cut_between_joined_segments_is_none_either() -> None:
    """The shape of `b` joins what lies around `d`, whose shape is needed still later."""
    body = (
        "[c0] a = Conv(x, w1) [c1] b = Conv(a, w1) [a1] d = Add(b, a) [sb] t = Shape(b) [sd] u = Shape(d) "
        "[c2] e = Conv(d, w1) [v1] f = Reshape(e, t) [c3] g = Conv(f, w1) [a2] h = Add(g, f) [c4] i = Conv(h, w1) "
        "[v2] j = Reshape(i, u) [c5] k = Conv(j, w1) [r] l = Relu(k) [c6] m = Conv(l, w1) [a3] y = Add(m, j)"
    )
    model = network(body, "w1")
    assert [s.exit for s in find_segments(model.graph)] == ["a", "j", "y"]
    assert [(m.entry, m.exit) for m in find_modules(model)[0]] == [("a", "j"), ("j", "y")]


def test_a_module_whose_shapes_come_from_elsewhere_is_none() -> None:
    body = (
        "[s] s = Shape(x) [c0] a = Conv(x, w1) [r0] b = Relu(a) [c1] c = Conv(b, w1) [a1] d = Add(c, a) "
        "[c2] e = Conv(d, w1) [v] f = Reshape(e, s) [c3] g = Conv(f, w1) [a2] y = Add(g, d)"
    )
    modules, _ = find_modules(network(body, "w1"))
    assert [(m.entry, m.exit) for m in modules] == [("a", "d")]


@pytest.mark.parametrize(
    ("name", "path"),
    [
        ("/layer1/layer1.0/conv1/Conv", "layer1.0.conv1"),
        ("/blocks/blocks.1/blocks.1.0/conv_pw/Conv", "blocks.1.0.conv_pw"),
        ("/stages/stages.0/blocks/blocks.0/conv/Conv_1", "stages.0.blocks.0.conv"),
        ("/Conv", ""),
        ("layer1.0.conv1", "layer1.0.conv1"),
        ("inception_3a/3x3", "inception_3a.3x3"),
    ],
)
def test_scopes_of_the_older_exporter_are_paths(name: str, path: str) -> None:
    node = Node("Conv", name, inputs=[Variable("x"), Variable("w")], outputs=[Variable("y")])
    assert ".".join(layer_path(node)) == path


def test_names_are_each_module_s_own() -> None:
    def layers(*names: str) -> list[Node]:
        return [Node("Conv", name, inputs=[Variable("x"), Variable("w")]) for name in names]

    shared, inner = layers("a.0.c1", "a.1.c2"), layers("a.0.c1", "a.0.c2")
    assert titles([[shared, inner], [shared, layers("a.1.c1")]]) == ("a.0", "a.1")
    assert titles([[layers("c1")], [layers("module1.c2")], [layers("b.c3")]]) == ("module1-2", "module1", "b")


def test_prefixes_end_in_no_separator() -> None:
    found, source = find_modules(
        residual("mix1.branch1.weight", "mix1.branch2.weight", "mix2.branch1.weight", "mix2.branch2.weight")
    )
    assert (source, [m.name for m in found]) == ("names", ["mix1", "mix2"])


def test_a_weight_may_be_computed() -> None:
    body = (
        "[s] w = Mul(w1, w1) [c0] a = Conv<group = 2>(x, w) [r0] b = Relu(a) [c1] c = Conv(b, w) [a1] d = Add(c, x) "
        "[c2] e = Conv<group = 2>(d, w) [c3] y = Conv(e, w)"
    )
    modules, _ = find_modules(network(body, "w1"))
    assert [(m.entry, m.exit) for m in modules] == [("x", "d"), ("d", "y")]


def test_names_of_depthwise_and_pointwise_pairs_are_not_believed() -> None:
    """Nothing could be removed from such pairs: the depthwise layer is tied to the pair before."""
    text = """<ir_version: 8, opset_import: ["" : 18]> g (float[N,2,4,4] x) => (float[N,2,4,4] y)
    <float[2,1,1,1] d = {1,2}, float[2,2,1,1] p = {1,2,3,4}>
    {
      ["conv1/dw"] a = Conv<group = 2>(x, d) ["conv1/sep"] b = Conv(a, p)
      ["conv2/dw"] c = Conv<group = 2>(b, d) ["conv2/sep"] e = Conv(c, p) [r] y = Relu(e)
    }"""
    found, source = find_modules(parse_text(text))
    assert (source, [(m.entry, m.exit) for m in found]) == ("structure", [("a", "c"), ("c", "y")])
