"""Which nodes of a variant are its own, where they begin and end, and what is behind them."""

from __future__ import annotations

import numpy as np
import pytest

from wootz.passes.analysis.changed_region import ChangedRegion, ComparedNetwork
from wootz.passes.errors import WootzError
from wootz.passes.ir.model import Model, with_weights
from wootz.passes.ir.text import parse_text

HEADER = '<ir_version: 8, opset_import: ["" : 18]>\n'
CHAIN = """g (float[N,2,4,4] x) => (float[N,3,4,4] y)
<float[2,2,1,1] w1 = {1, 2, 3, 4}, float[2,2,1,1] w2 = {1, 0, 0, 1}, float[3,2,1,1] w3 = {1, 2, 3, 4, 5, 6}> {
    a = Conv(x, w1)
    b = Relu(a)
    c = Conv(b, w2)
    d = Relu(c)
    e = Add(d, b)
    y = Conv(e, w3)
}"""


def region(full: str | Model, variant: str | Model) -> ChangedRegion:
    models = [parse_text(HEADER + m) if isinstance(m, str) else m for m in (full, variant)]
    return ComparedNetwork(models[0]).region_of(models[1])


def operators(found: ChangedRegion) -> list[str]:
    return [node.op for node in found.branch.graph.nodes]


def test_a_layer_with_other_weights_ends_behind_what_follows_it():
    """The sum reads what no other node behind the branch reads."""
    found = region(CHAIN, CHAIN.replace("w2 = {1, 0, 0, 1}", "w2 = {1, 0, 0, 2}"))
    assert operators(found) == ["Conv", "Relu", "Add"]
    assert (found.entries, found.exits, found.suffix) == (("b",), ("e",), {"y"})
    assert found.macs == 2 * 2 * 16


def test_what_several_read_is_an_exit():
    found = region(CHAIN, CHAIN.replace("w1 = {1, 2", "w1 = {1, 3"))
    assert operators(found) == ["Conv", "Relu"]
    assert (found.entries, found.exits, found.suffix) == (("x",), ("b",), {"c", "d", "e", "y"})


def test_changes_at_both_ends_are_one_region():
    found = region(CHAIN, CHAIN.replace("w1 = {1", "w1 = {9").replace("w3 = {1", "w3 = {9"))
    assert operators(found) == ["Conv", "Relu", "Conv", "Relu", "Add", "Conv"]
    assert (found.exits, found.suffix) == (("y",), set())


def test_a_skipped_part_is_an_identity():
    found = region(CHAIN, CHAIN.replace("c = Conv(b, w2)", "").replace("Relu(c)", "Identity(b)"))
    assert operators(found) == ["Identity", "Add"]
    assert (found.entries, found.exits, found.macs) == (("b",), ("e",), 0)


def test_equal_values_in_other_arrays_are_the_same():
    full = parse_text(HEADER + CHAIN)
    copied = with_weights(full, {"w2": np.array([1, 0, 0, 1], np.float32).reshape(2, 2, 1, 1)})
    found = region(full, copied)
    assert (operators(found), found.exits, found.suffix) == ([], (), set())


@pytest.mark.parametrize(
    "change",
    [
        ("c = Conv(b, w2)", "c = Conv <dilations = [2, 2]> (b, w2)"),
        ("c = Conv(b, w2)", "c = Conv(a, w2)"),
        ("d = Relu(c)", "d = Sigmoid(c)"),
    ],
)
def test_other_attributes_operands_and_operators_are_changes(change):
    found = region(CHAIN, CHAIN.replace(*change))
    assert found.exits == ("e",)
    assert found.suffix == {"y"}


PRUNED = """g (float[N,2,4,4] x) => (float[N,3,4,4] y)
<float[3,2,1,1] w1 = {1, 2, 3, 4, 5, 6}, int64[1] axis = {1}, float[3,1,1,1] w2 = {1, 0, 2}> {
    a = Conv(x, w1)
    b = Relu(a)
    c = ReduceMean(b, axis)
    d = Relu(c)
    y = Conv(d, w2)
}"""


def test_nodes_on_another_shape_are_in_the_region():
    """The mean over channels is the same node, on fewer channels."""
    found = region(PRUNED, PRUNED.replace("[3,2,1,1] w1 = {1, 2, 3, 4, 5, 6}", "[2,2,1,1] w1 = {1, 2, 3, 4}"))
    assert operators(found) == ["Conv", "Relu", "ReduceMean", "Relu"]
    assert (found.exits, found.suffix) == (("d",), {"y"})


def test_all_readers_of_another_shape_are_in_the_region():
    """Two sums over channels, behind each of which an unchanged layer follows."""
    full = PRUNED.replace("d = Relu(c)", "s = ReduceSum(b, axis)\n t = Conv(s, w2)\n u = Conv(c, w2)\n d = Add(t, u)")
    full = full.replace("y = Conv(d, w2)", "y = Relu(d)")
    found = region(full, full.replace("[3,2,1,1] w1 = {1, 2, 3, 4, 5, 6}", "[2,2,1,1] w1 = {1, 2, 3, 4}"))
    assert operators(found) == ["Conv", "Relu", "ReduceMean", "ReduceSum"]
    assert (found.exits, found.suffix) == (("c", "s"), {"t", "u", "d", "y"})


FIXED = """g (float[N,2,4,4] x) => (float[N,2,4,4] y)
<float[2,2,1,1] w = {1, 2, 3, 4}, float scale = {2}> {
    scaled = Mul(w, scale)
    a = Conv(x, scaled)
    b = Conv(a, scaled)
    y = Relu(b)
}"""


def test_weights_that_are_computed_belong_to_each_piece():
    full = ComparedNetwork(parse_text(HEADER + FIXED))
    assert list(full.nodes) == ["a", "b", "y"]
    assert [node.op for node in full.piece({"b", "y"}, ["y"]).graph.nodes] == ["Mul", "Conv", "Relu"]
    found = full.region_of(parse_text(HEADER + FIXED.replace("b = Conv(a, scaled)", "b = Conv(a, w)")))
    assert (operators(found), found.entries) == (["Conv", "Relu"], ("a",))
    found = full.region_of(parse_text(HEADER + FIXED.replace("scale = {2}", "scale = {3}")))
    assert (operators(found), found.entries) == (["Mul", "Conv", "Conv", "Relu"], ("x",))


@pytest.mark.parametrize(
    ("variant", "why"),
    [
        (CHAIN.replace("y", "z"), "a variant computes 'z', the network 'y'"),
        (
            CHAIN.replace("w3 = {1, 2, 3, 4, 5, 6}", "w3 = {1, 2, 3, 4}")
            .replace("[3,2,1,1]", "[2,2,1,1]")
            .replace("N,3", "N,2"),
            "a variant computes 'y' in another shape than the network",
        ),
    ],
)
def test_another_output_is_refused(variant, why):
    with pytest.raises(WootzError, match=why):
        region(CHAIN, variant)
