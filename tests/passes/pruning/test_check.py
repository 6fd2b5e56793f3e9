"""A pruned network is seen to work before it is handed out: faults planted in the pruner are found, rounding is not."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import pytest

from wootz.passes.errors import WootzError
from wootz.passes.ir.model import Constant, Model, constants
from wootz.passes.ir.text import parse_text
from wootz.passes.plan.pruning import PruningPlan
from wootz.passes.pruning.check import check_pruned
from wootz.passes.pruning.materializer import materialize
from wootz.passes.pruning.planner import Planner
from wootz.runtime.session import evaluate


def filled(text: str, **shapes: tuple[int, ...]) -> Model:
    """The network of `text`, in which WEIGHTS are declared with random values of these shapes."""
    generator = np.random.default_rng(5)
    declared = []
    for name, shape in shapes.items():
        values = generator.standard_normal(int(np.prod(shape))).astype(np.float32)
        positive = np.abs(values) + np.float32(0.5) if name.startswith("var") else values
        declared.append(f"float[{','.join(map(str, shape))}] {name} = {{{','.join(map(repr, positive.tolist()))}}}")
    return parse_text(f'<ir_version: 8, opset_import: ["" : 18]>\n{text.replace("WEIGHTS", ", ".join(declared))}')


CHAIN = filled(
    """g (float[N,3,H,W] x) => (float[N,2,H,W] y) <WEIGHTS> {
      [one] a = Conv(x, w1, b1)
      [norm] b = BatchNormalization(a, s, t, mean, var)
      [gate] c = Sigmoid(b)
      [two] d = Conv(c, w2, b2)
      [swap] e = Transpose<perm = [0, 2, 3, 1]>(d)
      [three] f = MatMul(e, w3)
      [back] h = Transpose<perm = [0, 3, 1, 2]>(f)
      [four] y = Conv(h, w4)
    }""",
    w1=(8, 3, 1, 1),
    b1=(8,),
    s=(8,),
    t=(8,),
    mean=(8,),
    var=(8,),
    w2=(6, 8, 1, 1),
    b2=(6,),
    w3=(6, 4),
    w4=(2, 4, 1, 1),
)


def pruned(model: Model, rate: float = 0.5) -> tuple[Model, PruningPlan]:
    planner = Planner.of(model)
    plan = planner.plan(dict.fromkeys(range(len(planner.cells)), rate))
    assert plan.is_pruned
    return materialize(model, plan), plan


def test_a_right_network_passes() -> None:
    network, plan = pruned(CHAIN)
    found = check_pruned(CHAIN, network, plan, evaluate)
    assert (found.compared, found.skipped) == (4, "")  # three layers inside, and the output


def swapped(values: np.ndarray) -> np.ndarray:
    return values[[1, 0, *range(2, len(values))]]


FAULTS: dict[str, tuple[str, Callable[[np.ndarray], np.ndarray], str]] = {
    "the first values of a bias instead of those that stay": ("b1", lambda v: constants(CHAIN.graph)["b1"][:4], "'a'"),
    "two filters swapped": ("w1", swapped, "'a'"),
    "two biases swapped": ("b1", swapped, "'a'"),
    "a mean not sliced alike": ("mean", lambda v: constants(CHAIN.graph)["mean"][:4], "'d'"),
    "a scale forgotten": ("s", np.ones_like, "'d'"),
    "two inputs of the next layer swapped": ("w2", lambda v: v[:, [1, 0, 2, 3]], "'d'"),
    "rows of a matrix swapped": ("w3", swapped, "'f'"),
    "the last layer slightly wrong": ("w4", lambda v: v * np.float32(1 + 1e-4), "'y'"),
    "a filter too many": ("w1", lambda v: np.concatenate([v, v[:1]]), "BatchNormalization 'norm'"),
    "a bias not sliced": ("b1", lambda v: constants(CHAIN.graph)["b1"], "'a'"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_found_and_named(fault: str) -> None:
    weight, change, where = FAULTS[fault]
    network, plan = pruned(CHAIN)
    tensor = network.graph.tensors()[weight]
    assert isinstance(tensor, Constant)
    tensor.values = np.ascontiguousarray(change(tensor.values))
    with pytest.raises(WootzError, match=f"the pruned network is not the original without .*: .*({where})"):
        check_pruned(CHAIN, network, plan, evaluate)


def test_what_was_kept_has_to_be_what_the_plan_says() -> None:
    network, plan = pruned(CHAIN)
    other = Planner.of(CHAIN, "random", seed=3)
    rates = dict.fromkeys(range(len(other.cells)), 0.5)
    with pytest.raises(WootzError, match="'a' is the first tensor that differs"):
        check_pruned(CHAIN, network, other.plan(rates), evaluate)
    assert plan != other.plan(rates)


def test_rounding_is_no_fault() -> None:
    """A difference of large numbers, and a BatchNormalization of tiny variance: float32 keeps two or three digits."""
    model = filled(
        """g (float[N,3,8,8] x) => (float[N,2,8,8] y) <WEIGHTS, float[8] far = {3e4,3e4,3e4,3e4,3e4,3e4,3e4,3e4},
          float[8] one = {1,1,1,1,1,1,1,1}, float[8] tiny = {1e-9,1e-9,1e-9,1e-9,1e-9,1e-9,1e-9,1e-9}> {
          [one] a = Conv(x, w1, far)
          [norm] b = BatchNormalization<epsilon = 1e-12>(a, one, one, far, tiny)
          [two] y = Conv(b, w2)
        }""",
        w1=(8, 3, 3, 3),
        w2=(2, 8, 3, 3),
    )
    text = model.copy()
    text.graph.nodes[0].attrs["pads"] = text.graph.nodes[2].attrs["pads"] = [1, 1, 1, 1]
    network, plan = pruned(text)
    assert not check_pruned(text, network, plan, evaluate).skipped


def test_what_decides_is_given_the_same_decisions() -> None:
    """Rounding would give other integers now and then, and so would TopK; noise is drawn anew each time."""
    model = filled(
        """g (float[N,3,16,16] x) => (float[N,2,16,16] y, int64[5] which) <WEIGHTS, float scale = {0.001},
          uint8 zero = {128}, int64[1] five = {5}, int64[1] flat = {-1}> {
          [one] a = Conv(x, w1)
          q = QuantizeLinear(a, scale, zero)
          b = DequantizeLinear(q, scale, zero)
          n = RandomNormal<shape = [1, 1, 16, 16]>()
          c = Add(b, n)
          d = Round(c)
          [two] y = Conv(d, w2)
          line = Reshape(y, flat)
          best, which = TopK<axis = 0>(line, five)
        }""",
        w1=(8, 3, 1, 1),
        w2=(2, 8, 1, 1),
    )
    network, plan = pruned(model)
    found = check_pruned(model, network, plan, evaluate)
    assert not found.skipped
    assert found.compared == 4  # a, c (which Round reads), y, line
    network.graph.tensors()["w2"].values = network.graph.tensors()["w2"].values + np.float32(0.01)
    with pytest.raises(WootzError, match="'y' is the first tensor that differs"):
        check_pruned(model, network, plan, evaluate)


def test_bytes_and_several_inputs() -> None:
    model = filled(
        """g (uint8[N,3,H,W] image, float[N,3,H,W] other) => (float[N,2,H,W] y) <WEIGHTS> {
          pixels = Cast<to = 1>(image)
          sum = Add(pixels, other)
          [one] a = Conv(sum, w1)
          [two] y = Conv(a, w2)
        }""",
        w1=(8, 3, 1, 1),
        w2=(2, 8, 1, 1),
    )
    network, plan = pruned(model)
    assert check_pruned(model, network, plan, evaluate).compared == 2


def test_a_size_that_the_network_runs_on_is_found() -> None:
    model = filled(
        """g (float[N,1,H,W] x) => (float[N,3] y) <WEIGHTS> {
          [one] a = Conv<strides = [112, 112]>(x, w1)
          flat = Flatten(a)
          [two] y = Gemm<transB = 1>(flat, w2)
        }""",
        w1=(8, 1, 1, 1),
        w2=(3, 32),
    )
    network, plan = pruned(model)
    sizes: list[tuple[int, ...]] = []

    def watched(network: Model, feeds: Mapping[str, np.ndarray]) -> Mapping[str, np.ndarray]:
        sizes.append(feeds["x"].shape)
        return evaluate(network, feeds)

    assert not check_pruned(model, network, plan, watched).skipped
    assert sizes == [(2, 1, 64, 64), (1, 1, 64, 64), (1, 1, 224, 224), (1, 1, 224, 224)]


def test_what_cannot_be_run_is_said_and_its_shapes_are_checked() -> None:
    model = filled(
        """g (float[N,3,8,8] x) => (float[N,2,8,8] y) <WEIGHTS> {
          strange = my.domain.Strange(x)
          [one] a = Conv(x, w1)
          [two] b = Conv(a, w2)
          y = Add(b, strange)
        }""".replace("my.domain.Strange", "Strange"),
        w1=(8, 3, 1, 1),
        w2=(2, 8, 1, 1),
    )
    model.graph.nodes[0].domain = "my.domain"
    network, plan = pruned(model)
    found = check_pruned(model, network, plan, evaluate)
    assert found.compared == 0
    assert "the unpruned network can't be run on random inputs: ONNX Runtime: " in found.skipped
    network.graph.tensors()["w1"].values = constants(model.graph)["w1"]
    with pytest.raises(WootzError, match=r"'a' has shape|Conv"):
        check_pruned(model, network, plan, evaluate)


@pytest.mark.parametrize(
    ("size", "kernel", "reason"),
    [
        (20000, 1, "its tensors have 7.2 billion elements, more than 1"),
        (2000, 15, "multiply-accumulates, more than 50"),
    ],
)
def test_too_much_work_is_not_done(size: int, kernel: int, reason: str) -> None:
    model = filled(
        f"""g (float[1,8,{size},{size}] x) => (float y) <WEIGHTS> {{
          [one] a = Conv(x, w1)
          [two] b = Conv(a, w2)
          y = ReduceMax<keepdims = 0>(b)
        }}""",
        w1=(8, 8, kernel, kernel),
        w2=(2, 8, 1, 1),
    )
    planner = Planner.of(model)
    found = check_pruned(model, model, planner.plan({}), evaluate)
    assert reason in found.skipped
    assert found.compared == 0


def test_constant_channels_go_with_those_that_they_are_added_to() -> None:
    """A shortcut of CIFAR's ResNets: padded with channels of zeros."""
    model = filled(
        """g (float[N,3,8,8] x) => (float[N,2,8,8] y) <WEIGHTS, int64[8] pads = {0, 2, 0, 0, 0, 2, 0, 0}> {
          [one] a = Conv(x, w1)
          [pad] p = Pad(a, pads)
          [two] b = Conv(a, w2)
          c = Add(p, b)
          [three] y = Conv(c, w3)
        }""",
        w1=(4, 3, 1, 1),
        w2=(8, 4, 1, 1),
        w3=(2, 8, 1, 1),
    )
    network, plan = pruned(model)
    assert not check_pruned(model, network, plan, evaluate).skipped


