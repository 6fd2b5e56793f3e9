from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest

from wootz.frontend.caffe.importer import import_caffe
from wootz.passes.ir.files import load
from wootz.passes.ir.model import Model
from wootz.tools.cli import run_command, wootz

DIGITS = Path(__file__).parents[2] / "examples" / "digits" / "net.prototxt"


def call(*arguments: object) -> int:
    with pytest.raises(SystemExit) as exit_of_command:
        run_command(wootz, ["import", *map(str, arguments)])
    code = exit_of_command.value.code
    assert isinstance(code, int)
    return code


@pytest.mark.parametrize("suffix", [".onnx", ".onnxtxt"])
def test_a_network_becomes_a_model(tmp_path, suffix) -> None:
    output = tmp_path / f"digits{suffix}"
    assert call(DIGITS, "-o", output) == 0
    model = load(output)
    onnx.checker.check_model(model.to_proto(), full_check=True)
    assert [m.name for m in model.modules] == ["res2a", "res2b", "res3a", "res3b"]


def test_a_blob_without_a_name_gets_one(tmp_path, capsys) -> None:
    net, output = tmp_path / "net.prototxt", tmp_path / "net.onnx"
    net.write_text(
        """input: "data" input_shape { dim: 1 dim: 4 }
        layer { name: "a" type: "ReLU" bottom: "data" top: "" }
        layer { name: "b" type: "Sigmoid" bottom: "" top: "out" }"""
    )
    assert call(net, "-o", output) == 0
    assert "the blob named '' is called 'blob' in the model" in capsys.readouterr().err
    onnx.checker.check_model(output, full_check=True)
    x = np.array([[-1, 0, 1, 2]], np.float32)
    (y,) = onnxruntime.InferenceSession(output, providers=["CPUExecutionProvider"]).run(None, {"data": x})
    np.testing.assert_allclose(y, 1 / (1 + np.exp(-np.maximum(x, 0))), rtol=1e-6)


def test_nothing_is_written_that_onnx_runtime_refuses(tmp_path, monkeypatch, capsys) -> None:
    """A lowering that is wrong in a way that the verifier doesn't see."""
    imported = import_caffe(DIGITS)
    graph = imported.model.graph
    graph.nodes[0].domain, graph.nodes[0].op = "unknown", "Nothing"
    broken = replace(imported, model=Model(graph, (), {}))
    monkeypatch.setattr("wootz.tools.commands.import_model.import_caffe", lambda *_, **__: broken)
    assert call(DIGITS, "-o", tmp_path / "net.onnx") == 1
    assert f"error: {DIGITS}: what it describes is no valid ONNX model, and nothing" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("inputs", "layer"),
    [
        ([(2, 3)], 'type: "ReLU" bottom: "x0" top: "x0"'),
        ([(2, 1, 4, 4), (2, 2, 4, 4)], 'type: "Convolution" convolution_param { num_output: 3 kernel_size: 2 }'),
        (
            [(4, 3, 5), (4, 3), (1, 3, 2), (7, 3, 2)],
            'type: "LSTM" recurrent_param { num_output: 2 expose_hidden: true }',
        ),
        (
            [(4, 3, 5), (4, 3), (1, 3, 2), (1, 3, 7)],
            'type: "LSTM" recurrent_param { num_output: 2 expose_hidden: true }',
        ),
        ([(4, 3, 5), (4, 3), (2, 7)], 'type: "LSTM" recurrent_param { num_output: 2 }'),
    ],
)
def test_a_layer_on_inputs_that_contradict_it_is_refused_or_valid(tmp_path, capsys, inputs, layer) -> None:
    net, output = tmp_path / "net.prototxt", tmp_path / "net.onnx"
    head = "".join(f'input: "x{i}" input_shape {{ dim: {list(shape)} }} ' for i, shape in enumerate(inputs))
    bottoms = " ".join(f'bottom: "x{i}"' for i in range(len(inputs)) if "bottom" not in layer)
    tops = "" if "top" in layer else 'top: "y" ' + ('top: "z"' if "Convolution" in layer else "")
    net.write_text(f'{head} layer {{ name: "layer" {layer} {bottoms} {tops} }}')
    if call(net, "-o", output) == 0:
        onnxruntime.InferenceSession(output, providers=["CPUExecutionProvider"])
        assert len(inputs) == 1
    else:
        message = capsys.readouterr().err
        assert message.startswith(f"error: {net}:")
        assert message.count("\n") == 1
        assert not output.exists()


def test_notes_go_to_standard_error(tmp_path, capsys) -> None:
    net = tmp_path / "net.prototxt"
    net.write_text(
        """layer { name: "d" type: "HDF5Data" top: "x" }
        layer { name: "r" type: "ReLU" bottom: "x" top: "y" }
        layer { name: "l" type: "SmoothL1Loss" bottom: "y" bottom: "x" top: "l" }"""
    )
    assert call(net, "-o", tmp_path / "net.onnx", "--input-shape", "x=1,3") == 0
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err == (f"note: {net}:3: layer 'l' (SmoothL1Loss) is left out: inference doesn't need it\n")


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["none.prototxt", "-o", "x.onnx"], 1, "error: none.prototxt: no such file\n"),
        ([DIGITS, "--weights", "none.caffemodel", "-o", "x.onnx"], 1, "error: none.caffemodel: no such file\n"),
        ([DIGITS, "--input-shape", "data=a", "-o", "x.onnx"], 2, "is not of the form data=1,3,224,224"),
        ([DIGITS], 2, "Missing: '-o'"),
    ],
)
def test_faults(tmp_path, monkeypatch, capsys, arguments, code, message) -> None:
    monkeypatch.chdir(tmp_path)
    assert call(*arguments) == code
    assert message in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("source", "output", "reason"),
    [
        ("net.prototxt", "net.txt", r"net\.txt: a model is written to \.onnx, \.onnxtxt or -"),
        ("net.onnx", "net2.onnx", r"net\.onnx: an ONNX model already"),
    ],
)
def test_what_is_no_prototxt_or_no_model_file_is_refused(source, output, reason, tmp_path, capsys) -> None:
    assert call(tmp_path / source, "-o", tmp_path / output) == 1
    assert re.search(reason, capsys.readouterr().err)
    assert not (tmp_path / output).exists()
