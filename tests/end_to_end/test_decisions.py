"""Networks that end in decisions, not in numbers: they learn by what is decided of, and come back whole."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from residual import MODULES, WEIGHTS, write_network

import wootz as library

SOLVER = 'base_lr: 0.01 lr_policy: "fixed" momentum: 0.9 max_iter: 4 batch_size: 16 test_interval: 4'
CONSTANTS = """k = Constant<value = int64 {2}>() minus = Constant<value = int64[1] {-1}>() one = Reshape(k, minus)
               rows = Constant<value = int64[2] {0, -1}>() cells = Constant<value = int64[3] {0, 8, -1}>()
               half = Constant<value = float {0.5}>()"""
CLASSES = "f = Flatten(p) scores = MatMul(f, fc)"
Outputs = Mapping[str, np.ndarray]


@dataclass(frozen=True)
class Case:
    """What stands behind two residual modules, and how what is left of it decides, by NumPy."""

    outputs: str
    end: str
    left: tuple[str, ...]
    decided: Callable[[Outputs], Outputs]
    quality: str = "OutputError"
    modules: int = 2


def largest(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The places of the two largest numbers of each row, and these."""
    places = np.argsort(-values, axis=1, kind="stable")[:, :2]
    return places, np.take_along_axis(values, places, 1)


def detected(outputs: Outputs) -> Outputs:
    places, best = largest(outputs["best"])
    classes = np.take_along_axis(outputs["cells8"].argmax(1), places, 1)
    boxes = np.take_along_axis(outputs["offsets"], np.repeat(places[:, None], 8, 1), 2)
    return {"boxes": boxes, "found": best, "classes": classes}


CASES = {
    "segmenter": Case(
        "int64[N,8,8] y", "y = ArgMax<axis = 1, keepdims = 0>(m2)", ("m2",), lambda o: {"y": o["m2"].argmax(1)}
    ),
    "segmenter of bytes": Case(
        "uint8[N,1,8,8] y",
        "best = ArgMax<axis = 1>(m2) y = Cast<to = 2>(best)",
        ("m2",),
        lambda o: {"y": o["m2"].argmax(1, keepdims=True)},
    ),
    "threshold": Case("bool[N,8,8,8] y", "s = Sigmoid(m2) y = Greater(s, half)", ("s",), lambda o: {"y": o["s"] > 0.5}),
    "classifier": Case(
        "int64[N] y",
        f"{CLASSES} y = ArgMax<axis = 1, keepdims = 0>(scores)",
        ("scores",),
        lambda o: {"y": o["scores"].argmax(1)},
        quality="Accuracy",
    ),
    "best classes": Case(
        "int64[N,2] top, float[N,2] best",
        f"{CLASSES} s = Softmax<axis = 1>(scores) best, top = TopK<axis = 1>(s, one)",
        ("s",),
        lambda o: dict(zip(("top", "best"), largest(o["s"]), strict=True)),
        quality="Agreement",
    ),
    "detector": Case(
        "float boxes, float found, int64 classes",
        """offsets = Reshape(m2, cells) e = Conv(m2, c) s = Sigmoid(e) cells8 = Reshape(s, cells)
           axis = Constant<value = int64 {1}>() axes = Reshape(axis, minus) best = ReduceMax<keepdims = 0>(cells8, axes)
           which = ArgMax<axis = 1, keepdims = 0>(cells8) found, places = TopK<axis = 1>(best, one)
           classes = GatherElements<axis = 1>(which, places)
           wide = Unsqueeze(places, axes) ones = Constant<value = int64[3] {1, 8, 1}>() each = Expand(wide, ones)
           boxes = GatherElements<axis = 2>(offsets, each)""",
        ("offsets", "cells8", "best"),
        detected,
        modules=1,
    ),
}


@pytest.fixture
def images() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (64, 1, 8, 8), np.uint8)


def run(
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    signature: str,
    body: str,
    data: object,
    modules: int,
    **given: object,
) -> library.Run:
    read = {name: shape for name, shape in WEIGHTS.items() if name != "fc" or "fc)" in body}
    write_network(folder, f"(float[N,1,8,8] image) => ({signature})", MODULES + body, read)
    (folder / "solver.prototxt").write_text(SOLVER)
    (folder / "subspace.json").write_text(json.dumps([[0.5] * modules]))
    monkeypatch.chdir(folder)
    monkeypatch.setenv("WOOTZ_STORE", str(folder / "store"))
    return library.run(
        "net.onnx", data=data, subspace="subspace.json", solver="solver.prototxt", pretrain_solver="solver.prototxt",
        normalize="0..1", threads=1, allow_untrained=True, out="out", show=False, **given,
    )  # fmt: skip


def outputs_of(file: Path, images: np.ndarray) -> Outputs:
    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(None, {"image": images.astype(np.float32) / 255}), strict=True))


@pytest.mark.parametrize("name", CASES)
def test_what_is_decided_of_is_what_learns_and_the_whole_network_decides_by_it(name, images, tmp_path, monkeypatch):
    case = CASES[name]
    data: object = images
    if case.quality == "Accuracy":
        data = images, np.arange(len(images)) % 10
    objective = "min OutputError" if case.quality == "OutputError" else f"max {case.quality}"
    found = run(tmp_path, monkeypatch, case.outputs, CONSTANTS + case.end, data, case.modules, objective=objective)
    assert not any("is not written" in note for note in found.result.notes), found.result.notes
    assert found.result.quality.name == case.quality
    part, whole = (outputs_of(tmp_path / "out" / file, images) for file in ("best.onnx", "best-whole.onnx"))
    assert set(part) == set(case.left)
    decided = case.decided(part)
    assert set(whole) == set(decided)
    for output, values in decided.items():
        np.testing.assert_allclose(whole[output].astype(np.float64), values.astype(np.float64), rtol=1e-5)


def test_a_map_whose_scales_are_computed_of_constants_learns_beside_classes(images, tmp_path, monkeypatch):
    """`interpolate(scale_factor=2)` behind a convolution, as PyTorch's older exporter writes it."""
    body = f"""{CLASSES} e = Conv(m2, c)
        "/Constant_output_0" = Constant<value = float[2] {{1, 1}}>()
        "/Constant_1_output_0" = Constant<value = float[2] {{2, 2}}>()
        scales = Concat<axis = 0>("/Constant_output_0", "/Constant_1_output_0")
        large = Resize<mode = "nearest">(e, , scales) mask = Sigmoid(large)"""
    found = run(tmp_path, monkeypatch, "float[N,10] scores, float[N,8,16,16] mask", body, images, modules=1)
    assert found.result.quality.name == "OutputError"
    assert {name: values.shape for name, values in outputs_of(found.best, images).items()} == {
        "scores": (64, 10),
        "mask": (64, 8, 16, 16),
    }
    assert not any("no parameter there" in note for note in found.result.notes)


def test_an_output_without_a_shape_is_refused_in_a_line(images, tmp_path, monkeypatch):
    """Nobody knows the shape of what an operator of another domain gives, and so of what is decided of."""
    monkeypatch.setattr("residual.HEADER", '<ir_version: 8, opset_import: ["" : 18, "com.microsoft" : 1]>')
    body = "q = com.microsoft.QuickGelu(m2) y = ArgMax<axis = 1, keepdims = 0>(q)"
    with pytest.raises(library.WootzError, match="output q: its shape is not known"):
        run(tmp_path, monkeypatch, "int64[N,8,8] y", body, images, modules=2)
