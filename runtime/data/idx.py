"""IDX files, as MNIST has them."""

from __future__ import annotations

import gzip
import math
import struct
from pathlib import Path

import numpy as np

from wootz.passes.errors import InputError, reading
from wootz.runtime.data.arrays import checked_split, numbered
from wootz.runtime.data.dataset import Dataset, Split, with_validation


def read_idx_folder(folder: Path, seed: int) -> Dataset:
    train = _read_idx_split(folder, "train")
    test = _read_idx_split(folder, "t10k") if any(folder.glob("t10k-images?idx3-ubyte*")) else None
    return with_validation(numbered(train), train, None, test, seed, folder)


def _read_idx_split(folder: Path, name: str) -> Split:
    names = f"{name}-images-idx3-ubyte", f"{name}-labels-idx1-ubyte"
    return checked_split(_read_idx(folder, names[0]), _read_idx(folder, names[1]), names, folder)


def _read_idx(folder: Path, stem: str) -> np.ndarray:
    """An IDX file of unsigned bytes, gzipped or not: magic 0x0000 08 rank, sizes in big-endian uint32, then data."""
    stems = (stem, stem.replace("-idx", ".idx"))  # archives of MNIST have either
    files = [f for s in stems for f in (folder / s, folder / f"{s}.gz") if f.is_file()]
    if not files:
        raise InputError("no such file, as it is or with .gz", folder / stem)
    content = files[0].read_bytes()
    if files[0].suffix == ".gz":
        with reading(files[0], "a gzip file"):
            content = gzip.decompress(content)
    if len(content) < 4 or content[:3] != b"\0\0\x08" or len(content) < 4 + 4 * content[3]:
        raise InputError("not an IDX file of unsigned bytes", files[0])
    sizes = struct.unpack_from(f">{content[3]}I", content, 4)
    start = 4 + 4 * len(sizes)
    if len(content) - start != math.prod(sizes):
        raise InputError(f"the header says {'x'.join(map(str, sizes))} values, {len(content) - start} follow", files[0])
    with reading(files[0], "an IDX file of images or labels"):
        return (
            np.frombuffer(content, np.uint8, offset=start).reshape(sizes) if any(sizes) else np.empty(sizes, np.uint8)
        )
