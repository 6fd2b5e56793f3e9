"""Images that stay in a file: what is asked for is read, and nothing else is in memory."""

from __future__ import annotations

import mmap
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from wootz.passes.errors import InputError
from wootz.runtime.digest import digest


class StoredImages:
    """Images [n, channels, height, width], uint8, in a file. An index gives an array of those that it names.

    The file is mapped while they are copied and no longer: pages that were read once stay in the system's cache, and
    count as nobody's memory. It is kept open, so that it can be removed meanwhile.
    """

    dtype = np.dtype(np.uint8)

    def __init__(self, file: Path, image_shape: tuple[int, ...], digests: np.ndarray, rows: np.ndarray):
        """`file` holds images of `image_shape`, one behind the other, each with its digest, uint8 [all, bytes]; these
        are those in `rows`, int64 [n]. Raises InputError for a file of another size."""
        self._opened = file.open("rb")
        self._image_shape, self._digests, self._rows = image_shape, digests, rows
        if file.stat().st_size != len(digests) * int(np.prod(image_shape)):
            raise InputError(f"not {len(digests)} images of {image_shape}: it was cut off", file)

    def part(self, index: slice | np.ndarray) -> StoredImages:
        """Some of them, which stay in the file, too."""
        chosen = object.__new__(StoredImages)
        chosen.__dict__ |= self.__dict__ | {"_rows": self._rows[index]}
        chosen.__dict__.pop("digest", None)
        return chosen

    @property
    def shape(self) -> tuple[Any, ...]:
        return (len(self._rows), *self._image_shape)

    @property
    def size(self) -> int:
        return int(np.prod(self.shape))

    @property
    def nbytes(self) -> int:
        return self.size

    @cached_property
    def digest(self) -> str:
        """Of all pixels, by the digest of each image; the same wherever they are stored."""
        return digest(f"{self.dtype.str}{self.shape}".encode(), self._digests[self._rows].tobytes())

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: Any) -> np.ndarray:
        rows = self._rows[index]
        if not np.size(rows):
            return np.empty((*np.shape(rows), *self._image_shape), np.uint8)
        with mmap.mmap(self._opened.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
            return self._copied(mapped, rows)

    def _copied(self, mapped: mmap.mmap, rows: np.ndarray) -> np.ndarray:
        """A function of its own: a file can't be unmapped while an array refers to it."""
        images = np.frombuffer(mapped, np.uint8).reshape(-1, *self._image_shape)
        return images[rows] if np.ndim(rows) else images[rows].copy()

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return self[:] if dtype is None else self[:].astype(dtype, copy=False)


Images = np.ndarray | StoredImages
"""Images [n, channels, height, width], in memory or in a file."""


def part_of(images: Images, index: slice | np.ndarray) -> Images:
    """Those that `index` names: of images in a file some that stay there."""
    return images.part(index) if isinstance(images, StoredImages) else images[index]
