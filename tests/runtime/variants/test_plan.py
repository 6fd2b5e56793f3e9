"""What is computed when, how long it is kept, and what all of it takes."""

from __future__ import annotations

from dataclasses import replace

import pytest

from wootz.passes.analysis.cost import layer_costs, macs
from wootz.passes.ir.model import Model, is_constant
from wootz.runtime.variants import plan as plan_module
from wootz.runtime.variants.plan import Part, VariantPlan


@pytest.fixture
def plan(case):
    return VariantPlan.of(case.full, case.variants)


def test_each_node_of_the_full_network_is_in_one_stage(case, plan):
    nodes = [name for stage in plan.stages for name in stage.part.nodes]
    assert sorted(nodes) == sorted(node.outputs[0].name for node in case.full.graph.nodes)


def test_what_is_needed_is_there_and_nothing_else_is_kept(plan):
    there = {plan.network.input}
    for i, stage in enumerate(plan.stages):
        assert there.issuperset(stage.part.inputs)
        there.update(stage.part.outputs)
        now = {name for group in stage.groups for name in group.needs}
        assert there >= now
        later = {name for s in plan.stages[i + 1 :] for name in s.part.inputs}
        later |= {name for s in plan.stages[i + 1 :] for group in s.groups for name in group.needs}
        if stage is plan.stages[-1]:
            assert there >= set(plan.network.outputs)
            assert not stage.part.kept
        else:
            assert now | later | set(plan.network.outputs) >= set(stage.part.outputs)
            there &= stage.part.kept
            assert later | set(plan.network.outputs) >= there


@pytest.mark.parametrize("largest", [0, plan_module.LARGEST_SUFFIXES])
def test_suffixes_compute_the_output_and_keep_nothing_else(case, largest, monkeypatch):
    monkeypatch.setattr(plan_module, "LARGEST_SUFFIXES", largest)
    plan = VariantPlan.of(case.full, case.variants)
    for group in plan.groups:
        there = {*group.needs, *group.exits}
        for i, part in enumerate(group.suffix):
            assert there.issuperset(part.inputs)
            there = (there | set(part.outputs)) & {*part.kept, *plan.network.outputs}
            assert there - set(plan.network.outputs) <= {
                name for later in group.suffix[i + 1 :] for name in later.inputs
            }
        assert not {*plan.network.outputs}.isdisjoint(there if group.suffix else group.exits)


def test_suffixes_that_would_hold_too_many_weights_have_joints(case_of, monkeypatch):
    """As few as it takes: with one at each place, each layer is in one program."""
    case = case_of("unet")
    programs, joints, passes = {}, {}, []
    for share in (1, 0.6, 0):
        monkeypatch.setattr(plan_module, "LARGEST_SUFFIXES", share * programs.get(1, 1e9))
        plan = VariantPlan.of(case.full, case.variants)
        programs[share] = weights_of_programs(plan)
        joints[share] = sum(len(group.suffix) - 1 for group in plan.groups if group.suffix)
        passes.append(plan.passes)
    assert passes == pytest.approx(passes[:1] * 3)
    assert joints[1] == 0 < joints[0.6] < joints[0]
    assert programs[0.6] <= 0.6 * programs[1]
    suffixes = {name for group in plan.groups for part in group.suffix for name in part.nodes}
    assert programs[0] == sum(weights(plan, name) for name in suffixes)


def weights_of_programs(plan: VariantPlan[str]) -> int:
    parts = {(part.nodes, part.outputs) for group in plan.groups for part in group.suffix}
    return sum(weights(plan, name) for nodes, _ in parts for name in nodes)


def weights(plan: VariantPlan[str], node: str) -> int:
    return sum(t.values.nbytes for t in plan.network.nodes[node].inputs if is_constant(t))


def test_passes_are_the_full_network_and_what_depends_on_the_changes(case_of):
    case = case_of("chain")
    plan = VariantPlan.of(case.full, case.variants)
    first = {"m1": "m1.a", "m2": "m2.a", "m3": "m3.a"}
    expected = 1.0
    for key, variant in case.variants.items():
        module, _, what = key.partition(" ")
        begin = {"two": "m1.b", "all": "stem"}.get(key, first.get(module))
        if what == "skipped":
            begin = {"m1": "m2.a", "m2": "m3.a", "m3": "scores"}[module]
        if key != "same":
            expected += macs_from(variant, begin) / macs(case.full)
    assert plan.passes == pytest.approx(expected)
    assert plan.same == ("same",)


def macs_from(model: Model, layer: str) -> int:
    costs = layer_costs(model)
    first = next(i for i, cost in enumerate(costs) if cost.name == layer)
    return sum(cost.macs for cost in costs[first:])


def test_variants_that_end_at_the_same_tensors_are_one_group(case_of):
    """Pruned, retrained or left out: behind a module, all of its variants go on alike."""
    case = case_of("residual")
    variants = {key: model for key, model in case.variants.items() if key.startswith("m")}
    plan = VariantPlan.of(case.full, variants)
    assert [sorted(group.regions) for group in plan.groups] == [
        [f"{module} {what}" for what in ("pruned", "retrained", "skipped")] for module in ("m1", "m2", "m3")
    ]
    assert [group.exits for group in plan.groups] == [("m1.sum.relu",), ("m2.sum.relu",), ("flat",)]
    assert plan.stages[0].part.kept == {"m1.sum.relu"}


def test_groups_that_need_the_same_share_a_stage(case_of):
    """Two parts of the network's end, the second within the first."""
    case = case_of("chain")
    plan = VariantPlan.of(case.full, {"a": case.variants["all"], "b": replace(case.variants["all"])})
    assert [len(stage.groups) for stage in plan.stages] == [1]
    assert plan.passes == pytest.approx(3)
    assert isinstance(plan.stages[0].part, Part)
