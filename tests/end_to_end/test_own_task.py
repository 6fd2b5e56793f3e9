"""Your own data and metric, by the commands and by the library."""

import json

import numpy as np
import pytest
from residual import MODULES, WEIGHTS, write_network

import wootz as library
from wootz.runtime.result import RunResult

SOLVER = 'base_lr: 0.01 lr_policy: "fixed" momentum: 0.9 max_iter: 12 batch_size: 16 test_interval: 6'
MAPS = (
    "(float[N,1,8,8] image) => (float[N,8,8,8] maps)",
    MODULES.replace("p = GlobalAveragePool(m2)", "maps = Sigmoid(m2)"),
)
TASK = """
import numpy

def frames():
    images = numpy.random.default_rng(0).integers(0, 256, (96, 1, 8, 8), numpy.uint8)
    for image in images:
        yield {"image": image}, (image[0] > 128).astype(numpy.float32)

def closeness(outputs, targets):
    assert outputs.shape[1:] == (8, 8, 8) and targets.shape[1:] == (8, 8)
    return -float(numpy.mean((outputs.mean(axis=1) - targets) ** 2))
"""
OPTIONS = {"subspace": "subspace.json", "solver": "solver.prototxt", "pretrain_solver": "solver.prototxt",
           "normalize": "0..1", "threads": 1}  # fmt: skip


@pytest.fixture
def folder(tmp_path, monkeypatch):
    write_network(tmp_path, *MAPS, {name: shape for name, shape in WEIGHTS.items() if name != "fc"})
    (tmp_path / "solver.prototxt").write_text(SOLVER)
    (tmp_path / "task.py").write_text(TASK)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("WOOTZ_STORE", str(tmp_path / "store"))
    return tmp_path


def test_the_command_and_the_library_find_the_same(wootz, folder):
    options = [text for name, value in OPTIONS.items() for text in (f"--{name.replace('_', '-')}", value)]
    own = ("--data", "task.py:frames", "--metric", "task.py:closeness", "--objective", "max closeness")
    done = wootz("run", "net.onnx", *own, *options, "--workers", 2, "--out", "out", cwd=folder)
    assert done.code == 0, done.err
    of_command = RunResult.load(folder / "out")
    assert (of_command.quality.name, of_command.quality.higher_is_better) == ("closeness", True)
    assert of_command.best.quality == max(n.quality for n in of_command.block_trained.trained) < 0
    assert of_command.full.quality < 0
    again = wootz("run", "net.onnx", *own, *options, "--workers", 2, "--out", "out", cwd=folder)
    assert "this run is finished" in again.out


def test_the_library_takes_arrays_and_functions(folder, capsys):
    def closeness(outputs, targets):
        return -float(np.mean((outputs.mean(axis=1) - targets) ** 2))

    images = np.random.default_rng(0).integers(0, 256, (96, 1, 8, 8), np.uint8)
    targets = (images[:, 0] > 128).astype(np.float32)
    given = {**OPTIONS, "metric": closeness, "objective": "max closeness", "out": "out", "show": False}
    found = library.run("net.onnx", data=(images, targets), **given)
    assert capsys.readouterr().out == ""
    assert found.best == (folder / "out" / "best.onnx").resolve()
    assert found.best.is_file()
    assert found.result == RunResult.load(folder / "out")
    assert found.result.quality.name == "closeness"
    assert library.run("net.onnx", data=(images, targets), **given).result == found.result
    described = json.loads((folder / "out" / "best.json").read_text())
    assert described["outputs"][0]["gives"] == "numbers"


def test_what_the_library_refuses_is_one_line(folder):
    images = np.zeros((40, 1, 8, 8), np.uint8)
    with pytest.raises(library.WootzError, match="No such option"):
        library.run("net.onnx", data=images, colour="blue", show=False)
    with pytest.raises(library.WootzError, match="closeness needs labels, and the data have none"):
        library.run("net.onnx", data=images, metric="task.py:closeness", show=False, **OPTIONS)
    (folder / "broken.py").write_text("\ndef m(outputs):\n    return outputs.no\n")
    with pytest.raises(library.WootzError, match=r"broken.py:3: AttributeError: .* no attribute 'no'"):
        library.run("net.onnx", data=images, metric="broken.py:m", objective="max m", show=False, **OPTIONS)
