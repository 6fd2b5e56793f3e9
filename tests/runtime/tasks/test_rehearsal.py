"""What fails before anything is trained, and that it is cheap."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from wootz.passes.errors import WootzError
from wootz.passes.ir.text import parse_text
from wootz.passes.plan.solver import Solver
from wootz.passes.plan.transform import InputTransform
from wootz.runtime.data.dataset import Dataset
from wootz.runtime.session import Device
from wootz.runtime.store import Store
from wootz.runtime.tasks.rehearsal import check_batches, representatives, structure
from wootz.runtime.tasks.trainer import Trainer

AS_THEY_ARE = InputTransform(channel_order="RGB")
ONE_THREAD = Device(threads=1)
HEADER = '<ir_version: 8, opset_import: ["" : 18]>'
CONFIGURATIONS = st.integers(1, 5).flatmap(
    lambda modules: st.lists(st.tuples(*[st.sampled_from([0.0, 0.3, 0.5, 0.7])] * modules), min_size=1, max_size=30)
)


@given(CONFIGURATIONS)
def test_representatives_have_each_module_at_each_of_its_rates(configurations):
    chosen = representatives(configurations, most=len(configurations))
    assert {s for i in chosen for s in enumerate(configurations[i])} == {
        s for c in configurations for s in enumerate(c)
    }
    assert len(set(chosen)) == len(chosen)
    assert representatives(configurations, most=2) == chosen[:2]


def test_representatives_are_few():
    rates = (0.3, 0.5, 0.7)
    configurations = [tuple(rates[(i // 3**m) % 3] for m in range(5)) for i in range(243)]
    assert len(representatives(configurations)) <= 5


def test_networks_of_other_sizes_have_the_same_structure():
    assert structure((0.3, 0.0, 1.0, (0.5, 0.0))) == structure((0.125, 0.0, 1.0, (0.3, 0.0)))
    different = [(0.3, 0.0), (0.0, 0.3), (0.3, 1.0), (0.3, 0.3), ((0.3, 0.0), 0.3), ((0.3, 0.3), 0.3)]
    assert len({structure(configuration) for configuration in different}) == len(different)


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ("y = Flatten(x)", None),
        ("m = ReduceMean<keepdims = 1>(x) c = Sub(x, m) y = Flatten(c)", "other scores for 3 images at once"),
        ("y = Reshape(x, fixed)", "can't be run on 3 images at once and one by one: ONNX Runtime: "),
        ("f = Flatten(x) m = ReduceMean<keepdims = 1>(f, first) y = Add(f, m)", "other scores for 3 images at once"),
        ("f = Flatten(x) y = Softmax<axis = 0>(f)", "other scores for 3 images at once"),
    ],
)
def test_each_image_has_to_be_scored_for_itself(split, body, reason):
    model = parse_text(
        f"{HEADER} g (float[N,2,4,4] x) => (float[M,32] y) <int64[2] fixed = {{1,32}}, int64[1] first = {{0}}> "
        f"{{ {body} }}"
    )
    if reason is None:
        check_batches(model, split, AS_THEY_ARE, ONE_THREAD)
        return
    with pytest.raises(WootzError, match=reason):
        check_batches(model, split, AS_THEY_ARE, ONE_THREAD)


def test_a_network_of_scores_that_are_no_numbers_is_no_matter_of_batches(split):
    model = parse_text(f"{HEADER} g (float[N,2,4,4] x) => (float[M,32] y) {{ l = Log(x) y = Flatten(l) }}")
    check_batches(model, split, AS_THEY_ARE, ONE_THREAD)


@pytest.mark.parametrize("on_device", [False, True])
def test_a_rehearsal_keeps_nothing_and_changes_nothing(split, network, tmp_path, on_device):
    store = Store.open(tmp_path / "store")
    trainer = Trainer(
        Dataset(("dark", "bright"), split, split, None), AS_THEY_ARE, AS_THEY_ARE, "onnx", ONE_THREAD, store,
        data_on_device=on_device,
    )  # fmt: skip
    solver = Solver(base_lr=0.1, max_iter=10, batch_size=16, snapshot=1)
    before = {name: t.values.copy() for name, t in network.graph.tensors().items() if hasattr(t, "values")}
    trainer.rehearse(network, solver)
    assert not list((tmp_path / "store").rglob("*.entry"))
    assert not list(tmp_path.rglob("*.npz"))
    after = network.graph.tensors()
    assert all(np.array_equal(after[name].values, values) for name, values in before.items())


def test_a_rehearsal_finds_what_has_no_gradient(split, tmp_path):
    model = parse_text(
        f"{HEADER} g (float[N,2,4,4] x) => (float[N,2] y) <float[2,2,1,1] w = {{1,2,3,4}}> "
        f"{{ c = Conv(x, w) t = Sinh(c) p = GlobalAveragePool(t) y = Flatten(p) }}"
    )
    trainer = Trainer(
        Dataset(("dark", "bright"), split, split, None), AS_THEY_ARE, AS_THEY_ARE, "onnx", ONE_THREAD,
        Store.open(tmp_path),
    )  # fmt: skip
    with pytest.raises(WootzError, match=r"build-gradients: .*Sinh"):
        trainer.rehearse(model, Solver(batch_size=16))
