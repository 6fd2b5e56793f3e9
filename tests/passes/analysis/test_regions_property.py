"""Networks that go down and up again: their modules can be cut out, pruned and taught."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from types import ModuleType

import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from wootz.passes.analysis.module_boundaries import block_of, check_modules
from wootz.passes.analysis.modules import find_modules
from wootz.passes.ir.builder import Builder
from wootz.passes.ir.model import Graph, Model, Tensor, Variable, module_nodes, subgraph_nodes
from wootz.passes.ir.verifier import verify
from wootz.passes.plan.blocks import Symbol, TuningBlock
from wootz.passes.pruning.block_pruner import BlockPruner
from wootz.passes.pruning.student import carve
from wootz.passes.transforms.teacher_student import TeacherStudent, student_loss
from wootz.runtime.session import evaluate

SIZE = 8
WIDTHS = (2, 4, 6)


class Pyramid:
    """A network under construction: `skips` are maps left behind on the way down, by their depth."""

    def __init__(self, integer: Callable[[int, int], int]):
        self.integer = integer
        self.graph = Graph(opset=18)
        self.builder = Builder(self.graph)
        self.random = np.random.default_rng(integer(0, 1 << 16))
        self.channels: dict[str, int] = {}
        self.outputs: list[Tensor] = []
        self.weights: dict[tuple[int, ...], Tensor] = {}

    def input(self, name: str, channels: int, size: int) -> Tensor:
        tensor = Variable(name, np.dtype(np.float32), ["N", channels, size, size])
        self.graph.inputs.append(tensor)
        self.channels[name] = channels
        return tensor

    def op(self, kind: str, *operands: Tensor, channels: int | None = None, **attributes: object) -> Tensor:
        result = self.builder.op(kind, *operands, **attributes)
        self.channels[result.name] = self.channels[operands[0].name] if channels is None else channels
        return result

    def constant(self, values: object) -> Tensor:
        return self.builder.constant(np.asarray(values))

    def conv(self, x: Tensor, outputs: int, kernel: int = 3, stride: int = 1) -> Tensor:
        inputs = self.channels[x.name]
        settings = {"pads": [(kernel - 1) // 2] * 4, "strides": [stride] * 2}
        return self.op("Conv", x, self.weight(outputs, inputs, kernel), channels=outputs, **settings)

    def weight(self, outputs: int, inputs: int, kernel: int) -> Tensor:
        """A new one or, where layers are to share some, the last one of that shape."""
        shape = (outputs, inputs, kernel, kernel)
        if shape not in self.weights or self.integer(0, 2):
            values = self.random.standard_normal(shape) / (kernel * np.sqrt(inputs))
            self.weights[shape] = self.constant(values.astype(np.float32))
        return self.weights[shape]

    def layer(self, x: Tensor, outputs: int) -> Tensor:
        return self.op("Relu", self.conv(x, outputs, 1 + 2 * self.integer(0, 1)))

    def stage(self, x: Tensor) -> Tensor:
        """Some layers, the inner ones of other widths, or a residual block."""
        if self.integer(0, 2) == 0:
            inner = self.conv(self.layer(x, self.width()), self.channels[x.name])
            return self.op("Relu", self.op("Add", inner, x))
        for _ in range(self.integer(1, 3)):
            x = self.layer(x, self.width())
        return x

    def width(self) -> int:
        return WIDTHS[self.integer(0, 2)]

    def down(self, x: Tensor) -> Tensor:
        if self.integer(0, 1):
            return self.op("MaxPool", x, kernel_shape=[2, 2], strides=[2, 2])
        return self.op("Relu", self.conv(x, self.width(), 3, 2))

    def up(self, x: Tensor) -> Tensor:
        outputs = self.width()
        if self.integer(0, 1):
            weight = self.random.standard_normal((self.channels[x.name], outputs, 2, 2)) / 2
            return self.op(
                "ConvTranspose", x, self.constant(weight.astype(np.float32)), channels=outputs, strides=[2, 2]
            )
        empty, scales = self.constant(np.zeros(0, np.float32)), self.constant(np.float32([1, 1, 2, 2]))
        return self.op("Resize", x, empty, scales, mode="nearest")

    def merge(self, x: Tensor, skip: Tensor) -> Tensor:
        total = self.channels[x.name] + self.channels[skip.name]
        if self.integer(0, 1):
            return self.op("Concat", x, skip, axis=1, channels=total)
        return self.op("Add", self.conv(skip, self.channels[x.name], 1), x)

    def head(self, x: Tensor) -> None:
        for _ in range(self.integer(0, 2)):
            x = self.layer(x, self.width())
        output = self.conv(x, 3, 1)
        output.name = f"output{len(self.outputs)}"
        output.dtype = np.dtype(np.float32)
        self.outputs.append(output)


@st.composite
def pyramids(draw: st.DrawFn) -> Model:
    net = Pyramid(lambda low, high: draw(st.integers(low, high)))
    depth = net.integer(1, 3)
    x, skips = net.input("image", 3, SIZE), []
    if net.integer(0, 3) == 0:
        other = net.stage(net.input("other", 2, SIZE))
        x = net.op("Concat", x, other, axis=1, channels=3 + net.channels[other.name])
    for _ in range(depth):
        x = net.stage(x)
        skips.append(x)
        x = net.down(x)
    x = net.stage(x)
    has_heads = net.integer(0, 1)
    for skip in reversed(skips):
        x = net.merge(net.up(x), skip)
        x = net.stage(x) if net.integer(0, 1) else x
        if has_heads:
            net.head(x)
    net.head(x)
    net.graph.outputs = net.outputs
    model = Model(net.graph)
    model.graph.toposort()
    return model


def found(model: Model) -> Model:
    return replace(model, modules=find_modules(model)[0])


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(model=pyramids())
def test_regions_are_pieces_of_their_own_in_order(model: Model) -> None:
    model = found(model)
    verify(model)
    if not model.modules:
        return
    check_modules(model, model.modules)
    tensors = model.graph.tensors()
    nodes = [{id(node) for node in module_nodes(model, module)} for module in model.modules]
    assert sum(map(len, nodes)) == len(set().union(*nodes))
    for i, module in enumerate(model.modules):
        before = subgraph_nodes([tensors[name] for name in module.entries])
        assert all(before.isdisjoint(later) for later in nodes[i:])


@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(model=pyramids())
def test_regions_are_pruned_correctly(model: Model, oracles: ModuleType) -> None:
    pruner = BlockPruner.of(found(model))
    assert all(table.prunable for table in pruner.convolutions), "a module of which nothing can be removed"
    plan = pruner.plan({table.module: 0.5 for table in pruner.convolutions})
    pruned = pruner.materialize(plan)
    verify(pruned)
    feeds = oracles.random_feeds(model)
    for a, b in zip(oracles.run(pruned, feeds), oracles.run(oracles.zero_masked(model, plan), feeds), strict=True):
        assert oracles.difference(a, b) <= oracles.TOLERANCE


@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(model=pyramids(), data=st.data())
def test_students_learn_from_what_goes_in_and_out_of_the_teacher(
    model: Model, data: st.DataObject, oracles: ModuleType
) -> None:
    """A whole block gives what the network does; a pruned one's loss is the mean of the errors of its outputs."""
    model = found(model)
    if not model.modules:
        return
    first = data.draw(st.integers(0, len(model.modules) - 1))
    last = data.draw(st.integers(first, len(model.modules) - 1))
    ends = block_of(model, model.modules[first : last + 1])
    feeds = oracles.random_feeds(model)
    teacher = tapped(model, feeds, ends.ends)
    whole = evaluate(carve(model, model.modules[first : last + 1], None), {n: teacher[n] for n in ends.entries})
    assert list(whole) == list(ends.exits)
    assert all(oracles.difference(whole[name], teacher[name]) <= oracles.TOLERANCE for name in ends.exits)

    pruner = BlockPruner.of(model)
    block = TuningBlock(tuple(Symbol(i, 0.5) for i in range(first, last + 1)))
    student = evaluate(pruner.student(block).model, {n: teacher[n] for n in ends.entries})
    errors = [np.mean((student[n] - teacher[n]) ** 2) for n in ends.exits]
    if len(errors) > 1:
        errors = [e / np.mean(teacher[n] ** 2) for e, n in zip(errors, ends.exits, strict=True)]
    joint = evaluate(TeacherStudent().join(pruner, [block]), feeds)
    np.testing.assert_allclose(joint[student_loss(0)], np.mean(errors), rtol=1e-4, atol=1e-9)


def tapped(model: Model, feeds: dict[str, np.ndarray], names: tuple[str, ...]) -> dict[str, np.ndarray]:
    """What these tensors of a network are, its inputs among them."""
    result = model.copy()
    tensors = result.graph.tensors()
    result.graph.outputs = [tensors[name] for name in names if name not in feeds]
    for tensor in result.graph.outputs:
        tensor.dtype = np.dtype(np.float32)
    return feeds | evaluate(result, feeds)
