"""Reads `.caffemodel` and `.binaryproto` files: protobuf's wire format, the few fields that hold weights.

Numbers of fields are those of `caffe.proto`; `raw_data` is NVIDIA Caffe's. Arrays are views of the mapped file: a
weight is copied when the model is written, and not before. The file must not be overwritten in place until then.
"""

from __future__ import annotations

import math
import mmap
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from wootz.frontend.caffe.prototxt import check_download
from wootz.passes.errors import InputError, reading

VARINT, FIXED64, LENGTH, FIXED32 = 0, 1, 2, 5

NET_V1_LAYER, NET_V2_LAYER = 2, 100
V2_NAME, V2_BLOBS = 1, 7
V1_V0_LAYER, V1_NAME, V1_BLOBS = 1, 4, 6
V0_NAME, V0_BLOBS = 1, 50
BLOB_LEGACY_SHAPE = (1, 2, 3, 4)
BLOB_DATA, BLOB_DIFF, BLOB_SHAPE, BLOB_DOUBLE_DATA, BLOB_RAW_TYPE, BLOB_RAW_DATA = 5, 6, 7, 8, 10, 12
SHAPE_DIM = 1
RAW_TYPES: Mapping[int, np.dtype] = {0: np.dtype("<f8"), 1: np.dtype("<f4"), 2: np.dtype("<f2")}

LARGEST_VARINT = 10


class Blob(NamedTuple):
    """Values in the shape that the file gives; `legacy` when it is the four numbers of old files."""

    values: np.ndarray
    legacy: bool


class _Field(NamedTuple):
    """One field: `start` and `end` bound its bytes; `number` is the value where the wire type is VARINT."""

    tag: int
    wire_type: int
    start: int
    end: int
    number: int = 0


@dataclass(frozen=True)
class WireFile:
    """The bytes of a file of protobuf's wire format; every error names the file and the byte."""

    path: Path
    data: mmap.mmap | bytes

    def error(self, message: str, offset: int) -> InputError:
        return InputError(f"byte {offset}: {message}", self.path)

    def fields(self, start: int, end: int) -> Iterator[_Field]:
        """The fields between two offsets. Raises InputError where they are not the wire format."""
        offset = start
        while offset < end:
            at = offset
            key, offset = self.varint(offset, end)
            tag, wire_type = key >> 3, key & 7
            if wire_type == VARINT:
                number, after = self.varint(offset, end)
                yield _Field(tag, wire_type, offset, after, number)
            elif wire_type == LENGTH:
                length, offset = self.varint(offset, end)
                after = offset + length
                if after > end:
                    raise self.error(
                        f"a field of {length} bytes where {end - offset} are left: truncated or corrupt", at
                    )
                yield _Field(tag, wire_type, offset, after)
            elif wire_type in (FIXED32, FIXED64):
                after = offset + (4 if wire_type == FIXED32 else 8)
                if after > end:
                    raise self.error("a number is cut off: truncated or corrupt", at)
                yield _Field(tag, wire_type, offset, after)
            else:
                raise self.error(f"wire type {wire_type}: corrupt, or not a caffemodel", at)
            offset = after

    def varint(self, offset: int, end: int) -> tuple[int, int]:
        """The variable-length integer at `offset`, and the offset after it."""
        value = 0
        for i in range(LARGEST_VARINT):
            if offset + i >= end:
                raise self.error("a number is cut off: truncated or corrupt", offset)
            byte = self.data[offset + i]
            value |= (byte & 0x7F) << (7 * i)
            if byte < 0x80:
                return value, offset + i + 1
        raise self.error("a number of more than 64 bits: corrupt, or not a caffemodel", offset)

    def string(self, field: _Field) -> str:
        self._expect(field, LENGTH)
        return bytes(self.data[field.start : field.end]).decode(errors="replace")

    def message(self, field: _Field) -> Iterator[_Field]:
        self._expect(field, LENGTH)
        return self.fields(field.start, field.end)

    def _expect(self, field: _Field, wire_type: int) -> None:
        if field.wire_type != wire_type:
            raise self.error(f"field {field.tag} has wire type {field.wire_type}: corrupt", field.start)


def open_wire_file(path: Path) -> WireFile:
    """Maps the file. Raises InputError when it is missing or empty."""
    if not path.is_file():
        raise InputError("no such file", path)
    if path.stat().st_size == 0:
        raise InputError("the file is empty", path)
    with path.open("rb") as file:
        check_download(file.read(200), path)
        return WireFile(path, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))


def read_caffemodel(path: Path) -> dict[str, list[Blob]]:
    """The blobs of each layer that has some, by the layer's name, of V2, V1 and V0 files."""
    with reading(path, "a caffemodel"):
        return _layers(open_wire_file(path))


def _layers(file: WireFile) -> dict[str, list[Blob]]:
    layers: dict[str, list[Blob]] = {}
    is_network = False
    for field in file.fields(0, len(file.data)):
        if field.tag in (NET_V1_LAYER, NET_V2_LAYER):
            is_network = True
            name, blobs = _layer(file, field)
            if blobs and layers.setdefault(name, blobs) is not blobs:
                raise file.error(f"two layers named {name!r}", field.start)
    if not is_network:
        raise InputError("no layers in it: not a caffemodel", file.path)
    return layers


