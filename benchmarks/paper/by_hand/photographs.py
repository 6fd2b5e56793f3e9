"""A folder {train,val,test}/CLASS/* of photographs that have the network's size, as its input."""

from __future__ import annotations

from argparse import Namespace

import numpy as np
from PIL import Image


def load(split: str, options: Namespace) -> tuple[np.ndarray, np.ndarray]:
    """Images [N, C, H, W], and the numbers of their classes, which are in the order of their names."""
    classes = sorted(folder for folder in (options.data / split).iterdir() if folder.is_dir())
    files = [(file, label) for label, folder in enumerate(classes) for file in sorted(folder.iterdir())]
    pixels = np.stack([np.asarray(Image.open(file).convert("RGB")) for file, _ in files]).astype(np.float32)
    if options.channel_order == "BGR":
        pixels = pixels[..., ::-1]
    images = (pixels - np.float32(options.mean)) * np.float32(options.scale)
    return np.ascontiguousarray(images.transpose(0, 3, 1, 2)), np.array([label for _, label in files])
