"""Sequitur: a context-free grammar of one string, inferred in linear time.

Nevill-Manning and Witten, "Identifying Hierarchical Structure in Sequences: A linear-time algorithm", JAIR 7, 1997.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from wootz.passes.errors import WootzError


@dataclass(frozen=True)
class Grammar:
    """A grammar that generates exactly one string.

    `rules[0]` is the root. A body lists terminals (0 and above) and uses of other rules (below 0): -k stands for
    `rules[k]`. Rules are numbered by first use, reading the bodies in order from the root on.

    No pair of adjacent symbols occurs twice in the bodies unless the two overlap (digram uniqueness), and every rule
    but the root is used at least twice (rule utility).
    """

    rules: tuple[tuple[int, ...], ...]

    def expand(self, rule: int = 0) -> tuple[int, ...]:
        """The string of terminals that `rule` stands for; by default the whole string."""
        expanded: list[int] = []
        pending = [iter(self.rules[rule])]
        while pending:
            for symbol in pending[-1]:
                if symbol < 0:
                    pending.append(iter(self.rules[-symbol]))
                    break
                expanded.append(symbol)
            else:
                pending.pop()
        return tuple(expanded)


def infer_grammar(symbols: Sequence[int] | npt.NDArray[np.integer]) -> Grammar:
    """The Sequitur grammar of a string of at most 2^30 integers, each from 0 to 2^31 - 1.

    Raises ValueError for other symbols, and WootzError when the package was installed without its native part.
    """
    bodies, starts = _native_infer(_as_int32(symbols))
    flat = bodies.tolist()
    return Grammar(tuple(tuple(flat[start:end]) for start, end in pairwise(starts.tolist())))


def _as_int32(symbols: Sequence[int] | npt.NDArray[np.integer]) -> npt.NDArray[np.int32]:
    values = np.asarray(symbols, dtype=None if len(symbols) else np.int32)
    if values.ndim != 1 or values.dtype.kind not in "iu":
        raise ValueError(f"symbols must be a sequence of integers, not of {values.dtype} with {values.ndim} dimensions")
    if values.size and (values.min() < 0 or values.max() > np.iinfo(np.int32).max):
        raise ValueError("symbols must lie between 0 and 2^31 - 1")
    return np.ascontiguousarray(values, dtype=np.int32)


def _native_infer(symbols: npt.NDArray[np.int32]) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int64]]:
    try:
        from wootz.passes.blocks._sequitur import infer
    except ImportError as error:
        raise WootzError(
            f"Sequitur is missing ({error}): the package was installed without its native part; "
            f"install it again with a C++17 compiler at hand"
        ) from error
    return infer(symbols)
