"""Values computed from the extent of a pruned tensor, and used on another, come to what they have to be."""

from __future__ import annotations

from types import ModuleType

import numpy as np
import pytest

from wootz.passes.ir.model import Model
from wootz.passes.ir.text import parse_text
from wootz.passes.ir.verifier import verify
from wootz.passes.plan.pruning import PruningPlan
from wootz.passes.pruning.materializer import Materializer
from wootz.passes.pruning.planner import Planner

IMAGE = "float[N,2,4,4] x"
WEIGHTS = {
    "wa": (8, 2, 1, 1),
    "wb": (4, 2, 1, 1),
    "wc": (3, 8, 1, 1),
    "wd": (3, 4, 1, 1),
    "we": (8, 2, 3, 3),
    "wf": (3, 8, 1, 1),
}
INTEGERS = {"zero": (0,), "one": (1,), "two": (2,), "four": (4,), "eight": (8,), "all": (-1,), "both": (2, 3)}


def network(body: str, outputs: str = "float[N,3,O,P] y", image: str = IMAGE) -> Model:
    """A network on an image x; weights wa … wf and integers zero, one, … are there where they are read."""
    random = np.random.default_rng(0)
    constants = []
    for name, shape in WEIGHTS.items():
        if f" {name})" in body or f" {name}," in body:
            values = ",".join(f"{v:.4f}" for v in random.standard_normal(shape).ravel())
            constants.append(f"float[{','.join(map(str, shape))}] {name} = {{{values}}}")
    constants += [f"int64[{len(v)}] {name} = {{{','.join(map(str, v))}}}" for name, v in INTEGERS.items()]
    text = f'<ir_version: 8, opset_import: ["" : 18]> g ({image}) => ({outputs}) <{", ".join(constants)}> {{ {body} }}'
    return parse_text(text)


def pruned_by_half(model: Model, *layers: str) -> tuple[Model, PruningPlan]:
    """The network with half the filters in the cells of `layers`, of all layers if none is named."""
    planner = Planner.of(model)
    named = [i for i, layer in enumerate(planner.analysis.layers) if layer.name in layers or not layers]
    cells = {cell for i in named for cell in planner.cells_of(i)}
    plan = planner.plan(dict.fromkeys(cells, 0.5))
    pruned = Materializer.of(model, planner.analysis).materialize(plan)
    verify(pruned)
    return pruned, plan


def operators(model: Model) -> set[str]:
    return {node.op for node in model.graph.nodes}


ON_ANOTHER = {
    "reshape": "[a] s = Conv(x, wa) [b] t = Conv(x, wb) [c] c = Shape<start = 1, end = 2>(t)"
    " [n] n = Shape<end = 1>(s) [g] g = Concat<axis = 0>(n, c, two, four, four) [r] r = Reshape(s, g)"
    " [m] m = ReduceSum<keepdims = 0>(r, two) [e] y = Conv(m, wd)",
    "expand": "[a] s = Conv(x, wa) [b] t = Conv(x, wb) [p] p = GlobalAveragePool(s) [h] h = Shape(t)"
    " [k] k = Slice(h, two, four) [n] n = Shape<end = 1>(t) [c] c = Shape<start = 1, end = 2>(t)"
    " [d] d = Mul(c, two) [g] g = Concat<axis = 0>(n, d, k) [q] q = Expand(p, g) [z] z = Add(q, s)"
    " [e] y = Conv(z, wc)",
    "resize": "[a] s = Conv(x, wa) [b] t = Conv(x, wb) [p] p = MaxPool<kernel_shape = [2, 2], strides = [2, 2]>(t)"
    " [n] n = Shape<end = 1>(s) [h] h = Shape<start = 2>(s) [c] c = Shape<start = 1, end = 2>(s)"
    ' [d] d = Div(c, two) [g] g = Concat<axis = 0>(n, d, h) [r] r = Resize<mode = "nearest">(p, , , g)'
    " [z] z = Add(r, t) [e] y = Conv(z, wd)",
    "zeros": "[a] s = Conv(x, wa) [b] t = Conv(x, wb) [h] h = Shape(t) [f] f = ConstantOfShape(h)"
    " [j] j = Concat<axis = 1>(t, f) [z] z = Add(j, s) [e] y = Conv(z, wc)",
    "pad": "[a] s = Conv(x, wa) [b] t = Conv(x, wb) [c] c = Shape<start = 1, end = 2>(s)"
    " [d] d = Shape<start = 1, end = 2>(t) [m] m = Sub(c, d) [k] k = Div(m, two)"
    " [g] g = Concat<axis = 0>(zero, k, zero, zero, zero, k, zero, zero) [p] p = Pad(t, g) [z] z = Add(p, s)"
    " [e] y = Conv(z, wc)",
    "slice": "[a] s = Conv(x, wa) [b] t = Conv(x, wb) [c] c = Shape<start = 1, end = 2>(t)"
    " [h] h = Slice(s, c, eight, one) [z] z = Mul(h, t) [e] y = Conv(z, wd)",
    "tile": "[a] s = Conv(x, wa) [b] t = Conv(x, wb) [c] c = Shape<start = 1, end = 2>(s)"
    " [d] d = Shape<start = 1, end = 2>(t) [k] k = Div(c, d) [g] g = Concat<axis = 0>(one, k, one, one)"
    " [p] p = Tile(t, g) [z] z = Add(p, s) [e] y = Conv(z, wc)",
    "number": "[a] s = Conv(x, wa) [h] h = Size(s) [f] f = Cast<to = 1>(h) [z] z = Div(s, f) [e] y = Conv(z, wc)",
}
"""Bodies in which the extent of one of two layers is used on the other."""


