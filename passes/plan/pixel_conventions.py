"""The usual ways in which pixels become the input of a network, by name."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

from wootz.passes.errors import WootzError
from wootz.passes.plan.transform import InputTransform

RGB_CHANNELS = 3
IMAGENET_MEAN = (123.675, 116.28, 103.53)
"""Of ImageNet's pixels, 0-255, in RGB."""


@dataclass(frozen=True)
class Convention:
    """`(pixel - mean) / deviation` on pixels 0-255, one number or one a channel.

    With a `channel_order` the numbers are those of its channels, and it is the order of the input; without one, any
    order is left as it is.
    """

    mean: tuple[float, ...]
    deviation: tuple[float, ...]
    channel_order: Literal["BGR", "RGB"] | None = None

    def applied(self, transform: InputTransform, order: Literal["BGR", "RGB"] | None = None) -> InputTransform:
        """`transform` with these numbers, in `order` if it is given: the numbers stay with their colours."""
        own = self.channel_order
        turn = -1 if order is not None and own is not None and order != own else 1
        return replace(
            transform,
            mean=self.mean[::turn],
            scale=tuple(1 / deviation for deviation in self.deviation[::turn]),
            channel_order=order or own or transform.channel_order,
        )


CONVENTIONS: Mapping[str, Convention] = {
    "imagenet": Convention(IMAGENET_MEAN, (58.395, 57.12, 57.375), "RGB"),
    "0..1": Convention((0.0,), (255.0,)),
    "-1..1": Convention((127.5,), (127.5,)),
    "caffe": Convention((103.939, 116.779, 123.68), (1.0,), "BGR"),
    "raw": Convention((0.0,), (1.0,)),
}


def conventions_for(channels: int) -> Mapping[str, Convention]:
    """Those for images of so many channels: mean colours are for images of colours."""
    return {
        name: convention
        for name, convention in CONVENTIONS.items()
        if convention.channel_order is None or channels == RGB_CHANNELS
    }


def read_convention(text: str) -> Convention:
    """One of `CONVENTIONS`, or `MEAN:DEVIATION`, each a number or one a channel with commas between them.

    They are in units of 0-1 where none is larger than 1, else of 0-255. Raises WootzError for another text.
    """
    if (known := CONVENTIONS.get(text)) is not None:
        return known
    refusal = f"--normalize {text}: give {', '.join(CONVENTIONS)}, or MEAN:STD, as in 0.5:0.5 or 128:64"
    try:
        mean, deviation = (tuple(float(part) for part in numbers.split(",")) for numbers in text.split(":"))
    except ValueError as error:
        raise WootzError(refusal) from error
    if not all(map(math.isfinite, (*mean, *deviation))) or min(deviation) <= 0:
        raise WootzError(f"{refusal}; a standard deviation is above 0")
    unit = 255.0 if max(map(abs, (*mean, *deviation))) <= 1 else 1.0
    return Convention(tuple(unit * m for m in mean), tuple(unit * d for d in deviation))
