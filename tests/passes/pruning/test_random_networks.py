"""Random CNNs: whatever is pruned computes what the masked original does, and other transforms change no output."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from types import ModuleType

import numpy as np
import onnx
import onnx_graphsurgeon as gs
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from wootz.passes.ir.builder import Builder
from wootz.passes.ir.model import Graph, Model, Node, Variable
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

    def integers(self, *values: int) -> object:
        return self.builder.constant(np.asarray(values, np.int64), "n")

    def extent(self, x: Variable, axis: int) -> Variable:
        """An extent of a tensor, int64[1], as exporters read it."""
        if self.integer(0, 1):
            return self.op("Shape", x, start=axis, end=axis + 1)
        one = self.op("Gather", self.op("Shape", x), self.builder.constant(np.int64(axis)), axis=0)
        return self.op("Unsqueeze", one, self.integers(0))

    def stated(self, x: Variable, axis: int) -> object:
        """An extent of x: read from it, or written by the exporter (but for the batch)."""
        return self.extent(x, axis) if axis == 0 or self.integer(0, 1) else self.integers(self.channels_of(x, axis))

    def channels_of(self, x: Variable, axis: int) -> int:
        return next(c for t, c in self.maps if t is x) if axis == 1 else SIZE

    def shape(self, *extents: object) -> Variable:
        return self.op("Concat", *extents, axis=0)

    def convolved(self, x: Variable, inputs: int, outputs: int, kernel: int = 1, group: int = 1) -> Variable:
        pads = [kernel // 2] * 4
        bias = [self.vector(outputs)] if self.integer(0, 1) else []
        weight = self.computed_weight(outputs, inputs // group, kernel)
        result = self.op("Conv", x, weight, *bias, pads=pads, group=group)
        self.rename(self.graph.nodes[-1])
        return result

    def rename(self, node: Node) -> None:
        """Some nodes have no name, and some that of a tensor, by which a node without a name is called."""
        names = {other.name for other in self.graph.nodes}
        unnamed = [other.outputs[0].name for other in self.graph.nodes if not other.name]
        free = [name for name in unnamed if name not in names]
        kind = self.integer(0, 3)
        if kind == 0:
            node.name = ""
        elif kind == 1 and free:
            node.name = free[0]

    def computed_weight(self, filters: int, inputs: int, kernel: int) -> object:
        """A weight that is a constant, quantised, quantised by filter, or standardised by the network."""
        kind, weight = self.integer(0, 6), self.weight(filters, inputs, kernel, kernel)
        if kind < 4:
            return weight
        if kind < 6:
            size = 1 if kind == 4 else filters
            scale = self.builder.constant(np.float32(0.01) * (1 + self.random.random(size)).astype(np.float32), "scale")
            steps = np.clip(np.round(weight.values / 0.015), -127, 127).astype(np.int8)
            if kind == 4:
                scale.values = scale.values.reshape(())
            return self.op("DequantizeLinear", self.builder.constant(steps, "w"), scale, axis=0)
        flat = self.op("Reshape", weight, self.integers(1, filters, -1))
        # ONNX Runtime writes running statistics where the old ones are: each has a constant of its own
        operands = (self.builder.constant(np.full(filters, v, np.float32)) for v in (1, 0, 0, 1))
        outputs = self.builder.ops("BatchNormalization", flat, *operands, count=3, training_mode=1)
        return self.op("Reshape", outputs[0], self.integers(filters, inputs, kernel, kernel))


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
    if net.integer(0, 1):  # as PyTorch's newer exporter writes x[:, order]
        first = net.op("Transpose", x, perm=[1, 0, 2, 3])
        taken = net.op("GatherND", first, net.builder.constant(order[:, None].astype(np.int64)))
        net.add(net.op("Transpose", taken, perm=[1, 0, 2, 3]), len(order))
        return
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


def filled_like(net: Network) -> None:
    """zeros_like, ones_like, full_like: added, multiplied, chosen or joined."""
    x, channels = net.choose()
    shape = net.op("Shape", x)
    if net.integer(0, 1):
        filled = net.op("Expand", net.builder.constant(np.float32(net.integer(0, 1))), shape)
    else:
        value = gs.Constant("value", np.asarray([net.integer(0, 1)], np.float32))
        filled = net.op("ConstantOfShape", shape, value=value)
    kind = net.integer(0, 3)
    if kind == 0 and channels <= 12:
        net.add(net.op("Concat", x, filled, axis=1), 2 * channels)
    elif kind == 1:
        net.add(net.op("Where", net.op("Greater", x, filled), x, filled), channels)
    else:
        net.add(net.op("Add", filled, x) if kind == 2 else net.op("Sub", x, net.op("Neg", filled)), channels)


def option_a(net: Network) -> None:
    """The shortcut of CIFAR ResNets: half as many zeros on each side as there are channels, and a block added."""
    x, channels = net.choose()
    if channels > 12:
        return
    side = channels // 2
    if net.integer(0, 1):
        half = net.op("Div", net.stated(x, 1), net.integers(2))
        pads = net.shape(net.integers(0), half, net.integers(0, 0, 0), half, net.integers(0, 0))
        wide = net.op("Pad", x, pads)
    else:
        shape = net.shape(net.stated(x, 0), net.integers(side), net.stated(x, 2), net.stated(x, 3))
        zeros = net.op("ConstantOfShape", shape)
        wide = net.op("Concat", zeros, x, zeros, axis=1)
    net.add(wide, channels + 2 * side)
    net.add(net.op("Add", wide, net.convolved(x, channels, channels + 2 * side, 3)), channels + 2 * side)


def viewed_as(net: Network) -> None:
    """expand_as of one value a channel, and view_as after a flattening."""
    x, channels = net.choose()
    other, inputs = net.choose()
    y = net.convolved(other, inputs, channels) if net.integer(0, 1) else x
    wide = net.op("Expand", net.op("GlobalAveragePool", x), net.op("Shape", y))
    flat = net.op("Reshape", y, net.shape(net.extent(y, 0), net.extent(x, 1), net.integers(-1)))
    back = net.op("Reshape", flat, net.op("Shape", (x, y)[net.integer(0, 1)]))
    net.add(net.op("Mul", back, net.op("Sigmoid", wide)), channels)


def padded_to_match(net: Network) -> None:
    """A map without its border, padded or resized to the extents of another."""
    (x, channels), (other, _) = net.choose(), net.choose()
    small = net.op("MaxPool", x, kernel_shape=[2, 2])
    if net.integer(0, 1):
        missing = [net.op("Sub", net.extent(other, axis), net.extent(small, axis)) for axis in (2, 3)]
        net.add(net.op("Pad", small, net.shape(net.integers(0, 0, 0, 0, 0, 0), *missing)), channels)
    else:
        sizes = net.shape(net.extent(small, 0), net.extent(x, 1), net.extent(other, 2), net.extent(other, 3))
        net.add(net.op("Resize", small, None, None, sizes, mode="nearest"), channels)


def computed_shuffle(net: Network) -> None:
    x, channels = net.choose()
    if channels % 2 == 0:
        two = net.integers(2)
        half = net.op("Div", net.extent(x, 1), two)
        ends = [net.extent(x, 2), net.extent(x, 3)]
        apart = net.op("Reshape", x, net.shape(net.extent(x, 0), two, half, *ends))
        turned = net.op("Transpose", apart, perm=[0, 2, 1, 3, 4])
        net.add(net.op("Reshape", turned, net.shape(net.extent(x, 0), net.stated(x, 1), *ends)), channels)


def computed_half(net: Network) -> None:
    """The second half of the channels, or every second one."""
    x, channels = net.choose()
    if net.integer(0, 1):
        start = net.op("Div", net.extent(x, 1), net.integers(2))
        net.add(net.op("Slice", x, start, net.extent(x, 1), net.integers(1)), channels - channels // 2)
    else:
        bounds = (net.integers(0), net.integers(1 << 30), net.integers(1), net.integers(2))
        net.add(net.op("Slice", x, *bounds), (channels + 1) // 2)


def scaled_by_extent(net: Network) -> None:
    """Divided by the root of the number of channels, or by the number of elements."""
    x, channels = net.choose()
    count = net.extent(x, 1) if net.integer(0, 1) else net.op("Size", x)
    net.add(net.op("Div", x, net.op("Sqrt", net.op("Cast", count, to=1))), channels)


def constant_channels(net: Network) -> None:
    """Coordinates that an exporter wrote as a constant beside the channels."""
    x, channels = net.choose()
    extra = net.integer(1, 2)
    net.graph.inputs[0].shape[0] = 2  # what is written has the batch of the example
    constant = net.builder.constant(net.random.standard_normal((2, extra, SIZE, SIZE)).astype(np.float32), "grid")
    net.add(net.op("Concat", x, constant, axis=1), channels + extra)


def group_normalization(net: Network) -> None:
    """As PyTorch's exporters write it, with ones and zeros of their own."""
    x, channels = net.choose()
    groups = next(g for g in (3, 2, 1) if channels % g == 0)
    ones, zeros = (net.builder.constant(np.full(groups, v, np.float32)) for v in (1, 0))
    rows = net.op("InstanceNormalization", net.op("Reshape", x, net.integers(0, groups, -1)), ones, zeros, epsilon=0.1)
    back = net.op("Reshape", rows, net.op("Shape", x))
    scale, bias = (
        net.builder.constant(net.random.standard_normal((channels, 1, 1)).astype(np.float32)) for _ in range(2)
    )
    net.add(net.op("Add", net.op("Mul", back, scale), bias), channels)