@pytest.mark.parametrize("layers", [(), ("a",), ("b",)], ids=["all", "a", "b"])
@pytest.mark.parametrize("name", ON_ANOTHER)
@pytest.mark.parametrize("batch", ["N", "2"])
def test_extents_used_on_another_tensor(name: str, layers: tuple[str, ...], batch: str, oracles: ModuleType) -> None:
    model = network(ON_ANOTHER[name], image=IMAGE.replace("N", batch))
    pruned, plan = pruned_by_half(model, *layers)
    assert plan.is_pruned or layers == ("b",)
    oracles.assert_pruned_correctly(model, pruned, plan)


def test_what_comes_right_by_itself_is_left_alone(oracles: ModuleType) -> None:
    model = network("[a] s = Conv(x, wa) [h] h = Shape(s) [f] f = Flatten(s) [v] v = Reshape(f, h) [e] y = Conv(v, wc)")
    pruned, plan = pruned_by_half(model)
    assert operators(pruned) == operators(model)
    oracles.assert_pruned_correctly(model, pruned, plan)


def test_without_symbolic_dimensions_values_become_constants(oracles: ModuleType) -> None:
    model = network(ON_ANOTHER["resize"], image="float[2,2,4,4] x")
    pruned, plan = pruned_by_half(model, "b")
    assert "Shape" not in operators(pruned)
    oracles.assert_pruned_correctly(model, pruned, plan)


def test_flattened_extents_keep_their_symbolic_part(oracles: ModuleType) -> None:
    """The batch times the channels of another layer, which loses none, states the rows of one that does."""
    model = network(
        "[a] s = Conv(x, wa) [t] t = Conv<pads = [1, 1, 1, 1]>(x, we) [h] h = Shape(t) "
        "[n] n = Slice(h, zero, one) [c] c = Slice(h, one, two) "
        "[m] m = Mul(n, c) [g] g = Concat<axis = 0>(m, one, four, four) [r] r = Reshape(s, g) "
        "[p] p = Relu(r) [k] k = Concat<axis = 0>(n, c, four, four) "
        "[v] v = Reshape(p, k) [e] u = Conv(v, wc) [f] w = Conv(t, wf) [z] y = Sub(u, w)",
    )
    pruned, plan = pruned_by_half(model, "a")
    assert plan.is_pruned
    assert "Div" in operators(pruned)
    oracles.assert_pruned_correctly(model, pruned, plan)


def test_extents_that_the_network_gives_away_are_what_they_were(oracles: ModuleType) -> None:
    outputs = "float[N,3,O,P] y, int64[4] h"
    model = network("[a] s = Conv(x, wa) [h] h = Shape(s) [e] y = Conv(s, wc)", outputs)
    pruned, plan = pruned_by_half(model)
    assert plan.is_pruned
    feeds = oracles.random_feeds(model)
    assert oracles.run(pruned, feeds)[1].tolist() == [2, 8, 4, 4]
    assert oracles.run(pruned, {"x": feeds["x"][:1]})[1].tolist() == [1, 8, 4, 4]


def test_a_constant_part_of_which_nothing_is_left_is_dropped(oracles: ModuleType) -> None:
    model = network(
        "[b] t = Conv(x, wb) [n] n = Shape<end = 1>(t) [g] g = Concat<axis = 0>(n, four, four, four) "
        "[f] f = ConstantOfShape(g) [j] j = Concat<axis = 1>(t, f) [a] s = Conv(x, wa) [z] z = Add(j, s) "
        "[e] y = Conv(z, wc)"
    )
    planner = Planner.of(model)
    kept = np.ones(len(planner.analysis.channel_of), bool)
    tail = planner.analysis.channel_of[planner.analysis.layers[1].atoms[4:]]
    kept[tail] = False
    plan = planner.plan_of_kept(kept)
    pruned = Materializer.of(model, planner.analysis).materialize(plan)
    (joined,) = (node for node in pruned.graph.nodes if node.op == "Concat" and node.outputs[0].name == "j")
    assert [t.name for t in joined.inputs] == ["t"]
    oracles.assert_pruned_correctly(model, pruned, plan)


def test_an_initializer_that_is_an_output_stays(oracles: ModuleType) -> None:
    model = network("[a] s = Conv(x, wa) [e] y = Conv(s, wc)", "float[N,3,O,P] y, float[8,2,1,1] wa")
    pruned, plan = pruned_by_half(model)
    assert plan.is_pruned
    assert oracles.run(pruned, oracles.random_feeds(model))[1].shape == (8, 2, 1, 1)


@pytest.mark.parametrize(
    ("image", "body"),
    [
        ("float[N,2,4,4] x, float f", "[a] s = Conv(x, wa) [m] m = Mul(s, f) [e] y = Conv(m, wc)"),
        ("float[N,2,0,4] x", "[a] s = Conv(x, wa) [m] m = Softmax(s) [e] y = Conv(m, wc)"),
        ("float[0,2,4,4] x", "[a] s = Conv(x, wa) [m] m = Relu(s) [e] y = Conv(m, wc)"),
    ],
    ids=["a scalar input", "an image of no rows", "a batch of no images"],
)  # fmt: skip
def test_degenerate_shapes_are_pruned(image: str, body: str) -> None:
    _, plan = pruned_by_half(network(body, image=image))
    assert plan.is_pruned
