"""Plans: what has to be kept together, and what prune-blocks leaves whole."""

from __future__ import annotations

from types import ModuleType

import numpy as np
import pytest

from wootz.passes.errors import WootzError
from wootz.passes.ir.model import Model, constants
from wootz.passes.ir.text import parse_text
from wootz.passes.ir.verifier import verify
from wootz.passes.pipeline import parse_pass
from wootz.passes.plan.pruning import PruningPlan
from wootz.passes.pruning.block_pruner import plan_blocks, prunable_convolutions
from wootz.passes.pruning.materializer import Materializer
from wootz.passes.pruning.planner import Planner


def network(nodes: str, modules: str = "[]", constants: str = "", **weights: tuple[int, ...]) -> Model:
    """A network from x[1,2,2,2] to y, with weights 1, 2, 3, … and other `constants`."""
    arrays = ", ".join(
        f"float[{','.join(map(str, shape))}] {name} = {{{','.join(map(str, range(1, int(np.prod(shape)) + 1)))}}}"
        for name, shape in weights.items()
    )
    constants = ", ".join(filter(None, (arrays, constants)))
    table = modules.replace('"', '\\"')
    return parse_text(
        f'<ir_version: 8, opset_import: ["" : 18], metadata_props: ["wootz.modules": "{table}"]> '
        f"g (float[1,2,2,2] x) => (float y) <{constants}> {{ {nodes} }}"
    )


GROUPED = network(
    "[a] s = Conv(x, wa) [g] t = Conv<group = 2>(s, wg) [c] y = Conv(t, wc)",
    wa=(8, 2, 1, 1),
    wg=(8, 4, 1, 1),
    wc=(1, 8, 1, 1),
)


def test_groups_keep_equally_many_and_their_own_best() -> None:
    planner = Planner.of(GROUPED)
    plan = planner.plan(dict.fromkeys(range(len(planner.cells)), 0.5))
    assert plan.keep("a") == (2, 3, 6, 7)  # the weights ascend: the last of each group of four inputs
    assert plan.keep("g") == (2, 3, 6, 7)


def test_unequal_counts_in_groups_are_refused() -> None:
    planner = Planner.of(GROUPED)
    cell = next(i for i, c in enumerate(planner.cells) if c.layers == (0,))
    with pytest.raises(WootzError, match="'a' feed or are the groups of one convolution and need the same rate"):
        planner.plan({cell: 0.5})


def test_a_slice_keeps_one_channel() -> None:
    model = network(
        "[a] s = Conv(x, wa) [p] p, q = Split<axis = 1, num_outputs = 2>(s) [b] t = Conv(p, wb) [c] u = Conv(q, wb) "
        "[z] y = Add(t, u)",
        wa=(4, 2, 1, 1),
        wb=(1, 2, 1, 1),
    )
    planner = Planner.of(model)
    plan = planner.plan(dict.fromkeys(range(len(planner.cells)), 0.75))
    assert set(plan.keep("a")) & {0, 1}
    assert set(plan.keep("a")) & {2, 3}


SHARED = network(
    "[a] s = Conv(x, w) [b] t = Relu(s) [c] u = Conv(x, w) [d] v = Conv(t, wd) [e] z = Conv(u, wd) [f] y = Add(v, z)",
    w=(4, 2, 1, 1),
    wd=(1, 4, 1, 1),
)


def test_shared_weights_stay_shared_under_their_names() -> None:
    planner = Planner.of(SHARED)
    plan = planner.plan(dict.fromkeys(range(len(planner.cells)), 0.5))
    pruned = constants(Materializer.of(SHARED, planner.analysis).materialize(plan).graph)
    assert {name: values.shape for name, values in pruned.items()} == {"w": (2, 2, 1, 1), "wd": (1, 2, 1, 1)}
    assert constants(SHARED.graph)["w"].shape == (4, 2, 1, 1)


def test_a_vector_of_equal_numbers_is_copied_where_its_readers_lose_different_channels() -> None:
    model = network(
        "[a] s = Conv(x, wa, ones) [b] t = Conv(x, wb, ones) [c] y = Conv(s, wc) [d] z = Conv(t, wd)",
        wa=(4, 2, 1, 1),
        wb=(4, 2, 1, 1),
        wc=(1, 4, 1, 1),
        wd=(1, 4, 1, 1),
        ones=(4,),
    )
    planner = Planner.of(model)
    plan = planner.plan({0: 0.5})
    pruned = Materializer.of(model, planner.analysis).materialize(plan)
    assert sorted(v.shape for n, v in constants(pruned.graph).items() if n.startswith("ones")) == [(2,), (4,)]


