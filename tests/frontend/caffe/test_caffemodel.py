from __future__ import annotations

import contextlib
import struct
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from wootz.frontend.caffe.caffemodel import read_caffemodel, read_mean
from wootz.frontend.caffe.hdf5 import read_hdf5
from wootz.passes.errors import InputError


def varint(number: int) -> bytes:
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*out, number])


def tagged(tag: int, content: bytes | int) -> bytes:
    """A field of wire type 2, or 0 for an integer."""
    if isinstance(content, int):
        return varint(tag << 3) + varint(content)
    return varint(tag << 3 | 2) + varint(len(content)) + content


VALUES = np.arange(6, dtype=np.float32).reshape(2, 3)
SHAPE = tagged(7, tagged(1, varint(2) + varint(3)))
LEGACY = tagged(1, 1) + tagged(2, 1) + tagged(3, 2) + tagged(4, 3)
PACKED = tagged(5, VALUES.tobytes())
BLOBS = {
    "packed": SHAPE + PACKED,
    "shape with one field a dimension": tagged(7, tagged(1, 2) + tagged(1, 3)) + PACKED,
    "one field a value": SHAPE + b"".join(varint(5 << 3 | 5) + struct.pack("<f", v) for v in VALUES.flat),
    "doubles": SHAPE + tagged(8, VALUES.astype("<f8").tobytes()),
    "raw half": SHAPE + tagged(10, 2) + tagged(12, VALUES.astype("<f2").tobytes()),
    "raw float": SHAPE + tagged(10, 1) + tagged(12, VALUES.tobytes()),
    "raw double": SHAPE + tagged(10, 0) + tagged(12, VALUES.astype("<f8").tobytes()),
    "in two runs": SHAPE + tagged(5, VALUES[0].tobytes()) + tagged(5, VALUES[1].tobytes()),
    "with gradients": SHAPE + PACKED + tagged(6, VALUES.tobytes()),
}


def v2(blob: bytes, name: str = "conv") -> bytes:
    return tagged(1, b"net") + tagged(100, tagged(1, name.encode()) + tagged(2, b"Convolution") + tagged(7, blob))


def write(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


@pytest.mark.parametrize("form", BLOBS)
def test_every_form_of_a_blob_is_read(tmp_path, form) -> None:
    layers = read_caffemodel(write(tmp_path / "m.caffemodel", v2(BLOBS[form])))
    assert list(layers) == ["conv"]
    (blob,) = layers["conv"]
    np.testing.assert_array_equal(blob.values, VALUES)
    assert blob.values.dtype == np.float32


@pytest.mark.parametrize(
    "content",
    [
        tagged(2, tagged(4, b"conv") + tagged(5, 4) + tagged(6, LEGACY + PACKED)),
        tagged(2, tagged(1, tagged(1, b"conv") + tagged(2, b"conv") + tagged(50, LEGACY + PACKED))),
        v2(LEGACY + PACKED),
    ],
    ids=["V1", "V0", "V2 with a legacy shape"],
)
def test_older_files_are_read(tmp_path, content) -> None:
    (blob,) = read_caffemodel(write(tmp_path / "m.caffemodel", content))["conv"]
    assert blob.legacy
    np.testing.assert_array_equal(blob.values, VALUES.reshape(1, 1, 2, 3))


def test_packed_values_are_not_copied(tmp_path) -> None:
    (blob,) = read_caffemodel(write(tmp_path / "m.caffemodel", v2(BLOBS["packed"])))["conv"]
    assert not blob.values.flags.owndata


WHOLE = v2(BLOBS["packed"])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "the file is empty"),
        (WHOLE[:-1], "truncated or corrupt"),
        (WHOLE[:3], "truncated or corrupt"),
        (b"PK\x03\x04zip", "corrupt, or not a caffemodel"),
        (tagged(1, b"net"), "no layers in it: not a caffemodel"),
        (v2(tagged(7, tagged(1, varint(2) + varint(4))) + PACKED), "a blob of shape 2×4 with 6 values"),
        (v2(tagged(7, tagged(1, varint(2**62) + varint(2**62))) + PACKED), "with 6 values: truncated or corrupt"),
        (v2(tagged(7, tagged(1, varint(2**64 - 1) * 2)) + tagged(5, b"\0\0\0\0")), "truncated or corrupt"),
        (v2(SHAPE + tagged(5, b"123")), "3 bytes hold no whole number of f4 values"),
        (v2(SHAPE + tagged(10, 3) + tagged(12, b"\0" * 24)), "raw_data of type 3"),
        (v2(SHAPE + tagged(5, 7)), "wire type 0 for a value: corrupt"),
        (WHOLE + v2(BLOBS["packed"]), "two layers named 'conv'"),
        (b"\xff" * 20, "a number of more than 64 bits"),
    ],
)
def test_what_is_no_caffemodel_is_refused(tmp_path, content, message) -> None:
    with pytest.raises(InputError, match=message):
        read_caffemodel(write(tmp_path / "m.caffemodel", content))


