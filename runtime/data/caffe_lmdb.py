"""Reads the LMDB databases that Caffe's tools write: one serialised `Datum` an image."""

from __future__ import annotations

import importlib.util
import io
import math
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

from wootz.passes.errors import InputError, WootzError, reading
from wootz.runtime.data.arrays import checked_split, numbered
from wootz.runtime.data.dataset import Dataset, Split, with_validation
from wootz.runtime.data.lmdb_records import LENGTHS
from wootz.runtime.data.photographs import open_photograph

_OPTIONAL, _REPEATED = 1, 3
_DATUM_FIELDS = (
    ("channels", 1, 5, _OPTIONAL),
    ("height", 2, 5, _OPTIONAL),
    ("width", 3, 5, _OPTIONAL),
    ("data", 4, 12, _OPTIONAL),
    ("label", 5, 5, _OPTIONAL),
    ("float_data", 6, 2, _REPEATED),
    ("encoded", 7, 8, _OPTIONAL),
)
"""Name, number, type (5 int32, 12 bytes, 2 float, 8 bool) and label of Caffe's `message Datum` (caffe.proto)."""


def read_lmdb_folder(folder: Path, seed: int) -> Dataset:
    def split(name: str) -> Split | None:
        database = folder / name
        if not database.is_dir():
            return None
        with reading(database, "a database of images that can be read"):
            images, labels = read_lmdb(database)
        return checked_split(images, labels, (name, name), folder)

    train = split("train_lmdb")
    assert train is not None
    return with_validation(numbered(train), train, split("val_lmdb"), split("test_lmdb"), seed, folder)


def read_lmdb(folder: Path) -> tuple[np.ndarray, np.ndarray]:
    """Images [n, channels, height, width] in RGB or grey, uint8 (float32 for float data), and labels int64 [n].

    Caffe stores colours as BGR. Raises InputError for what is no such database, and images of unequal sizes.
    """
    if importlib.util.find_spec("lmdb") is None:
        raise WootzError("LMDB databases need the package lmdb: install wootz[lmdb]")
    images, labels = [], []
    for key, value in _records(folder):
        datum = _datum_class().FromString(value)
        images.append(_image(datum, folder))
        labels.append(datum.label)
        if images[-1].shape != images[0].shape:
            shapes = " and ".join("x".join(map(str, i.shape)) for i in (images[0], images[-1]))
            raise InputError(f"images of unequal sizes, {shapes} (key {key.decode(errors='replace')})", folder)
    if not images:
        raise InputError("the database is empty", folder)
    return np.stack(images), np.array(labels, dtype=np.int64)


def _records(folder: Path) -> Iterator[tuple[bytes, bytes]]:
    """Keys and values, as another process reads them. Raises InputError when that one fails, or dies."""
    command = [sys.executable, "-P", "-m", "wootz.runtime.data.lmdb_records", str(folder)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as reader:
        assert reader.stdout is not None
        assert reader.stderr is not None
        try:
            while len(head := reader.stdout.read(LENGTHS.size)) == LENGTHS.size:
                sizes = LENGTHS.unpack(head)
                key, value = (reader.stdout.read(size) for size in sizes)
                if len(value) == sizes[1]:
                    yield key, value
        finally:
            reader.stdout.close()  # ends a reader that has more to say
            said = reader.stderr.read().decode(errors="replace").strip()
    if reader.returncode:
        died = reader.returncode < 0 and f"its reader was ended by signal {-reader.returncode}"
        reason = died or next(iter(said.splitlines()[-1:]), "its reader failed")
        raise InputError(f"not a database of Caffe's images, or damaged ({reason})", folder)


@cache
def _datum_class() -> Any:
    file = descriptor_pb2.FileDescriptorProto(name="datum.proto", syntax="proto2")
    message = file.message_type.add(name="Datum")
    for name, number, kind, label in _DATUM_FIELDS:
        message.field.add(name=name, number=number, type=kind, label=label)
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("Datum"))


def _image(datum: Any, folder: Path) -> np.ndarray:
    if datum.encoded:
        with (
            reading(folder, "a database of images that Pillow can read"),
            open_photograph(io.BytesIO(datum.data)) as opened,
        ):
            pixels = np.asarray(opened if opened.mode == "L" else opened.convert("RGB"))
        return pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1)
    shape = (datum.channels, datum.height, datum.width)
    flat = np.frombuffer(datum.data, np.uint8) if datum.data else np.array(datum.float_data, np.float32)
    if min(shape) < 0 or flat.size != math.prod(shape):
        raise InputError(f"{flat.size} values for an image of {'x'.join(map(str, shape))}", folder)
    image = flat.reshape(shape)
    return image[::-1] if datum.channels == 3 else image
