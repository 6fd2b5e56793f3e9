"""Graphs of the target `native`, in blocks of channels and with chains joined, train as those of the target `onnx`."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wootz.passes.base import PassResult
from wootz.passes.errors import WootzError
from wootz.passes.ir.model import producer
from wootz.passes.ir.text import parse_text
from wootz.passes.ir.verifier import verify
from wootz.passes.plan.blocks import Symbol, TuningBlock
from wootz.passes.plan.solver import Solver, SolverType
from wootz.passes.pruning.block_pruner import BlockPruner
from wootz.passes.training.block_convolutions import BLOCKS
from wootz.passes.training.blocked_layout import BlockedLayout
from wootz.passes.training.fuse_elementwise import OPERATIONS, FuseElementwise
from wootz.passes.training.joint_graph import joint_training_graph
from wootz.passes.training.lowerings.native import DOMAIN, uses_native
from wootz.passes.training.training_graph import build_training_graph
from wootz.passes.transforms.teacher_student import student_prefix
from wootz.runtime import session as session_module
from wootz.runtime.kernels import library
from wootz.runtime.session import Device, TrainingSession, channel_block, fastest_target

pytestmark = pytest.mark.skipif(
    fastest_target(Device()) != "native", reason="the operators of Wootz were not built here"
)

NETWORK = """g (float[N,{channels},9,9] x) => (float[N,3] y)
<{weights}>
{{
  [conv1] a = Conv<pads = [1,1,1,1], strides = [{stride},{stride}]>(x, w1)
  [bn1] b = BatchNormalization(a, s1, b1, m1, v1)
  [relu1] c = Relu(b)
  [conv2] d = Conv<pads = [1,1,1,1]>(c, w2)
  [bn2] e = BatchNormalization(d, s2, b2, m2, v2)
  [sum] h = Add(e, c)
  [relu2] i = Relu(h)
  [depthwise] j = Conv<pads = [1,1,1,1], group = {width}>(i, w3)
  [conv4] k = Conv<strides = [2,2]>(j, w4, c4)
  [bn4] l = BatchNormalization(k, s4, b4, m4, v4)
  [conv5] m = Conv<strides = [2,2]>(i, w5)
  [last] n = Add(l, m)
  [relu3] o = Relu(n)
  [pool] p = GlobalAveragePool(o)
  [flat] q = Flatten(p)
  [fc] y = Gemm<transB = 1>(q, f)
}}"""


def network(make_model, channels, width, wide, stride):
    """Convolutions of several kinds with a shortcut; strides, 1×1 and depthwise ones among them."""
    shapes = {
        "w1": (width, channels, 3, 3),
        "w2": (width, width, 3, 3),
        "w3": (width, 1, 3, 3),
        "w4": (wide, width, 1, 1),
        "c4": (wide,),
        "w5": (wide, width, 1, 1),
        "f": (3, wide),
    }
    extents = {"1": width, "2": width, "4": wide}
    shapes |= {f"{kind}{layer}": (extent,) for layer, extent in extents.items() for kind in "sbmv"}
    weights = ", ".join(f"float[{','.join(map(str, shape))}] {name}" for name, shape in shapes.items())
    variances = {f"v{layer}": np.full(extent, 0.5) for layer, extent in extents.items()}
    text = NETWORK.format(channels=channels, stride=stride, width=width, weights=weights)
    return make_model(text, **{**shapes, **variances})


def steps_of(graph, batches, threads=1):
    session = TrainingSession(graph, Device(threads=threads))
    losses = [float(session.step(x, labels, 0.05)[0]) for x, labels in batches]
    return losses, {s.input: session.read_slot(s.input) for s in session.interface.slots}


def batches_of(channels, count=3, images=6):
    random = np.random.default_rng(0)
    shape = (images, channels, 9, 9)
    return [(random.normal(size=shape).astype(np.float32), random.integers(0, 3, images)) for _ in range(count)]


SGD = Solver(momentum=0.9, weight_decay=0.01)


@settings(max_examples=12, deadline=None)
@given(
    channels=st.sampled_from([1, 3, 16, 20]),
    width=st.sampled_from([4, 8, 16, 24, 40]),
    wide=st.sampled_from([12, 32]),
    stride=st.sampled_from([1, 2]),
)
def test_steps_are_those_of_standard_operators(make_model, channels, width, wide, stride):
    model, batches = network(make_model, channels, width, wide, stride), batches_of(channels)
    losses, state = steps_of(build_training_graph(model, SGD), batches)
    found, found_state = steps_of(build_training_graph(model, SGD, target="native"), batches)
    np.testing.assert_allclose(found, losses, rtol=1e-4)
    assert state.keys() == found_state.keys()
    for name, values in state.items():
        assert np.abs(found_state[name] - values).max() <= 1e-3 * max(1.0, np.abs(values).max()), name


@pytest.mark.parametrize("kind", list(SolverType))
def test_every_optimizer(kind, make_model):
    """But for a bias before a batch normalization: its gradient is noise, which Adam and others enlarge."""
    momentum = 0.0 if kind in (SolverType.RMSPROP, SolverType.ADAGRAD) else 0.9
    solver = Solver(type=kind, momentum=momentum, weight_decay=0.01, clip_gradients=1.0, iter_size=2)
    model, batches = network(make_model, 3, 16, 32, 1), batches_of(3, count=4)
    losses, state = steps_of(build_training_graph(model, solver), batches)
    found, found_state = steps_of(build_training_graph(model, solver, target="native"), batches)
    np.testing.assert_allclose(found, losses, rtol=1e-3)
    for name, values in ((n, v) for n, v in state.items() if not n.startswith("c4")):
        assert np.abs(found_state[name] - values).max() <= 1e-2 * max(1.0, np.abs(values).max()), name


def test_the_same_bits_on_any_number_of_threads(make_model):
    graph = build_training_graph(network(make_model, 16, 16, 32, 1), SGD, target="native")
    device = Device(threads=3)
    assert device.order_of_sums(graph, 6) == ""
    losses, state = steps_of(graph, batches_of(16))
    found, found_state = steps_of(graph, batches_of(16), threads=3)
    assert losses == found
    for name, values in state.items():
        np.testing.assert_array_equal(found_state[name], values, name)


def test_joined_chains_change_no_bit(make_model, monkeypatch):
    graph = build_training_graph(network(make_model, 16, 16, 32, 1), SGD, target="native")
    losses, state = steps_of(graph, batches_of(16))
    monkeypatch.setattr(FuseElementwise, "apply", lambda _, model: PassResult(model, False))
    found, found_state = steps_of(graph, batches_of(16))
    assert losses == found
    for name, values in state.items():
        np.testing.assert_array_equal(found_state[name], values, name)


SUMS = {
    "a shortcut before it": ("c = Relu(b)  d = Add(b2, x)  o = Relu(d)", 1),
    "its operand in front": ("c = Relu(b)  d = Add(x, b2)  o = Relu(d)", 1),
    "no ReLU behind it": ("c = Relu(b)  o = Add(b2, c)", 1),
    "two normalizations": ("d = Add(b, b2)  o = Relu(d)", 1),
    "a sum that two nodes read": ("d = Add(b2, x)  e = Relu(d)  o = Add(d, e)", 1),
    "three of them": ("d = Add(b2, x)  o = Add(d, b)", 1),
    "the other operand behind it": ("c = Relu(b2)  d = Conv<pads = [1,1,1,1]>(x, w)  o = Add(b, d)", 0),
    "a normalization that two nodes read": ("c = Relu(b2)  d = Add(b2, x)  o = Add(d, c)", 0),
    "one value for all": ("o = Add(b2, one)", 0),
    "twice the same": ("o = Add(b2, b2)", 0),
    "the first image": (
        "z = Slice(x, none, first, none)  d = Conv<pads = [1,1,1,1]>(x, w)  c = Add(b2, z)  o = Mul(c, d)",
        0,
    ),
}


@pytest.mark.parametrize("case", SUMS)
@pytest.mark.parametrize("width", [4, 16])
def test_sums_with_a_normalization(case, width, make_model):
    """One node has both where the other operand is there before, and nothing else reads what is normalized."""
    text, joined = SUMS[case]
    names = ["w", "s", "t", "m", "v", "s2", "t2", "m2", "v2", "f"]
    shapes = dict.fromkeys(names, (width,)) | {"w": (width, width, 3, 3), "f": (3, width)}
    weights = ", ".join(f"float[{','.join(map(str, shapes[n]))}] {n}" for n in names)
    lines = f"""a = Conv<pads = [1,1,1,1]>(x, w)  b = BatchNormalization(a, s, t, m, v)
                a2 = Conv<pads = [1,1,1,1]>(x, w)  b2 = BatchNormalization(a2, s2, t2, m2, v2)  {text}
                p = GlobalAveragePool(o)  q = Flatten(p)  y = Gemm<transB = 1>(q, f)"""
    halves = {"v": np.full(width, 0.5), "v2": np.full(width, 0.5)}
    constants = "float one = {1}, int64[1] none = {0}, int64[1] first = {1}"
    graph = f"g (float[N,{width},9,9] x) => (float[N,3] y) <{weights}, {constants}> {{ {lines} }}"
    model = make_model(graph, **shapes | halves)
    native = build_training_graph(model, SGD, target="native")
    assert Counter(n.op for n in native.graph.nodes)["BatchNormalizationAdd"] == joined
    losses, state = steps_of(build_training_graph(model, SGD), batches_of(width))
    found, found_state = steps_of(native, batches_of(width))
    np.testing.assert_allclose(found, losses, rtol=1e-4)
    for name, values in state.items():
        assert np.abs(found_state[name] - values).max() <= 1e-3 * max(1.0, np.abs(values).max()), name


POOLINGS = {
    "between convolutions": "p = MaxPool<kernel_shape = [3,3], strides = [2,2], pads = [1,1,1,1]>(a)",
    "rounded up": "p = MaxPool<kernel_shape = [2,2], strides = [2,2], ceil_mode = 1>(a)",
    "dilated": "p = MaxPool<kernel_shape = [2,3], dilations = [2,1]>(a)",
    "with gaps": "p = MaxPool<kernel_shape = [2,2], strides = [3,3]>(a)",
    "of what is read twice": "p0 = MaxPool<kernel_shape = [3,3], pads = [1,1,1,1]>(a)  p = Mul(p0, a)",
    "of the images": "p0 = MaxPool<kernel_shape = [3,3], pads = [1,1,1,1]>(x)  p = Add(p0, a)",
}


@pytest.mark.parametrize("case", POOLINGS)
@pytest.mark.parametrize("width", [5, 16])
def test_max_pooling(case, width, make_model):
    text = f"""g (float[N,{width},9,9] x) => (float[N,3] y) <float[{width},{width},3,3] w, float[{width},{width},1,1] v,
      float[3,{width}] f>
    {{ c = Conv<pads = [1,1,1,1]>(x, w)  a = Relu(c)  {POOLINGS[case]}  d = Conv(p, v)  q = GlobalAveragePool(d)
       r = Flatten(q)  y = Gemm<transB = 1>(r, f) }}"""
    model = make_model(text, w=(width, width, 3, 3), v=(width, width, 1, 1), f=(3, width))
    native = build_training_graph(model, SGD, target="native")
    assert Counter(n.op for n in native.graph.nodes)["MaxPoolGrad"] == (case != "of the images")
    losses, state = steps_of(build_training_graph(model, SGD), batches_of(width))
    found, found_state = steps_of(native, batches_of(width))
    np.testing.assert_allclose(found, losses, rtol=1e-4)
    for name, values in state.items():
        assert np.abs(found_state[name] - values).max() <= 1e-3 * max(1.0, np.abs(values).max()), name


@pytest.mark.parametrize("axes", [1, 3])
def test_max_pooling_over_other_axes_behind_a_normalization(axes, make_model):
    size, kernel, ones = ",".join(["8"] * axes), ",".join(["3"] * axes), ",".join(["1"] * 2 * axes)
    text = f"""g (float[N,2,{size}] x) => (float[N,3] y)
    <float[4,2,{kernel}] w, float[4] s, float[4] t, float[4] m, float[4] v, float[3,4] f>
    {{ a = Conv<pads = [{ones}]>(x, w)  b = BatchNormalization(a, s, t, m, v)  c = Relu(b)
       p = MaxPool<kernel_shape = [{",".join(["2"] * axes)}], strides = [{",".join(["2"] * axes)}]>(c)
       q = GlobalAveragePool(p)  r = Flatten(q)  y = Gemm<transB = 1>(r, f) }}"""
    shapes = {"w": (4, 2, *[3] * axes), "f": (3, 4), "v": np.full(4, 0.5)} | dict.fromkeys("stm", (4,))
    model = make_model(text, **shapes)
    random = np.random.default_rng(0)
    batches = [(random.normal(size=(4, 2, *[8] * axes)).astype(np.float32), random.integers(0, 3, 4)) for _ in range(3)]
    losses, _ = steps_of(build_training_graph(model, SGD), batches)
    found, _ = steps_of(build_training_graph(model, SGD, target="native"), batches)
    np.testing.assert_allclose(found, losses, rtol=1e-4)


def test_gradients_that_meet_at_a_relu_are_added_and_masked_at_once(make_model):
    graph = build_training_graph(network(make_model, 16, 16, 32, 1), SGD, target="native")
    assert any(n.op == "ReluGrad" for n in graph.graph.nodes)
    joined = FuseElementwise().apply(graph).model
    assert not any(n.op == "ReluGrad" and producer(n.inputs[0]).op == "Add" for n in joined.graph.nodes)
    masks = [n for n in joined.graph.nodes if n.op == "Elementwise" and OPERATIONS["Where"] in n.attrs["program"][::4]]
    assert masks


def modules_that_begin_with_normalization(make_model, names, width):
    """Each reads its input in a normalization, a convolution, and nothing else; it ends with a sum."""
    lines, shapes, x = [], {"w": (width, 3, 3, 3), "f": (3, width)}, "stem"
    for m in names:
        lines += [
            f"[{m}_norm1] {m}a = BatchNormalization({x}, {m}s1, {m}b1, {m}m1, {m}v1)",
            f"[{m}_relu1] {m}b = Relu({m}a)",
            f"[{m}_conv1] {m}c = Conv<pads = [1,1,1,1]>({m}b, {m}w1)",
            f"[{m}_norm2] {m}d = BatchNormalization({m}c, {m}s2, {m}b2, {m}m2, {m}v2)",
            f"[{m}_relu2] {m}e = Relu({m}d)",
            f"[{m}_conv2] {m}g = Conv<pads = [1,1,1,1]>({m}e, {m}w2)",
            f"[{m}_short] {m}h = Conv({x}, {m}w3)",
            f"[{m}_sum] {m}i = Add({m}g, {m}h)",
        ]
        shapes |= {f"{m}w{i}": (width, width, k, k) for i, k in ((1, 3), (2, 3), (3, 1))}
        shapes |= {f"{m}{kind}{i}": (width,) for kind in "sbm" for i in (1, 2)}
        shapes |= {f"{m}v{i}": np.full(width, 0.5) for i in (1, 2)}
        x = f"{m}i"
    extents = {n: s if isinstance(s, tuple) else s.shape for n, s in shapes.items()}
    weights = ", ".join(f"float[{','.join(map(str, s))}] {n}" for n, s in extents.items())
    text = "\n".join(lines)
    return make_model(
        f"""g (float[N,3,8,8] x) => (float[N,3] y) <{weights}> {{
          [stem] stem = Conv<pads = [1,1,1,1]>(x, w)
          {text}
          [pool] p = GlobalAveragePool({x})  [flat] q = Flatten(p)  [fc] y = Gemm<transB = 1>(q, f) }}""",
        **shapes,
    )


def test_a_block_is_the_same_to_the_bit_beside_any_others(make_model):
    """What others read in blocks, or leave to ONNX Runtime of the teacher, changes no rounding: outcomes are stored."""
    pruner = BlockPruner.of(modules_that_begin_with_normalization(make_model, ("m1", "m2"), 32), "l1")
    blocks = [TuningBlock((Symbol(i, rate),)) for i in range(len(pruner.modules)) for rate in (0.3, 0.7)]
    assert len(blocks) == 4
    batches = [(x[:, :, :8, :8], None) for x, _ in batches_of(3)]
    _, together = steps_of(joint_training_graph(pruner, blocks, SGD, "native"), batches)
    for index, block in enumerate(blocks):
        _, alone = steps_of(joint_training_graph(pruner, [block], SGD, "native"), batches)
        assert alone
        for name, values in alone.items():
            beside = together[name.replace(student_prefix(0), student_prefix(index))]
            np.testing.assert_array_equal(beside, values, f"{block}: {name}")


def test_an_empty_batch_is_refused(make_model):
    graph = build_training_graph(network(make_model, 3, 16, 32, 1), SGD, target="native")
    with pytest.raises(WootzError, match="empty"):
        TrainingSession(graph).step(np.zeros((0, 3, 9, 9)), np.zeros(0, np.int64), 0.1)


def test_what_lies_between_convolutions_stays_in_blocks(make_model):
    """No tensor comes back from blocks but for the pooling, and none but its gradient and x goes in."""
    assert channel_block() in BLOCKS
    graph = build_training_graph(network(make_model, 16, 16, 32, 1), SGD, target="native")
    result = BlockedLayout(channels=channel_block()).apply(graph)
    verify(result.model)
    found = Counter(node.op for node in result.model.graph.nodes)
    assert found["BlockedBatchNormalization"] == 2
    assert found["BlockedBatchNormalizationAdd"] == 1
    assert found["BlockedBatchNormalizationReluGrad"] + found["BlockedBatchNormalizationGrad"] == 3
    assert found["BlockedConvWeightGrad"] == 5
    assert not found["BatchNormalization"]
    assert not found["ConvWeightGrad"]
    assert found["ReorderOutput"] <= 4, found  # the pooling, and the gradients of the two convolutions with strides
    again = BlockedLayout(channels=channel_block()).apply(result.model)
    assert not again.modified or Counter(n.op for n in again.model.graph.nodes) == found


def test_a_graph_of_standard_operators_stays(make_model):
    graph = build_training_graph(network(make_model, 16, 16, 32, 1), SGD)
    assert not uses_native(graph.graph)
    assert BlockedLayout().apply(graph).model is graph


def programs(text):
    result = FuseElementwise().apply(parse_text(f"""<ir_version: 8, opset_import: ["" : 18]> {text}"""))
    verify(result.model)
    return [node for node in result.model.graph.nodes if node.domain == DOMAIN], result.model


def test_a_value_that_is_read_in_between_does_not_join():
    """The matrix product needs `a` before `c` can be computed, which reads what the product gives."""
    found, model = programs("""g (float[2,2] x) => (float[2,2] c)
    { a = Neg(x)  m = MatMul(a, a)  c = Add(a, m) }""")
    assert not found
    assert [n.op for n in model.graph.nodes] == ["Neg", "MatMul", "Add"]


def test_results_that_others_read_stay():
    found, model = programs("""g (float[2,2] x) => (float[2,2] c, float[2,2] d, float[2,2] m)
    { a = Neg(x)  c = Sqrt(a)  d = Mul(c, a)  m = MatMul(c, d) }""")
    (program,) = found
    assert [t.name for t in program.outputs] == ["c", "d"]
    assert [t.name for t in model.graph.outputs] == ["c", "d", "m"]


@pytest.mark.parametrize(
    "text",
    [
        "g (double[2] x) => (double[2] c) { a = Neg(x)  c = Sqrt(a) }",
        "g (float[2,1] x, float[1,2] y) => (float[2,2] c) { a = Mul(x, y)  c = Add(x, y) }",
        "g (float[2] x) => (float[2] c) { a = Neg(x)  c = Exp(a) }",
        "g (float[2] x) => (float[2] c) { c = Max(x, x, x) }",
    ],
)
def test_what_does_not_join(text):
    assert not programs(text)[0]


RELU6 = """g (float[N,{width},8,8] x) => (float[N,3] y)
<float[{width},{width},3,3] w1, float[{width},{width},3,3] w2, float[3,{width}] f,
 float low = {{{low}}}, float high = {{6}}>
{{
  [conv1] a = Conv<pads = [1,1,1,1]>(x, w1)
  [clip1] b = Clip(a, low, high)
  [conv2] c = Conv<pads = [1,1,1,1]>(b, w2)
  [clip2] d = Clip(c, low)
  [pool] p = GlobalAveragePool(d)
  [flat] q = Flatten(p)
  [fc] y = Gemm<transB = 1>(q, f)
}}"""


@pytest.mark.parametrize(("width", "low"), [(16, 0), (24, 0), (24, 1), (24, -1)])
def test_clips_and_their_gradients(width, low, make_model):
    """With a lower bound above 0 what fills blocks would not stay zero: such programs run in the usual layout."""
    shapes = {"w1": (width, width, 3, 3), "w2": (width, width, 3, 3), "f": (3, width)}
    model = make_model(RELU6.format(width=width, low=low), **shapes)
    random = np.random.default_rng(0)
    batches = [(random.normal(size=(4, width, 8, 8)).astype(np.float32), random.integers(0, 3, 4)) for _ in range(3)]
    losses, state = steps_of(build_training_graph(model, SGD), batches)
    graph = build_training_graph(model, SGD, target="native")
    found, found_state = steps_of(graph, batches)
    np.testing.assert_allclose(found, losses, rtol=1e-4)
    for name, values in state.items():
        assert np.abs(found_state[name] - values).max() <= 1e-3 * max(1.0, np.abs(values).max()), name
    joined = FuseElementwise().apply(graph).model
    assert "Clip" in {n.op for n in graph.graph.nodes}
    assert "Clip" not in {n.op for n in joined.graph.nodes}
    blocked = BlockedLayout(channels=channel_block()).apply(joined).model
    usual = [n for n in blocked.graph.nodes if n.op == "Elementwise" and n.outputs[0].shape[1:] == [width, 8, 8]]
    assert bool(usual) == (low > 0) or width % channel_block() == 0  # without fill both layouts have one shape


@pytest.mark.parametrize("bounds", [(0, 6), (0, 0.3), (-1, 6), (0, 0)])
@pytest.mark.parametrize("width", [5, 16])
def test_clips_behind_normalizations(bounds, width, make_model):
    """As of MobileNets; a clip's gradient that two layers read has a node of its own."""
    low, high = bounds
    names = ["w", "s", "t", "m", "v", "u", "s2", "t2", "m2", "v2", "f"]
    shapes = dict.fromkeys(names, (width,)) | {"w": (width, width, 3, 3), "u": (width, 1, 3, 3), "f": (3, width)}
    weights = ", ".join(f"float[{','.join(map(str, shapes[n]))}] {n}" for n in names)
    text = f"""g (float[N,{width},9,9] x) => (float[N,3] y) <{weights}, float low = {{{low}}}, float high = {{{high}}}>
    {{ a = Conv<pads = [1,1,1,1]>(x, w)  b = BatchNormalization(a, s, t, m, v)  c = Clip(b, low, high)
       d = Conv<pads = [1,1,1,1], group = {width}>(c, u)  e = BatchNormalization(d, s2, t2, m2, v2)  h = Add(e, c)
       i = Clip(h, low, high)  j = Add(i, x)  k = Add(j, i)
       p = GlobalAveragePool(k)  q = Flatten(p)  y = Gemm<transB = 1>(q, f) }}"""
    model = make_model(text, **shapes | {n: np.full(width, 0.5) for n in ("v", "v2")})
    native = build_training_graph(model, SGD, target="native")
    fused = [n for n in native.graph.nodes if n.domain == DOMAIN and n.attrs.get("relu")]
    assert len(fused) == (2 if low == 0 < high else 0)
    losses, state = steps_of(build_training_graph(model, SGD), batches_of(width))
    found, found_state = steps_of(native, batches_of(width))
    np.testing.assert_allclose(found, losses, rtol=1e-4)
    for name, values in state.items():
        assert np.abs(found_state[name] - values).max() <= 1e-3 * max(1.0, np.abs(values).max()), name


