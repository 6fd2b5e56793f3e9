"""Models on disk: `.onnx` and `.onnxtxt`, `-` for standard input and output."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import onnx
from google.protobuf.message import DecodeError

from wootz.passes.durable import naming, sync_file, sync_folder
from wootz.passes.errors import InputError, WootzError, reading
from wootz.passes.ir.initial_values import read_initial_values, with_location, without_initial_values, write_arrays
from wootz.passes.ir.model import OPSET, Model, constants
from wootz.passes.ir.stream import encode
from wootz.passes.ir.text import elided_weights, parse_text, print_text

TEXT_SUFFIX = ".onnxtxt"
STANDARD_INPUT = "<stdin>"
LARGEST_MESSAGE = 2_000_000_000
"""Bytes of weights from which a model is written with its weights beside it: protobuf ends at 2 GiB."""


def load(path: str | Path) -> Model:
    """Reads an ONNX model, binary or textual by its suffix (standard input: by its content)."""
    content, file = read(path)
    if is_text(content, file):
        return parse_text(decode(content, file), file)
    return read_initial_values(_parse_binary(content, file), Path(file))


def read(path: str | Path) -> tuple[bytes, str]:
    """The content of a file or of standard input, and the name that messages give it."""
    if str(path) == "-":
        return sys.stdin.buffer.read(), STANDARD_INPUT
    file = Path(path)
    if not file.is_file():
        raise InputError("is a folder" if file.is_dir() else "no such file", file)
    return file.read_bytes(), str(file)


def is_text(content: bytes, file: str) -> bool:
    """Whether a file holds the textual form: by its suffix, standard input by its content."""
    if file != STANDARD_INPUT:
        return Path(file).suffix == TEXT_SUFFIX
    return b"\0" not in content and content.lstrip().startswith((b"<", b"#"))


def decode(content: bytes, file: str) -> str:
    try:
        return content.decode()
    except UnicodeDecodeError as error:
        raise InputError("not text (a binary model has the suffix .onnx)", file) from error


def check_output(path: str) -> None:
    """Raises WootzError for a file of neither form, before anything is computed for it."""
    if path != "-" and Path(path).suffix not in (".onnx", TEXT_SUFFIX):
        raise WootzError(f"{path}: a model is written to .onnx, .onnxtxt or - (standard output)")


def save(model: Model, path: str | Path, opset: int = OPSET) -> None:
    """Writes `model` to `path`, all of it or nothing. `-` prints the textual form. Binary models can have any `opset`.

    Weights of more than 2 GB together go into a file `NAME.onnx.data` beside it, and the first values of graph inputs
    into `NAME.initial.npz`.
    """
    if str(path) == "-":
        sys.stdout.write(print_text(model))
        return
    file = Path(path)
    if file.suffix == TEXT_SUFFIX:
        write_atomically(file, print_text(model).encode())
        return
    if not model.graph.outputs:
        raise WootzError(f"{file}: the graph has no outputs, and nothing could run it")
    if missing := elided_weights(model):
        raise WootzError(
            f"{file}: weight {missing[0]!r} was elided from the text that the model was read from: "
            f"its values are needed for a binary model"
        )
    model, initial = without_initial_values(model)
    if initial:
        beside = file.with_suffix(".initial.npz")
        with replacing(beside) as content:
            write_arrays(initial, content)
        model = with_location(model, beside.name)
    if sum(values.nbytes for values in constants(model.graph).values()) > LARGEST_MESSAGE:
        _save_with_external_data(model.to_proto(opset), file)
    elif opset != OPSET:
        write_atomically(file, model.to_proto(opset).SerializeToString())
    else:
        write_atomically(file, *encode(model))


def write_atomically(file: Path, *pieces: bytes | memoryview) -> None:
    """Writes all of a file or nothing."""
    with replacing(file) as content:
        content.writelines(pieces)


@contextmanager
def replacing(file: Path) -> Iterator[BinaryIO]:
    """A neighbouring file to write; it is renamed at the end: readers see the old content or the new one, and after a
    power failure, too.

    OSErrors have the name of `file`, also where the system names its neighbour, or none, as on a full disk.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    partial = file.with_name(f".{file.name}.{os.getpid()}")
    try:
        with naming(file, partial):
            with partial.open("wb") as content:
                yield content
                content.flush()
                os.fsync(content.fileno())
            partial.replace(file)
            sync_folder(file.parent)
    finally:
        partial.unlink(missing_ok=True)


def _save_with_external_data(proto: onnx.ModelProto, file: Path) -> None:
    """The weights are written first, then the model that names them replaces the old one."""
    file.parent.mkdir(parents=True, exist_ok=True)
    data, partial = f"{file.name}.data", file.with_name(f".{file.name}.{os.getpid()}")
    (file.parent / data).unlink(missing_ok=True)  # onnx appends to it
    try:
        with naming(file, partial):
            onnx.save_model(proto, partial, save_as_external_data=True, all_tensors_to_one_file=True, location=data)
            sync_file(file.parent / data)
            sync_file(partial)
            partial.replace(file)
            sync_folder(file.parent)
    finally:
        partial.unlink(missing_ok=True)


def _parse_binary(content: bytes, file: str) -> Model:
    with reading(file, "an ONNX model"):
        proto = read_proto(content, file)
        _load_external_data(proto, file)
        try:
            return Model.from_proto(proto)
        except WootzError as error:
            raise InputError(str(error), file) from error


def read_proto(content: bytes, file: str) -> onnx.ModelProto:
    """A binary model as it is, without the weights beside it. Raises InputError for what is no model."""
    with reading(file, "an ONNX model"):
        try:
            proto = onnx.load_model_from_string(content)
        except DecodeError as error:
            raise InputError("not an ONNX model (the protobuf can't be read)", file) from error
        if not proto.HasField("graph"):
            raise InputError("not an ONNX model (it has no graph)", file)
        return proto


def _load_external_data(proto: onnx.ModelProto, file: str) -> None:
    folder = "" if file == STANDARD_INPUT else str(Path(file).parent)
    for tensor in proto.graph.initializer:
        location = next((e.value for e in tensor.external_data if e.key == "location"), None)
        if location is not None and not Path(folder, location).exists():
            raise InputError(f"the file with its external data is missing: {Path(folder, location)}", file)
    try:
        onnx.external_data_helper.load_external_data_for_model(proto, folder)
    except (OSError, ValueError, onnx.checker.ValidationError) as error:
        raise InputError(f"its external data can't be read: {' '.join(str(error).split())}", file) from error
