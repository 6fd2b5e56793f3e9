"""The textual form of the IR: ONNX's own syntax. The one place that knows its parser and printer.

A weight can be left out: in its place stand where its values are and their digest, in ONNX's syntax for external data,
`float[64,3,7,7] conv1.weight = ["location": "resnet.onnx", "sha256": "…"]`. Reading that back gives the values where
the file is there and holds them, and an `ElidedArray` where not.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx
import onnx.parser
import onnx.printer

from wootz.passes.errors import InputError, WootzError, reading
from wootz.passes.ir.elided import ElidedArray, sha256_of
from wootz.passes.ir.initial_values import read_initial_values
from wootz.passes.ir.model import Model, constants, proto_without_values

SPLIT_MARK = "# -----"
"""A line that begins with this separates the models of one text."""
NOWHERE = "elided"
"""The location of a weight that is in no file."""


def parse_text(text: str, file: str = "<text>", first_line: int = 1) -> Model:
    """The model written in ONNX's textual syntax. Raises InputError with the parser's position.

    `first_line` is the line of `file` on which `text` begins.
    """
    with reading(file, "an ONNX model as text"):
        try:
            proto = onnx.parser.parse_model(text)
        except onnx.parser.ParseError as error:
            raise _located(str(error), file, first_line) from error
        elided = _take_elided(proto, file)
        try:
            model = Model.from_proto(proto)
        except WootzError as error:
            raise InputError(str(error), file) from error
        for name, tensor in model.graph.tensors().items():
            if name in elided:
                tensor.values = elided[name]
        return model


def print_text(model: Model, elide_over: int | None = None, locations: Mapping[int, str] | None = None) -> str:
    """The model in ONNX's textual syntax.

    With `elide_over`, weights of more elements are left out (not int64 and int32, which are shapes and indices);
    `locations` gives the file that holds an array, by the
    array's `id`. Weights that were left out of the text that the model was read from are so in any case.
    """
    elided: dict[str, np.ndarray] = {}
    for name, values in constants(model.graph).items():
        is_large = elide_over is not None and values.size > elide_over and values.dtype not in (np.int64, np.int32)
        if isinstance(values, ElidedArray) or is_large:
            elided[name] = values
    proto = proto_without_values(model, elided)
    for initializer in proto.graph.initializer:
        if initializer.name in elided:
            _elide(initializer, elided[initializer.name], locations or {})
    return onnx.printer.to_text(proto).rstrip("\n") + "\n"


def stored_locations(text: str) -> dict[str, str]:
    """Where `text`, which can be parsed, says that the weights left out of it are: weight -> file."""
    elided = [t for t in onnx.parser.parse_model(text).graph.initializer if t.external_data]
    entries = {t.name: {entry.key: entry.value for entry in t.external_data} for t in elided}
    return {name: entry["location"] for name, entry in entries.items() if entry.keys() >= {"location", "sha256"}}


def split_text(text: str) -> list[tuple[str, int]]:
    """The parts between lines that begin with SPLIT_MARK, each with the line on which it begins (from 1)."""
    parts: list[tuple[str, int]] = []
    lines = text.splitlines(keepends=True)
    start = 0
    for i in [i for i, line in enumerate(lines) if line.startswith(SPLIT_MARK)] + [len(lines)]:
        part = "".join(lines[start:i])
        if part.strip():
            parts.append((part, start + 1))
        start = i + 1
    return parts


def elided_weights(model: Model) -> list[str]:
    """The names of the weights whose values are missing."""
    return [name for name, values in constants(model.graph).items() if isinstance(values, ElidedArray)]


def _located(message: str, file: str, first_line: int) -> InputError:
    """The parser's complaint in one line; its own position goes in front."""
    position = re.search(r"\(line: (\d+) column: (\d+)\)", message)
    complaint = " ".join(re.sub(r"b?['\"]?\[ParseError at position \(.*?\)\]", "", message).replace("\\n", " ").split())
    complaint = complaint.strip("'\" ")
    context = re.match(r"Error context: (.*?) ?((?:Expected|Unexpected|Unknown|Undefined|Invalid).*)", complaint)
    if context:
        complaint = f"{context[2].rstrip('.')} near {context[1][:60]!r}"
    if position is None:
        return InputError(complaint, file)
    return InputError(complaint, file, int(position[1]) + first_line - 1, int(position[2]))


def _take_elided(proto: onnx.ModelProto, file: str) -> dict[str, np.ndarray]:
    """Turns elided initializers into empty ones, and gives what belongs there: the values, or an ElidedArray."""
    elided: dict[str, np.ndarray] = {}
    files: dict[Path, dict[str, np.ndarray]] = {}
    for tensor in proto.graph.initializer:
        if tensor.data_location != onnx.TensorProto.EXTERNAL:
            continue
        entries = {entry.key: entry.value for entry in tensor.external_data}
        if "sha256" not in entries:
            _load_external(tensor, file)
            continue
        dtype = onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type)
        array: np.ndarray = ElidedArray.of(tensor.dims, dtype, entries.get("location", NOWHERE), entries["sha256"])
        for folder in (Path(file).parent, Path()):  # beside the text, else where we are
            source = folder / entries.get("location", NOWHERE)
            if source.suffix in (".onnx", ".onnxtxt") and source.is_file():
                array = _stored_values(tensor.name, source, entries["sha256"], files, file)
                break
        elided[tensor.name] = array
        tensor.ClearField("external_data")
        tensor.ClearField("data_location")
        del tensor.dims[:]
        tensor.dims.append(0)
    return elided


def _load_external(tensor: onnx.TensorProto, file: str) -> None:
    try:
        onnx.external_data_helper.load_external_data_for_tensor(tensor, str(Path(file).parent))
    except (OSError, ValueError, onnx.checker.ValidationError) as error:
        raise InputError(f"the external data of {tensor.name!r} can't be read: {_one_line(error)}", file) from error
    tensor.data_location = onnx.TensorProto.DEFAULT
    del tensor.external_data[:]


def _stored_values(
    name: str, source: Path, sha256: str, files: dict[Path, dict[str, np.ndarray]], file: str
) -> np.ndarray:
    if source not in files:
        proto = onnx.parser.parse_model(source.read_text()) if source.suffix == ".onnxtxt" else onnx.load(source)
        files[source] = constants(read_initial_values(Model.from_proto(proto), source).graph)
    if name not in files[source]:
        raise InputError(f"{source} has no weight {name!r}", file)
    values = files[source][name]
    if sha256_of(values) != sha256:
        raise InputError(f"weight {name!r} in {source} is not the one that was elided (its digest is another)", file)
    return values


def _elide(tensor: onnx.TensorProto, values: np.ndarray, locations: Mapping[int, str]) -> None:
    tensor.ClearField("raw_data")
    del tensor.dims[:]
    tensor.dims.extend(values.shape)
    location = values.location if isinstance(values, ElidedArray) else locations.get(id(values), NOWHERE)
    tensor.data_location = onnx.TensorProto.EXTERNAL
    for key, value in (("location", location or NOWHERE), ("sha256", sha256_of(values))):
        entry = tensor.external_data.add()
        entry.key, entry.value = key, value


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())