@given(st.data())
def test_a_damaged_file_is_read_or_refused(tmp_path_factory, data) -> None:
    content = bytearray(v2(BLOBS["packed"]) + v2(BLOBS["doubles"], "other"))
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    length = data.draw(st.integers(0, len(content)))
    file = tmp_path_factory.mktemp("fuzz") / "m.caffemodel"
    with contextlib.suppress(InputError):
        for blobs in read_caffemodel(write(file, bytes(content[:length]))).values():
            assert all(b.values.size <= len(content) for b in blobs)


@given(st.binary(max_size=300))
def test_any_bytes_are_read_or_refused(tmp_path_factory, content) -> None:
    with contextlib.suppress(InputError):
        read_caffemodel(write(tmp_path_factory.mktemp("fuzz") / "m.caffemodel", content))


def test_a_mean_image(tmp_path) -> None:
    file = write(tmp_path / "mean.binaryproto", LEGACY + PACKED)
    np.testing.assert_array_equal(read_mean(file), VALUES.reshape(1, 2, 3))
    with pytest.raises(InputError, match="a mean image has shape 1×C×H×W, not 2×3"):
        read_mean(write(tmp_path / "flat.binaryproto", SHAPE + PACKED))


def test_hdf5_weights(tmp_path) -> None:
    h5py = pytest.importorskip("h5py")
    file = tmp_path / "m.caffemodel.h5"
    with h5py.File(file, "w") as content:
        group = content.create_group("data/block/conv")
        group["0"], group["1"] = VALUES, VALUES[0].astype(np.float64)
        content.create_group("data/relu")
    layers = read_hdf5(file)
    assert list(layers) == ["block/conv"]
    np.testing.assert_array_equal(layers["block/conv"][1].values, VALUES[0])
    assert layers["block/conv"][1].values.dtype == np.float32
    file.write_bytes(file.read_bytes()[:100])
    with pytest.raises(InputError, match="not HDF5 weights of a Caffe network, or damaged"):
        read_hdf5(file)


def test_hdf5_weights_that_are_not_all_in_the_file(tmp_path) -> None:
    """HDF5 fills in what was never written: a kilobyte would become gigabytes."""
    h5py = pytest.importorskip("h5py")
    file, other = tmp_path / "m.caffemodel.h5", tmp_path / "other.h5"
    with h5py.File(other, "w") as content:
        content["0"] = VALUES

    def write(name: str) -> None:
        with h5py.File(file, "w") as content:
            group = content.create_group("data/conv")
            if name == "huge":
                group.create_dataset("0", (2**16, 2**16), np.float32, chunks=(2**10, 2**10))
            elif name == "link":
                group["0"], group["marker"] = h5py.ExternalLink(str(other), "0"), VALUES
            elif name == "external":
                group.create_dataset("0", (4,), np.float32, external=[(str(other), 0, 16)])
            elif name == "type":
                group["0"], group["1"] = np.dtype("f4"), VALUES
            else:
                group["0"] = [b"text"]

    for name, message in {
        "huge": "blob '0' of shape (65536, 65536) has 0 bytes in the file",
        "link": "blob '0' lies outside of the file",
        "external": "blob '0' lies outside of the file",
        "type": "blob '0' holds no numbers",
        "text": "blob '0' holds no numbers",
    }.items():
        write(name)
        with pytest.raises(InputError) as error:
            read_hdf5(file)
        assert f"{file}: not HDF5 weights of a Caffe network, or damaged (ValueError: {message}" in str(error.value)