def test_constants_alone_do_not_join():
    """A program has an operand."""
    found, _ = programs("""g (float[2] x) => (float[2] y) <float j = {2}, float k = {3}>
    { a = Mul(j, k)  b = Add(a, a)  c = Neg(x)  y = Mul(c, b) }""")
    assert [len(node.inputs) for node in found] == [2]


def test_state_of_one_element_is_no_constant(make_model):
    """It has a first value beside the graph, which isn't its value in later steps."""
    text = """g (float[N,2] x) => (float[N,1] y) <float[1,2] w, float[1] b> { y = Gemm<transB = 1>(x, w, b) }"""
    graph = build_training_graph(make_model(text, w=(1, 2), b=(1,)), SGD, loss="mse", target="native")
    inputs = {t.name: t for t in FuseElementwise().apply(graph).model.graph.inputs}
    assert inputs["b"].outputs
    assert inputs["b.momentum"].outputs


def test_truth_values_neither_come_in_nor_go_out():
    found, _ = programs("""g (float[2] x, bool[2] c) => (float[2] y, bool[2] g, float[2] z)
    { g = Greater(x, x)  y = Where(g, x, x)  n = Neg(x)  z = Where(c, n, x) }""")
    assert not found


def test_long_chains_become_several_programs():
    count = 100
    body = "\n".join(f"y{i + 1} = Add(y{i}, x{i % 7})" for i in range(count))
    inputs = ", ".join(f"float[5] x{i}" for i in range(7))
    found, model = programs(f"g (float[5] y0, {inputs}) => (float[5] y{count}) {{ {body} }}")
    assert len(found) > 1
    assert all(len(node.attrs["program"]) // 4 + len(node.inputs) + 1 <= 48 for node in found)
    assert sum(len(node.attrs["program"]) // 4 for node in found) + len(model.graph.nodes) - len(found) == count


def test_without_the_library_the_target_is_onnx(monkeypatch):
    assert library() is not None
    monkeypatch.setattr(session_module, "library", lambda: None)
    assert fastest_target(Device()) == "onnx"
    assert fastest_target(Device("cuda")) == "onnx-cuda"
