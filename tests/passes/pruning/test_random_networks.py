"""Random CNNs: whatever is pruned computes what the masked original does, and other transforms change no output."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from types import ModuleType

import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from wootz.passes.ir.builder import Builder
from wootz.passes.ir.model import Graph, Model, Variable
from wootz.passes.ir.text import parse_text, print_text
from wootz.passes.ir.verifier import verify
from wootz.passes.pipeline import parse_pipeline
from wootz.passes.pruning.materializer import Materializer
from wootz.passes.pruning.planner import Planner

SIZE = 4
"""Height and width of every feature map."""

Draw = Callable[[st.SearchStrategy[int]], int]


@dataclass
class Network:
    """A network under construction. `maps` are the feature maps that later layers can read, with their channels."""

    draw: Draw
    graph: Graph = field(default_factory=lambda: Graph(opset=18))
    maps: list[tuple[Variable, int]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.builder = Builder(self.graph)
        self.random = np.random.default_rng(self.integer(0, 1 << 16))
        image = Variable("image", np.dtype(np.float32), ["N", 3, SIZE, SIZE])
        self.graph.inputs.append(image)
        self.maps.append((image, 3))

    def integer(self, low: int, high: int) -> int:
        return self.draw(st.integers(low, high))

    def choose(self) -> tuple[Variable, int]:
        """One of the maps, a late one more likely."""
        return self.maps[-1 - min(self.integer(0, len(self.maps) - 1), self.integer(0, len(self.maps) - 1))]

    def weight(self, *shape: int) -> object:
        fan_in = max(1, int(np.prod(shape[1:])))
        return self.builder.constant((self.random.standard_normal(shape) / np.sqrt(fan_in)).astype(np.float32), "w")

    def vector(self, size: int) -> object:
        return self.builder.constant((0.5 + self.random.random(size)).astype(np.float32), "v")

    def op(self, kind: str, *operands: object, **attributes: object) -> Variable:
        return self.builder.op(kind, *operands, **attributes)  # type: ignore[arg-type]

    def add(self, tensor: Variable, channels: int) -> None:
        self.maps.append((tensor, channels))

    def convolved(self, x: Variable, inputs: int, outputs: int, kernel: int = 1, group: int = 1) -> Variable:
        pads = [kernel // 2] * 4
        bias = [self.vector(outputs)] if self.integer(0, 1) else []
        return self.op("Conv", x, self.weight(outputs, inputs // group, kernel, kernel), *bias, pads=pads, group=group)


def convolution(net: Network) -> None:
    x, inputs = net.choose()
    outputs = net.integer(1, 8)
    net.add(net.convolved(x, inputs, outputs, net.integer(0, 1) * 2 + 1), outputs)


def grouped_convolution(net: Network) -> None:
    x, inputs = net.choose()
    groups = [g for g in (2, 3, 4) if inputs % g == 0]
    if groups:
        group = groups[net.integer(0, len(groups) - 1)]
        outputs = group * net.integer(1, 3)
        net.add(net.convolved(x, inputs, outputs, 1, group), outputs)


def depthwise_convolution(net: Network) -> None:
    x, inputs = net.choose()
    multiplier = net.integer(1, 2)
    net.add(net.convolved(x, inputs, inputs * multiplier, 3, inputs), inputs * multiplier)


def transposed_convolution(net: Network) -> None:
    x, inputs = net.choose()
    group = 2 if inputs % 2 == 0 and net.integer(0, 1) else 1
    a_group = net.integer(1, 4)
    net.add(net.op("ConvTranspose", x, net.weight(inputs, a_group, 1, 1), group=group), a_group * group)


def channels_last(net: Network) -> None:
    """A 1x1 convolution as a MatMul."""
    x, inputs = net.choose()
    outputs = net.integer(1, 6)
    last = net.op("Transpose", x, perm=[0, 2, 3, 1])
    product = net.op("Add", net.op("MatMul", last, net.weight(inputs, outputs)), net.vector(outputs))
    net.add(net.op("Transpose", product, perm=[0, 3, 1, 2]), outputs)


def normalization(net: Network) -> None:
    x, channels = net.choose()
    net.add(net.op("BatchNormalization", x, *(net.vector(channels) for _ in range(4))), channels)


def activation(net: Network) -> None:
    x, channels = net.choose()
    kind = ("Relu", "Sigmoid", "HardSwish", "PRelu", "Clip")[net.integer(0, 4)]
    operands = {
        "PRelu": [net.builder.constant(net.random.random((channels, 1, 1)).astype(np.float32))],
        "Clip": [net.builder.constant(np.float32(-1)), net.builder.constant(np.float32(1))],
    }
    net.add(net.op(kind, x, *operands.get(kind, [])), channels)


def pooling(net: Network) -> None:
    x, channels = net.choose()
    kind = ("MaxPool", "AveragePool")[net.integer(0, 1)]
    net.add(net.op(kind, x, kernel_shape=[3, 3], pads=[1, 1, 1, 1]), channels)


def residual(net: Network) -> None:
    (a, left), (b, right) = net.choose(), net.choose()
    if left != right:
        b = net.convolved(b, right, left)
    net.add(net.op(("Add", "Mul", "Max", "Sub")[net.integer(0, 3)], a, b), left)


def concatenation(net: Network) -> None:
    parts = [net.choose() for _ in range(net.integer(2, 3))]
    channels = sum(c for _, c in parts)
    if channels <= 24:
        net.add(net.op("Concat", *(t for t, _ in parts), axis=1), channels)


def split(net: Network) -> None:
    x, channels = net.choose()
    if channels > 1:
        first = net.integer(1, channels - 1)
        sizes = net.builder.constant(np.asarray([first, channels - first]))
        a, b = net.builder.ops("Split", x, sizes, count=2, axis=1)
        net.add(a, first)
        net.add(b, channels - first)


def cut(net: Network) -> None:
    x, channels = net.choose()
    start = net.integer(0, channels - 1)
    bounds = [net.builder.constant(np.asarray([n])) for n in (start, channels, 1)]
    net.add(net.op("Slice", x, *bounds), channels - start)


def shuffle(net: Network) -> None:
    x, channels = net.choose()
    if channels % 2 == 0:
        apart = net.op("Reshape", x, net.builder.constant(np.asarray([0, 2, channels // 2, SIZE, SIZE])))
        turned = net.op("Transpose", apart, perm=[0, 2, 1, 3, 4])
        net.add(net.op("Reshape", turned, net.builder.constant(np.asarray([0, channels, SIZE, SIZE]))), channels)


def picked(net: Network) -> None:
    x, channels = net.choose()
    order = net.random.permutation(channels)[: net.integer(1, channels)]
    net.add(net.op("Gather", x, net.builder.constant(order.astype(np.int64)), axis=1), len(order))


def padded(net: Network) -> None:
    x, channels = net.choose()
    extra = net.integer(1, 2)
    net.add(net.op("Pad", x, net.builder.constant(np.asarray([0, 0, 0, 0, 0, extra, 0, 0]))), channels + extra)


def squeeze_and_excitation(net: Network) -> None:
    x, channels = net.choose()
    inner = net.integer(1, 4)
    pooled = net.op("GlobalAveragePool", x)
    gate = net.convolved(net.op("Relu", net.convolved(pooled, channels, inner)), inner, channels)
    net.add(net.op("Mul", x, net.op("Sigmoid", gate)), channels)


def spatial_attention(net: Network) -> None:
    x, channels = net.choose()
    net.add(net.op("Mul", x, net.op("Sigmoid", net.convolved(x, channels, 1))), channels)


def space_and_depth(net: Network) -> None:
    x, channels = net.choose()
    if channels * 4 <= 24:
        deep = net.op("SpaceToDepth", x, blocksize=2)
        wide = net.convolved(deep, channels * 4, channels * 4)
        mode = ("DCR", "CRD")[net.integer(0, 1)]
        net.add(net.op("DepthToSpace", wide, blocksize=2, mode=mode), channels)


def coupled(net: Network) -> None:
    x, channels = net.choose()
    kind = net.integer(0, 2)
    if kind == 0:
        net.add(net.op("LRN", x, size=3), channels)
    elif kind == 1:
        net.add(net.op("Softmax", x, axis=1), channels)
    else:
        net.add(net.op("Mul", x, net.op("ReduceMean", x, net.builder.constant(np.asarray([1])))), channels)


LAYERS = (
    *(convolution, convolution, convolution, grouped_convolution, depthwise_convolution, transposed_convolution),
    *(channels_last, normalization, activation, pooling, residual, residual, concatenation, split, cut, shuffle),
    *(picked, padded, squeeze_and_excitation, spatial_attention, space_and_depth, coupled),
)


def pooled_head(net: Network) -> Variable:
    x, channels = net.choose()
    flat = net.op("Flatten", net.op("GlobalAveragePool", x))
    return net.op("Gemm", flat, net.weight(5, channels), net.vector(5), transB=1)


def flat_head(net: Network) -> Variable:
    """Two fully connected layers on all positions of all channels."""
    x, channels = net.choose()
    flat = net.op("Reshape", x, net.builder.constant(np.asarray([-1, channels * SIZE * SIZE])))
    hidden = net.op("Relu", net.op("Gemm", flat, net.weight(channels * SIZE * SIZE, 6), net.vector(6)))
    return net.op("MatMul", hidden, net.weight(6, 4))


def dense_head(net: Network) -> Variable:
    x, channels = net.choose()
    return net.convolved(x, channels, 2)


HEADS = (pooled_head, flat_head, dense_head)


@st.composite
def networks(draw: st.DrawFn) -> Model:
    """Valid CNNs with convolutions, groups, residual, dense and Inception-like joins, shuffles, and several heads."""
    net = Network(draw)
    convolution(net)
    for _ in range(net.integer(2, 12)):
        LAYERS[net.integer(0, len(LAYERS) - 1)](net)
    for i in range(net.integer(1, 2)):
        output = HEADS[net.integer(0, len(HEADS) - 1)](net)
        output.name = f"output{i}"
        output.dtype = np.dtype(np.float32)
        net.graph.outputs.append(output)
    return Model(net.graph)


def random_plan(planner: Planner, seed: int) -> object:
    generator = np.random.default_rng(seed)
    families = {cell.family: generator.choice([0.0, 0.3, 0.5, 0.7, 0.9]) for cell in planner.cells}
    return planner.plan({i: float(families[cell.family]) for i, cell in enumerate(planner.cells)})


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(model=networks(), seed=st.integers(0, 1000))
def test_pruned_networks_equal_masked_ones(model: Model, seed: int, oracles: ModuleType) -> None:
    verify(model)
    planner = Planner.of(model)
    plan = random_plan(planner, seed)
    pruned = Materializer.of(model, planner.analysis).materialize(plan)
    verify(pruned)
    feeds = oracles.random_feeds(model, seed)
    for a, b in zip(oracles.run(pruned, feeds), oracles.run(oracles.zero_masked(model, plan), feeds), strict=True):
        assert oracles.difference(a, b) <= oracles.TOLERANCE


@settings(max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(model=networks())
def test_other_transforms_keep_the_outputs(model: Model, oracles: ModuleType) -> None:
    feeds = oracles.random_feeds(model)
    expected = oracles.run(model, feeds)
    for pass_ in parse_pipeline("infer-shapes,eliminate-dead,fold-constants,fold-batchnorm"):
        assert pass_.preserves_outputs
        changed = pass_.apply(model).model
        verify(changed)
        for a, b in zip(oracles.run(changed, feeds), expected, strict=True):
            assert oracles.difference(a, b) <= oracles.TOLERANCE


@settings(max_examples=50)
@given(model=networks())
def test_text_is_a_fixed_point(model: Model) -> None:
    text = print_text(model)
    assert print_text(parse_text(text)) == text
    binary = Model.from_proto(parse_text(text).to_proto())
    assert print_text(binary) == text
