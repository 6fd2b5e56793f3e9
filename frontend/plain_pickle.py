"""Reads pickles of plain data: lists, tuples, numbers, strings and NumPy arrays of numbers, and nothing else.

A pickle is a program that names the functions it wants called. Here it gets none but those in `_BUILDERS`, which
make arrays from checked types, shapes and bytes: NumPy's own unpickling trusts what it is given.
"""

from __future__ import annotations

import io
import pickle
import pickletools
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from wootz.passes.errors import InputError


def load_plain(content: bytes, path: Path) -> Any:
    """The number, list or array pickled in `content`; arrays may also be the elements of a list.

    Raises InputError for a pickle of anything else; nothing that it asks for has been called then.
    """
    try:
        _check_memo(content)
        loaded = _PlainUnpickler(io.BytesIO(content), encoding="latin-1").load()
    except _RefusedError as refused:
        raise InputError(f"refused, because the pickle asks for {refused}: {_ALLOWED}", path) from None
    except Exception as error:  # a damaged pickle may raise anything
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise InputError(f"not a pickle of plain data ({reason}): {_ALLOWED}", path) from None
    if isinstance(loaded, (list, tuple)):
        return [_finished(element) for element in loaded]
    return _finished(loaded)


_ALLOWED = "only lists, tuples, numbers and NumPy arrays of numbers are read"


def _check_memo(content: bytes) -> None:
    """Raises ValueError for an index of the memo that no pickle of this length reaches.

    The unpickler allocates what the largest index asks for: nine bytes could take gigabytes.
    """
    in_ascii = _ESCAPED_BYTES.sub(rb"\\x0", content)  # genops can't read the strings that Python 2 wrote of arrays
    for opcode, argument, position in pickletools.genops(in_ascii):
        if opcode.name in _MEMO_WRITES and not 0 <= (argument or 0) <= len(content):
            raise ValueError(f"an impossible index at byte {position}")


_ESCAPED_BYTES = re.compile(rb"\\x[89a-f]")
_MEMO_WRITES = {"PUT", "BINPUT", "LONG_BINPUT"}


class _RefusedError(Exception):
    """Says what the pickle asked for."""


class _ElementType:
    """Stands for a numpy.dtype of integers or floats: nothing but kind, width and byte order come from the pickle."""

    def __init__(self, code: str):
        self.dtype = np.dtype(code)
        if self.dtype.kind not in "iuf":
            raise _RefusedError(f"an array of {self.dtype.name}")

    def __setstate__(self, state: Any) -> None:
        self.dtype = self.dtype.newbyteorder(state[1])


class _Array:
    """Stands for a numpy.ndarray, which a pickle makes empty and fills afterwards."""

    def __init__(self) -> None:
        self.values = np.empty(0)

    def __setstate__(self, state: Any) -> None:
        _, shape, element_type, is_fortran, content = state
        flat = np.frombuffer(_bytes(content), element_type.dtype)
        self.values = flat.reshape(shape, order="F" if is_fortran else "C")


class _Builder:
    """One of the functions that a pickle may call.

    Every use gets its own, without a `__dict__`: a pickle can set attributes of whatever it gets hold of.
    """

    __slots__ = ("build",)

    def __init__(self, build: Callable[..., Any]):
        self.build = build

    def __call__(self, *arguments: Any) -> Any:
        return self.build(*arguments)


def _element_type(code: Any, *_: Any) -> _ElementType:
    return _ElementType(str(code))


def _empty_array(*_: Any) -> _Array:
    return _Array()


def _array(content: Any, element_type: _ElementType, shape: Any, order: str) -> _Array:
    array = _Array()
    array.__setstate__((1, shape, element_type, order == "F", content))
    return array


def _scalar(element_type: _ElementType, content: Any) -> Any:
    return np.frombuffer(_bytes(content), element_type.dtype, count=1)[0]


def _encoded(text: str, encoding: str) -> bytes:
    """The protocols below 3 have no bytes: they store text and the call that turns it into bytes."""
    if encoding not in ("latin1", "latin-1"):
        raise _RefusedError(f"the encoding {encoding}")
    return text.encode("latin-1")


_BUILDERS: dict[str, Callable[..., Any]] = {
    "numpy.dtype": _element_type,
    "numpy.core.multiarray._reconstruct": _empty_array,
    "numpy.core.multiarray.scalar": _scalar,
    "numpy.core.numeric._frombuffer": _array,
    "_codecs.encode": _encoded,
}


class _PlainUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        qualified = f"{module.replace('numpy._core.', 'numpy.core.')}.{name}"
        if qualified == "numpy.ndarray":
            return None  # only passed on to _reconstruct, which ignores it
        if qualified not in _BUILDERS:
            raise _RefusedError(f"{module}.{name}")
        return _Builder(_BUILDERS[qualified])


def _finished(loaded: Any) -> Any:
    return loaded.values if isinstance(loaded, _Array) else loaded


def _bytes(content: Any) -> bytes:
    """The raw bytes of an array; Python 2 wrote them as a string."""
    return content.encode("latin-1") if isinstance(content, str) else bytes(memoryview(content))
