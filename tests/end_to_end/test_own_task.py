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


@pytest.mark.parametrize("is_search", [False, True])
@pytest.mark.parametrize(("kept", "is_taken"), [(0.95, True), (0.85, False)])
def test_the_nearest_network_is_taken_where_none_meets_an_objective_that_nobody_gave(folder, is_search, kept, is_taken):
    def likeness(outputs, full):
        return 10.0 if np.allclose(outputs, full) else 10 * kept - float(np.mean((outputs - full) ** 2))

    images = np.random.default_rng(0).integers(0, 256, (96, 1, 8, 8), np.uint8)
    of_search = {"search": True, "subspace": None, "networks": 1, "looks": 1, "rates": [0.5]} if is_search else {}
    given = {**OPTIONS, "metric": likeness, "reference": "given", "out": "out", "show": False, **of_search}
    if not is_taken:
        with pytest.raises(
            library.WootzError, match=r"(meets|misses) 'min ModelSize constraint likeness >= 0.98 \* full'"
        ):
            library.run("net.onnx", data=images, **given)
        assert not (folder / "out" / "best.onnx").exists()
        return
    found = library.run("net.onnx", data=images, **given)
    assert found.best.is_file()
    assert 9 <= found.result.best.quality < 9.8
    (note,) = (note for note in found.result.notes if "which nobody asked for" in note)
    assert "has likeness 9." in note
    assert note.count("the full network 10") == 1


@pytest.mark.parametrize("shape", ["N,1", "N"])
def test_ages_are_numbers(folder, shape):
    def closeness(outputs, targets):
        return -float(np.mean((outputs.reshape(-1) - targets) ** 2))

    axes = "axes = Constant<value = int64[1] {1}>()"
    scores = "f = Flatten(p) y = MatMul(f, fc)"
    last = scores if shape == "N,1" else f"{axes} {scores.replace('y', 's')} y = Squeeze(s, axes)"
    signature = f"(float[N,1,8,8] image) => (float[{shape}] y)"
    weights = {**WEIGHTS, "fc": (8, 1)}
    write_network(folder, signature, MODULES + last, weights)
    images = np.random.default_rng(0).integers(0, 256, (96, 1, 8, 8), np.uint8)
    ages = images.mean(axis=(1, 2, 3)).astype(np.int64)
    given = {**OPTIONS, "out": "out", "show": False}
    found = library.run("net.onnx", data=(images, ages), metric=closeness, objective="max closeness", **given)
    assert "mse" in found.result.learned_from


def test_what_the_library_refuses_is_one_line(folder):
    images = np.zeros((40, 1, 8, 8), np.uint8)
    with pytest.raises(library.WootzError, match="No such option"):
        library.run("net.onnx", data=images, colour="blue", show=False)
    with pytest.raises(library.WootzError, match="closeness needs labels, and the data have none"):
        library.run("net.onnx", data=images, metric="task.py:closeness", show=False, **OPTIONS)
    (folder / "broken.py").write_text("\ndef m(outputs):\n    return outputs.no\n")
    with pytest.raises(library.WootzError, match=r"broken.py:3: AttributeError: .* no attribute 'no'"):
        library.run("net.onnx", data=images, metric="broken.py:m", objective="max m", show=False, **OPTIONS)


@pytest.mark.parametrize(
    "options",
    [
        {"fresh": False},
        {"check": True},
        {"no_early_end": True},
        {"no_early_end": False},
        {"freeze": ["stem", "a"]},
        {"search": True, "subspace": None, "rates": [0.25, 0.5]},
    ],
)
def test_forms_of_options(folder, options):
    """All are understood; that the data have no labels is found later."""
    images = np.zeros((40, 1, 8, 8), np.uint8)
    with pytest.raises(library.WootzError, match="closeness needs labels"):
        library.run("net.onnx", data=images, metric="task.py:closeness", show=False, **{**OPTIONS, **options})


class Summing:
    value = 0.0

    def add(self, outputs):
        pass


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ({"metric": Summing()}, "metric is no function, nor a class with add and value: give the class Summing itself"),
        ({"metric": 5}, "metric: 5 is no function, no class with add and value, nor FILE.py:NAME"),
        ({"metric": True}, "metric: True is no function"),
        ({"metric": ""}, "metric: '' is no text, path or number"),
        ({"objective": ""}, "objective: '' is no text"),
        ({"objective": 5.0}, r"\(a file or a text\)|5.0"),
        ({"objective": b"max m"}, "objective: bytes is no text"),
        ({"data": ""}, "data: '' is no text"),
        ({"data": 3}, "the data are int: give arrays"),
        ({"out": ""}, "out: '' is no text"),
        ({"out": object()}, "out: object is no text"),
        ({"model": None}, "model: NoneType is no text"),
        ({"model": np.zeros(3)}, "model: ndarray is no text"),
        ({"search": "no"}, "search is True or False, not 'no'"),
        ({"show": None}, "show is True or False, not NoneType"),
        ({"fresh": "yes"}, "fresh is True or False, not 'yes'"),
        ({"dry_run": True}, "dry_run is of the command alone"),
        ({"threads": True}, "threads: True is no text, path or number"),
        ({"weights": np.zeros(3)}, "weights: ndarray is no text"),
        ({"effort": ["quick", "normal"]}, "'quick,normal' is not one of"),
        ({"help": True}, "No such option.*--help"),
        ({"efort": "quick"}, "No such option.*--efort.*--effort"),
        ({"metric": lambda outputs: 1.0, "workers": 1}, "the metric metric is code of one process"),
    ],
)
def test_what_is_no_argument_of_the_library_is_told_in_one_line(folder, arguments, reason):
    given = {"model": "net.onnx", "data": np.zeros((40, 1, 8, 8), np.uint8), "show": False, "out": "out", **OPTIONS}
    with pytest.raises(library.WootzError, match=reason) as told:
        library.run(**{**given, **arguments})
    assert "\n" not in str(told.value)
    assert not (folder / "out" / "events.jsonl").exists(), "nothing has begun"


@pytest.mark.parametrize("option", ["--objective", "--metric", "--weights", "--data", "--out"])
def test_empty_options_are_refused(wootz, folder, option):
    done = wootz("run", "net.onnx", "--data", "task.py:frames", option, "", cwd=folder)
    assert done.code != 0
    assert f"{option} is empty: leave it out" in done.err
