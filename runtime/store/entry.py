"""The file of one entry: a header that can be read by itself, then the arrays.

    wootz entry 1\\n
    SHA-256 of the next line, in hexadecimal\\n
    {"key": …, "kind": …, "what": …, "seconds": …, "by": …, "record": …, "arrays": [[name, dtype, shape], …],
     "sha256": …}\\n
    the arrays' bytes, one after another: C order, little-endian

The header's `sha256` is that of the arrays' bytes, so that the second line covers the whole file. The bytes follow from
what is put alone, in its order. Nothing is pickled.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
import stat
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from errno import EACCES, EIO, EISDIR, ELOOP, ENXIO, EPERM, ESTALE
from pathlib import Path
from typing import Any, BinaryIO, Literal

import numpy as np

from wootz.passes.errors import one_line

Kind = Literal["trained", "failed", "checkpoint"]
OUTCOMES: tuple[Kind, ...] = ("trained", "failed")
CHECKPOINT: tuple[Kind, ...] = ("checkpoint",)
Arrays = dict[str, np.ndarray]
ReadRest = Callable[[BinaryIO, "Entry"], Arrays]

MAGIC = b"wootz entry 1\n"
DIGEST_LINE = 65
LONGEST_HEADER = 2**26
"""Bytes: what is longer was not written by us, and isn't read into memory."""
KEY = re.compile(r"[0-9a-f]{32}|[0-9a-f]{64}")
UNREADABLE = (EACCES, EPERM, EIO, EISDIR, ELOOP, ENXIO)
"""Errors of one file, not of the process that reads it (too many open files) or of its way there."""
TRIES = 3
"""A file may be replaced while it is read."""
ARRAY_KINDS = "biufc"
"""numpy's letters for booleans, integers, floating-point and complex numbers."""
DTYPE = re.compile(rf"[<|][{ARRAY_KINDS}]\d+")


class Damaged(Exception):
    """A file that is no entry, or no longer one; the message says why, in one line."""

    def __init__(self, why: str):
        super().__init__(one_line(why))


@dataclass(frozen=True)
class Checkpoint:
    """The state of a training under way: arrays by name, and what was recorded beside them (JSON values)."""

    arrays: Mapping[str, np.ndarray]
    record: Mapping[str, Any]


@dataclass(frozen=True)
class ArrayType:
    """What is known of an array before it is read."""

    name: str
    dtype: np.dtype
    shape: tuple[int, ...]

    @property
    def bytes(self) -> int:
        return math.prod(self.shape) * self.dtype.itemsize


@dataclass(frozen=True)
class Entry:
    """What an entry says of itself; the arrays are read apart.

    `what` tells people what was computed, `seconds` how long that took, `by` for which run. `size` is the file's, in
    bytes.
    """

    key: str
    kind: Kind
    what: str
    seconds: float
    record: Mapping[str, Any]
    arrays: tuple[ArrayType, ...]
    checksum: str
    size: int
    by: str


def check_key(key: str) -> str:
    """`key`, if it is one: it becomes the name of a file. Raises ValueError."""
    if not KEY.fullmatch(key):
        raise ValueError(f"{key[:80]!r} is no key: 32 or 64 of the characters 0-9a-f")
    return key


def encode(
    key: str,
    kind: Kind,
    what: str,
    seconds: float,
    record: Mapping[str, Any],
    arrays: Mapping[str, np.ndarray],
    by: str = "",
) -> list[bytes | memoryview]:
    """The pieces of an entry's file, the arrays as views where their memory is what the file holds."""
    prepared = {name: _stored_form(name, array) for name, array in arrays.items()}
    views = [_bytes_of(array) for array in prepared.values()]
    checksum = hashlib.sha256()
    for view in views:
        checksum.update(view)
    header = {
        "key": key,
        "kind": kind,
        "what": what,
        "seconds": seconds,
        "by": by,
        "record": record,
        "arrays": [[name, array.dtype.str, array.shape] for name, array in prepared.items()],
        "sha256": checksum.hexdigest(),
    }
    line = json.dumps(header, separators=(",", ":")).encode() + b"\n"
    if len(line) > LONGEST_HEADER:
        raise ValueError(f"a record of {len(line)} bytes: arrays belong into arrays")
    return [MAGIC, hashlib.sha256(line).hexdigest().encode() + b"\n", line, *views]


def _bytes_of(array: np.ndarray) -> memoryview:
    """The memory of an array that lies in C order."""
    return array.reshape(-1).view(np.uint8).data


def _stored_form(name: str, array: np.ndarray) -> np.ndarray:
    if array.dtype.kind not in ARRAY_KINDS:
        raise TypeError(f"array {name!r} has the type {array.dtype}, which the store doesn't keep")
    return np.asarray(array, dtype=array.dtype.newbyteorder("<"), order="C")


