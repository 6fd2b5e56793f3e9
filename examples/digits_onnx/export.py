"""Trains a small residual network on scikit-learn's digits in PyTorch and exports it: how digits.onnx was made.

    python examples/digits_onnx/export.py FOLDER digits.onnx

FOLDER is what write_images.py wrote, of which train/ alone is used to train, test/ to say how good the network is.
Networks trained with BatchNormalization are best exported with it (optimize=False), so that they can be trained on.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

EPOCHS = 150
BATCH = 32


def convolution(inputs: int, outputs: int, kernel: int, stride: int = 1) -> nn.Sequential:
    layers = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False), nn.BatchNorm2d(outputs)
    return nn.Sequential(*layers)


class Block(nn.Module):
    """The bottleneck of a residual network."""

    def __init__(self, inputs: int, inner: int, outputs: int, stride: int = 1):
        super().__init__()
        self.conv1 = convolution(inputs, inner, 1)
        self.conv2 = convolution(inner, inner, 3, stride)
        self.conv3 = convolution(inner, outputs, 1)
        is_same = stride == 1 and inputs == outputs
        self.shortcut = nn.Identity() if is_same else convolution(inputs, outputs, 1, stride)

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.conv2(F.relu(self.conv1(x))))
        return F.relu(self.conv3(y) + self.shortcut(x))


class DigitsNetwork(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = convolution(1, 16, 3)
        self.layer1 = nn.Sequential(Block(16, 16, 32), Block(32, 16, 32))
        self.layer2 = nn.Sequential(Block(32, 32, 64, 2), Block(64, 32, 64))
        self.fc = nn.Linear(64, 10)

    def forward(self, x: Tensor) -> Tensor:
        y = self.layer2(self.layer1(F.relu(self.stem(x))))
        scores: Tensor = self.fc(y.mean((2, 3)))
        return scores


def read(split: Path) -> tuple[Tensor, Tensor]:
    """Images from -1 to 1, float32[n, 1, 8, 8], and their classes."""
    files = sorted(split.glob("*/*.png"))
    pixels = np.stack([np.asarray(Image.open(file), np.float32) for file in files])
    return torch.from_numpy(pixels[:, None] / 127.5 - 1), torch.tensor([int(file.parent.name) for file in files])


def moved(images: Tensor) -> Tensor:
    """A batch moved by up to a pixel each way, with noise."""
    down, right = (int(n) for n in torch.randint(3, (2,)))
    shifted = F.pad(images, (1, 1, 1, 1), value=-1)[:, :, down : down + 8, right : right + 8]
    return shifted + 0.1 * torch.randn(images.shape)


def train(
    network: nn.Module, images: Tensor, labels: Tensor, changed: Callable[[Tensor], Tensor], epochs: int
) -> nn.Module:
    """The network, trained on batches that are `changed` anew each time."""
    steps = epochs * (len(images) // BATCH)
    optimizer = torch.optim.SGD(network.parameters(), 0.05, momentum=0.9, weight_decay=5e-4)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for _ in range(epochs):
        for batch in torch.randperm(len(images))[: len(images) // BATCH * BATCH].split(BATCH):
            loss = F.cross_entropy(network(changed(images[batch])), labels[batch])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    return network.eval()


def export(network: nn.Module, images: Tensor, file: Path) -> None:
    """Writes the network with an open batch and its BatchNormalizations; `images` are an example of its input."""
    program = torch.onnx.export(
        network,
        (images,),
        input_names=["image"],
        output_names=["scores"],
        dynamic_shapes=({0: torch.export.Dim("batch")},),
        optimize=False,
    )
    assert program is not None, "the newer exporter gives a program"
    model = program.model_proto
    for node in model.graph.node:
        del node.metadata_props[:]  # the lines of source that it comes from
    onnx.save(model, file)


def main(folder: Path, file: Path) -> None:
    torch.manual_seed(0)
    torch.set_num_threads(1)
    network = train(DigitsNetwork(), *read(folder / "train"), moved, EPOCHS)
    images, labels = read(folder / "test")
    print(f"{float((network(images).argmax(1) == labels).float().mean()):.4f} of the test images")
    export(network, images[:2], file)


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    main(Path(sys.argv[1]), Path(sys.argv[2]))
