"""NumPy's files, read without trust: nothing is allocated that the file doesn't hold, and no Python object is made."""

from __future__ import annotations

import io
import math
import zipfile
from collections.abc import Collection
from pathlib import Path
from typing import IO

import numpy as np

LARGEST_DEFLATION = 1032
"""By how much deflate can shrink at most: what says it is larger is damaged (zlib, Technical Details)."""
_HEADERS = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}


def read_array(stream: IO[bytes], size: int) -> np.ndarray:
    """The array in a stream of NumPy's format, of `size` bytes together with its header.

    Raises ValueError for another format, arrays of Python objects, and a header that doesn't fit the size.
    """
    version = np.lib.format.read_magic(stream)
    if version not in _HEADERS:
        raise ValueError(f"version {version[0]}.{version[1]} of the format")
    shape, _, dtype = _HEADERS[version](stream)
    if dtype.hasobject:
        raise ValueError("an array of Python objects")
    stored, wanted = size - stream.tell(), math.prod(shape) * dtype.itemsize
    if min(shape, default=0) < 0 or stored != wanted:
        raise ValueError(f"an array of shape {shape} and {dtype} has {wanted} bytes, the file {stored}")
    stream.seek(0)
    return np.asarray(np.lib.format.read_array(stream, allow_pickle=False))


def read_npy(file: Path) -> np.ndarray:
    """The array in a `.npy` file. Raises OSError, and ValueError as `read_array`."""
    with file.open("rb") as stream:
        return read_array(stream, file.stat().st_size)


def parse_npy(content: bytes) -> np.ndarray:
    """The array that `content` holds in the format of a `.npy` file."""
    return read_array(io.BytesIO(content), len(content))


def read_npz(file: Path, names: Collection[str] | None = None) -> dict[str, np.ndarray]:
    """The arrays of a `.npz` file, or those of them that are in `names`.

    Raises OSError, and ValueError for what `numpy.savez` wouldn't have written; damage may raise anything else.
    """
    with zipfile.ZipFile(file) as archive:
        members = [m for m in archive.infolist() if names is None or m.filename.removesuffix(".npy") in names]
        return {member.filename.removesuffix(".npy"): _read_member(archive, member) for member in members}


def _read_member(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> np.ndarray:
    if not member.filename.endswith(".npy"):
        raise ValueError(f"{member.filename!r} is no array")
    if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise ValueError(f"{member.filename!r} is compressed in another way than numpy does")
    if member.file_size > LARGEST_DEFLATION * max(1, member.compress_size):
        raise ValueError(f"{member.filename!r} can't hold {member.file_size} bytes")
    with archive.open(member) as stream:
        return read_array(stream, member.file_size)
