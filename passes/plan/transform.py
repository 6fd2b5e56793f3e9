"""What is done to an image before the network sees it (Caffe's TransformationParameter)."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass, fields
from typing import Literal, get_args

from wootz.passes.errors import WootzError

TRANSFORM_KEY = "wootz.input"
CLASSES_KEY = "wootz.classes"

Resize = Literal["squash", "crop", "pad"]
"""What becomes of a photograph's proportions."""

Units = Literal["0-255", "as given"]
"""What a network's input is computed from: pixels from 0 to 255, or numbers of arrays that are no pixels."""

Layout = Literal["NCHW", "NHWC"]
"""Where the channels of images are: before height and width, or behind them."""


@dataclass(frozen=True, repr=False)
class InputTransform:
    """`(pixel - mean) * scale` on pixels 0–255 in `channel_order`, a crop of `crop_size` (0: none) before it.

    `mean` and `scale` have one value, or one a channel. Training crops at random and, with `mirror`, flips half of
    the images from left to right; testing crops the centre. Caffe's order is BGR.

    `resize` says what became before that of a photograph of another size: `squash` gave its sides the wanted lengths,
    `pad` fitted it in and made the rest grey, `crop` resized it until its shorter side was `resize_to`, and took the
    square in the middle (0: until it covered the network's input, and took as much). With a `least_area` below 1
    training crops windows of at least that part of the image's area, and resizes them to what testing crops.

    Where `units` are not 0-255, the numbers of arrays stand for the pixels: some were negative.
    """

    mean: tuple[float, ...] = (0.0,)
    scale: tuple[float, ...] = (1.0,)
    crop_size: int = 0
    mirror: bool = False
    channel_order: Literal["BGR", "RGB"] = "BGR"
    resize: Resize = "squash"
    resize_to: int = 0
    least_area: float = 1.0
    units: Units = "0-255"

    @property
    def is_identity(self) -> bool:
        """Whether the numbers stay as they are."""
        return not any(self.mean) and all(factor == 1 for factor in self.scale)

    def __repr__(self) -> str:
        """Without what is left out for most networks: keys of stored results are made of it."""
        late = ("resize", "resize_to", "least_area", "units")
        shown = [f for f in fields(self) if f.name not in late or getattr(self, f.name) != f.default]
        return f"InputTransform({', '.join(f'{f.name}={getattr(self, f.name)!r}' for f in shown)})"

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
        if self.resize not in get_args(Resize):
            return f"resize has to be {', '.join(get_args(Resize))}"
        if self.units not in get_args(Units):
            return f"units have to be {' or '.join(get_args(Units))}"
        if type(self.resize_to) is not int or self.resize_to < 0:
            return "resize_to has to be a whole number"
        if type(self.least_area) not in (int, float) or not 0 < self.least_area <= 1:
            return "least_area has to be a number up to 1"
        return "" if self.channel_order in ("BGR", "RGB") else "channel_order has to be BGR or RGB"
