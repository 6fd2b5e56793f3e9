"""int8: convolutions and what lies between them in 8-bit integers, by the quantiser of ONNX Runtime."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from itertools import chain, count
from pathlib import Path
from typing import Literal

import numpy as np

from wootz.passes.arrays import read_npz
from wootz.passes.base import Pass, PassResult, option
from wootz.passes.errors import reading
from wootz.passes.ir.model import Constant, Model, Node, producer
from wootz.passes.ir.rewrite import remaining_modules

IntegerType = Literal["int8", "uint8"]
Calibration = Literal["minmax", "percentile", "entropy"]
PRODUCTS = frozenset({"Conv", "Gemm", "MatMul"})
"""Operators with weights that are quantised; a network without any has nothing to gain."""


@dataclass(frozen=True)
class Quantization:
    """How a network is quantised: the types, how ranges are found in what it computes of a sample, and the nodes, by
    name, that stay in float32."""

    activations: IntegerType = "uint8"
    weights: IntegerType = "int8"
    calibration: Calibration = "minmax"
    keep: tuple[str, ...] = ()


Quantizer = Callable[[Model, Mapping[str, np.ndarray], Quantization], Model]
"""Gives the quantised network of one and inputs by name, whose first extents are images. Raises WootzError."""


@dataclass(frozen=True)
class Int8(Pass):
    """Quantises a network to 8-bit integers after training, by what it computes of a sample of inputs.

    1. Weights of Conv, Gemm and MatMul have a scale for each output channel, activations one for each tensor, whose
       range is found by running the network on the sample. QuantizeLinear and DequantizeLinear stand around the
       operators (QDQ); ONNX Runtime runs the two and what lies between as one operator of integers.
    2. Inputs and outputs stay float32, and so do the nodes that `keep` names, Softmax and Sigmoid. The results of Gemm
       and MatMul are not quantised, so that scores keep their differences.
    3. The input's first extent is the batch: of a fixed one the sample has a multiple.
    4. A node without a name, or with that of one before it, is called after what it computes.

    The sample is an array for each input, fed as the network expects it: a hundred training images or so.
    BatchNormalization should be folded before (fold-batchnorm). Refuses a network without weights to quantise, one that
    is quantised already, one whose inputs are not float32, and a sample that lacks one.
    """

    name = "int8"
    requires = "a sample of the network's inputs, data=FILE.npz or --data"
    data: Path | None = option(None, ".npz with the network's inputs by name")
    activations: IntegerType = option("uint8", "of activations: uint8, int8")
    weights: IntegerType = option("int8", "of weights: int8, uint8")
    calibration: Calibration = option("minmax", "how ranges are found: minmax, percentile, entropy")
    keep: tuple[str, ...] = option((), "names of nodes that stay in float32")
    sample: Mapping[str, np.ndarray] | None = None
    quantizer: Quantizer | None = None

    def apply(self, model: Model) -> PassResult:
        sample, model = self._sample(), with_node_names(model)
        self._check(model, sample)
        if self.quantizer is None:
            raise self.refuse("it needs something that quantises: none was given")
        asked = Quantization(self.activations, self.weights, self.calibration, self.keep)
        quantized = self.quantizer(model, {t.name: sample[t.name] for t in model.graph.inputs}, asked)
        nodes = quantizable(model)
        count = sum(_is_quantized(node) for node in quantized.graph.nodes if node.name in nodes)
        if not count:
            raise self.refuse("no convolution and no product of matrices could be quantised")
        modules = remaining_modules(model.modules, quantized.graph)
        result = replace(model, graph=quantized.graph, modules=modules)
        return PassResult(result, modified=True, statistics={"quantised": count, "float32": len(nodes) - count})

    def _sample(self) -> Mapping[str, np.ndarray]:
        if self.sample is not None:
            return self.sample
        if self.data is None:
            raise self.refuse(f"it needs {self.requires}")
        with reading(self.data, "an .npz file of arrays"):
            return read_npz(self.data)

    def _check(self, model: Model, sample: Mapping[str, np.ndarray]) -> None:
        operators = {node.op for node in model.graph.nodes}
        if "DequantizeLinear" in operators or "QuantizeLinear" in operators:
            raise self.refuse("the network is quantised already")
        nodes = quantizable(model)
        if not nodes:
            raise self.refuse("there is no convolution and no product of matrices whose weights could be quantised")
        if unknown := [name for name in self.keep if name not in {node.name for node in model.graph.nodes}]:
            raise self.refuse(f"keep names {unknown[0]!r}, and there is no such node")
        if not set(nodes) - set(self.keep):
            raise self.refuse("keep names all nodes that could be quantised")
        for source in model.graph.inputs:
            if source.name not in sample:
                raise self.refuse(f"the data has no array {source.name!r} (it has {', '.join(sample)})")
            if np.dtype(source.dtype).kind == "f" and np.dtype(source.dtype) != np.float32:
                raise self.refuse(
                    f"it takes float32, and this is {np.dtype(source.dtype)}: to-float32 first", source.name
                )


def with_node_names(model: Model) -> Model:
    """The network with a name of its own for each node; where each has one, as it is."""
    names = [node.name for node in model.graph.nodes]
    taken = set(names)
    if len(taken - {""}) == len(names):
        return model
    result, seen = model.copy(), set[str]()
    for node in result.graph.nodes:
        if not node.name or node.name in seen:
            stem = next(t.name for t in node.outputs if t.name)
            node.name = next(name for name in chain([stem], (f"{stem}.{n}" for n in count(2))) if name not in taken)
        seen.add(node.name)
        taken.add(node.name)
    return result


def quantizable(model: Model) -> tuple[str, ...]:
    """The names of the nodes with weights that can be quantised, in order."""
    return tuple(
        node.name
        for node in model.graph.nodes
        if node.op in PRODUCTS and not node.domain and any(isinstance(t, Constant) for t in node.inputs[:2])
    )


def _is_quantized(node: Node) -> bool:
    sources = [producer(t) for t in node.inputs[:2]]
    return all(source is not None and source.op == "DequantizeLinear" for source in sources)
