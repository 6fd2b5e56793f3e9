"""`wootz-opt --opset`: results in the opset of the model that was read, or in another."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx.parser
import onnxruntime
import pytest
from click.testing import CliRunner, Result

from wootz.passes.errors import WootzError
from wootz.passes.ir.files import load
from wootz.runtime.session import evaluate, runs_opset
from wootz.tools import opt
from wootz.tools.opt import opt as command

NETWORK = """<ir_version: 3, opset_import: ["" : 9]>
g (float[N,3,8,8] x, float[8,3,3,3] w, float[4,8,3,3] v) => (float[N,4] y)
{
    a = Conv<kernel_shape=[3,3], pads=[1,1,1,1]>(x, w)
    b = Clip<min=0.0, max=6.0>(a)
    p = Pad<pads=[0,0,1,1,0,0,1,1]>(b)
    c = Conv<kernel_shape=[3,3]>(p, v)
    u = Upsample<mode="nearest">(c, scales)
    m = ReduceMean<axes=[2,3], keepdims=0>(u)
    y = Softmax(m)
}"""
"""Weights are inputs of the graph, too, as they had to be before IR 4."""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    model = onnx.parser.parse_model(NETWORK)
    rng = np.random.default_rng(0)
    for name, shape in {"w": (8, 3, 3, 3), "v": (4, 8, 3, 3)}.items():
        weights = rng.normal(size=shape).astype(np.float32)
        model.graph.initializer.append(onnx.numpy_helper.from_array(weights, name))
    scales = np.array([1, 1, 2, 2], np.float32)
    model.graph.initializer.append(onnx.numpy_helper.from_array(scales, "scales"))
    model.graph.input.append(onnx.helper.make_tensor_value_info("scales", onnx.TensorProto.FLOAT, [4]))
    onnx.save(model, tmp_path / "net.onnx")
    return tmp_path / "net.onnx"


def run(*arguments: object) -> Result:
    return CliRunner().invoke(command, [str(a) for a in arguments])


def test_weights_that_are_inputs_are_constants(file: Path) -> None:
    assert [t.name for t in load(file).graph.inputs] == ["x"]


@pytest.mark.parametrize(("asked", "opset"), [("original", 9), ("7", 7), ("11", 11), ("18", 18), ("21", 21)])
def test_a_pruned_network_in_another_opset(file: Path, tmp_path: Path, asked: str, opset: int) -> None:
    pruned, other = tmp_path / "pruned.onnx", tmp_path / "other.onnx"
    pruning = "--pass=prune-filters{rate=0.5}"
    assert run(pruning, file, "-o", pruned).exit_code == 0
    result = run(pruning, file, "-o", other, "--opset", asked)
    assert result.exit_code == 0, result.output
    model = onnx.load(other)
    onnx.checker.check_model(model)
    assert [o.version for o in model.opset_import] == [opset]
    feeds = {"x": np.random.default_rng(1).normal(size=(2, 3, 8, 8)).astype(np.float32)}
    session = onnxruntime.InferenceSession(other, providers=["CPUExecutionProvider"])
    (found,) = session.run(None, feeds)
    expected = evaluate(load(pruned), feeds)["y"]
    assert np.abs(found - expected).max() <= 1e-5 * np.abs(expected).max()
    assert next(t for t in model.graph.initializer if t.name == "w").dims[0] == 4


def test_an_opset_that_the_runtime_does_not_run_is_brought_back_for_the_check(file: Path, tmp_path: Path) -> None:
    assert not runs_opset(28)
    assert run(file, "-o", tmp_path / "a.onnx", "--opset", 28).exit_code == 0
    assert load(tmp_path / "a.onnx").source_opset == 28


@pytest.mark.parametrize("opset", [7, 28])
def test_what_computes_something_else_is_not_written(file: Path, tmp_path: Path, monkeypatch, opset: int) -> None:
    from wootz.passes.ir.model import Model

    to_proto = Model.to_proto

    def with_a_fault(model: Model, opset: int = 18) -> onnx.ModelProto:
        proto = to_proto(model, opset)
        for node in proto.graph.node:
            if node.op_type == "Softmax" and opset != 18:
                node.op_type = "LogSoftmax"
        return proto

    monkeypatch.setattr(Model, "to_proto", with_a_fault)
    result = run(file, "-o", tmp_path / "a.onnx", "--opset", opset)
    assert isinstance(result.exception, WootzError)
    assert str(result.exception).startswith(f"in opset {opset} the model gives another 'y'")
    assert not (tmp_path / "a.onnx").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--opset", "6", "-o", "a.onnx"), "--opset 6: a number from 7 to 28 belongs there, or original"),
        (("--opset", "newest", "-o", "a.onnx"), "--opset newest: a number from 7 to 28 belongs there, or original"),
        (("--opset", "9"), "--opset is for -o FILE.onnx: the textual form has opset 18"),
        (("--opset", "9", "-o", "a.onnxtxt"), "--opset is for -o FILE.onnx: the textual form has opset 18"),
    ],
)
def test_mistakes(file: Path, arguments: tuple[str, ...], message: str) -> None:
    with pytest.raises(WootzError) as raised:
        opt.opt.main([str(file), *arguments], standalone_mode=False)
    assert str(raised.value) == message


def test_an_operator_that_the_opset_lacks_is_refused(tmp_path: Path) -> None:
    text = '<ir_version: 8, opset_import: ["" : 16]> g (float[1,1,4,4] x, float[1,2,2,2] p) => (float[] y) '
    onnx.save(onnx.parser.parse_model(text + "{ y = GridSample(x, p) }"), tmp_path / "grid.onnx")
    result = run(tmp_path / "grid.onnx", "-o", tmp_path / "a.onnx", "--opset", 11)
    reason = "GridSample node that computes 'y' can't be expressed in opset 11"
    assert str(result.exception).startswith(f"the model has opset 18 and can't be converted to 11: {reason}")