@pytest.mark.parametrize("dtype", ["float16", "float64", "bfloat16"])
def test_other_floats_are_checked_in_float32(dtype: str) -> None:
    """ONNX Runtime convolves neither float64 nor bfloat16 on the CPU."""
    if dtype == "bfloat16":
        pytest.importorskip("ml_dtypes")  # gives NumPy the type
    model = CHAIN.copy()
    for tensor in model.graph.tensors().values():
        if isinstance(tensor, Constant):
            tensor.values = tensor.values.astype(dtype)
        elif tensor.dtype is not None:
            tensor.dtype = np.dtype(dtype)
    network, plan = pruned(model)
    assert not check_pruned(model, network, plan, evaluate).skipped
    network.graph.tensors()["w4"].values = (network.graph.tensors()["w4"].values * 1.05).astype(dtype)
    with pytest.raises(WootzError, match="'y' is the first tensor that differs"):
        check_pruned(model, network, plan, evaluate)


def test_other_floats_in_attributes() -> None:
    model = parse_text("""<ir_version: 8, opset_import: ["" : 18]>
      g (float16[1,2,4,4] x) => (float y) <float16[2,2,1,1] w = {1,2,3,4}, float16[1,2,1,1] v = {1,2},
      int64[1] n = {4}> {
        [one] a = Conv(x, w)
        c = ConstantOfShape<value: tensor = float16[1] {2}>(n)
        b = Add(a, c)
        [two] d = Conv(b, v)
        e = Cast<to = 1>(d)
        y = ReduceMax<keepdims = 0>(e)
      }""")
    network, plan = pruned(model)
    assert not check_pruned(model, network, plan, evaluate).skipped