def attention(net: Network) -> None:
    """Heads of queries and keys, which are summed over, and of values; the result has the shape of the input."""
    x, channels = net.choose()
    heads, keys = net.integer(1, 2), net.integer(1, 3)
    if channels % heads:
        return
    sizes = (keys, keys, channels // heads)
    mixed = net.convolved(x, channels, heads * sum(sizes))
    rows = net.op("Reshape", mixed, net.shape(net.extent(x, 0), net.integers(heads, sum(sizes), -1)))
    q, k, v = net.builder.ops("Split", rows, net.integers(*sizes), count=3, axis=2)
    score = net.op("Softmax", net.op("MatMul", net.op("Transpose", q, perm=[0, 1, 3, 2]), k), axis=-1)
    y = net.op("MatMul", v, net.op("Transpose", score, perm=[0, 1, 3, 2]))
    net.add(net.op("Reshape", y, net.shape(*(net.stated(x, a) for a in range(4)))), channels)


def selective_kernels(net: Network) -> None:
    """Two branches, weighed by a softmax over them that all channels share a layer for."""
    (x, inputs), (y, other) = net.choose(), net.choose()
    channels, inner = net.integer(1, 5), net.integer(1, 3)
    axis = net.integers(1)
    parts = [
        net.op("Unsqueeze", t, axis) for t in (net.convolved(x, inputs, channels), net.convolved(y, other, channels))
    ]
    both = net.op("Concat", *parts, axis=1)
    pooled = net.op("GlobalAveragePool", net.op("ReduceSum", both, axis, keepdims=0))
    weights = net.convolved(net.convolved(pooled, channels, inner), inner, 2 * channels)
    weights = net.op("Reshape", weights, net.shape(net.extent(x, 0), net.integers(2, channels, 1, 1)))
    chosen = net.op("ReduceSum", net.op("Mul", both, net.op("Softmax", weights, axis=1)), axis, keepdims=0)
    net.add(chosen, channels)


LAYERS = (
    *(convolution, convolution, convolution, grouped_convolution, depthwise_convolution, transposed_convolution),
    *(channels_last, normalization, activation, pooling, residual, residual, concatenation, split, cut, shuffle),
    *(picked, padded, squeeze_and_excitation, spatial_attention, space_and_depth, coupled, filled_like, filled_like),
    *(option_a, option_a, viewed_as, padded_to_match, computed_shuffle, computed_half, scaled_by_extent),
    *(constant_channels, group_normalization, attention, selective_kernels),
)


def pooled_head(net: Network) -> Variable:
    x, channels = net.choose()
    flat = net.op("Flatten", net.op("GlobalAveragePool", x))
    return net.op("Gemm", flat, net.weight(5, channels), net.vector(5), transB=1)


def flat_head(net: Network) -> Variable:
    """Two fully connected layers on all positions of all channels."""
    x, channels = net.choose()
    if net.integer(0, 1):
        elements = net.op("Mul", net.extent(x, 1), net.integers(SIZE * SIZE))
        flat = net.op("Reshape", x, net.shape(net.extent(x, 0), elements))
    else:
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


def with_local_functions(model: Model, choose: Callable[[], bool]) -> onnx.ModelProto:
    """The model as an exporter writes it that keeps modules: nodes that are chosen become calls of functions."""
    proto = model.to_proto()
    for i, node in enumerate(proto.graph.node):
        if node.domain or not choose() or len(node.output) > 1 or "" in node.input:
            continue
        body = onnx.NodeProto()
        body.CopyFrom(node)
        inputs = [f"in{k}" for k in range(len(node.input))]
        del body.input[:], body.output[:]
        body.input.extend(inputs)
        body.output.append("out")
        opset = [onnx.helper.make_opsetid("", 18)]
        proto.functions.append(onnx.helper.make_function("modules", f"Module{i}", inputs, ["out"], [body], opset))
        node.op_type, node.domain = f"Module{i}", "modules"
        del node.attribute[:]
    proto.opset_import.append(onnx.helper.make_opsetid("modules", 1))
    return proto


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


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(model=networks(), seed=st.integers(0, 1000))
def test_networks_of_local_functions_are_pruned(model: Model, seed: int, oracles: ModuleType) -> None:
    random = np.random.default_rng(seed)
    read = Model.from_proto(with_local_functions(model, lambda: bool(random.integers(2))))
    planner = Planner.of(read)
    plan = random_plan(planner, seed)
    pruned = Materializer.of(read, planner.analysis).materialize(plan)
    feeds = oracles.random_feeds(read, seed)
    for a, b in zip(oracles.run(pruned, feeds), oracles.run(oracles.zero_masked(read, plan), feeds), strict=True):
        assert oracles.difference(a, b) <= oracles.TOLERANCE
    before = {(layer.kind, layer.size) for layer in Planner.of(model).analysis.layers}
    assert {(layer.kind, layer.size) for layer in planner.analysis.layers} == before


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
