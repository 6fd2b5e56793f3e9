"""Images without labels: a classifier of digits is made smaller with nothing but the digits' pixels.

    python examples/tasks/unlabelled.py digits.onnx        # trains the full network, with labels
    wootz run digits.onnx --data examples/tasks/unlabelled.py:images \\
        --objective "min ModelSize constraint Agreement >= 0.97"

`--data examples/tasks/unlabelled.py:labelled` with `Accuracy >= full - 0.01` does the same with labels.
"""

from __future__ import annotations

import sys

import numpy as np
from sklearn.datasets import load_digits

from wootz.examples.tasks.layers import Layers
from wootz.examples.tasks.training import Target, adam, trained
from wootz.passes.ir.files import save
from wootz.passes.ir.model import Model, Tensor, Variable

SIZE, CLASSES = 8, 10
Labelled = tuple[np.ndarray, np.ndarray]


def labelled() -> dict[str, Labelled]:
    """scikit-learn's digits, uint8 [n, 1, 8, 8], and their classes: of every four two are for training, one is for
    validation and one for testing."""
    digits = load_digits()
    pixels = np.round(digits.images * (255 / 16)).astype(np.uint8)[:, None]
    place = np.arange(len(pixels)) % 4
    splits = {"train": place < 2, "val": place == 2, "test": place == 3}
    return {name: (pixels[chosen], digits.target[chosen]) for name, chosen in splits.items()}


def images() -> dict[str, np.ndarray]:
    """The same without classes."""
    return {name: pixels for name, (pixels, _) in labelled().items()}


def network(width: int = 16) -> Model:
    """A residual network of four bottlenecks: scores of the ten digits."""
    layers = Layers(channels=1, size=SIZE)

    def block(name: str, x: Tensor, channels: int, inner: int, filters: int, stride: int = 1) -> Variable:
        y = layers.op("Relu", layers.normalized(f"{name}.1", x, channels, inner, kernel=1))
        y = layers.op("Relu", layers.normalized(f"{name}.2", y, inner, inner, stride=stride))
        y = layers.normalized(f"{name}.3", y, inner, filters, kernel=1)
        is_same = stride == 1 and channels == filters
        past = x if is_same else layers.normalized(f"{name}.past", x, channels, filters, kernel=1, stride=stride)
        return layers.op("Relu", layers.op("Add", y, past))

    x = layers.op("Relu", layers.normalized("stem", layers.image, 1, width))
    x = block("layer1.0", x, width, width, 2 * width)
    x = block("layer1.1", x, 2 * width, width, 2 * width)
    x = block("layer2.0", x, 2 * width, 2 * width, 4 * width, stride=2)
    x = block("layer2.1", x, 4 * width, 2 * width, 4 * width)
    x = layers.op("Flatten", layers.op("GlobalAveragePool", x))
    return layers.finished({"scores": (layers.dense("fc", x, 4 * width, CLASSES), ["N", CLASSES])})


def full_network(pixels: np.ndarray, labels: np.ndarray, width: int = 16, steps: int = 400) -> Model:
    """The network, trained by its labels."""
    return trained(network(width), pixels, {"scores": Target("softmax-cross-entropy", labels)}, adam(steps))


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    save(full_network(*labelled()["train"]), sys.argv[1])
