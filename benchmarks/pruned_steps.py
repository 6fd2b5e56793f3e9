"""What a training step of a pruned network takes beside the full one's, and what it computes.

    python benchmarks/pruned_steps.py net.onnx [--rates 0.3,0.5,0.7] [--batch-size 32] [--steps 12]

All modules have the same rate, layers keep multiples of 8 filters, and images are random, in the network's size. The
target is `native`, on one thread; milliseconds are the processor's, medians. "With fill" are the multiply-accumulates
of convolutions and their gradients when the last blocks of --block channels are filled up, as the kernels compute them.
"""

from __future__ import annotations

import argparse
import math
import statistics
import time
from pathlib import Path

import numpy as np
from machine import machine

from wootz.passes.analysis.cost import macs_of
from wootz.passes.analysis.static_shapes import static_shapes
from wootz.passes.ir.files import load
from wootz.passes.ir.model import Model
from wootz.passes.plan.solver import Solver
from wootz.passes.pruning.block_pruner import BlockPruner
from wootz.passes.pruning.rounding import Rounding
from wootz.passes.training.block_convolutions import round_up
from wootz.passes.training.training_graph import build_training_graph
from wootz.runtime.session import Device, TrainingSession


def macs(model: Model) -> int:
    return macs_of(model.graph.nodes, static_shapes(model))


def macs_with_fill(model: Model, block: int) -> int:
    """Of convolutions, forward and for both gradients; fewer channels than a block are read as they are."""
    shapes, total = static_shapes(model).shapes, 0
    for node in model.graph.nodes:
        if node.op == "Conv" and node.attrs.get("group", 1) == 1:
            filters, channels, *kernel = map(int, node.inputs[1].shape)
            shape = shapes[node.outputs[0].name]
            assert shape is not None
            places = math.prod(kernel) * math.prod(shape[2:])
            forward = round_up(filters, block) * _read(channels, block)
            of_inputs = round_up(channels, block) * _read(filters, block)
            of_weights = filters * channels if channels < block else round_up(filters, 8) * round_up(channels, block)
            total += places * (forward + of_inputs + of_weights)
    return total


def _read(channels: int, block: int) -> int:
    return channels if channels < block else round_up(channels, block)


def step_seconds(model: Model, batch_size: int, steps: int) -> float:
    generator = np.random.default_rng(0)
    images = generator.normal(size=(batch_size, *model.graph.inputs[0].shape[1:])).astype(np.float32)
    labels = generator.integers(0, model.graph.outputs[0].shape[1], batch_size)
    graph = build_training_graph(model, Solver(momentum=0.9, weight_decay=1e-4), target="native")
    session = TrainingSession(graph, Device(threads=1), batch_size)
    seconds = []
    for _ in range(steps):
        begin = time.process_time()
        session.step(images, labels, 0.01)
        seconds.append(time.process_time() - begin)
    return statistics.median(seconds)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("network", type=Path)
    parser.add_argument("--rates", type=lambda text: [float(part) for part in text.split(",")], default=[0.3, 0.5, 0.7])
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--block", type=int, default=16, help="channels: 16 with AVX-512, else 8")
    options = parser.parse_args()
    network = load(options.network)
    pruner = BlockPruner.of(network, rounding=Rounding(8))
    full = step_seconds(network, options.batch_size, options.steps)
    print(machine())
    print(f"full network: {1000 * full:.1f} ms")
    for rate in options.rates:
        pruned = pruner.materialize(pruner.plan({module.name: rate for module in pruner.modules}))
        seconds = step_seconds(pruned, options.batch_size, options.steps)
        products = macs(pruned) / macs(network)
        filled = macs_with_fill(pruned, options.block) / macs_with_fill(network, options.block)
        print(f"{rate:g}: {1000 * seconds:.1f} ms, {seconds / full:.2f} of it", end="; ")
        print(f"{products:.2f} of the multiply-accumulates, {filled:.2f} with fill")


if __name__ == "__main__":
    main()
