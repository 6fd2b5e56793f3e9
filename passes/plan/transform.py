"""What is done to an image before the network sees it (Caffe's TransformationParameter)."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Literal

TRANSFORM_KEY = "wootz.input"
CLASSES_KEY = "wootz.classes"


@dataclass(frozen=True)
class InputTransform:
    """`(pixel - mean) * scale` on pixels 0–255 in `channel_order`, a crop of `crop_size` (0: none) before it.

    `mean` and `scale` have one value, or one a channel. Training crops at random and, with `mirror`, flips half of
    the images from left to right; testing crops the centre. Caffe's order is BGR.
    """

    mean: tuple[float, ...] = (0.0,)
    scale: tuple[float, ...] = (1.0,)
    crop_size: int = 0
    mirror: bool = False
    channel_order: Literal["BGR", "RGB"] = "BGR"

    def to_json(self) -> str:
        """The form that a model's metadata keeps under `wootz.input`."""
        return json.dumps(asdict(self))

    @staticmethod
    def from_json(text: str) -> InputTransform:
        fields = json.loads(text)
        return InputTransform(
            mean=tuple(fields.pop("mean", (0.0,))), scale=tuple(fields.pop("scale", (1.0,))), **fields
        )
