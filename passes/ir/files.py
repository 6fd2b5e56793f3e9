"""Models on disk: `.onnx` and `.onnxtxt`, `-` for standard input and output."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import onnx
from google.protobuf.message import DecodeError

from wootz.passes.errors import InputError
from wootz.passes.ir.model import Model
from wootz.passes.ir.text import parse_text, print_text

TEXT_SUFFIX = ".onnxtxt"


def load(path: str | Path) -> Model:
    """Reads an ONNX model, binary or textual by its suffix (standard input: by its content)."""
    if str(path) == "-":
        return _parse(sys.stdin.buffer.read(), "<stdin>", binary=None)
    file = Path(path)
    if not file.is_file():
        raise InputError("no such file", file)
    return _parse(file.read_bytes(), str(file), binary=file.suffix != TEXT_SUFFIX)


def save(model: Model, path: str | Path) -> None:
    """Writes `model` to `path`, all of it or nothing. `-` prints the textual form."""
    if str(path) == "-":
        sys.stdout.write(print_text(model))
        return
    file = Path(path)
    content = print_text(model).encode() if file.suffix == TEXT_SUFFIX else model.to_proto().SerializeToString()
    write_atomically(file, content)


def write_atomically(file: Path, content: bytes) -> None:
    """Writes a neighbouring file and renames it, so that readers see the old content or the new one."""
    file.parent.mkdir(parents=True, exist_ok=True)
    partial = file.with_name(f".{file.name}.{os.getpid()}")
    try:
        partial.write_bytes(content)
        partial.replace(file)
    finally:
        partial.unlink(missing_ok=True)


def _parse(content: bytes, file: str, binary: bool | None) -> Model:
    if binary is None:
        binary = b"\0" in content or not content.lstrip().startswith((b"<", b"#"))
    if not binary:
        return parse_text(content.decode(), file)
    try:
        return Model.from_proto(onnx.load_model_from_string(content))
    except DecodeError as error:
        raise InputError("not an ONNX model (the protobuf can't be read)", file) from error
