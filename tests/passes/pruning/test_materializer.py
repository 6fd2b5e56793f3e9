"""Plans that don't fit are refused, and what a plan removes leaves nothing behind."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from wootz.passes.errors import WootzError
from wootz.passes.ir.model import Model, constants
from wootz.passes.ir.text import parse_text
from wootz.passes.plan.pruning import LayerPlan, PruningPlan
from wootz.passes.pruning.check import check_pruned
from wootz.passes.pruning.materializer import materialize
from wootz.runtime.session import evaluate


def network(nodes: str, declared: str = "", **weights: tuple[int, ...]) -> Model:
    """From x[1,2,4,4] to y, with random weights."""
    generator = np.random.default_rng(7)
    constants = [declared] if declared else []
    for name, shape in weights.items():
        values = ",".join(f"{v:.4f}" for v in generator.standard_normal(int(np.prod(shape))))
        constants.append(f"float[{','.join(map(str, shape))}] {name} = {{{values}}}")
    head = '<ir_version: 8, opset_import: ["" : 18]> g (float[1,2,4,4] x) => (float y)'
    return parse_text(f"{head} <{', '.join(constants)}> {{ {nodes} }}")


def plan_of(**keep: tuple[int, Sequence[int]]) -> PruningPlan:
    """Layer = (its filters, those kept)."""
    return PruningPlan(tuple(LayerPlan(name, "", size, tuple(kept)) for name, (size, kept) in keep.items()))


TIED = network(
    "[a] s = Conv(x, wa) [b] t = Conv(x, wb) u = Add(s, t) [c] y = Conv(u, wc)",
    wa=(4, 2, 1, 1),
    wb=(4, 2, 1, 1),
    wc=(2, 4, 1, 1),
)
GROUPED = network(
    "[a] s = Conv(x, wa) [g] t = Conv<group = 2>(s, wg) [c] y = Conv(t, wc)",
    wa=(8, 2, 1, 1),
    wg=(8, 4, 1, 1),
    wc=(1, 8, 1, 1),
)


@pytest.mark.parametrize(
    ("model", "plan", "message"),
    [
        (
            TIED,
            plan_of(a=(4, [0, 1]), b=(4, [0, 2])),
            "the plan keeps a filter of '[ab]' and removes one of '[ab]' that is",
        ),
        (TIED, plan_of(a=(4, [0, 1])), "the plan keeps a filter of 'b' and removes one of 'a' that is tied to it"),
        (TIED, plan_of(c=(2, [0])), "the plan removes a locked filter of 'c': output 'y' of the network"),
        (TIED, plan_of(a=(5, [0])), "the plan is for 5 filters in 'a'; the model has 4"),
        (TIED, plan_of(z=(5, [0])), "the plan prunes a layer 'z' that the model doesn't have"),
        (TIED, plan_of(a=(4, []), b=(4, [])), "the keep-set of 'a' is not a sorted choice"),
        (TIED, plan_of(a=(4, [1, 0]), b=(4, [1, 0])), "the keep-set of 'a' is not a sorted choice"),
        (TIED, plan_of(a=(4, [0, 4]), b=(4, [0, 4])), "the keep-set of 'a' is not a sorted choice"),
        (GROUPED, plan_of(g=(8, [0, 1, 2, 4])), "unequal numbers of channels in the groups of a grouped convolution"),
        (GROUPED, plan_of(a=(8, [0, 1, 2, 4])), "unequal numbers of channels in the groups of a grouped convolution"),
    ],
)
def test_a_plan_that_does_not_fit_is_refused(model: Model, plan: PruningPlan, message: str) -> None:
    with pytest.raises(WootzError, match=message):
        materialize(model, plan)


def checked(model: Model, plan: PruningPlan) -> Model:
    pruned = materialize(model, plan)
    assert not check_pruned(model, pruned, plan, evaluate).skipped
    return pruned


def test_groups_lose_filters_of_their_own() -> None:
    pruned = checked(GROUPED, plan_of(a=(8, [0, 1, 5, 6]), g=(8, [1, 2, 4, 7])))
    assert constants(pruned.graph)["wg"].shape == (4, 2, 1, 1)


def test_a_split_into_equal_parts_becomes_one_of_stated_sizes() -> None:
    model = network(
        "[a] s = Conv(x, wa) p, q = Split<axis = 1, num_outputs = 2>(s) [b] t = Conv(p, wb) [d] u = Conv(q, wd) "
        "y = Add(t, u)",
        wa=(8, 2, 1, 1),
        wb=(2, 4, 1, 1),
        wd=(2, 4, 1, 1),
    )
    pruned = checked(model, plan_of(a=(8, [0, 4, 5, 6])))
    (split,) = (node for node in pruned.graph.nodes if node.op == "Split")
    assert "num_outputs" not in split.attrs
    assert split.inputs[1].values.tolist() == [1, 3]


@pytest.mark.parametrize(("start", "end"), [(2, 6), (-6, 2**31 - 1), (0, -3)])
def test_bounds_of_a_slice_count_what_is_left(start: int, end: int) -> None:
    size = len(range(8)[start:end])
    model = network(
        "[a] s = Conv(x, wa) t = Slice(s, from, to, axis) [b] u = Conv(t, wb) y = Relu(u)",
        f"int64[1] from = {{{start}}}, int64[1] to = {{{end}}}, int64[1] axis = {{1}}",
        wa=(8, 2, 1, 1),
        wb=(2, size, 1, 1),
    )
    kept = [0, 3, 4, 7]
    pruned = checked(model, plan_of(a=(8, kept)))
    assert constants(pruned.graph)["wb"].shape[1] == len(set(kept) & set(range(8)[start:end]))


def test_a_shared_vector_is_parted_where_its_readers_differ() -> None:
    model = network(
        "[a] s = Conv(x, wa, same) [b] t = Conv(s, wb, same) [c] y = Conv(t, wc)",
        wa=(4, 2, 1, 1),
        wb=(4, 4, 1, 1),
        wc=(1, 4, 1, 1),
        same=(4,),
    )
    pruned = checked(model, plan_of(a=(4, [0, 1]), b=(4, [2, 3])))
    biases = [node.inputs[2].values for node in pruned.graph.nodes[:2]]
    same = constants(model.graph)["same"]
    np.testing.assert_array_equal(biases, [same[:2], same[2:]])


def test_a_shuffle_replaced_by_a_gather_leaves_no_nodes() -> None:
    model = network(
        "[a] s = Conv(x, wa) p = Reshape(s, apart) q = Transpose<perm = [0, 2, 1, 3, 4]>(p) r = Reshape(q, together) "
        "[b] y = Conv(r, wb)",
        "int64[5] apart = {1,2,4,4,4}, int64[4] together = {1,8,4,4}",
        wa=(8, 2, 1, 1),
        wb=(2, 8, 1, 1),
    )
    pruned = checked(model, plan_of(a=(8, [0, 1, 2, 4])))
    assert [node.op for node in pruned.graph.nodes] == ["Conv", "Gather", "Conv"]


def test_a_weight_keeps_its_name_where_its_shape_is_read_too() -> None:
    """As exporters write a bias of zeros: weights of blocks are handed on by name."""
    model = network(
        "[a] s = Conv(x, wa) n = Shape(wb) f = Gather(n, first) z = Expand(zero, f) [b] t = Conv(s, wb, z) "
        "[c] y = Conv(t, wc)",
        "int64[1] first = {0}, float[1] zero = {0.0}",
        wa=(4, 2, 1, 1),
        wb=(4, 4, 1, 1),
        wc=(2, 4, 1, 1),
    )
    pruned = checked(model, plan_of(a=(4, [0, 2]), b=(4, [1, 2, 3])))
    of_convolution = next(node.inputs[1] for node in pruned.graph.nodes if node.name == "b")
    assert (of_convolution.name, of_convolution.values.shape) == ("wb", (3, 2, 1, 1))
