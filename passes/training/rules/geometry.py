"""The geometry of a sliding window: kernel, strides, pads, dilations, and its transpose."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from wootz.passes.ir.model import Node
from wootz.passes.training.expression import Expression
from wootz.passes.training.rules.rule import NoRule, static


@dataclass(frozen=True)
class Window:
    """A window over the spatial axes; `size` is that of the operand, `count` the number of positions, per axis."""

    kernel: tuple[int, ...]
    strides: tuple[int, ...]
    dilations: tuple[int, ...]
    pads_begin: tuple[int, ...]
    size: tuple[int, ...]
    count: tuple[int, ...]

    @staticmethod
    def of(node: Node, x: Expression, y: Expression, kernel: Sequence[int | str]) -> Window:
        """The window of a Conv or pooling node, with `auto_pad` resolved. Raises NoRule for symbolic sizes."""
        window = Window._with_pads(node, x, y, kernel)
        automatic = node.attrs.get("auto_pad", "NOTSET")
        if automatic not in ("SAME_UPPER", "SAME_LOWER"):
            return window
        missing = [s - n for s, n in zip(window.span, window.size, strict=True)]
        if min(missing) < -1:
            raise NoRule(
                f"auto_pad={automatic} leaves out more than one element: versions of ONNX Runtime differ there"
            )
        return replace(window, pads_begin=_first_pads(missing, automatic))

    @staticmethod
    def of_transposed(node: Node, x: Expression, y: Expression, kernel: Sequence[int | str]) -> Window:
        """The window over the result of a ConvTranspose, one position an element of x.

        With `auto_pad` or `output_shape`, the pads follow from the sizes, as the operator's specification says.
        Raises NoRule for symbolic sizes, and where `output_padding` makes room for another position.
        """
        window = Window._with_pads(node, y, x, kernel)
        automatic = node.attrs.get("auto_pad", "NOTSET")
        if automatic in ("SAME_UPPER", "SAME_LOWER") or "output_shape" in node.attrs:
            extra = node.attrs.get("output_padding") or [0] * len(window.size)
            missing = [s + e - n for s, e, n in zip(window.span, extra, window.size, strict=True)]
            window = replace(window, pads_begin=_first_pads(missing, automatic))
        if any(-p >= s for p, s in zip(window.pads_end, window.strides, strict=True)):
            raise NoRule("an output_padding or output_shape that leaves room for another position is not supported")
        return window

    @staticmethod
    def _with_pads(node: Node, x: Expression, y: Expression, kernel: Sequence[int | str]) -> Window:
        """The window with the pads that the node states; none where it has `auto_pad`."""
        axes = x.rank - 2
        return Window(
            kernel=tuple(static(kernel, "the kernel")),
            strides=tuple(node.attrs.get("strides") or (1,) * axes),
            dilations=tuple(node.attrs.get("dilations") or (1,) * axes),
            pads_begin=tuple((node.attrs.get("pads") or (0,) * axes)[:axes]),
            size=tuple(static(x.shape[2:], "the spatial axes")),
            count=tuple(static(y.shape[2:], "the spatial axes")),
        )

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

    @property
    def starts_inside(self) -> bool:
        """Whether no window starts behind the operand."""
        axes = zip(self.count, self.strides, self.pads_begin, self.size, strict=True)
        return all((n - 1) * s < p + size for n, s, p, size in axes)

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


def _first_pads(missing: Sequence[int], auto_pad: str) -> tuple[int, ...]:
    """Half of what is missing along each axis goes before the operand; for SAME_UPPER the smaller half."""
    return tuple((max(m, 0) + (auto_pad != "SAME_UPPER")) // 2 for m in missing)
