"""The weight gradient of convolutions on a GPU, in two formulations.

    python benchmarks/weight_gradient.py [--device cuda] [--precision float16] [--batch 32] [--repetitions 20]

"product" is that of the target onnx-cuda, "convolution" the definition of wootz.ConvWeightGrad, with batch and channels
exchanged. Prints the median milliseconds of each for the shapes of a ResNet-50 at 224² and of a MobileNet. The operands
are constants on the device, to which an input is added; what that takes is measured and subtracted.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import dataclass

import numpy as np

from wootz.passes.ir.builder import Builder
from wootz.passes.ir.model import Graph, Model, Node, Tensor, Variable
from wootz.passes.training.expression import Expression
from wootz.passes.training.functions import gradient_functions
from wootz.passes.training.legalize import inline
from wootz.passes.training.lowerings.cuda_convolution import conv_weight_grad
from wootz.runtime.session import Device, InferenceSession


@dataclass(frozen=True)
class Shape:
    """A convolution with square image and kernel, padded so that the image keeps its size over the stride."""

    name: str
    channels: int
    filters: int
    size: int
    kernel: int
    stride: int = 1
    group: int = 1

    @property
    def count(self) -> int:
        return -(-self.size // self.stride)


SHAPES = (
    Shape("stem", 3, 64, 224, 7, 2),
    Shape("res2 1x1", 64, 256, 56, 1),
    Shape("res2 3x3", 64, 64, 56, 3),
    Shape("res3 3x3, stride 2", 128, 128, 56, 3, 2),
    Shape("res3 3x3", 128, 128, 28, 3),
    Shape("res4 3x3", 256, 256, 14, 3),
    Shape("res5 3x3", 512, 512, 7, 3),
    Shape("res5 1x1", 512, 2048, 7, 1),
    Shape("depthwise 3x3", 144, 144, 56, 3, 1, 144),
    Shape("depthwise 3x3", 960, 960, 7, 3, 1, 960),
)


def program(shape: Shape, way: str, batch: int, dtype: np.dtype) -> Model:
    """The gradient as the graph's output; for the way "nothing" a sum of the operands."""
    generator = np.random.default_rng(0)
    zero = Variable("zero", dtype, ())
    graph = Graph(inputs=[zero], opset=18)
    builder = Builder(graph)

    def operand(name: str, *extents: int) -> Tensor:
        values = (generator.standard_normal(extents, np.float32) * 0.1).astype(dtype)
        tensor = builder.op("Add", builder.constant(values, name), zero)
        tensor.dtype, tensor.shape = dtype, list(extents)
        return tensor

    x = operand("x", batch, shape.channels, shape.size, shape.size)
    dy = operand("dy", batch, shape.filters, shape.count, shape.count)
    w = operand("w", shape.filters, shape.channels // shape.group, shape.kernel, shape.kernel)
    call = Node("ConvWeightGrad", attrs=_attributes(shape), inputs=[x, dy, w], outputs=[])
    match way:
        case "product":
            results = conv_weight_grad(call, builder) or []
        case "convolution":
            results = inline(gradient_functions()["ConvWeightGrad"], call, builder)
        case _:
            sums = [Expression.of(t, builder).sum(keepdims=False) for t in (x, dy)]
            results = [(sums[0] + sums[1]).tensor]
    call.inputs.clear()
    graph.outputs = [Expression(results[0], builder, dtype).sum(keepdims=False).tensor]
    graph.outputs[0].dtype, graph.outputs[0].shape = dtype, ()
    return Model(graph)


def _attributes(shape: Shape) -> dict[str, object]:
    missing = max((shape.count - 1) * shape.stride + shape.kernel - shape.size, 0)
    begin = shape.kernel // 2
    return {
        "strides": [shape.stride] * 2,
        "dilations": [1, 1],
        "pads": [begin, begin, missing - begin, missing - begin],
        "group": shape.group,
        "kernel_shape": [shape.kernel] * 2,
    }


def milliseconds(model: Model, device: Device, repetitions: int, dtype: np.dtype) -> float:
    session = InferenceSession(model, device)
    zero = np.zeros((), dtype)
    session.run(zero)
    times = []
    for _ in range(repetitions):
        begin = time.perf_counter()
        session.run(zero)
        times.append(1e3 * (time.perf_counter() - begin))
    return float(np.median(times))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cuda")
    parser.add_argument("--precision", choices=["float32", "float16"], default="float16")
    parser.add_argument("--tf32", action="store_true")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--repetitions", type=int, default=20)
    parser.add_argument("--threads", type=int, default=0)
    options = parser.parse_args()
    device = Device(options.device, options.threads, tf32=options.tf32)
    dtype = np.dtype(options.precision)
    print(f"{'ms':24}{'product':>12}{'convolution':>14}")
    for shape in SHAPES:
        took = {
            way: milliseconds(program(shape, way, options.batch, dtype), device, options.repetitions, dtype)
            for way in ("nothing", "product", "convolution")
        }
        product, convolution = (took[way] - took["nothing"] for way in ("product", "convolution"))
        print(f"{shape.name:24}{product:12.3f}{convolution:14.3f}", flush=True)


if __name__ == "__main__":
    main()
