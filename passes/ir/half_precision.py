"""What float16 can hold, and what ONNX Runtime does with it."""

from __future__ import annotations

import numpy as np

from wootz.passes.ir.builder import Builder
from wootz.passes.ir.model import Node, Variable

HALF, SINGLE = np.dtype(np.float16), np.dtype(np.float32)


def fits_in_half(values: np.ndarray) -> bool:
    """Whether no number lies beyond float16's range, and `values` is no single number that would become zero (an
    epsilon)."""
    with np.errstate(over="ignore"):
        narrow = np.asarray(values).astype(HALF)
    vanishes = narrow.size == 1 and not narrow.any() and bool(np.any(values))
    return not vanishes and bool((np.isfinite(narrow) | ~np.isfinite(values)).all())


def state_clip_bounds(clip: Node, build: Builder) -> None:
    """Gives a Clip both bounds: ONNX Runtime 1.19 on CPUs takes 0 for one that a Clip of float16 leaves out."""
    given = [*clip.inputs, *(Variable.empty() for _ in range(3 - len(clip.inputs)))]
    for index, (bound, name) in enumerate(((-np.inf, "least"), (np.inf, "largest")), start=1):
        if given[index].is_empty():
            given[index] = build.constant(np.asarray(bound), f"{clip.outputs[0].name}.{name}", dtype=HALF)
    clip.inputs = given


def is_square(node: Node) -> bool:
    """Whether a number is multiplied by itself, which leaves float16's range at 256."""
    return node.op == "Mul" and node.inputs[0] is node.inputs[1]
