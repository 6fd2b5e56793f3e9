"""Trainings are the same to the bit on any number of threads; where a node isn't, that is known before."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from wootz.frontend.caffe.importer import import_caffe
from wootz.passes.ir.builder import Builder
from wootz.passes.ir.model import Constant, Model
from wootz.passes.ir.text import parse_text
from wootz.passes.plan.blocks import Symbol, TuningBlock
from wootz.passes.plan.solver import Solver, SolverType
from wootz.passes.pruning.block_pruner import BlockPruner
from wootz.passes.training.expression import Expression
from wootz.passes.training.joint_graph import joint_training_graph
from wootz.passes.training.legalize import with_lowerings
from wootz.passes.training.lowerings.sums import ONE_THREAD_ROOTS, PRODUCTS, outer_product
from wootz.passes.training.thread_dependence import nodes_depending_on_threads
from wootz.passes.training.training_graph import build_training_graph
from wootz.passes.transforms.teacher_student import student_prefix
from wootz.runtime.session import Device, TrainingSession, WeightedSession, evaluate

THREADS = (1, 2, 3, 4, 7)
STEPS = 3
ADAM = Solver(type=SolverType.ADAM, base_lr=0.01)
SGD = Solver(base_lr=0.05, momentum=0.9, weight_decay=1e-3)
DIGITS = Path(__file__).parents[2] / "examples" / "digits" / "net.prototxt"


def network(text: str, **shapes: tuple[int, ...]) -> Model:
    """The model of a text, whose weights have these shapes and random values."""
    model = parse_text(f'<ir_version: 8, opset_import: ["" : 18]> {text}')
    random = np.random.default_rng(1)
    tensors = model.graph.tensors()
    for name, shape in shapes.items():
        deviation = 0.1 if len(shape) == 1 else np.sqrt(2 / np.prod(shape[1:]))
        mean = 1 if name.startswith(("scale", "variance")) else 0
        tensors[name].to_constant(random.normal(mean, deviation, shape).astype(np.float32))
    return model


def chain(size: int, *filters: int, kernel: int = 3, classes: int = 5, stride: int = 1) -> Model:
    """Convolutions with normalisation, then an average and a classifier."""
    lines, shapes, x, channels = [], {}, "x", 3
    for i, count in enumerate(filters):
        shapes |= {f"w{i}": (count, channels, kernel, kernel)}
        shapes |= {f"{name}{i}": (count,) for name in ("scale", "bias", "mean", "variance")}
        lines += [
            f"c{i} = Conv<pads=[{','.join([str(kernel // 2)] * 4)}], strides=[{stride},{stride}]>({x}, w{i})",
            f"n{i} = BatchNormalization(c{i}, scale{i}, bias{i}, mean{i}, variance{i})",
            f"r{i} = Relu(n{i})",
        ]
        x, channels = f"r{i}", count
    shapes["fc"] = (classes, channels)
    lines += [f"a = GlobalAveragePool({x})", "f = Flatten(a)", "y = Gemm<transB=1>(f, fc)"]
    weights = ", ".join(f"float[{','.join(map(str, shape))}] {name}" for name, shape in shapes.items())
    return network(f"g (float[N,3,{size},{size}] x) => (y) <{weights}> {{ {chr(10).join(lines)} }}", **shapes)


PERCEPTRON = network(
    """g (float[N,20,5,5] x) => (y) <float[70,500] w1, float[70] b1, float[40,70] w2> {
      f = Flatten(x)
      h = Gemm<transB=1>(f, w1, b1)
      r = Relu(h)
      y = Gemm<transB=1>(r, w2)
    }""",
    w1=(70, 500),
    b1=(70,),
    w2=(40, 70),
)
DEPTHWISE = network(
    """g (float[N,3,12,12] x) => (y) <float[40,3,3,3] w1, float[40,1,3,3] w2, float[150,40,1,1] w3, float[20,150] fc> {
      c = Conv<pads=[1,1,1,1], strides=[2,2]>(x, w1)
      r = Relu(c)
      d = Conv<pads=[1,1,1,1], group=40>(r, w2)
      p = Conv(d, w3)
      a = GlobalAveragePool(p)
      f = Flatten(a)
      y = Gemm<transB=1>(f, fc)
    }""",
    w1=(40, 3, 3, 3),
    w2=(40, 1, 3, 3),
    w3=(150, 40, 1, 1),
    fc=(20, 150),
)
POINTWISE = network("g (float[N,256,16,16] x) => (y) <float[64,256,1,1] w> { y = Conv(x, w) }", w=(64, 256, 1, 1))
NETWORKS = {
    "pruned": (chain(16, 32, 9, 22, 11), 32),
    "few pixels": (chain(8, 22, 64, 32, stride=2), 24),
    "of three channels": (chain(24, 3, 5, 2, kernel=5), 3),
    "many classes": (chain(8, 16, 300, classes=50), 16),
    "perceptron": (PERCEPTRON, 20),
    "depthwise": (DEPTHWISE, 16),
}


def trained(graph: Model, batch: int, threads: int) -> dict[str, bytes]:
    """The weights and losses of a few steps."""
    session = TrainingSession(graph, Device(threads=threads), batch)
    data = next(t for t in graph.graph.inputs if t.name == session.interface.data)
    random = np.random.default_rng(2)
    losses = []
    for _ in range(STEPS):
        images = random.normal(size=(batch, *data.shape[1:])).astype(np.float32)
        labels = random.integers(0, 5, batch) if session.interface.labels else None
        losses.append(session.step(images, labels, 0.01))
    return {name: w.tobytes() for name, w in session.weights().items()} | {"losses": np.array(losses).tobytes()}


@pytest.mark.parametrize("solver", [SGD, ADAM], ids=["sgd", "adam"])
@pytest.mark.parametrize("name", NETWORKS)
def test_trainings_are_equal_on_any_number_of_threads(name, solver):
    model, batch = NETWORKS[name]
    graph = build_training_graph(model, solver)
    alone = trained(graph, batch, 1)
    for threads in THREADS[1:]:
        assert trained(graph, batch, threads) == alone, threads
        assert Device(threads=threads).order_of_sums(graph, batch) == ""


def test_blocks_are_equal_alone_and_beside_others_on_any_number_of_threads():
    model = import_caffe(DIGITS).model
    pruner = BlockPruner.of(model, "l1")
    blocks = [TuningBlock((Symbol(module, rate),)) for module in (0, 3) for rate in (0.3, 0.7)]
    joint = joint_training_graph(pruner, blocks, ADAM)
    together = trained(joint, 32, 1)
    assert trained(joint, 32, 2) == trained(joint, 32, 3) == together
    for index, block in enumerate(blocks):
        alone = trained(joint_training_graph(pruner, [block], ADAM), 32, 2)
        own = {
            name.removeprefix(student_prefix(0)): w for name, w in alone.items() if name.startswith(student_prefix(0))
        }
        prefix = student_prefix(index)
        assert {name.removeprefix(prefix): w for name, w in together.items() if name.startswith(prefix)} == own
        assert own


def test_evaluations_are_equal_on_any_number_of_threads():
    for model, batch in [*NETWORKS.values(), (POINTWISE, 1)]:
        weights = [t.name for t in model.graph.tensors().values() if isinstance(t, Constant)]
        images = np.random.default_rng(3).normal(size=(batch, *model.graph.inputs[0].shape[1:])).astype(np.float32)
        results = [WeightedSession(model, weights, Device(threads=t)).run(images) for t in THREADS]
        assert len({r.tobytes() for r in results}) == 1
        assert len(results[0]) == batch


def differing(model: Model, seed: int) -> set[int]:
    """Numbers of threads on which the results of `model`, as it stands, aren't those of one."""
    random = np.random.default_rng(seed)
    feeds = {t.name: random.uniform(0.1, 1, t.shape).astype(np.float32) for t in model.graph.inputs}
    results = {t: [v.tobytes() for v in evaluate(model, feeds, Device(threads=t)).values()] for t in (1, 2, 3, 5, 8)}
    return {threads for threads, values in results.items() if values != results[1]}


