"""Digests of what a result depends on: the same in any process and on any machine."""

from __future__ import annotations

import hashlib

import numpy as np


def digest(*parts: bytes | memoryview) -> str:
    """64 hexadecimal digits."""
    sha = hashlib.sha256()
    for part in parts:
        sha.update(len(part).to_bytes(8, "little"))
        sha.update(part)
    return sha.hexdigest()


def array_digest(values: np.ndarray) -> str:
    """Of the values, their type and the shape."""
    content = np.ascontiguousarray(values).reshape(-1).view(np.uint8).data
    return digest(f"{values.dtype.str}{values.shape}".encode(), content)
