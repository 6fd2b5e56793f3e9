"""Each layer stands in the plan with what was done or why not, and a pass that removes nothing says why."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from wootz.passes.errors import PassError, WootzError
from wootz.passes.ir.model import Model, Module
from wootz.passes.ir.text import parse_text
from wootz.passes.pipeline import parse_pass
from wootz.passes.plan.pruning import PruningPlan
from wootz.passes.pruning.materializer import materialize

HEAD = 'ir_version: 8, opset_import: ["" : 18, "my.domain" : 1, "com.microsoft" : 1]'


def network(nodes: str, **weights: tuple[int, ...]) -> Model:
    """From x[1,2,4,4] and z[2,2,1,1] to y."""
    declared = ", ".join(
        f"float[{','.join(map(str, shape))}] {name} = {{{','.join(['0.5'] * int(np.prod(shape)))}}}"
        for name, shape in weights.items()
    )
    return parse_text(f"<{HEAD}> g (float[1,2,4,4] x, float[2,2,1,1] z) => (float y) <{declared}> {{ {nodes} }}")


MIXED = network(
    """[a] a = Conv(x, w) [b] b = Conv(a, v)
       [by] u = Sigmoid(z) [computed] c = Conv(b, u) [given] d = Conv(c, z)
       [fused] e = com.microsoft.FusedConv(d, v2)
       [pool] p = GlobalAveragePool(e) [flat] f = Flatten(p) [fc1] h = Gemm<transB = 1>(f, m) [fc2] y = Gemm(h, m)""",
    w=(4, 2, 1, 1),
    v=(2, 4, 1, 1),
    v2=(2, 2, 1, 1),
    m=(2, 2),
)


def outcomes(model: Model, pass_: str) -> dict[str, str]:
    plan = parse_pass(pass_).apply(model).plan
    assert plan is not None
    assert PruningPlan.from_json(plan.to_json()) == plan
    assert all(entry.outcome for entry in plan.layers)
    return {entry.layer: entry.outcome for entry in plan.layers}


def test_every_layer_has_its_outcome() -> None:
    found = outcomes(MIXED, "prune-filters{rate=0.5}")
    assert list(found) == ["a", "b", "computed", "given", "fused", "fc1", "fc2"]
    assert found["a"] == "2 of 4 filters removed"
    assert found["b"] == "Conv 'computed' has a computed weight 'u' (try fold-constants)"
    assert found["computed"] == "its weights are computed, by Sigmoid 'by' (fold-constants may help)"
    assert found["given"] == "its weights are an input of the network, 'z'"
    assert found["fused"] == "no rule says what FusedConv of the domain 'com.microsoft' computes"


def test_a_plan_with_such_layers_is_replayed() -> None:
    plan = parse_pass("prune-filters{rate=0.5}").apply(MIXED).plan
    assert plan is not None
    assert materialize(MIXED, plan).graph.tensors()["w"].shape == (2, 2, 1, 1)


BLOCKS = parse_text("""<ir_version: 8, opset_import: ["" : 18]>
  g (float[1,2,4,4] x) => (float[1,3] y) <float[2,2,1,1] w = {1,2,3,4}, float[3,2] m = {1,2,3,4,5,6}, float[3,3] k =
  {1,2,3,4,5,6,7,8,9}> {
  [stem] s = Conv(x, w) [a1] a = Conv(s, w) [a2] b = Conv(a, w) [add] d = Add(b, s)
  [b1] e = Conv(d, w) [b2] f = Conv(e, w) [sum] g = Add(f, d)
  [pool] p = GlobalAveragePool(g) [flat] q = Flatten(p) [fc1] r = Gemm<transB = 1>(q, m) [fc2] y = Gemm(r, k) }
""")
MODULES = (Module("one", "s", "d"), Module("two", "d", "g"))


def test_blocks_say_why_their_layers_are_whole() -> None:
    model = replace(BLOCKS.copy(), modules=MODULES)
    for i, node in enumerate(model.graph.nodes):
        if node.op == "Conv":
            constant = node.inputs[1]
            node.inputs[1] = type(constant)(f"w{i}", constant.values)
    found = outcomes(model, "prune-blocks{rates=0.5,0}")
    assert found == {
        "stem": "outside of all modules (prune-filters prunes it)",
        "a1": "1 of 2 filters removed",
        "a2": "top layer: its channels reach the exit 'd' of module 'one'",
        "b1": "the rate of its module 'two' is 0",
        "b2": "top layer: its channels reach the exit 'g' of module 'two'",
        "fc1": "fully connected (prune-filters{linear=true} prunes it)",
        "fc2": "output 'y' of the network",
    }


FIXED = network(
    "[by] u = Sigmoid(z) [c1] a = Conv(x, u) [c2] b = Conv(a, u) [c3] c = Conv(b, u) [last] y = Conv(c, v)",
    v=(1, 2, 1, 1),
)


@pytest.mark.parametrize("name", ["prune-filters", "prune-blocks", "prune-filters{rate=0.5}", "prune-blocks{rate=0.3}"])
def test_removing_nothing_is_an_error_with_its_reasons(name: str) -> None:
    with pytest.raises(PassError) as refusal:
        parse_pass(name).apply(FIXED)
    assert str(refusal.value) == (
        f"{name.partition('{')[0]}: nothing was removed: 3 layers like 'c1': its weights are computed, by Sigmoid 'by' "
        f"(fold-constants may help); 'last': output 'y' of the network"
    )


@pytest.mark.parametrize("name", ["prune-filters{allow-unchanged=true}", "prune-blocks{allow-unchanged=true}"])
def test_it_is_not_where_that_is_allowed(name: str) -> None:
    result = parse_pass(name).apply(FIXED)
    assert not result.modified
    assert result.plan is not None
    assert len(result.plan.layers) == 4


def test_rate_0_asks_for_nothing() -> None:
    assert not parse_pass("prune-filters{rate=0}").apply(FIXED).modified
    assert not parse_pass("prune-blocks{rate=0}").apply(FIXED).modified


def test_a_network_without_convolutions() -> None:
    with pytest.raises(PassError, match="nothing was removed: the network has no convolutions"):
        parse_pass("prune-filters").apply(network("p = Relu(x) q = Relu(z) y = ReduceMax<keepdims = 0>(p)"))


def test_a_note_says_where_nothing_could_be_executed() -> None:
    def refuses(model: Model, feeds: object) -> dict[str, np.ndarray]:
        raise WootzError("no such operator")

    pass_ = replace(parse_pass("prune-filters{rate=0.5}"), evaluator=refuses)  # type: ignore[call-arg]
    reason = "the unpruned network can't be run on random inputs: no such operator"
    assert pass_.apply(MIXED).notes == (f"not executed to check it: {reason}",)
    unchecked = replace(pass_, check=False)  # type: ignore[call-arg]
    assert unchecked.apply(MIXED).notes == ()