def foretold(model: Model) -> set[int]:
    return {threads for threads in (1, 2, 3, 5, 8) if nodes_depending_on_threads(model, threads, batch=1, block=0)}


def matrices(rows: int, columns: int, depth: int, operator: str = "Gemm<transB=1>") -> Model:
    right = f"{columns},{depth}" if "transB" in operator else f"{depth},{columns}"
    left = f"{depth},{rows}" if "transA" in operator else f"{rows},{depth}"
    return parse_text(f"""<ir_version: 8, opset_import: ["" : 18]>
    g (float[{left}] a, float[{right}] b) => (float[{rows},{columns}] y) {{ y = {operator}(a, b) }}""")


extents = st.integers(1, 100)
operators = st.sampled_from(["Gemm", "Gemm<transB=1>", "Gemm<transA=1>", "Gemm<transA=1, transB=1>", "MatMul"])


@settings(max_examples=150, deadline=None)
@given(rows=extents, columns=extents, depth=st.integers(1, 8000), operator=operators, seed=st.integers(0, 9))
def test_products_of_matrices(rows, columns, depth, operator, seed):
    model = matrices(rows, columns, depth, operator)
    assert differing(model, seed) <= foretold(model)
    if "transA" not in operator:
        assert not differing(with_lowerings(model, PRODUCTS), seed)


