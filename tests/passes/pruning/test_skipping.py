"""Modules that are left out: an Identity is what is left of each, and everything else is as before."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wootz.passes.blocks.costs import module_costs, network_cost, total
from wootz.passes.errors import WootzError
from wootz.passes.ir.files import load
from wootz.passes.ir.model import Model, Module, constants
from wootz.passes.ir.text import parse_text
from wootz.passes.ir.verifier import verify
from wootz.passes.plan.blocks import Symbol, TuningBlock
from wootz.passes.plan.pruning import PruningPlan, SkippedModule, stored_keep_sets
from wootz.passes.plan.solver import Solver
from wootz.passes.plan.subspace import SKIP, Subspace
from wootz.passes.pruning.block_pruner import BlockPruner
from wootz.passes.pruning.check import check_pruned
from wootz.passes.pruning.materializer import materialize
from wootz.passes.pruning.skipping import without_skipped
from wootz.passes.training.training_graph import build_training_graph
from wootz.runtime.session import Device, TrainingSession, evaluate
from wootz.runtime.survey import subspace_costs

SHARED = Path(os.environ.get("WOOTZ_SHARED", "../shared"))
BLOCK = """
  [{0}1] {0}_a = Conv<pads = [1,1,1,1]>({1}, {0}1)
  [{0}r] {0}_r = Relu({0}_a)
  [{0}2] {0}_b = Conv<pads = [1,1,1,1]>({0}_r, {0}2)
  [{0}s] {0} = Add({0}_b, {1})
