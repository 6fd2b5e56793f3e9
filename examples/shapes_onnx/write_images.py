"""Writes photographs with a disc, a square or a triangle in them: train/, val/ and test/ with a folder for each shape.

    python examples/shapes_onnx/write_images.py FOLDER

They are JPEG files of 64×64 pixels, cut from scikit-learn's two photographs: 1,500 for training, 400 for validation and
400 for testing. Those for training show other parts of the two than the others.
"""

from __future__ import annotations

import sys
from pathlib import Path

from PIL import Image

from wootz.examples.tasks.scenes import SHAPES, Split, scenes

SIZE = 64
COUNTS = {"train": 1500, "val": 400, "test": 400}


def write_images(folder: Path) -> int:
    """Writes SPLIT/SHAPE/NUMBER.jpg; gives the number of images."""
    for seed, (name, count) in enumerate(COUNTS.items()):
        for number, scene in enumerate(scenes(count, SIZE, Split(0, 1, seed), most=1)):
            file = folder / name / SHAPES[int(scene.objects[0, 0])] / f"{number:04}.jpg"
            file.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(scene.image.transpose(1, 2, 0)).save(file, quality=95)
    return sum(COUNTS.values())


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    print(f"{write_images(Path(sys.argv[1])):,} images in {sys.argv[1]}")
