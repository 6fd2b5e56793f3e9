"""What the networks of these examples consist of: layers with random weights, appended to an ONNX graph."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from wootz.passes.ir.builder import Builder
from wootz.passes.ir.model import Graph, Model, Tensor, Variable
from wootz.passes.ir.verifier import verify
from wootz.passes.plan.transform import TRANSFORM_KEY, InputTransform

PIXELS = InputTransform(mean=(127.5,), scale=(1 / 127.5,), channel_order="RGB")
"""Pixels from 0 to 255 reach all these networks as numbers from -1 to 1; their files say so."""


class Layers:
    """A network under construction: `image` is its input, [N, channels, size, size].

    Each layer takes a tensor, the number of its channels and the number of filters, and is called by a path of names.
    """

    def __init__(self, channels: int, size: int, seed: int = 0):
        self.image = Variable("image", np.float32, ["N", channels, size, size])
        self.builder = Builder(Graph(inputs=[self.image], name="network", opset=18))
        self._random = np.random.default_rng(seed)

    def op(self, operator: str, *inputs: Tensor | None, **attributes: object) -> Variable:
        """Any other operator of ONNX."""
        return self.builder.op(operator, *inputs, **attributes)  # type: ignore[arg-type]

    def convolution(
        self, name: str, x: Tensor, channels: int, filters: int, kernel: int = 3, gain: float = 1.0
    ) -> Variable:
        """With a bias, and the padding that keeps the size. The weights are `gain` times as large as usual."""
        weight = self._weight(f"{name}.weight", (filters, channels, kernel, kernel), channels * kernel**2 / gain**2)
        bias = self.builder.constant(np.zeros(filters, np.float32), f"{name}.bias")
        pads = [kernel // 2] * 4
        return self.builder.op("Conv", x, weight, bias, hint=name, pads=pads)

    def normalized(
        self, name: str, x: Tensor, channels: int, filters: int, kernel: int = 3, stride: int = 1
    ) -> Variable:
        """A convolution and its BatchNormalization."""
        weight = self._weight(f"{name}.conv.weight", (filters, channels, kernel, kernel), channels * kernel**2)
        pads = [kernel // 2] * 4
        found = self.builder.op("Conv", x, weight, hint=f"{name}.conv", pads=pads, strides=[stride] * 2)
        first = {"weight": 1, "bias": 0, "running_mean": 0, "running_var": 1}
        statistics = [
            self.builder.constant(np.full(filters, value, np.float32), f"{name}.norm.{part}")
            for part, value in first.items()
        ]
        return self.builder.op("BatchNormalization", found, *statistics, hint=f"{name}.norm")

    def twice_as_large(self, name: str, x: Tensor, channels: int, filters: int) -> Variable:
        """A transposed convolution that doubles height and width."""
        weight = self._weight(f"{name}.weight", (channels, filters, 2, 2), channels)
        return self.builder.op("ConvTranspose", x, weight, hint=name, strides=[2, 2])

    def dense(self, name: str, x: Tensor, channels: int, outputs: int) -> Variable:
        """A fully connected layer over [N, channels]."""
        weight = self._weight(f"{name}.weight", (outputs, channels), channels)
        bias = self.builder.constant(np.zeros(outputs, np.float32), f"{name}.bias")
        return self.builder.op("Gemm", x, weight, bias, hint=name, transB=1)

    def finished(self, outputs: Mapping[str, tuple[Variable, list[int | str]]]) -> Model:
        """The network with these outputs, by name: tensors and their shapes."""
        for name, (tensor, shape) in outputs.items():
            tensor.name, tensor.dtype, tensor.shape = name, np.dtype(np.float32), shape
        graph = self.builder.graph
        graph.outputs = [tensor for tensor, _ in outputs.values()]
        model = Model(graph, metadata={TRANSFORM_KEY: PIXELS.to_json()})
        verify(model)
        return model

    def _weight(self, name: str, shape: tuple[int, ...], inputs: float) -> Tensor:
        """Random numbers of a variance that keeps that of the signal (He et al. 2015)."""
        values = self._random.normal(0, np.sqrt(2 / inputs), shape)
        return self.builder.constant(values.astype(np.float32), name)
