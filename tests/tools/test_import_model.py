from __future__ import annotations

from pathlib import Path

import onnx
import pytest

from wootz.passes.ir.files import load
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
        ([DIGITS], 2, "Missing option '-o'"),
    ],
)
def test_faults(tmp_path, monkeypatch, capsys, arguments, code, message) -> None:
    monkeypatch.chdir(tmp_path)
    assert call(*arguments) == code
    assert message in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