"""


def residual(blocks: str = "abc", head: str = "[flat] y = Flatten(p)") -> Model:
    """A stem, a residual block of four channels a letter (the second one ends in a Relu), and a pooling."""
    names = list(blocks)
    body = "".join(BLOCK.format(name, before) for name, before in zip(names, ["stem", *names], strict=False))
    shapes = {"w": (4, 3, 3, 3)} | {f"{n}{i}": (6, 4, 3, 3) if i == 1 else (4, 6, 3, 3) for n in names for i in (1, 2)}
    generator = np.random.default_rng(0)
    weights = ", ".join(
        f"float[{','.join(map(str, shape))}] {name} = "
        f"{{{','.join(map(repr, generator.normal(0, 0.3, int(np.prod(shape))).astype(np.float32).tolist()))}}}"
        for name, shape in shapes.items()
    )
    model = parse_text(
        f'<ir_version: 8, opset_import: ["" : 18]> g (float[N,3,5,5] x) => (float[N,4] y) <{weights}> '
        f"{{ [stem] stem = Conv<pads = [1,1,1,1]>(x, w) {body} p = GlobalAveragePool({names[-1]}) {head} }}"
    )
    modules = tuple(Module(n, before, n) for n, before in zip(names, ["stem", *names], strict=False))
    return replace(model, modules=modules)


RESIDUAL = residual()


def assert_right(oracles: ModuleType, pruner: BlockPruner, plan: PruningPlan, network: Model) -> None:
    """The network is the masked original in which the modules of the plan are left out."""
    verify(network)
    reference = oracles.without_modules(oracles.zero_masked(pruner.model, plan), plan.skipped)
    feeds = oracles.random_feeds(pruner.model)
    for a, b in zip(oracles.run(network, feeds), oracles.run(reference, feeds), strict=True):
        assert oracles.difference(a, b) <= oracles.TOLERANCE


def test_one_identity_is_left_of_a_module_and_no_weight() -> None:
    pruner = BlockPruner.of(RESIDUAL)
    assert pruner.skippable == ("a", "b", "c")
    network = pruner.materialize(pruner.plan({"b": SKIP, "a": 0.5}))
    assert [n.op for n in network.graph.nodes if n.inputs[0].name == "a" and n.outputs[0].name == "b"] == ["Identity"]
    assert [(n.op, n.outputs[0].name) for n in network.graph.nodes if n.outputs[0].name.startswith("b")] == [
        ("Identity", "b")
    ]
    assert constants(network.graph).keys() == {"w", "a1", "a2", "c1", "c2"}
    assert constants(network.graph)["a1"].shape[0] == 3
    assert network.modules == RESIDUAL.modules
    assert module_costs(network)[1] == total([])


@settings(max_examples=25)
@given(rates=st.tuples(*[st.sampled_from((0.0, 0.3, 0.7, (0.5,), SKIP))] * 3))
def test_any_configuration(rates: tuple[float, float, float], oracles: ModuleType) -> None:
    pruner = BlockPruner.of(RESIDUAL)
    configuration = dict(zip("abc", rates, strict=True))
    plan = pruner.plan(configuration)
    network = pruner.materialize(plan)
    assert_right(oracles, pruner, plan, network)
    assert not check_pruned(RESIDUAL, network, plan, evaluate, pruner.analysis).skipped
    skipped = {m for m, rate in configuration.items() if rate == SKIP}
    whole = pruner.materialize(pruner.plan({m: 0.0 if m in skipped else r for m, r in configuration.items()}))
    of_modules = zip("abc", module_costs(whole), strict=True)
    assert network_cost(network) == network_cost(whole) - total(cost for m, cost in of_modules if m in skipped)
    costs = subspace_costs(pruner, Subspace(("a", "b", "c"), (rates, (SKIP,) * 3, (0.3,) * 3)), pruner.input_sources)
    assert costs.networks[0] == network_cost(network)
    assert PruningPlan.from_json(plan.to_json()) == plan


@settings(max_examples=6)
@given(data=st.data())
def test_configurations_of_a_trained_network(data: st.DataObject, oracles: ModuleType) -> None:
    file = SHARED / "pretrained" / "resnet20_cifar10.onnx"
    if not file.is_file():
        pytest.skip("without the shared files")
    pruner = BlockPruner.of(load(file))
    assert pruner.skippable == tuple(m.name for m in pruner.modules if m.name not in ("layer2.0", "layer3.0"))
    choices = {m.name: (0.0, 0.3, 0.7, *[SKIP] * (m.name in pruner.skippable)) for m in pruner.modules}
    plan = pruner.plan({name: data.draw(st.sampled_from(rates)) for name, rates in choices.items()})
    assert_right(oracles, pruner, plan, pruner.materialize(plan))


def test_the_modules_of_an_exported_network(exported: Callable[[str], Model], oracles: ModuleType) -> None:
    pruner = BlockPruner.of(exported("mobilenet_v2.torchscript"))
    assert len(pruner.skippable) == 10, "the inverted residuals with a shortcut"
    rates = {t.module: 0.5 for t in pruner.convolutions if t.prunable} | dict.fromkeys(pruner.skippable[::2], SKIP)
    plan = pruner.plan(rates)
    assert_right(oracles, pruner, plan, pruner.materialize(plan))


def test_what_makes_the_same_network() -> None:
    pruner = BlockPruner.of(RESIDUAL)
    assert pruner.kept({"a": SKIP}) == pruner.kept({"a": 1, "b": 0.0})
    different = [pruner.kept(rates) for rates in ({}, {"a": SKIP}, {"b": SKIP}, {"a": SKIP, "b": 0.5}, {"b": 0.5})]
    assert len(set(different)) == len(different)


def test_what_became_of_each_layer_is_said() -> None:
    pruner = BlockPruner.of(RESIDUAL)
    rates = {"b": SKIP, "a": 0.5}
    plan = pruner.plan(rates)
    assert plan.skipped == (SkippedModule("b", "a", "b"),)
    assert {e.layer: e.outcome for e in plan.layers if e.layer.startswith("b")} == dict.fromkeys(
        ("b1", "b2"), "its module 'b' is left out"
    )
    assert pruner.reasons(rates)["b1"] == "its module 'b' is left out"
    assert plan.statistics()["modules left out"] == 1
    assert plan.statistics()["filters removed"] == 3


def test_a_plan_is_applied_to_other_weights(oracles: ModuleType) -> None:
    plan = BlockPruner.of(RESIDUAL).plan({"a": SKIP, "b": 0.5, "c": SKIP})
    other = replace(RESIDUAL, modules=())
    network = materialize(other, PruningPlan.from_json(plan.to_json()))
    assert_right(oracles, BlockPruner.of(RESIDUAL), plan, network)


def test_keep_sets_of_a_module_that_goes_go_with_it() -> None:
    once = BlockPruner.of(RESIDUAL).materialize(BlockPruner.of(RESIDUAL).plan({"a": 0.5, "b": 0.5}))
    assert stored_keep_sets(once.metadata).keys() == {"a1", "b1"}
    pruner = BlockPruner.of(once)
    twice = pruner.materialize(pruner.plan({"a": SKIP}))
    assert stored_keep_sets(twice.metadata).keys() == {"b1"}
    assert BlockPruner.of(twice).unskippable == {"a": "nothing is left of it"}


def with_module(text: str, entry: str, exit_: str) -> Model:
    """The network of a text whose weights are ones, with a module m."""
    shapes = re.compile(r"float\[([\d,]+)\] (\w)(?=[,>\s]*[,>])")

    def filled(match: re.Match[str]) -> str:
        size = int(np.prod(list(map(int, match[1].split(",")))))
        return f"float[{match[1]}] {match[2]} = {{{','.join('1' * size)}}}"

    model = parse_text(f'<ir_version: 8, opset_import: ["" : 18]> {shapes.sub(filled, text)}')
    return replace(model, modules=(Module("m", entry, exit_),))


REFUSED: dict[str, tuple[Model, str]] = {
    "another shape": (
        with_module(
            """g (float[N,2,4,4] x) => (float[N,3,4,4] y) <float[4,2,1,1] u, float[3,4,1,1] v>
          { [u] a = Conv(x, u) r = Relu(a) [v] c = Conv(r, v) y = Relu(c) }""",
            "x",
            "c",
        ),
        "its entry 'x' is 1x2x4x4, its exit 'c' 1x3x4x4",
    ),
    "the same only where the images are of one size": (
        with_module(
            """g (float[N,2,H,W] x) => (float[N,2,224,224] y) <float[4,2,1,1] u, float[2,4,1,1] v,
            int64[2] sizes = {224, 224}>
          { [u] a = Conv(x, u) r = Resize<axes = [2, 3], mode = "nearest">(a, , , sizes) [v] c = Conv(r, v)
            y = Relu(c) }""",
            "x",
            "c",
        ),
        "its entry 'x' is 2x2x256x256, its exit 'c' 2x2x224x224",
    ),
    "another type": (
        with_module(
            """g (uint8[N,2,4,4] x) => (float[N,2,4,4] y) <float[4,2,1,1] u, float[2,4,1,1] v>
          { f = Cast<to = 1>(x) [u] a = Conv(f, u) r = Relu(a) [v] c = Conv(r, v) y = Relu(c) }""",
            "x",
            "c",
        ),
        "its entry 'x' is uint8, its exit 'c' float32",
    ),
    "a second output": (
        with_module(
            """g (float[N,2,4,4] x) => (float[N,2,4,4] y, float[N,4,4,4] r) <float[4,2,1,1] u, float[4,4,1,1] w,
            float[2,4,1,1] v>
          { [u] a = Conv(x, u) r = Relu(a) [w] b = Conv(r, w) [v] c = Conv(b, v) y = Relu(c) }""",
            "x",
            "c",
        ),
        "it has a second output beside 'c': 'r', for an output of the network",
    ),
    "a chain": (
        with_module(
            """g (float[N,2,4,4] x) => (float[N,1,4,4] y) <float[2,2,1,1] u, float[2,2,1,1] v, float[1,2,1,1] w>
          { [u] a = Conv(x, u) b = Relu(a) [v] c = Conv(b, v) d = Relu(c) [w] y = Conv(d, w) }""",
            "b",
            "d",
        ),
        "in a chain of layers each goes on with what is left of the one before it",
    ),
}


@pytest.mark.parametrize(("model", "reason"), REFUSED.values(), ids=REFUSED)
def test_what_cannot_be_left_out(model: Model, reason: str) -> None:
    pruner = BlockPruner.of(model)
    assert pruner.unskippable == {"m": reason}
    assert pruner.skippable == ()
    for ask in (pruner.plan, pruner.kept):
        with pytest.raises(WootzError) as refused:
            ask({"m": SKIP})
        assert str(refused.value) == f"module 'm' can't be left out: {reason}"


def test_a_module_of_which_nothing_can_be_pruned_is_left_out(oracles: ModuleType) -> None:
    """Its convolution has one filter for each of the channels that it is added to."""
    model = with_module(
        """g (float[N,2,4,4] x) => (float[N,2,4,4] y) <float[2,2,1,1] u, float[2,2,1,1] v>
          { [u] a = Conv(x, u) b = Add(a, x) [v] y = Conv(b, v) }""",
        "x",
        "b",
    )
    pruner = BlockPruner.of(model)
    assert not pruner.can_prune
    plan = pruner.plan({"m": SKIP})
    assert_right(oracles, pruner, plan, pruner.materialize(plan))


def test_a_convolution_is_not_left_out() -> None:
    with pytest.raises(WootzError, match=r"1\.0 is not a pruning rate"):
        BlockPruner.of(RESIDUAL).plan({"a": (SKIP,)})


@pytest.mark.parametrize(
    ("module", "reason"),
    [
        (SkippedModule("q", "a", "nowhere"), "there is no tensor 'nowhere' in the graph"),
        (SkippedModule("q", "b", "a"), "'a' isn't computed from 'b'"),
        (SkippedModule("q", "x", "stem"), "its entry 'x' is 1x3x5x5, its exit 'stem' 1x4x5x5"),
    ],
)
def test_a_plan_that_does_not_fit_is_refused(module: SkippedModule, reason: str) -> None:
    plan = replace(BlockPruner.of(RESIDUAL).plan({}), skipped=(module,))
    with pytest.raises(WootzError, match=f"the plan leaves out module 'q': .*({reason})"):
        materialize(RESIDUAL, plan)


def test_a_plan_that_prunes_one_end_of_what_it_leaves_out_is_refused() -> None:
    model = parse_text("""<ir_version: 8, opset_import: ["" : 18]> g (float[N,1,2,2] x) => (float[N,1,2,2] y)
      <float[2,1,1,1] u = {1,2}, float[2,2,1,1] v = {1,2,3,4}, float[1,2,1,1] w = {1,2}>
      { [u] a = Conv(x, u) [v] b = Conv(a, v) [w] y = Conv(b, w) }""")
    plan = BlockPruner.of(replace(model, modules=(Module("m", "x", "b"),))).plan({"m": 0.5})
    assert [len(entry.keep) for entry in plan.layers] == [1, 2, 1]
    with pytest.raises(WootzError, match="the plan leaves out module 'q': 'a' and 'b' keep different channels"):
        materialize(model, replace(plan, skipped=(SkippedModule("q", "a", "b"),)))


@pytest.mark.parametrize("text", ['{"layers": [], "skipped": [{"name": "m"}]}', '{"layers": [], "skipped": [3]}',
                                  '{"layers": [], "skipped": [{"name": "m", "entry": 1, "exit": "b"}]}'])  # fmt: skip
def test_what_is_no_plan(text: str) -> None:
    with pytest.raises(WootzError, match="not a pruning plan"):
        PruningPlan.from_json(text)


def test_the_check_sees_a_module_that_was_not_left_out_or_another_one() -> None:
    pruner = BlockPruner.of(RESIDUAL)
    plan = pruner.plan({"b": SKIP})
    for rates in ({}, {"b": 0.5}, {"c": SKIP}):
        with pytest.raises(WootzError, match="the pruned network is not the original"):
            check_pruned(RESIDUAL, pruner.materialize(pruner.plan(rates)), plan, evaluate, pruner.analysis)


@pytest.mark.parametrize("skipped", ["a", "b", "c", "ab", "bc", "abc"])
def test_what_is_left_of_modules_goes_where_nobody_asks_for_their_names(skipped: str) -> None:
    pruner = BlockPruner.of(RESIDUAL)
    network = pruner.materialize(pruner.plan(dict.fromkeys(skipped, SKIP)))
    simple = without_skipped(network)
    verify(simple)
    assert not any(node.op == "Identity" for node in simple.graph.nodes)
    assert [m.name for m in simple.modules] == [name for name in "abc" if name not in skipped]
    assert BlockPruner.of(simple).skippable == tuple(m.name for m in simple.modules)
    feeds = {"x": np.random.default_rng(0).standard_normal((2, 3, 5, 5)).astype(np.float32)}
    np.testing.assert_array_equal(evaluate(simple, feeds)["y"], evaluate(network, feeds)["y"])


@pytest.mark.parametrize(("skipped", "identities"), [("a", 0), ("b", 0), ("ab", 1)])
def test_modules_between_input_and_output(skipped: str, identities: int, oracles: ModuleType) -> None:
    """The tensors of the interface keep their names: where nothing else is left, an Identity is."""
    model = residual("ab")
    graph = model.graph
    tensors = graph.tensors()
    graph.inputs, graph.outputs = [tensors["stem"]], [tensors["b"]]
    for name in ("stem", "b"):
        tensors[name].dtype, tensors[name].shape = np.dtype(np.float32), ["N", 4, 5, 5]
    graph.nodes = [n for n in graph.nodes if n.outputs[0].name[0] in "ab"]
    tensors["stem"].inputs.clear()
    verify(model)
    pruner = BlockPruner.of(model)
    plan = pruner.plan(dict.fromkeys(skipped, SKIP))
    network = pruner.materialize(plan)
    assert_right(oracles, pruner, plan, network)
    simple = without_skipped(network)
    assert sum(node.op == "Identity" for node in simple.graph.nodes) == identities
    assert_right(oracles, pruner, plan, simple)
    check_pruned(model, simple, plan, evaluate)


def test_a_network_without_a_module_trains() -> None:
    pruner = BlockPruner.of(RESIDUAL)
    network = pruner.materialize(pruner.plan({"b": SKIP, "a": 0.5}))
    simple = without_skipped(network)
    feeds = np.random.default_rng(0).standard_normal((4, 3, 5, 5)).astype(np.float32)
    labels = np.arange(4)
    trained = []
    for model in (network, simple):
        session = TrainingSession(build_training_graph(model, Solver(base_lr=0.1)), Device(threads=1))
        losses = [float(np.asarray(session.step(feeds, labels, 0.1)).sum()) for _ in range(3)]
        assert losses[2] < losses[0]
        trained.append(session.weights())
    assert trained[0].keys() == trained[1].keys()
    for name, weight in trained[0].items():
        np.testing.assert_allclose(weight, trained[1][name], atol=1e-6)
        assert not np.array_equal(weight, constants(network.graph)[name])


def test_a_student_has_the_modules_that_are_there() -> None:
    pruner = BlockPruner.of(RESIDUAL)
    block = TuningBlock((Symbol(0, SKIP), Symbol(1, 0.5), Symbol(2, SKIP)))
    assert pruner.rates_of(block) == {"a": SKIP, "b": 0.5, "c": SKIP}
    student = pruner.student(block).model
    verify(student)
    assert ([t.name for t in student.graph.inputs], [t.name for t in student.graph.outputs]) == (["stem"], ["c"])
    assert constants(student.graph).keys() == {"b1", "b2"}
