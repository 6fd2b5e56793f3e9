"""Trains a small residual network on photographs of shapes in PyTorch and exports it: how shapes.onnx was made.

    python examples/shapes_onnx/export.py FOLDER shapes.onnx

FOLDER is what write_images.py wrote, of which train/ alone is used to train, test/ to say how good the network is.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

from wootz.examples.digits_onnx.export import Block, convolution, export, train
from wootz.examples.tasks.scenes import SHAPES

SIZE = 32
MEAN = torch.tensor([0.485, 0.456, 0.406])[:, None, None]
STD = torch.tensor([0.229, 0.224, 0.225])[:, None, None]
EPOCHS = 30


class ShapesNetwork(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = convolution(3, 16, 3, 2)
        self.layer1 = nn.Sequential(Block(16, 16, 32), Block(32, 16, 32))
        self.layer2 = nn.Sequential(Block(32, 32, 64, 2), Block(64, 32, 64))
        self.layer3 = nn.Sequential(Block(64, 48, 96, 2), Block(96, 48, 96))
        self.fc = nn.Linear(96, len(SHAPES))

    def forward(self, x: Tensor) -> Tensor:
        y = self.layer3(self.layer2(self.layer1(F.relu(self.stem(x)))))
        scores: Tensor = self.fc(y.mean((2, 3)))
        return scores


def read(split: Path) -> tuple[Tensor, Tensor]:
    """Images as ImageNet's networks want them, float32[n, 3, 32, 32], and their classes."""
    files = sorted(split.glob("*/*.jpg"))
    pixels = [np.asarray(Image.open(f).resize((SIZE, SIZE), Image.Resampling.BILINEAR), np.float32) for f in files]
    images = torch.from_numpy(np.stack(pixels).transpose(0, 3, 1, 2) / 255)
    return (images - MEAN) / STD, torch.tensor([SHAPES.index(file.parent.name) for file in files])


def moved(images: Tensor) -> Tensor:
    """A batch moved by up to two pixels each way, half of it mirrored."""
    down, right = (int(n) for n in torch.randint(5, (2,)))
    shifted = F.pad(images, (2, 2, 2, 2), "reflect")[:, :, down : down + SIZE, right : right + SIZE]
    return torch.where(torch.rand(len(images), 1, 1, 1) < 0.5, shifted, shifted.flip(3))


def main(folder: Path, file: Path) -> None:
    torch.manual_seed(0)
    torch.set_num_threads(1)
    network = train(ShapesNetwork(), *read(folder / "train"), moved, EPOCHS)
    for split in ("val", "test"):
        images, labels = read(folder / split)
        print(f"{float((network(images).argmax(1) == labels).float().mean()):.4f} of the {split} images")
    export(network, images[:2], file)


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    main(Path(sys.argv[1]), Path(sys.argv[2]))
