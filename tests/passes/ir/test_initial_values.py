"""First values of graph inputs, beside the binary model: any name and type comes back, anything else is refused."""

from __future__ import annotations

import zipfile
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest

from wootz.passes.errors import InputError
from wootz.passes.ir.files import load, save
from wootz.passes.ir.initial_values import without_initial_values
from wootz.passes.ir.model import OPSET, Graph, Model, Variable, constants


def model_with(**initial: np.ndarray) -> Model:
    """An input x, and further inputs that have first values; nothing computes with them."""
    x = Variable("x", np.dtype(np.float32), ["N"])
    graph = Graph(opset=OPSET, inputs=[x], outputs=[x])
    for name, values in initial.items():
        tensor = Variable(name)
        tensor.to_constant(values)
        graph.inputs.append(tensor)
    return Model(graph)


@pytest.mark.parametrize("dtype", [np.float32, np.float16, np.int64, np.bool_, ml_dtypes.bfloat16, ml_dtypes.int4])
@pytest.mark.parametrize("shape", [(), (0, 2), (3,), (70, 80)])
def test_values_of_any_type_and_shape_come_back(dtype: type, shape: tuple[int, ...], tmp_path: Path) -> None:
    values = np.arange(np.prod(shape, dtype=int)).reshape(shape).astype(dtype)
    save(model_with(**{"/a/b.weight": values, "file": values}), tmp_path / "a.onnx")
    _, initial = without_initial_values(load(tmp_path / "a.onnx"))
    assert initial.keys() == {"/a/b.weight", "file"}
    for found in initial.values():
        assert found.dtype == values.dtype
        np.testing.assert_array_equal(found, values)


def test_equal_values_give_equal_files(tmp_path: Path) -> None:
    for name in ("a", "b"):
        save(model_with(s=np.ones(3, np.float32)), tmp_path / f"{name}.onnx")
    assert (tmp_path / "a.initial.npz").read_bytes() == (tmp_path / "b.initial.npz").read_bytes()


def test_values_may_be_replaced(tmp_path: Path) -> None:
    """As a program does that goes on from a state of its own."""
    save(model_with(s=np.ones(3, np.float32)), tmp_path / "a.onnx")
    np.savez_compressed(tmp_path / "a.initial.npz", s=np.arange(3, dtype=np.float32))
    assert constants(load(tmp_path / "a.onnx").graph)["s"].tolist() == [0, 1, 2]


@pytest.mark.parametrize(
    ("arrays", "reason"),
    [
        ({"s": np.ones(4, np.float32)}, "'s' is float32 (4,), and float32 (3,) belongs there"),
        ({"s": np.ones(3, np.int32)}, "'s' is int32 (3,), and float32 (3,) belongs there"),
        ({"t": np.ones(3, np.float32)}, "'t' is no input of the model"),
        ({"x": np.ones(3, np.float32)}, "the input 'x' has no static shape"),
        ({"s": np.zeros(10**6, np.float32)}, "'s' has 4000128 bytes, and float32 (3,) belongs there"),
        ({"s": np.array([1, 2, None])}, "Object arrays cannot be loaded when allow_pickle=False"),
    ],
)
def test_values_that_are_not_the_inputs_are_refused(arrays: dict, reason: str, tmp_path: Path) -> None:
    save(model_with(s=np.ones(3, np.float32)), tmp_path / "a.onnx")
    np.savez_compressed(tmp_path / "a.initial.npz", **arrays)
    with pytest.raises(InputError) as refusal:
        load(tmp_path / "a.onnx")
    assert str(refusal.value) == f"{tmp_path}/a.initial.npz: not the initial values of {tmp_path}/a.onnx: {reason}"


def test_values_that_are_not_there_or_no_archive_are_refused(tmp_path: Path) -> None:
    save(model_with(s=np.ones(3, np.float32)), tmp_path / "a.onnx")
    (tmp_path / "a.initial.npz").write_bytes(b"PK nonsense")
    with pytest.raises(InputError, match=r"a.initial.npz: not the initial values of .*: File is not a zip file"):
        load(tmp_path / "a.onnx")
    with zipfile.ZipFile(tmp_path / "a.initial.npz", "w") as archive:
        archive.writestr("s.npy", b"twelve bytes")
    with pytest.raises(InputError, match=r"a.initial.npz: not the initial values of"):
        load(tmp_path / "a.onnx")
    (tmp_path / "a.initial.npz").unlink()
    with pytest.raises(InputError, match=r"a.onnx: the file with its initial values is missing: .*a.initial.npz"):
        load(tmp_path / "a.onnx")


def test_values_from_another_folder_are_refused(tmp_path: Path) -> None:
    proto = model_with().to_proto()
    proto.metadata_props.add(key="wootz.initial-values", value="../a.initial.npz")
    (tmp_path / "a.onnx").write_bytes(proto.SerializeToString())
    with pytest.raises(InputError, match=r"a.onnx: its initial values have to lie beside it, and not in '../a"):
        load(tmp_path / "a.onnx")
