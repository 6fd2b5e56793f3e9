"""Operators of our own for ONNX Runtime on CPUs: domain `wootz.native`, in C++, optional.

They compute what the functions of passes/training/gradient_functions.onnxtxt do. Graphs with them come from `legalize`
with the target `native`; sessions bring them into this machine's memory layout (`blocked-layout`).
"""

from __future__ import annotations

import ctypes
import functools
from dataclasses import dataclass
from pathlib import Path

from wootz.runtime.digest import digest


@dataclass(frozen=True)
class Library:
    """The operators as they were built here: `instructions` are the vector instructions that they use on this
    processor, `lanes` the channels that lie side by side in blocked operands."""

    file: Path
    instructions: str
    lanes: int

    @functools.cached_property
    def numerics(self) -> str:
        """What rounds results otherwise: the instructions, and the program as it was compiled."""
        return f"{self.instructions} {digest(self.file.read_bytes())[:12]}"


@functools.cache
def library() -> Library | None:
    """None where the operators were not built, or can't be loaded."""
    for folder in __path__:
        file = Path(folder, "_kernels.so")
        if file.exists():
            return _opened(file)
    return None


def _opened(file: Path) -> Library | None:
    try:
        program = ctypes.CDLL(str(file))
    except OSError:
        return None
    program.wootz_kernels_name.restype = ctypes.c_char_p
    program.wootz_kernels_lanes.restype = ctypes.c_size_t
    return Library(file, program.wootz_kernels_name().decode(), program.wootz_kernels_lanes())