BLOCK = network(
    "[c1] a = Conv(x, w1) [r1] b = Relu(a) [c2] c = Conv(b, w2) [r2] d = Relu(c) [c3] e = Conv(d, w3) "
    "[short] f = Conv(x, w4) [add] g = Add(e, f) [r3] y = Relu(g)",
    '[{"name": "block", "entry": "x", "exit": "y"}]',
    w1=(4, 2, 1, 1),
    w2=(4, 4, 1, 1),
    w3=(2, 4, 1, 1),
    w4=(2, 2, 1, 1),
)


def test_the_top_layer_stays_whole() -> None:
    (table,) = prunable_convolutions(BLOCK)
    assert table.convolutions == ("c1", "c2", "c3", "short")
    assert table.prunable == ("c1", "c2")
    assert table.locked["c3"] == "output 'y' of the network"


def test_one_rate_or_one_a_convolution() -> None:
    assert [len(e.keep) for e in plan_blocks(BLOCK, {"block": 0.5}).layers] == [2, 2, 2, 2]
    assert [len(e.keep) for e in plan_blocks(BLOCK, {"block": (0.25, 0.75)}).layers] == [3, 1, 2, 2]
    assert not plan_blocks(BLOCK, {"block": 0.0}).is_pruned


GATED = network(
    "[e] e = Conv(x, w1) [d] d = Conv<group=4>(e, w2) [p] p = ReduceMean<keepdims=0>(d, places) "
    "[s1] s = Gemm<transB=1>(p, w3) [r] r = Relu(s) [s2] t = Gemm(r, w4) [h] h = HardSigmoid(t) "
    "[u] u = Unsqueeze(h, places) [m] m = Mul(d, u) [q] q = Conv(m, w5) [a] y = Add(q, x)",
    modules='[{"name": "block", "entry": "x", "exit": "y"}]',
    w1=(4, 2, 1, 1),
    w2=(4, 1, 1, 1),
    w3=(2, 4),
    w4=(2, 4),
    w5=(2, 4, 1, 1),
    constants="int64[2] places = {2,3}",
)


def test_a_gate_of_fully_connected_layers_follows_what_it_scales(oracles: ModuleType) -> None:
    """Squeeze and excitation by torch.nn.Linear."""
    (table,) = prunable_convolutions(GATED)
    assert table.prunable == ("e",)
    plan = plan_blocks(GATED, {"block": 0.5})
    assert {e.layer: len(e.keep) for e in plan.layers} == {"e": 2, "d": 2, "s1": 2, "s2": 2, "q": 2}
    pruned = Materializer.of(GATED, Planner.of(GATED).analysis).materialize(plan)
    feeds = {"x": np.random.default_rng(0).standard_normal((1, 2, 2, 2)).astype(np.float32) / 100}
    (found,), (expected,) = (oracles.run(model, feeds) for model in (pruned, oracles.zero_masked(GATED, plan)))
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_annotated_shapes_of_dequantized_weights_follow(oracles: ModuleType) -> None:
    """A bias whose scale is one number is annotated, as quantizers do with files of PyTorch's newer exporter."""
    model = parse_text("""<ir_version: 8, opset_import: ["" : 18]> g (float[1,2,2,2] x) => (float[1,1,2,2] y)
    <int8[4,2,1,1] q = {1,2,3,4,5,6,7,8}, int32[4] r = {1,2,3,4}, float s = {0.5}, float[1,4,1,1] v = {1,2,3,4},
     float[4,2,1,1] w, float[4] b> {
      [w] w = DequantizeLinear(q, s) [b] b = DequantizeLinear(r, s)
      [c1] a = Conv(x, w, b) [c2] y = Conv(a, v)
    }""")
    assert model.graph.tensors()["b"].shape == [4]
    planner = Planner.of(model)
    plan = planner.plan(dict.fromkeys(planner.cells_of(0), 0.5))
    pruned = Materializer.of(model, planner.analysis).materialize(plan)
    verify(pruned)
    feeds = {"x": np.random.default_rng(0).standard_normal((1, 2, 2, 2)).astype(np.float32)}
    (found,), (expected,) = (oracles.run(m, feeds) for m in (pruned, oracles.zero_masked(model, plan)))
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_a_dequantized_weight_that_others_read_stays_theirs(oracles: ModuleType) -> None:
    """Exporters merge equal biases before a quantizer sees them; the last layer keeps its filters."""
    model = parse_text("""<ir_version: 8, opset_import: ["" : 18]> g (float[1,2,2,2] x) => (float[1,4,2,2] y)
    <float[4,2,1,1] w = {1,2,3,4,5,6,7,8}, int32[4] r = {1,2,3,4}, float s = {0.5},
     float[4,4,1,1] v = {1,2,3,4,5,6,7,8,9,8,7,6,5,4,3,2}> {
      [b] b = DequantizeLinear(r, s) [same] other = Identity(b)
      [c1] a = Conv(x, w, b) [c2] y = Conv(a, v, other)
    }""")
    planner = Planner.of(model)
    plan = planner.plan(dict.fromkeys(planner.cells_of(0), 0.5))
    pruned = Materializer.of(model, planner.analysis).materialize(plan)
    verify(pruned)
    feeds = {"x": np.random.default_rng(0).standard_normal((1, 2, 2, 2)).astype(np.float32)}
    (found,), (expected,) = (oracles.run(m, feeds) for m in (pruned, oracles.zero_masked(model, plan)))
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_a_gemm_that_transposes_what_it_multiplies_reads_channels_from_the_first_axis(oracles: ModuleType) -> None:
    model = network(
        "[c] c = Conv(x, w1) [p] p = GlobalAveragePool(c) [f] f = Flatten(p) [t] t = Transpose<perm=[1,0]>(f) "
        "[g] y = Gemm<transA=1>(t, w2)",
        w1=(4, 2, 1, 1),
        w2=(4, 3),
    )
    planner = Planner.of(model)
    plan = planner.plan(dict.fromkeys(planner.cells_of(0), 0.5))
    assert [len(e.keep) for e in plan.layers] == [2, 3]
    pruned = Materializer.of(model, planner.analysis).materialize(plan)
    feeds = {"x": np.random.default_rng(0).standard_normal((1, 2, 2, 2)).astype(np.float32)}
    (found,), (expected,) = (oracles.run(m, feeds) for m in (pruned, oracles.zero_masked(model, plan)))
    np.testing.assert_allclose(found, expected, rtol=1e-5)


