"""Segmentation: a small U-Net that says of each pixel whether it is background, disc, square or triangle.

    python examples/tasks/segmentation.py segmentation.onnx        # trains the full network
    wootz run segmentation.onnx --data examples/tasks/segmentation.py:data \\
        --metric examples/tasks/segmentation.py:mean_iou \\
        --objective "min ModelSize constraint mean_iou >= full - 0.05"
"""

from __future__ import annotations

import sys

import numpy as np

from wootz.examples.tasks.layers import Layers
from wootz.examples.tasks.scenes import TEST, TRAIN, VALIDATION, Split, scenes
from wootz.examples.tasks.training import Target, adam, trained
from wootz.passes.ir.files import save
from wootz.passes.ir.model import Model, Tensor, Variable

SIZE, CLASSES = 32, 4


def data(train: int = 1000, validation: int = 200, test: int = 200) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Images [n, 3, 32, 32] and class maps [n, 32, 32] of each split."""
    return {"train": _split(train, TRAIN), "val": _split(validation, VALIDATION), "test": _split(test, TEST)}


def _split(count: int, split: Split) -> tuple[np.ndarray, np.ndarray]:
    found = scenes(count, SIZE, split)
    return np.stack([scene.image for scene in found]), np.stack([scene.mask for scene in found])


def mean_iou(outputs: np.ndarray, targets: np.ndarray) -> float:
    """Pixels that answer and target share over those that one of them has, the mean over the classes.

    `outputs` [n, classes, height, width] are scores, `targets` [n, height, width] classes. A class that neither has
    counts for nothing.
    """
    answers = outputs.argmax(axis=1)
    both = np.bincount((targets * outputs.shape[1] + answers).ravel().astype(np.int64), minlength=outputs.shape[1] ** 2)
    counts = both.reshape(outputs.shape[1], outputs.shape[1])
    shared = np.diagonal(counts)
    either = counts.sum(axis=0) + counts.sum(axis=1) - shared
    return float((shared[either > 0] / either[either > 0]).mean())


def network(width: int = 12) -> Model:
    """Two levels down and up again (Ronneberger et al. 2015): scores of the classes, [N, 4, 32, 32]."""
    layers = Layers(channels=3, size=SIZE)

    def twice(name: str, x: Tensor, channels: int, filters: int) -> Variable:
        first = layers.op("Relu", layers.normalized(f"{name}.0", x, channels, filters))
        return layers.op("Relu", layers.normalized(f"{name}.1", first, filters, filters))

    def smaller(x: Tensor) -> Variable:
        return layers.op("MaxPool", x, kernel_shape=[2, 2], strides=[2, 2])

    top = twice("down1", layers.image, 3, width)
    middle = twice("down2", smaller(top), width, 2 * width)
    bottom = twice("down3", smaller(middle), 2 * width, 4 * width)
    up = layers.twice_as_large("up2", bottom, 4 * width, 2 * width)
    middle = twice("merge2", layers.op("Concat", middle, up, axis=1), 4 * width, 2 * width)
    up = layers.twice_as_large("up1", middle, 2 * width, width)
    top = twice("merge1", layers.op("Concat", top, up, axis=1), 2 * width, width)
    scores = layers.convolution("scores", top, width, CLASSES, kernel=1)
    return layers.finished({"scores": (scores, ["N", CLASSES, SIZE, SIZE])})


def full_network(images: np.ndarray, masks: np.ndarray, width: int = 12, steps: int = 900) -> Model:
    """The network, trained by the cross-entropy of each pixel."""
    return trained(network(width), images, {"scores": Target("softmax-cross-entropy", masks)}, adam(steps))


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    save(full_network(*data()["train"]), sys.argv[1])