def read_mean(path: Path) -> np.ndarray:
    """The mean image of a `mean.binaryproto`, float32 [channels, height, width]."""
    with reading(path, "a mean image"):
        file = open_wire_file(path)
        values = _blob(file, _Field(0, LENGTH, 0, len(file.data))).values
    if values.ndim not in (3, 4) or (values.ndim == 4 and values.shape[0] != 1):
        raise InputError(f"a mean image has shape 1×C×H×W, not {'×'.join(map(str, values.shape))}", path)
    return values.reshape(values.shape[-3:]).astype(np.float32)


def _layer(file: WireFile, layer: _Field) -> tuple[str, list[Blob]]:
    name_tag, blobs_tag = (V2_NAME, V2_BLOBS) if layer.tag == NET_V2_LAYER else (V1_NAME, V1_BLOBS)
    name, blobs = "", []
    for field in file.message(layer):
        if layer.tag == NET_V1_LAYER and field.tag == V1_V0_LAYER:
            for inner in file.message(field):
                if inner.tag == V0_NAME:
                    name = file.string(inner)
                elif inner.tag == V0_BLOBS:
                    blobs.append(_blob(file, inner))
        elif field.tag == name_tag:
            name = file.string(field)
        elif field.tag == blobs_tag:
            blobs.append(_blob(file, field))
    return name, blobs


def _blob(file: WireFile, blob: _Field) -> Blob:
    shape: list[int] | None = None
    legacy = dict.fromkeys(BLOB_LEGACY_SHAPE, 0)
    has_legacy = False
    runs: list[np.ndarray] = []
    raw: _Field | None = None
    raw_type = 1
    singles: list[_Field] = []
    for field in file.message(blob):
        if field.tag == BLOB_SHAPE:
            shape = _dimensions(file, field)
        elif field.tag in BLOB_LEGACY_SHAPE and field.wire_type == VARINT:
            legacy[field.tag], has_legacy = field.number, True
        elif field.tag in (BLOB_DATA, BLOB_DOUBLE_DATA):
            if field.wire_type == LENGTH:
                runs.append(_packed(file, field, "<f4" if field.tag == BLOB_DATA else "<f8"))
            else:
                singles.append(field)
        elif field.tag == BLOB_RAW_TYPE:
            raw_type = field.number
        elif field.tag == BLOB_RAW_DATA:
            raw = field
    if singles:
        runs.append(_unpacked(file, singles))
    if raw is not None:
        runs.append(_raw(file, raw, raw_type))
    values = runs[0] if len(runs) == 1 else np.concatenate([r.astype(np.float32) for r in runs] or [np.empty(0, "f4")])
    if shape is None and not has_legacy:
        shape = [len(values)]
    dimensions = tuple(shape if shape is not None else legacy.values())
    if math.prod(dimensions) != len(values) or min(dimensions, default=0) < 0:
        raise file.error(
            f"a blob of shape {'×'.join(map(str, dimensions))} with {len(values)} values: truncated or corrupt",
            blob.start,
        )
    if values.dtype != np.dtype("<f4"):
        values = values.astype(np.float32)
    return Blob(values.reshape(dimensions), legacy=shape is None)


def _dimensions(file: WireFile, shape: _Field) -> list[int]:
    dimensions: list[int] = []
    for field in file.message(shape):
        if field.tag != SHAPE_DIM:
            continue
        if field.wire_type == VARINT:
            dimensions.append(field.number)
            continue
        offset = field.start
        while offset < field.end:
            number, offset = file.varint(offset, field.end)
            dimensions.append(number)
    return dimensions


def _packed(file: WireFile, field: _Field, dtype: str) -> np.ndarray:
    size, rest = divmod(field.end - field.start, np.dtype(dtype).itemsize)
    if rest:
        raise file.error(f"{field.end - field.start} bytes hold no whole number of {dtype[1:]} values", field.start)
    return np.frombuffer(file.data, dtype, size, field.start) if size else np.empty(0, dtype)


def _unpacked(file: WireFile, fields: list[_Field]) -> np.ndarray:
    """Values that were written one by one."""
    dtypes = {FIXED32: "<f4", FIXED64: "<f8"}
    for field in fields:
        if field.wire_type not in dtypes:
            raise file.error(f"wire type {field.wire_type} for a value: corrupt", field.start)
    return np.array([np.frombuffer(file.data, dtypes[f.wire_type], 1, f.start)[0] for f in fields], np.float32)


def _raw(file: WireFile, field: _Field, raw_type: int) -> np.ndarray:
    if raw_type not in RAW_TYPES:
        raise file.error(f"raw_data of type {raw_type}: DOUBLE, FLOAT and FLOAT16 are read", field.start)
    return _packed(file, field, str(RAW_TYPES[raw_type].str))
