"""Small networks of four kinds, each with variants: modules pruned, retrained, left out, and changed together."""

from __future__ import annotations

import zlib
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

import numpy as np
import pytest

from wootz.passes.ir.model import Constant, Graph, Model, Node, Tensor, Variable

CHANNELS, INNER, CLASSES, SIZE = 4, 6, 5, 8
FLOAT = np.dtype(np.float32)


@dataclass
class Network:
    """A network under construction: modules in `inner` have so many filters inside, convolutions in `retrained` other
    weights, and modules in `skipped` give what they read."""

    inner: Mapping[str, int] = field(default_factory=dict)
    retrained: Collection[str] = ()
    skipped: Collection[str] = ()

    def __post_init__(self) -> None:
        self.image = Variable("data", FLOAT, ["N", 3, SIZE, SIZE])
        self.graph = Graph(opset=18, inputs=[self.image])

    def op(self, kind: str, name: str, *operands: Tensor, **attributes: object) -> Tensor:
        result = Variable(name)
        self.graph.nodes.append(Node(op=kind, name=name, attrs=attributes, inputs=list(operands), outputs=[result]))
        return result

    def weights(self, name: str, *shape: int) -> Constant:
        """The first of those that a layer of that name has."""
        random = np.random.default_rng([zlib.crc32(name.encode()), name in self.retrained])
        whole = random.standard_normal((16, 16, *shape[2:])) / np.sqrt(np.prod(shape[1:]))
        return Constant(f"{name}.weight", whole[: shape[0], : shape[1]].astype(np.float32))

    def conv(self, name: str, x: Tensor, inputs: int, filters: int, kernel: int = 3) -> Tensor:
        weights = self.weights(name, filters, inputs, kernel, kernel)
        return self.op("Conv", name, x, weights, pads=[kernel // 2] * 4, kernel_shape=[kernel] * 2)

    def relu(self, x: Tensor) -> Tensor:
        return self.op("Relu", f"{x.name}.relu", x)

    def module(self, name: str, x: Tensor, inputs: int = CHANNELS) -> Tensor:
        """Two convolutions; a module that is left out has as many channels as it reads."""
        if name in self.skipped:
            return self.op("Identity", f"{name}.b", x)
        inner = self.inner.get(name, INNER)
        return self.conv(f"{name}.b", self.relu(self.conv(f"{name}.a", x, inputs, inner)), inner, CHANNELS)

    def finished(self, x: Tensor, channels: int = CHANNELS) -> Model:
        pooled = self.op("Flatten", "flat", self.op("GlobalAveragePool", "pool", x))
        return self.ending_in(self.op("MatMul", "scores", pooled, self.weights("fc", channels, CLASSES)))

    def ending_in(self, output: Tensor) -> Model:
        output.dtype = FLOAT
        self.graph.outputs = [output]
        return Model(self.graph)

    def stem(self) -> Tensor:
        return self.relu(self.conv("stem", self.image, 3, CHANNELS))


def chain(net: Network) -> Model:
    x = net.stem()
    for name in ("m1", "m2", "m3"):
        x = net.relu(net.module(name, x))
    return net.finished(x)


def residual(net: Network) -> Model:
    x = net.stem()
    for name in ("m1", "m2", "m3"):
        x = net.relu(net.op("Add", f"{name}.sum", net.module(name, x), x))
    return net.finished(x)


def inception(net: Network) -> Model:
    """Each module is one of three paths."""
    x, channels = net.stem(), CHANNELS
    for name in ("m1", "m2"):
        narrow = net.relu(net.conv(f"{name}.narrow", x, channels, CHANNELS, kernel=1))
        pooled = net.op("MaxPool", f"{name}.pool", x, kernel_shape=[3, 3], pads=[1] * 4)
        reduced = net.conv(f"{name}.reduced", x, channels, CHANNELS, kernel=1)
        paths = narrow, net.relu(net.module(name, reduced)), net.conv(f"{name}.last", pooled, channels, CHANNELS)
        x, channels = net.op("Concat", f"{name}.joined", *paths, axis=1), 3 * CHANNELS
    return net.finished(x, channels)


def expanding(net: Network) -> Tensor:
    """A U-Net: what is read on the way down is read again on the way up."""
    scales = Constant("scales", np.array([1, 1, 2, 2], np.float32))
    down = [net.relu(net.module("m1", net.stem()))]
    for name in ("m2", "m3"):
        pooled = net.op("MaxPool", f"{name}.pool", down[-1], kernel_shape=[2, 2], strides=[2, 2])
        down.append(net.relu(net.module(name, pooled)))
    x = down.pop()
    for name in ("m4", "m5"):
        wider = net.op("Resize", f"{name}.wider", x, Variable.empty(), scales, mode="nearest")
        joined = net.op("Concat", f"{name}.joined", wider, down.pop(), axis=1)
        x = net.relu(net.module(name, joined, 2 * CHANNELS))
    return x


def unet(net: Network) -> Model:
    return net.finished(expanding(net))


def segmentation(net: Network) -> Model:
    return net.ending_in(net.conv("map", expanding(net), CHANNELS, 2))


def detector(net: Network) -> Model:
    """Two outputs, of which the last modules change one alone."""
    x = net.stem()
    for name in ("m1", "m2"):
        x = net.relu(net.module(name, x))
    classes, boxes = (net.conv(head, net.relu(net.module(f"m{i}", x)), CHANNELS, 3) for i, head in ((3, "c"), (4, "b")))
    model = net.ending_in(classes)
    boxes.dtype = FLOAT
    model.graph.outputs.append(boxes)
    return model


KINDS = {f.__name__: f for f in (chain, residual, inception, unet, segmentation, detector)}


@dataclass(frozen=True)
class Case:
    full: Model
    variants: Mapping[str, Model]


def make_case(kind: str) -> Case:
    """A network with three variants of each module, one that is the network itself, one with changes in two modules
    and one in which everything is different."""
    build = KINDS[kind]
    full = build(Network())
    modules = sorted({name.split(".")[0] for name in full.graph.tensors() if name.startswith("m") and ".b" in name})
    everything = {name.removesuffix(".weight") for name in full.graph.tensors() if name.endswith(".weight")}
    variants = {"same": build(Network()), "all": build(Network(retrained=everything))}
    variants["two"] = build(Network(retrained={f"{modules[0]}.b"}, inner={modules[1]: 3}))
    for name in modules:
        variants[f"{name} pruned"] = build(Network(inner={name: 3}))
        variants[f"{name} retrained"] = build(Network(inner={name: 2}, retrained={f"{name}.a", f"{name}.b"}))
        if not (kind in ("unet", "segmentation") and name in ("m4", "m5")):  # they read more channels than they give
            variants[f"{name} skipped"] = build(Network(skipped={name}))
    return Case(full, variants)


@pytest.fixture(scope="session", params=KINDS)
def case(request: pytest.FixtureRequest) -> Case:
    return make_case(request.param)


@pytest.fixture(scope="session")
def case_of():
    return make_case
