"""What `wootz run` is asked for: files, and texts that look like none."""

import os

import pytest

from wootz.frontend.objective import parse_objective
from wootz.passes.errors import WootzError
from wootz.passes.plan.metrics import METRICS
from wootz.tools.companions import CompanionFiles, read_given_objective
from wootz.tools.job import _digits_notes, run_name
from wootz.tools.request import requested

LONG_OBJECTIVE = "min ModelSize " + " ".join(f"constraint Accuracy >= 0.{digit}" for digit in range(1, 10))


def test_an_objective_may_be_longer_than_the_name_of_a_file():
    options = {"objective": LONG_OBJECTIVE}
    assert requested("run", "net.onnx", options, ["objective"]).command.options == options
    assert read_given_objective(CompanionFiles(options), METRICS) == parse_objective(LONG_OBJECTIVE, "here")


def test_a_folder_that_is_called_as_the_digits_is_not_meant_and_a_note_says_so(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert not list(_digits_notes("digits"))
    (tmp_path / "digits").mkdir()
    for given, recorded in (("digits", "digits"), ("./digits", str(tmp_path / "digits"))):
        assert requested("run", "net.onnx", {"data": given}, ["data"]).command.options == {"data": recorded}
    (note,) = _digits_notes("digits")
    assert "--data ./digits is what is here by that name" in note
    assert not list(_digits_notes("./digits"))


def test_a_name_that_is_not_utf_8_is_refused(tmp_path, monkeypatch):
    for name in (os.fsdecode(b"m\xe9.onnx"), os.fsdecode(b"\xe9/net.onnx")):
        with pytest.raises(WootzError, match=r"udce9.*: not UTF-8"):
            requested("run", name, {}, [])
    (tmp_path / os.fsdecode(b"\xe9")).mkdir()
    monkeypatch.chdir(tmp_path / os.fsdecode(b"\xe9"))
    (tmp_path / os.fsdecode(b"\xe9") / "net.onnx").touch()
    with pytest.raises(WootzError, match=r"udce9/net\.onnx: not UTF-8"):
        requested("run", "net.onnx", {}, [])


def test_all_files_that_are_not_there_are_named_at_once(tmp_path):
    (tmp_path / "solver.prototxt").touch()
    options = {
        "solver": str(tmp_path / "solver.prototxt"),
        "weights": "net.caffemodel",
        "pretrain_solver": "p.prototxt",
    }
    with pytest.raises(WootzError, match=r"^no such files: --weights net.caffemodel, --pretrain-solver p.prototxt$"):
        requested("run", "net.prototxt", {"subspace": None, **options}, [])
    requested("run", "net.prototxt", {"weights": "net.caffemodel"}, [])


@pytest.mark.parametrize(
    ("model", "name"),
    [("at/net.onnx", "net"), ("at/flowers/net.prototxt", "flowers"), ("at/flowers", "flowers"), (None, "digits")],
)
def test_a_run_is_called_after_its_network(model, name):
    assert run_name("run", model) == name
    assert run_name("search", model) == f"{name}-search"


def test_code_in_a_file_is_recorded_with_its_whole_path(tmp_path, monkeypatch):
    (tmp_path / "task.py").write_text("")
    monkeypatch.chdir(tmp_path)
    options = {"data": "task.py:frames", "metric": "task.py:score", "weights": None}
    request = requested("run", "net.onnx", options, ["data", "metric"])
    assert request.command.options == {"data": f"{tmp_path}/task.py:frames", "metric": f"{tmp_path}/task.py:score"}
    assert request.missing is None
    (tmp_path / "task.py").unlink()
    again = requested("run", "net.onnx", {**options, **request.command.options}, ["data", "metric"])
    assert str(again.missing) == f"{tmp_path}/task.py:frames"