def read_entry(file: Path, key: str, kinds: tuple[Kind, ...], read_rest: ReadRest) -> tuple[Entry, Arrays] | None:
    """The entry of `key` in `file`; None where there is no file.

    `read_rest` is `load_arrays`, `check_arrays`, which keeps none of them, or `skip_arrays`. Raises Damaged for what
    isn't whole, and OSError where the fault is not the file's (too many open files).
    """
    for _ in range(TRIES):
        try:
            stream = _open(file)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise _as_damage(error) from error
        with stream:
            try:
                return _read(stream, key, kinds, read_rest)
            except Damaged:
                if not _is_replaced(file, stream):
                    raise
            except OSError as error:
                if error.errno != ESTALE:
                    raise _as_damage(error) from error
    return None


def _read(stream: BinaryIO, key: str, kinds: tuple[Kind, ...], read_rest: ReadRest) -> tuple[Entry, Arrays]:
    if not stat.S_ISREG(os.fstat(stream.fileno()).st_mode):
        raise Damaged("it is no file")
    entry = _read_header(stream, key)
    if entry.kind not in kinds:
        raise Damaged(f"it holds what is {entry.kind}, and {' or '.join(kinds)} belongs there")
    return entry, read_rest(stream, entry)


def _open(file: Path) -> BinaryIO:
    """Opens `file`; if it isn't there, a second time with a look at its folder, which network file systems remember."""
    try:
        return open(file, "rb", opener=_without_blocking)
    except FileNotFoundError:
        with suppress(OSError):
            os.close(os.open(file.parent, os.O_RDONLY))
        return open(file, "rb", opener=_without_blocking)


def _without_blocking(file: str, flags: int) -> int:
    """Opens a pipe, too, that nobody writes into."""
    return os.open(file, flags | getattr(os, "O_NONBLOCK", 0))


def _is_replaced(file: Path, stream: BinaryIO) -> bool:
    try:
        return not os.path.samestat(file.stat(), os.fstat(stream.fileno()))
    except FileNotFoundError:
        return True


def _as_damage(error: OSError) -> Exception:
    return Damaged(f"it can't be read ({error.strerror})") if error.errno in UNREADABLE else error


def _read_header(stream: BinaryIO, key: str) -> Entry:
    """The header of the entry of `key`, and the stream at its arrays. Raises Damaged; the arrays are not looked at."""
    if stream.read(len(MAGIC)) != MAGIC:
        raise Damaged("it doesn't begin as an entry does")
    digest, line = stream.read(DIGEST_LINE), stream.readline(LONGEST_HEADER)
    if hashlib.sha256(line).hexdigest().encode() + b"\n" != digest:
        raise Damaged("its header is truncated or altered")
    size = os.fstat(stream.fileno()).st_size
    try:
        entry = _entry(json.loads(line), size)
    except (ValueError, TypeError, KeyError, OverflowError, RecursionError) as error:
        raise Damaged(f"its header is not what belongs there ({error})") from error
    if entry.key != key:
        raise Damaged(f"it is the entry of another key, {entry.key[:80]}")
    expected = stream.tell() + sum(array.bytes for array in entry.arrays)
    if size != expected:
        raise Damaged(f"it has {size} bytes instead of {expected}")
    return entry


def _entry(header: dict[str, Any], size: int) -> Entry:
    if header["kind"] not in (*OUTCOMES, *CHECKPOINT) or not isinstance(header["record"], dict):
        raise ValueError("kind or record")
    if header["kind"] == "failed" and not isinstance(header["record"]["reason"], str):
        raise ValueError("reason")
    return Entry(
        key=str(header["key"]),
        kind=header["kind"],
        what=str(header["what"]),
        seconds=float(header["seconds"]),
        record=header["record"],
        arrays=tuple(_array_type(*array) for array in header["arrays"]),
        checksum=str(header["sha256"]),
        size=size,
        by=str(header["by"]),
    )


def _array_type(name: str, dtype: str, shape: list[int]) -> ArrayType:
    if not DTYPE.fullmatch(dtype) or not all(type(extent) is int and extent >= 0 for extent in shape):
        raise ValueError(f"array {name[:80]!r}")
    return ArrayType(str(name), np.dtype(dtype), tuple(shape))


def skip_arrays(stream: BinaryIO, entry: Entry) -> Arrays:
    """Reads nothing of what follows the header: a file that is too short or too long is noticed without."""
    return {}


def check_arrays(stream: BinaryIO, entry: Entry) -> Arrays:
    """Reads what follows the header, and keeps nothing. Raises Damaged if it is not what was written."""
    if hashlib.file_digest(stream, "sha256").hexdigest() != entry.checksum:  # type: ignore[arg-type]
        raise Damaged("its arrays are altered")
    return {}


def load_arrays(stream: BinaryIO, entry: Entry) -> Arrays:
    """The arrays that follow the header. Raises Damaged if they are not those that were written."""
    checksum = hashlib.sha256()
    arrays = {}
    for described in entry.arrays:
        try:
            array = np.empty(described.shape, described.dtype)
        except (ValueError, OverflowError) as error:
            raise Damaged(f"its header is not what belongs there ({error})") from error
        view = _bytes_of(array)
        if stream.readinto(view) != len(view):  # type: ignore[attr-defined]
            raise Damaged("its arrays are truncated")
        checksum.update(view)
        arrays[described.name] = array
    if checksum.hexdigest() != entry.checksum:
        raise Damaged("its arrays are altered")
    return arrays
