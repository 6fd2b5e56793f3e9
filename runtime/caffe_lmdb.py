"""Reads the LMDB databases that Caffe's tools write: one serialised `Datum` an image."""

from __future__ import annotations

import io
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.message import DecodeError
from PIL import Image

from wootz.passes.errors import InputError, WootzError

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


def read_lmdb(folder: Path) -> tuple[np.ndarray, np.ndarray]:
    """Images [n, channels, height, width] in RGB or grey, uint8 (float32 for float data), and labels int64 [n].

    Caffe stores colours as BGR. Raises InputError for what is no such database, and images of unequal sizes.
    """
    try:
        import lmdb
    except ImportError as missing:
        raise WootzError("LMDB databases need the package lmdb: install wootz[lmdb]") from missing
    images, labels = [], []
    try:
        with (
            lmdb.open(str(folder), readonly=True, lock=False) as environment,
            environment.begin() as transaction,
            transaction.cursor() as cursor,
        ):
            for key, value in cursor:
                datum = _datum_class().FromString(value)
                images.append(_image(datum, folder))
                labels.append(datum.label)
                if images[-1].shape != images[0].shape:
                    shapes = " and ".join("x".join(map(str, i.shape)) for i in (images[0], images[-1]))
                    raise InputError(f"images of unequal sizes, {shapes} (key {key.decode()})", folder)
    except (lmdb.Error, DecodeError) as error:
        raise InputError(f"not a database of Caffe's images ({error})", folder) from error
    if not images:
        raise InputError("the database is empty", folder)
    return np.stack(images), np.array(labels, dtype=np.int64)


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
        with Image.open(io.BytesIO(datum.data)) as opened:
            pixels = np.asarray(opened if opened.mode == "L" else opened.convert("RGB"))
        return pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1)
    shape = (datum.channels, datum.height, datum.width)
    flat = np.frombuffer(datum.data, np.uint8) if datum.data else np.array(datum.float_data, np.float32)
    if flat.size != np.prod(shape):
        raise InputError(f"{flat.size} values for an image of {'x'.join(map(str, shape))}", folder)
    image = flat.reshape(shape)
    return image[::-1] if datum.channels == 3 else image
