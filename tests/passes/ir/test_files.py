"""Models on disk, and what is no model: one clear line each."""

from __future__ import annotations

import io
import os
import stat
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnx
import pytest

from wootz.passes.errors import InputError, WootzError
from wootz.passes.ir import files
from wootz.passes.ir.files import load, save
from wootz.passes.ir.model import OPSET, Model, constants
from wootz.passes.ir.text import parse_text
from wootz.runtime.store.durable import write_durably

TEXT = """<ir_version: 8, opset_import: ["" : 18]>
g (float[N,3] x) => (float[N,2] y) <float[3,2] w = {1,2,3,4,5,6}> { [multiply] y = MatMul(x, w) }"""


def wide_model() -> Model:
    """One of 24 kB."""
    model = parse_text(TEXT)
    model.graph.tensors()["w"].values = np.arange(6 * 1000, dtype=np.float32).reshape(3, 2000)
    model.graph.outputs[0].shape = ["N", 2000]
    return model


@pytest.mark.parametrize("suffix", [".onnx", ".onnxtxt"])
def test_what_is_saved_is_loaded(suffix: str, tmp_path: Path) -> None:
    save(parse_text(TEXT), tmp_path / f"model{suffix}")
    assert constants(load(tmp_path / f"model{suffix}").graph)["w"].tolist() == [[1, 2], [3, 4], [5, 6]]
    assert [f.name for f in tmp_path.iterdir()] == [f"model{suffix}"]


@pytest.mark.parametrize(("largest", "synced"), [(files.LARGEST_MESSAGE, 1), (1000, 2)])
def test_what_is_saved_outlasts_a_power_failure(largest: int, synced: int, tmp_path: Path, monkeypatch) -> None:
    """Each file is synced before the model gets its name, and the folder after that."""
    monkeypatch.setattr(files, "LARGEST_MESSAGE", largest)
    sync, replace, done = os.fsync, Path.replace, []

    def watched_sync(descriptor: int) -> None:
        sync(descriptor)
        done.append("folder" if stat.S_ISDIR(os.fstat(descriptor).st_mode) else "file")

    def watched_replace(partial: Path, file: Path) -> Path:
        done.append("rename")
        return replace(partial, file)

    monkeypatch.setattr(os, "fsync", watched_sync)
    monkeypatch.setattr(Path, "replace", watched_replace)
    save(wide_model(), tmp_path / "model.onnx")
    assert done == ["file"] * synced + ["rename", "folder"]


@pytest.mark.parametrize("content", [TEXT.encode(), parse_text(TEXT).to_proto().SerializeToString()])
def test_standard_input_is_known_by_its_content(content: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(content)))
    assert load("-").graph.nodes[0].op == "MatMul"


def test_external_data_is_read(tmp_path: Path) -> None:
    proto = parse_text(TEXT).to_proto()
    onnx.save_model(proto, tmp_path / "model.onnx", save_as_external_data=True, location="w.bin", size_threshold=0)
    assert (tmp_path / "w.bin").is_file()
    assert constants(load(tmp_path / "model.onnx").graph)["w"].tolist() == [[1, 2], [3, 4], [5, 6]]
    (tmp_path / "w.bin").unlink()
    with pytest.raises(InputError, match=r"model.onnx: the file with its external data is missing: .*w.bin"):
        load(tmp_path / "model.onnx")


@pytest.mark.parametrize("write", [files.write_atomically, lambda file, content: write_durably(file, [content])])
def test_what_cannot_be_written_is_named_and_not_its_neighbour(write, tmp_path: Path) -> None:
    (tmp_path / "best.onnx").mkdir()
    with pytest.raises(IsADirectoryError) as error:
        write(tmp_path / "best.onnx", b"content")
    assert error.value.filename == str(tmp_path / "best.onnx")
    assert [file.name for file in tmp_path.iterdir()] == ["best.onnx"]


