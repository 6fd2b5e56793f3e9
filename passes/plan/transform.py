"""What is done to an image before the network sees it (Caffe's TransformationParameter)."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass
from typing import Literal

from wootz.passes.errors import WootzError

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
        """Raises WootzError for text that is none."""
        try:
            fields = json.loads(text)
            if not isinstance(fields, dict):
                raise TypeError(f"there is {str(fields)[:50]}")
            transform = InputTransform(
                mean=tuple(fields.pop("mean", (0.0,))), scale=tuple(fields.pop("scale", (1.0,))), **fields
            )
        except (ValueError, TypeError, AttributeError, RecursionError) as error:
            raise WootzError(f"metadata {TRANSFORM_KEY!r} is no input transform: {error}") from error
        if reason := transform._fault():
            raise WootzError(f"metadata {TRANSFORM_KEY!r} is no input transform: {reason}")
        return transform

    def _fault(self) -> str:
        """What is wrong with values that came from outside."""
        for name, values in (("mean", self.mean), ("scale", self.scale)):
            if not values or any(type(v) not in (int, float) or not math.isfinite(v) for v in values):
                return f"{name} has to have numbers"
        if type(self.crop_size) is not int or self.crop_size < 0 or type(self.mirror) is not bool:
            return "crop_size has to be a whole number, mirror true or false"
        return "" if self.channel_order in ("BGR", "RGB") else "channel_order has to be BGR or RGB"