@pytest.mark.parametrize(
    ("rates", "message"),
    [
        ({"blok": 0.5}, "no module named 'blok' in the model (modules: block)"),
        ({"block": (0.5,)}, "module 'block': 1 rates for 2 prunable convolutions"),
        ({"block": 1.5}, "1.5 is not a pruning rate"),
        ({"block": (0.5, 1.0)}, "1.0 is not a pruning rate"),
        ({"block": (0.5, float("nan"))}, "nan is not a pruning rate"),
    ],
)
def test_what_cannot_be_planned_is_refused(rates: dict[str, float], message: str) -> None:
    with pytest.raises(WootzError) as refusal:
        plan_blocks(BLOCK, rates)
    assert message in str(refusal.value)


@pytest.mark.parametrize("keep", ['["a"]', "[1.5, 2]", "3", "[true]"])
def test_a_plan_of_something_else_than_whole_numbers_is_refused(keep: str) -> None:
    text = f'{{"layers": [{{"layer": "c", "weight": "w", "filters": 8, "keep": {keep}}}]}}'
    with pytest.raises(WootzError, match="not a pruning plan: the filters of layer 'c' aren't whole numbers"):
        PruningPlan.from_json(text)


COLLIDING = network(
    "a = Conv(x, wa) [a] b = Conv(a, wb) [b] c = Conv(b, wc) [same] d = Conv(c, wd) [same] y = Conv(d, we)",
    wa=(4, 2, 1, 1),
    wb=(4, 4, 1, 1),
    wc=(4, 4, 1, 1),
    wd=(4, 4, 1, 1),
    we=(1, 4, 1, 1),
)


def test_layers_have_names_of_their_own() -> None:
    """An unnamed node whose output has another's name, and two nodes of one name."""
    planner = Planner.of(COLLIDING)
    plan = planner.plan(dict.fromkeys(range(len(planner.cells)), 0.5))
    assert [entry.layer for entry in plan.layers] == ["a_2", "a", "b", "same", "same_1"]
    assert len({entry.layer for entry in plan.layers}) == len(plan.layers)
    pruned = Materializer.of(COLLIDING, planner.analysis).materialize(PruningPlan.from_json(plan.to_json()))
    shapes = [constants(pruned.graph)[name].shape[:2] for name in ("wa", "wb", "wc", "wd", "we")]
    assert shapes == [(2, 2), (2, 2), (2, 2), (2, 2), (1, 2)]
    again = Planner.of(pruned)
    assert [layer.name for layer in again.analysis.layers] == ["a_2", "a", "b", "same", "same_1"]


def test_a_rate_for_one_of_two_names_prunes_that_layer() -> None:
    for name, counts in (("a_2", [2, 4, 4, 4, 1]), ("a", [4, 2, 4, 4, 1])):
        plan = parse_pass(f"prune-filters{{rates={name}:0.5}}").apply(COLLIDING).plan
        assert plan is not None
        assert [len(entry.keep) for entry in plan.layers] == counts


