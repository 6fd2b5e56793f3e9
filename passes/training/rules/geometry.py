"""The geometry of a sliding window: kernel, strides, pads, dilations, and its transpose."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from wootz.passes.ir.model import Node
from wootz.passes.training.expression import Expression
from wootz.passes.training.rules.rule import NoRule, static


@dataclass(frozen=True)
class Window:
    """A window over two spatial axes; `size` is that of the operand, `count` the number of positions, per axis."""

    kernel: tuple[int, ...]
    strides: tuple[int, ...]
    dilations: tuple[int, ...]
    pads_begin: tuple[int, ...]
    size: tuple[int, ...]
    count: tuple[int, ...]

    @staticmethod
    def of(node: Node, x: Expression, y: Expression, kernel: Sequence[int | str]) -> Window:
        """The window of a Conv or pooling node, with `auto_pad` resolved. Raises NoRule unless x is N,C,H,W."""
        if x.rank != 4:
            raise NoRule(f"only two spatial axes are supported, the operand has {x.rank - 2}")
        size = tuple(static(x.shape[2:], "height and width"))
        window = Window(
            kernel=tuple(static(kernel, "the kernel")),
            strides=tuple(node.attrs.get("strides") or (1, 1)),
            dilations=tuple(node.attrs.get("dilations") or (1, 1)),
            pads_begin=tuple((node.attrs.get("pads") or (0, 0, 0, 0))[:2]),
            size=size,
            count=tuple(static(y.shape[2:], "height and width")),
        )
        return window._automatic(node.attrs.get("auto_pad", "NOTSET"))

    @property
    def extent(self) -> tuple[int, ...]:
        """Elements between the first and the last one that a window touches."""
        return tuple((k - 1) * d + 1 for k, d in zip(self.kernel, self.dilations, strict=True))

    @property
    def span(self) -> tuple[int, ...]:
        """Elements of the padded operand that all windows together touch."""
        return tuple((n - 1) * s + e for n, s, e in zip(self.count, self.strides, self.extent, strict=True))

    @property
    def pads_end(self) -> tuple[int, ...]:
        """Padding behind the operand that windows touch; negative where its last elements are in no window."""
        return tuple(s - p - n for s, p, n in zip(self.span, self.pads_begin, self.size, strict=True))

    def attributes(self) -> dict[str, list[int]]:
        """The attributes of the forward operator, with the pads that its windows touch."""
        pads_end = [max(p, 0) for p in self.pads_end]
        return {
            "strides": list(self.strides),
            "dilations": list(self.dilations),
            "pads": [*self.pads_begin, *pads_end],
        }

    def transposed(self) -> dict[str, list[int]]:
        """What a ConvTranspose back to the operand's size needs beside `attributes`."""
        return {"output_padding": [max(-p, 0) for p in self.pads_end]}

    def _automatic(self, auto_pad: str) -> Window:
        if auto_pad in ("NOTSET", "VALID"):
            return self
        totals = [max(s - n, 0) for s, n in zip(self.span, self.size, strict=True)]
        begin = tuple((t + 1) // 2 if auto_pad == "SAME_LOWER" else t // 2 for t in totals)
        return Window(self.kernel, self.strides, self.dilations, begin, self.size, self.count)
