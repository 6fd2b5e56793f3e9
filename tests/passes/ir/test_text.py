"""The textual form: fixed points, elided weights, and where the parser complains."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pytest

from wootz.passes.errors import InputError, WootzError
from wootz.passes.ir.elided import ElidedArray
from wootz.passes.ir.files import load, save
from wootz.passes.ir.model import Model, constants
from wootz.passes.ir.text import parse_text, print_text, split_text

MODELS = sorted((Path(__file__).parents[2] / "fixtures" / "models").glob("*.gz"))
SMALL = """<ir_version: 8, opset_import: ["" : 18], metadata_props: ["key": "value"]>
g (float[N,3] x) => (float[N,2] y)
<float[3,2] w = {0.1,1e-30,3,-0,inf,6.000001}>
{
  [multiply] z = MatMul(x, w)
  [softmax] y = Softmax<axis = -1>(z)
}"""


@pytest.mark.parametrize("file", MODELS, ids=lambda f: f.name.removesuffix(".onnxtxt.gz"))
def test_text_is_a_fixed_point(file: Path) -> None:
    text = print_text(parse_text(gzip.decompress(file.read_bytes()).decode()))
    assert print_text(parse_text(text)) == text


def test_text_binary_text_is_a_fixed_point(tmp_path: Path) -> None:
    text = print_text(parse_text(SMALL))
    save(parse_text(text), tmp_path / "model.onnx")
    assert print_text(load(tmp_path / "model.onnx")) == text
    np.testing.assert_array_equal(constants(parse_text(text).graph)["w"].ravel()[[0, 4]], np.float32([0.1, np.inf]))


def test_elided_weights_come_back_from_the_model_they_are_in(tmp_path: Path) -> None:
    model = parse_text(SMALL)
    save(model, tmp_path / "model.onnx")
    stored = load(tmp_path / "model.onnx")
    text = print_text(stored, 4, {id(constants(stored.graph)["w"]): "model.onnx"})
    assert 'w = ["location": "model.onnx", "sha256": "' in text
    (tmp_path / "bare.onnxtxt").write_text(text)
    np.testing.assert_array_equal(constants(load(tmp_path / "bare.onnxtxt").graph)["w"], constants(model.graph)["w"])


def test_elided_weights_that_are_nowhere_stay_elided(tmp_path: Path) -> None:
    text = print_text(parse_text(SMALL), 4)
    model = parse_text(text)
    assert isinstance(constants(model.graph)["w"], ElidedArray)
    assert print_text(model) == text
    with pytest.raises(WootzError, match="weight 'w' was elided"):
        save(model, tmp_path / "model.onnx")


def test_a_changed_weight_is_not_taken_for_the_elided_one(tmp_path: Path) -> None:
    save(parse_text(SMALL.replace("0.1", "0.2")), tmp_path / "model.onnx")
    model = parse_text(SMALL)
    text = print_text(model, 4, {id(constants(model.graph)["w"]): "model.onnx"})
    (tmp_path / "bare.onnxtxt").write_text(text)
    with pytest.raises(InputError, match=r"weight 'w' in .* is not the one that was elided"):
        load(tmp_path / "bare.onnxtxt")


def test_complaints_name_the_place() -> None:
    with pytest.raises(InputError) as refusal:
        parse_text(SMALL.replace("Softmax<", "Softmax<<"), "net.onnxtxt")
    assert str(refusal.value).startswith("net.onnxtxt:6:")
    assert "\n" not in str(refusal.value)


def test_lines_count_from_the_beginning_of_the_file() -> None:
    (one, first), (two, second) = split_text(f"{SMALL}\n# ----- second\n{SMALL.replace('axis', ']')}")
    assert (first, second) == (1, 9)
    parse_text(one, "net.onnxtxt", first)
    with pytest.raises(InputError, match=r"net.onnxtxt:14:"):
        parse_text(two, "net.onnxtxt", second)


def test_modules_and_metadata_survive() -> None:
    model = parse_text(SMALL)
    assert model.metadata == {"key": "value"}
    assert Model.from_proto(model.to_proto()).metadata == {"key": "value"}


def test_elided_initial_values_come_back_from_beside_the_model(tmp_path: Path) -> None:
    graph = "(float[3] x, float[3] s) => (float[3] y) <float[3] s = {1, 2, 3}> { y = Add(x, s) }"
    header = '<ir_version: 8, opset_import: ["" : 18], metadata_props: ["wootz.training": "{}"]>'
    model = parse_text(f"{header} g {graph}")
    save(model, tmp_path / "model.onnx")
    text = print_text(model, 1, {id(constants(model.graph)["s"]): "model.onnx"})
    assert "(float[3] x, float[3] s) =>" in text
    (tmp_path / "bare.onnxtxt").write_text(text)
    assert constants(load(tmp_path / "bare.onnxtxt").graph)["s"].tolist() == [1, 2, 3]
