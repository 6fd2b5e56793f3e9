"""What float16 can hold, and what ONNX Runtime does with it."""

from __future__ import annotations

import numpy as np
import onnx

from wootz.passes.ir.builder import Builder
from wootz.passes.ir.model import Constant, Node, Tensor, Variable

HALF, SINGLE = np.dtype(np.float16), np.dtype(np.float32)
HALF_SUFFIX, SINGLE_SUFFIX = ".float16", ".float32"
"""`<name>.float16` is the constant, or the result of the Cast, that is made of `<name>`."""


class Casts:
    """The casts between float32 and float16 in the graph of `builder`: of each tensor one, made when it is needed.

    `count` is their number, `narrowed` has each float32 constant with the float16 one that was made of it.
    """

    def __init__(self, builder: Builder):
        self.count = 0
        self.narrowed: list[tuple[Constant, Constant]] = []
        self._builder = builder
        self._half: dict[int, Tensor] = {}
        self._single: dict[int, Tensor] = {}

    def to_half(self, tensor: Tensor, as_constant: bool = True) -> Tensor:
        """A float32 tensor in float16: a constant as another one, unless it is to be cast."""
        if id(tensor) not in self._half:
            name = f"{tensor.name}{HALF_SUFFIX}"
            if as_constant and isinstance(tensor, Constant):
                with np.errstate(over="ignore"):
                    narrow = self._builder.constant(tensor.values, name, dtype=HALF)
                self.narrowed.append((tensor, narrow))
                self._half[id(tensor)] = narrow
            else:
                self._half[id(tensor)] = self.cast(tensor, HALF, name)
        return self._half[id(tensor)]

    def to_single(self, tensor: Tensor) -> Tensor:
        """A float16 tensor in float32."""
        if id(tensor) not in self._single:
            self._single[id(tensor)] = self.cast(tensor, SINGLE, f"{tensor.name}{SINGLE_SUFFIX}")
        return self._single[id(tensor)]

    def is_cast_of(self, wide: Tensor, tensor: Tensor) -> None:
        """Makes `wide` what `to_single` gives for `tensor`."""
        self._single[id(tensor)] = wide

    def to_single_under_its_name(self, tensor: Tensor) -> Tensor:
        """A float16 tensor in float32, which has its name; itself it gets another one."""
        return self._under_its_name(tensor, self.to_single(tensor), HALF_SUFFIX)

    def to_half_under_its_name(self, tensor: Tensor) -> Tensor:
        """A float32 tensor in float16, which has its name; itself it gets another one."""
        return self._under_its_name(tensor, self.to_half(tensor), SINGLE_SUFFIX)

    def cast(self, tensor: Tensor, dtype: np.dtype, name: str) -> Variable:
        """A Cast of its own."""
        self.count += 1
        result = self._builder.op("Cast", tensor, hint=name, to=int(onnx.helper.np_dtype_to_tensor_dtype(dtype)))
        result.dtype, result.shape = dtype, tensor.shape
        return result

    def _under_its_name(self, tensor: Tensor, other: Tensor, suffix: str) -> Tensor:
        name = tensor.name
        tensor.name, other.name = self._builder.fresh(f"{name}{suffix}"), name
        return other


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