NORMALIZED = network(
    "[a] s = Conv(x, wa) [n] t = BatchNormalization(s, scale, wa1, wa1, scale) [b] u = Conv(t, wb) [c] y = Conv(u, wc)",
    wa=(4, 2, 1, 1),
    scale=(4,),
    wa1=(4,),
    wb=(4, 4, 1, 1),
    wc=(1, 4, 1, 1),
)


def test_bn_scale_needs_normalization_where_it_prunes_alone() -> None:
    plan = parse_pass("prune-filters{rates=a:0.5 criterion=bn-scale}").apply(NORMALIZED).plan
    assert plan is not None
    assert plan.keep("a") == (2, 3)
    with pytest.raises(WootzError, match="criterion bn-scale: no BatchNormalization scales the output of 'b'"):
        parse_pass("prune-filters{rate=0.5 criterion=bn-scale}").apply(NORMALIZED)
    with pytest.raises(WootzError, match="criterion bn-scale: no BatchNormalization scales the output of 'b'"):
        parse_pass("prune-filters{rate=0.5 criterion=bn-scale ranking=global}").apply(NORMALIZED)


def test_one_planner_makes_many_plans() -> None:
    """What is kept for later plans is that of equal rates."""
    planner = Planner.of(GROUPED)
    every = range(len(planner.cells))
    counts = [len(planner.plan(dict.fromkeys(every, rate)).keep("a")) for rate in (0.5, 0.25, 0.0, 0.5)]
    assert counts == [4, 6, 8, 4]
    plans = [planner.plan(dict.fromkeys(every, rate)) for rate in (0.5, 0.0)]
    assert [plan.layers[0].outcome for plan in plans] == ["4 of 8 filters removed", "nothing was asked of it"]


def test_a_part_without_channels_takes_one_back_and_others_take_none() -> None:
    """Of 'a' the filters 2 and 3 are the best; the other part gets its own best one back."""
    model = network(
        "[a] s = Conv(x, wa) [o] r = Conv(x, wo) p, q = Split<axis = 1, num_outputs = 2>(s) [b] t = Conv(p, wb) "
        "[c] u = Conv(q, wb) v = Add(t, u) [d] w = Conv(r, wd) [z] y = Add(v, w)",
        wa=(4, 2, 1, 1),
        wo=(6, 2, 1, 1),
        wb=(1, 2, 1, 1),
        wd=(1, 6, 1, 1),
    )
    separate = model.copy()
    separate.graph.nodes[4].inputs[1] = type(separate.graph.nodes[4].inputs[1])("wc", np.ones((1, 2, 1, 1), np.float32))
    planner = Planner.of(separate)
    plan = planner.plan(dict.fromkeys(range(len(planner.cells)), 0.5))
    assert plan.keep("a") == (1, 2, 3)
    assert len(plan.keep("o")) == 3


def test_no_layer_is_left_without_filters() -> None:
    """Four parts of one filter each, of which a rate of one half leaves two: the others are layers of their own."""
    parts = " ".join(f"[b{i}] t{i} = Conv(x, wb{i})" for i in range(4))
    model = network(
        f"[a] s = Conv(x, wa) {parts} z = Concat<axis = 1>(t0, t1, t2, t3) v = Add(s, z) [c] y = Conv(v, wc)",
        wa=(4, 2, 1, 1),
        wc=(1, 4, 1, 1),
        **{f"wb{i}": (1, 2, 1, 1) for i in range(4)},
    )
    planner = Planner.of(model)
    plan = planner.plan(dict.fromkeys(range(len(planner.cells)), 0.5))
    assert [len(entry.keep) for entry in plan.layers] == [4, 1, 1, 1, 1, 1]


def test_the_best_of_a_part_without_channels_comes_back() -> None:
    """The part reads the less important filters of 'a' and 'b'; those of 'b' are the larger ones."""
    model = network(
        "[a] s = Conv(x, wa) [b] t = Conv(x, wb) u = Concat<axis = 1>(s, t) v = Gather<axis = 1>(u, some) "
        "[c] w = Conv(v, wc) [d] z = Conv(u, wd) y = Add(w, z)",
        wa=(2, 2, 1, 1),
        wb=(2, 2, 1, 1),
        wc=(1, 2, 1, 1),
        wd=(1, 4, 1, 1),
        some=(2,),
    )
    tensors = model.graph.tensors()
    tensors["some"].values = np.asarray([0, 2])
    tensors["wb"].values = 2 * tensors["wb"].values
    planner = Planner.of(model)
    plan = planner.plan(dict.fromkeys(range(len(planner.cells)), 0.5))
    assert (plan.keep("a"), plan.keep("b")) == ((1,), (0, 1))