@settings(max_examples=50, deadline=None)
@given(rows=st.integers(1, 40), columns=st.integers(1, 40), depth=st.integers(1, 20000), seed=st.integers(0, 9))
@example(rows=9, columns=9, depth=9000, seed=0)
@example(rows=5, columns=1, depth=90000, seed=0)
@example(rows=32, columns=64, depth=1024, seed=0)
def test_outer_products(rows, columns, depth, seed):
    model = parse_text(f"""<ir_version: 8, opset_import: ["" : 18]>
    g (float[{rows},{depth}] a, float[{columns},{depth}] b) => (y) {{ y = Neg(a) }}""")
    builder = Builder(model.graph)
    left, right = (Expression.of(t, builder) for t in model.graph.inputs)
    model.graph.outputs = [outer_product(left, right, rows, columns).tensor]
    model.graph.outputs[0].dtype = np.dtype(np.float32)
    assert not differing(model, seed)


@settings(max_examples=100, deadline=None)
@given(
    images=st.integers(1, 9),
    rows=st.integers(1, 40),
    columns=st.integers(1, 40),
    depth=st.integers(1, 8000),
    seed=st.integers(0, 9),
)
def test_products_of_many_matrices(images, rows, columns, depth, seed):
    model = parse_text(f"""<ir_version: 8, opset_import: ["" : 18]>
    g (float[{images},{rows},{depth}] a, float[{images},{depth},{columns}] b) => (y) {{ y = MatMul(a, b) }}""")
    assert differing(model, seed) <= foretold(model)


@settings(max_examples=150, deadline=None)
@given(
    images=st.integers(1, 4),
    channels=st.integers(1, 40),
    filters=st.integers(1, 40),
    kernel=st.sampled_from([1, 3, 5]),
    size=st.integers(5, 20),
    stride=st.integers(1, 2),
    padded=st.booleans(),
    seed=st.integers(0, 9),
)
def test_convolutions(images, channels, filters, kernel, size, stride, padded, seed):
    pads = ",".join([str(kernel // 2 if padded else 0)] * 4)
    count = (size + (2 * (kernel // 2) if padded else 0) - kernel) // stride + 1
    model = parse_text(f"""<ir_version: 8, opset_import: ["" : 18]>
    g (float[{images},{channels},{size},{size}] x, float[{filters},{channels},{kernel},{kernel}] w)
    => (float[N,M,{count},{count}] y) {{ y = Conv<strides=[{stride},{stride}], pads=[{pads}]>(x, w) }}""")
    assert differing(model, seed) <= foretold(model)


@settings(max_examples=100, deadline=None)
@given(
    shape=st.lists(st.sampled_from([1, 2, 3, 6, 17, 64]), min_size=4, max_size=4),
    axes=st.sets(st.integers(0, 3), min_size=1),
    operator=st.sampled_from(["ReduceSum", "ReduceMean", "ReduceL2"]),
    seed=st.integers(0, 9),
)
def test_reductions(shape, axes, operator, seed):
    sizes, listed = ",".join(map(str, shape)), ",".join(map(str, sorted(axes)))
    model = parse_text(f"""<ir_version: 8, opset_import: ["" : 18]>
    g (float[{sizes}] x) => (y) <int64[{len(axes)}] axes = {{{listed}}}> {{ y = {operator}<keepdims=0>(x, axes) }}""")
    assert differing(model, seed) <= foretold(model)


@pytest.mark.parametrize("operator", ["Sqrt", "Log", "Celu", "Exp", "Sigmoid", "Tanh", "Erf", "Softplus", "Elu"])
@pytest.mark.parametrize("size", [3001, 20011, ONE_THREAD_ROOTS - 1, 100003, 1000003])
def test_functions_of_each_element(operator, size):
    model = parse_text(f"""<ir_version: 8, opset_import: ["" : 18]>
    g (float[{size}] x) => (float[{size}] y) {{ y = {operator}(x) }}""")
    assert differing(model, 0) <= foretold(model)


def test_what_is_foretold_happens():
    """As measured with ONNX Runtime 1.19; others divide products in the same way."""
    for model in (matrices(32, 64, 1024), matrices(3, 3, 50000), matrices(16, 33, 4000, "MatMul")):
        assert foretold(model) == differing(model, 0) == {2, 3, 5, 8}
        assert foretold(with_lowerings(model, PRODUCTS)) == set()


def test_the_kernels_of_onnxruntime_training_depend_on_threads():
    graph = build_training_graph(chain(8, 4), SGD, target="ort-training")
    assert [Device(threads=t).order_of_sums(graph, 8) for t in (1, 2, 5)] == ["", "2 threads", "5 threads"]
    assert Device("cuda", threads=2).order_of_sums(graph, 8) == ""


def test_what_is_taken_in_blocks_depends_on_nothing():
    graph = build_training_graph(chain(16, 32, 9), SGD)
    found = [nodes_depending_on_threads(graph, 3, 32, block) for block in (0, 8)]
    assert found[0]
    assert not found[1]


def test_a_native_graph_in_the_usual_layout_depends_on_threads():
    """As where the library's vectors aren't as wide as ONNX Runtime's blocks."""
    graph = build_training_graph(chain(16, 32, 9), SGD, target="native")
    found = [nodes_depending_on_threads(graph, 3, 32, block=16, native_block=block) for block in (0, 16)]
    assert found[0]
    assert not found[1]
