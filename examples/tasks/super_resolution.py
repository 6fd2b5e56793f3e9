"""Super-resolution: a network that makes photographs twice as large, learnt from one and judged by another.

    python examples/tasks/super_resolution.py super_resolution.onnx        # trains the full network
    wootz run super_resolution.onnx --data examples/tasks/super_resolution.py:data \\
        --metric examples/tasks/super_resolution.py:psnr \\
        --objective "min ModelSize constraint psnr >= full - 0.1"
"""

from __future__ import annotations

import sys

import numpy as np

from wootz.examples.tasks.layers import Layers
from wootz.examples.tasks.scenes import photograph
from wootz.examples.tasks.training import Target, adam, trained
from wootz.passes.ir.files import save
from wootz.passes.ir.model import Model

SMALL, LARGE = 16, 32
LITTLE = 0.01
"""Of their usual size have weights of layers that begin by adding next to nothing."""


def data(train: int = 1000, validation: int = 200, test: int = 200) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Patches [n, 1, 16, 16] of a small grey photograph, and what they were made from, [n, 1, 32, 32] from 0 to 1.

    Training sees nothing but the temple of `china.jpg`; validation the left half of `flower.jpg`, the test its right
    half.
    """
    temple, flower = (grey(photograph(name)) for name in ("china.jpg", "flower.jpg"))
    middle = flower.shape[2] // 2
    parts = {"train": temple, "val": flower[:, :, :middle], "test": flower[:, :, middle:]}
    counts = {"train": train, "val": validation, "test": test}
    return {name: patches(part, counts[name], seed) for seed, (name, part) in enumerate(parts.items())}


def grey(colours: np.ndarray) -> np.ndarray:
    return colours.mean(axis=0, keepdims=True)


def patches(whole: np.ndarray, count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Windows of a photograph [1, height, width], drawn at random: half the size, and as they are."""
    random = np.random.default_rng(seed)
    tops, lefts = (random.integers(extent - LARGE + 1, size=count) for extent in whole.shape[1:])
    large = np.stack([whole[:, t : t + LARGE, x : x + LARGE] for t, x in zip(tops, lefts, strict=True)])
    small = large.reshape(count, 1, SMALL, 2, SMALL, 2).mean(axis=(3, 5)).round().astype(np.uint8)
    return small, (large / 255).astype(np.float32)


def psnr(outputs: np.ndarray, targets: np.ndarray) -> float:
    """The peak signal-to-noise ratio of images from 0 to 1, in dB: of all patches together, as of one photograph."""
    return float(-10 * np.log10(((np.clip(outputs, 0, 1) - targets) ** 2).mean()))


def network(width: int = 24, blocks: int = 4) -> Model:
    """What bilinear interpolation gives, and what residual blocks add to it (Lim et al. 2017): [N, 1, 32, 32]."""
    layers = Layers(channels=1, size=SMALL)
    first = x = layers.convolution("head", layers.image, 1, width)
    for i in range(blocks):
        inner = layers.op("Relu", layers.convolution(f"body.{i}.0", x, width, 2 * width))
        x = layers.op("Add", layers.convolution(f"body.{i}.1", inner, 2 * width, width, gain=LITTLE), x)
    x = layers.op("Add", x, first)
    details = layers.op("DepthToSpace", layers.convolution("tail", x, width, 4, gain=LITTLE), blocksize=2)
    scales = layers.builder.constant([1.0, 1.0, 2.0, 2.0], "scales")
    plain = layers.op("Resize", layers.image, None, scales, mode="linear")
    half = layers.builder.constant(0.5, "half")
    plain = layers.op("Add", layers.op("Mul", plain, half), half)  # from [-1, 1] to [0, 1]
    return layers.finished({"enlarged": (layers.op("Add", plain, details), ["N", 1, LARGE, LARGE])})


def full_network(small: np.ndarray, large: np.ndarray, width: int = 24, steps: int = 600) -> Model:
    """The network, trained by the mean difference from the large patches."""
    return trained(network(width), small, {"enlarged": Target("l1", large)}, adam(steps, base_lr=0.001))


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    save(full_network(*data()["train"]), sys.argv[1])
