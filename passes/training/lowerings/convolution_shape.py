"""The numbers of a convolution that formulations of its gradients are chosen by."""

from __future__ import annotations

import math
from dataclasses import dataclass

from wootz.passes.ir.model import Node
from wootz.passes.training.expression import Expression


@dataclass(frozen=True)
class Convolution:
    """A convolution (or pooling) from x[N, channels, *size] to y[N, filters, *count]; N may be symbolic.

    `pads` has what is added before each axis, then what is added behind each.
    """

    channels: int
    filters: int
    group: int
    kernel: tuple[int, ...]
    strides: tuple[int, ...]
    dilations: tuple[int, ...]
    pads: tuple[int, ...]
    size: tuple[int, ...]
    count: tuple[int, ...]

    @staticmethod
    def of(call: Node, x: Expression, dy: Expression, kernel: tuple[int | str, ...]) -> Convolution | None:
        """None where a number is symbolic."""
        if not all(isinstance(n, int) for n in (*x.shape[1:], *dy.shape[1:], *kernel)):
            return None
        channels, *size = (int(n) for n in x.shape[1:])
        filters, *count = (int(n) for n in dy.shape[1:])
        return Convolution(
            channels=channels,
            filters=filters,
            group=int(call.attrs.get("group", 1)),
            kernel=tuple(int(n) for n in kernel),
            strides=tuple(call.attrs["strides"]),
            dilations=tuple(call.attrs["dilations"]),
            pads=tuple(call.attrs["pads"]),
            size=tuple(size),
            count=tuple(count),
        )

    @staticmethod
    def planar(call: Node, x: Expression, dy: Expression, kernel: tuple[int | str, ...]) -> Convolution | None:
        """The same, and None where there are not two spatial axes."""
        return Convolution.of(call, x, dy, kernel) if len(kernel) == x.rank - 2 == 2 else None

    @property
    def taps(self) -> int:
        return math.prod(self.kernel)

    @property
    def positions(self) -> int:
        return math.prod(self.count)

    @property
    def activations(self) -> int:
        """Elements of an image at the convolution's positions, before and after it."""
        return self.positions * (self.filters + self.channels)

    @property
    def is_depthwise(self) -> bool:
        return self.group == self.channels == self.filters

    @property
    def pads_begin(self) -> tuple[int, ...]:
        return self.pads[: len(self.size)]

    @property
    def pads_end(self) -> tuple[int, ...]:
        return self.pads[len(self.size) :]

    @property
    def padded(self) -> tuple[int, ...]:
        """The extents of x with its pads."""
        return tuple(b + n + e for b, n, e in zip(self.pads_begin, self.size, self.pads_end, strict=True))