def test_large_models_are_written_with_their_weights_beside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "LARGEST_MESSAGE", 1000)
    model = wide_model()
    for _ in range(2):  # the second time replaces what the first wrote
        save(model, tmp_path / "model.onnx")
    assert (tmp_path / "model.onnx.data").stat().st_size < 30_000
    saved = constants(load(tmp_path / "model.onnx").graph)["w"]
    np.testing.assert_array_equal(saved, model.graph.tensors()["w"].values)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.onnx", b"\xff\xfenonsense", "a.onnx: not an ONNX model (the protobuf can't be read)"),
        ("a.onnx", b"", "a.onnx: not an ONNX model (it has no graph)"),
        ("a.onnxtxt", b"\xff\xfe", "a.onnxtxt: not text (a binary model has the suffix .onnx)"),
        ("a.onnxtxt", b"hello", "a.onnxtxt:1:6: "),
    ],
)
def test_what_is_no_model_is_refused(name: str, content: bytes, message: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError) as refusal:
        load(tmp_path / name)
    assert str(refusal.value).startswith(str(tmp_path / message))


def test_a_missing_file_and_a_folder_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file"):
        load(tmp_path / "none.onnx")
    with pytest.raises(InputError, match="is a folder"):
        load(tmp_path)


@pytest.mark.parametrize("opset", [7, 12, 17, 22, 28])
def test_other_opsets_are_converted(opset: int, tmp_path: Path) -> None:
    (tmp_path / "a.onnxtxt").write_text(TEXT.replace(": 18", f": {opset}"))
    assert load(tmp_path / "a.onnxtxt").to_proto().opset_import[0].version == OPSET


@pytest.mark.parametrize("opset", [6, 29])
def test_opsets_that_are_too_old_or_too_new_are_refused(opset: int, tmp_path: Path) -> None:
    (tmp_path / "a.onnxtxt").write_text(TEXT.replace(": 18", f": {opset}"))
    with pytest.raises(WootzError, match=f"the model has opset {opset}; opsets 7 to 28 are read"):
        load(tmp_path / "a.onnxtxt")


def test_a_weight_without_all_of_its_data_is_named(tmp_path: Path) -> None:
    proto = parse_text(TEXT).to_proto()
    weight = next(t for t in proto.graph.initializer if len(t.dims) > 1)
    values = onnx.numpy_helper.to_array(weight)
    weight.CopyFrom(onnx.numpy_helper.from_array(values, weight.name))
    weight.raw_data = weight.raw_data[:-4]
    onnx.save(proto, tmp_path / "short.onnx")
    with pytest.raises(InputError, match=rf"short.onnx: constant '{weight.name}' can't be read: cannot reshape"):
        load(tmp_path / "short.onnx")


@pytest.mark.parametrize("suffix", [".onnx", ".onnxtxt"])
@pytest.mark.parametrize(
    "location", ["../outside.bin", "{folder}/outside.bin", "link.bin", "/dev/zero", "", ".", "a/../../b"]
)
def test_external_data_from_elsewhere_is_refused(suffix: str, location: str, tmp_path: Path) -> None:
    (tmp_path / "outside.bin").write_bytes(bytes(24))
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "link.bin").symlink_to(tmp_path / "outside.bin")
    proto = parse_text(TEXT).to_proto()
    onnx.external_data_helper.set_external_data(
        proto.graph.initializer[0], location.format(folder=tmp_path), offset=0, length=24
    )
    proto.graph.initializer[0].ClearField("raw_data")
    file = tmp_path / "models" / f"model{suffix}"
    file.write_bytes(proto.SerializeToString() if suffix == ".onnx" else onnx.printer.to_text(proto).encode())
    with pytest.raises(InputError) as refusal:
        load(file)
    assert str(file) in str(refusal.value)


@pytest.mark.parametrize(("offset", "length"), [(10**18, 24), (-1, 24), (0, 2**62), (0, 23), (20, 24)])
def test_external_data_that_is_not_there_is_refused(offset: int, length: int, tmp_path: Path) -> None:
    (tmp_path / "w.bin").write_bytes(bytes(30))
    proto = parse_text(TEXT).to_proto()
    onnx.external_data_helper.set_external_data(proto.graph.initializer[0], "w.bin", offset=offset, length=length)
    proto.graph.initializer[0].ClearField("raw_data")
    (tmp_path / "model.onnx").write_bytes(proto.SerializeToString())
    with pytest.raises(InputError, match=r"model.onnx"):
        load(tmp_path / "model.onnx")


def test_a_graph_without_outputs_is_not_written(tmp_path: Path) -> None:
    with pytest.raises(WootzError, match=r"net\.onnx: the graph has no outputs"):
        save(parse_text("g (float[1,4] x) => () { y = Relu(x) }"), tmp_path / "net.onnx")
    assert not any(tmp_path.iterdir())
