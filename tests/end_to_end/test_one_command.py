"""A network and images, nothing else: all the rest is chosen, written down, and can be repeated from there."""

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from msgspec.structs import asdict
from tiny import make_job, trained, without_times

from wootz.frontend.caffe.solver import read_solver
from wootz.frontend.objective import read_objective
from wootz.runtime.result import RunResult

CHOSEN = ("objective.txt", "pretrain.prototxt", "solver.prototxt", "subspace.json", "teacher.prototxt")


def learnable(folder: Path) -> Path:
    """Images of two classes that a network of a few parameters tells apart."""
    generator = np.random.default_rng(0)
    labels = np.arange(120) % 2
    images = generator.integers(0, 120, (120, 8, 8, 1))
    images[labels == 1, :, :4] += 120
    file = folder / "data.npz"
    pixels = images.astype(np.uint8)
    np.savez(file, x_train=pixels[:80], y_train=labels[:80], x_val=pixels[80:], y_val=labels[80:])
    return file


@pytest.fixture(scope="module")
def given(tmp_path_factory) -> Path:
    """A folder with a network and images."""
    folder = tmp_path_factory.mktemp("given")
    learnable(folder)
    (make_job(tmp_path_factory.mktemp("job")) / "net.prototxt").rename(folder / "small.prototxt")
    return folder


def command(given: Path, out: Path) -> list[object]:
    pixels = ("--mean", 128, "--scale", 1 / 128)
    return ["run", given / "small.prototxt", "--data", given / "data.npz", *pixels, "--effort", "quick", "--out", out]


@pytest.fixture(scope="module")
def run(wootz, given) -> Path:
    done = wootz(*command(given, given / "run"), "--threads", 1, "--store", given / "store")
    assert done.code == 0, done.err
    assert "Chosen, since not given" in done.out
    assert "The network normalises no activations" in done.out
    return given / "run"


def test_what_was_chosen_can_be_read(run):
    assert str(read_objective(run / "objective.txt")) == "min ModelSize constraint Accuracy >= full - 0.01"
    rows = json.loads((run / "subspace.json").read_text())
    assert len(rows) == len(json.loads((run / "result.json").read_text())["networks"]) == 8
    assert {rate for row in rows for rate in row} == {0, 0.3, 0.5, 0.7}
    for name in CHOSEN:
        if name.endswith(".prototxt"):
            assert read_solver(run / name).batch_size == 16


def test_the_result_says_how_it_came_about(run):
    result = RunResult.load(run)
    assert result.environment.command.startswith("wootz run ")
    assert "--effort quick" in result.environment.command
    assert result.solvers.teacher["max_iter"] == read_solver(run / "teacher.prototxt").max_iter
    assert result.solvers.pretraining["type"] == "Adam"
    assert result.solvers.fine_tuning["batch_size"] == 16
    assert (result.input.mean, result.input_source) == ((128,), "said by --mean")
    assert result.best.file_bytes == (run / "best.onnx").stat().st_size
    assert result.full.file_bytes == (run / "teacher.onnx").stat().st_size
    spent = asdict(result.seconds)
    assert spent.pop("total") == pytest.approx(sum(spent.values()))


def test_the_same_command_and_the_folder_itself_show_what_was_found(wootz, given, run):
    before = {file.name: file.read_bytes() for file in run.iterdir() if file.is_file()}
    for arguments in (command(given, run), ["run", run]):
        done = wootz(*arguments, "--store", given / "empty")
        assert done.code == 0, done.err
        assert "this run is finished" in done.out
        known: dict[str, np.ndarray] = {}
        exec("\n".join(done.out.splitlines()[-3:]), known)
        assert known["scores"].shape == (1, len(json.loads((run / "result.json").read_text())["classes"]))
    assert {file.name: file.read_bytes() for file in run.iterdir() if file.is_file()} == before


def test_what_was_found_is_shown_without_the_images_unless_files_were_changed(wootz, run, tmp_path):
    copy = shutil.copytree(run, tmp_path / "copy")
    mark = (copy / "run.json").read_text()
    assert "data.npz" in mark
    (copy / "run.json").write_text(mark.replace("data.npz", "gone.npz"))
    before = {file.name: file.read_bytes() for file in copy.iterdir() if file.is_file()}
    done = wootz("run", copy)
    assert done.code == 0, done.err
    assert re.search(r"copy: this run is finished; \S*gone.npz is no longer there, so it can't be repeated", done.out)
    assert f"best:   {copy / 'best.onnx'}" in done.out
    assert {file.name: file.read_bytes() for file in copy.iterdir() if file.is_file()} == before
    for options in (("--seed", 3), ("--out", tmp_path / "again"), ("--finish", "int8"), ("--fresh",), ("--dry-run",)):
        done = wootz("run", copy, *options)
        assert (done.code, "gone.npz" in done.err) == (1, True), done.err
    (copy / "objective.txt").write_text("max Accuracy")
    done = wootz("run", copy)
    assert (done.code, "gone.npz" in done.err) == (1, True), done.err


@pytest.mark.parametrize("out", ["foreign", "file", "file/inside", "run"])
def test_a_dry_run_refuses_a_folder_as_the_run_does(wootz, given, run, tmp_path, out):
    (tmp_path / "foreign").mkdir()
    (tmp_path / "foreign" / "thesis.txt").write_text("mine")
    (tmp_path / "file").write_text("mine")
    folder = run if out == "run" else tmp_path / out
    arguments = (*command(given, folder), "--seed", 3, "--store", tmp_path / "store")
    for option in ((), ("--dry-run",)):
        done = wootz(*arguments, *option)
        assert (done.code, done.out) == (1, ""), done.out
        reasons = {
            "foreign": "holds files, and no run.json",
            "file": "is a file: --out names a folder",
            "file/inside": "it can't be written",
            "run": "holds a run with --seed '0' instead of '3', another network, ",
        }
        assert f"{folder}" in done.err
        assert reasons[out] in done.err


def test_a_run_is_repeated_elsewhere_from_its_folder(wootz, given, run, tmp_path):
    done = wootz("run", run, "--out", tmp_path / "again", "--threads", 1, "--store", given / "store")
    assert done.code == 0, done.err
    assert not trained(done.out)
    for name in CHOSEN:
        assert (tmp_path / "again" / name).read_bytes() == (run / name).read_bytes()
    first, again = (json.loads((folder / "result.json").read_text()) for folder in (run, tmp_path / "again"))
    assert without_times(again["best"]) == without_times(first["best"])
    further = wootz("run", tmp_path / "again", "--store", given / "empty")
    assert "this run is finished" in further.out


def test_files_of_a_run_may_be_changed(wootz, given, run, tmp_path):
    copy = tmp_path / "copy"
    copy.mkdir()
    for name in ("run.json", *CHOSEN):
        (copy / name).write_bytes((run / name).read_bytes())
    (copy / "subspace.json").write_text("[[0.5, 0.5], [0.5, 0.3]]")
    here = wootz("run", copy, "--store", given / "store")
    assert here.code == 1
    assert "holds a run with another subspace" in here.err
    there = wootz("run", copy, "--out", tmp_path / "new", "--threads", 1, "--store", given / "store")
    assert there.code == 0, there.err
    networks = json.loads((tmp_path / "new" / "result.json").read_text())["networks"]
    assert [network["configuration"] for network in networks] == [[0.5, 0.5], [0.5, 0.3]]
    longer = wootz("run", copy, "--out", tmp_path / "new", "--effort", "normal", "--store", given / "store")
    assert longer.code == 1
    assert "another subspace" in longer.err


@pytest.mark.parametrize("option", ["MODEL", "--subspace"])
def test_a_fresh_run_does_not_remove_what_it_is_given(wootz, given, run, tmp_path, option):
    copy = shutil.copytree(run, tmp_path / "copy")
    file = copy / ("teacher.onnx" if option == "MODEL" else "subspace.json")
    content = file.read_bytes()
    model, *options = [file] if option == "MODEL" else [copy, option, file]
    done = wootz("run", model, *options, "--data", given / "data.npz", "--out", copy, "--fresh")
    assert done.code == 1
    assert re.search(rf"{file.name} is an input, and a run in .*/copy writes a file of that name", done.err)
    assert file.read_bytes() == content
    assert (copy / "result.json").read_bytes() == (run / "result.json").read_bytes()


def test_what_is_given_wins(wootz, given, tmp_path):
    (tmp_path / "mine.prototxt").write_text('base_lr: 0.03 lr_policy: "fixed" max_iter: 9 batch_size: 8')
    objective = ("--objective", "max Accuracy constraint ModelSize < 0.9 * full")
    out = tmp_path / "run"
    done = wootz(*command(given, out), "--solver", tmp_path / "mine.prototxt", *objective, "--store", given / "store")
    assert done.code == 0, done.err
    assert sorted(name for name in CHOSEN if (out / name).exists()) == ["pretrain.prototxt", "subspace.json"]
    result = json.loads((out / "result.json").read_text())
    assert result["full"]["steps"] == 9
    assert result["objective"]["text"] == objective[1]


def test_a_plan_says_how_all_is_trained_and_what_it_will_take(wootz, given, tmp_path):
    done = wootz(*command(given, tmp_path / "run"), "--threads", 1, "--store", tmp_path / "store", "--dry-run")
    assert done.code == 0, done.err
    for said in (
        r"2 modules \(from the network's table\): m, n",
        "8 of 8 configurations to try",
        r"full network: \d+ steps of 16 images by SGD",
        r"fine-tuning: \d+ steps of 16 images by SGD",
        r"pre-training: \d+ steps of 16 images by Adam",
        r"expected: at most .* \(plan .*, full network .*, blocks .*, networks .*\)",
    ):
        assert re.search(said, done.out), said
    assert not (tmp_path / "run").exists()


def test_configurations_that_are_one_network_are_tried_once(wootz, given, tmp_path):
    (tmp_path / "subspace.json").write_text("[[0.5, 0.5], [0.55, 0.5], [0.5, 0.9]]")
    options = ("--subspace", tmp_path / "subspace.json", "--round-to", 2, "--threads", 1, "--dry-run")
    done = wootz(*command(given, tmp_path / "run"), *options, "--store", tmp_path / "store")
    assert done.code == 0, done.err
    assert "left out 1 of 3 configurations" in done.out
    assert "[0.55, 0.5] is [0.5, 0.5]." in done.out
    assert "2 of 2 configurations to try" in done.out


def test_a_budget_cuts_what_is_chosen_and_a_continued_run_keeps_to_that(wootz, given, run, tmp_path):
    store = tmp_path / "store"
    short = wootz(*command(given, tmp_path / "run"), "--budget", "0.01s", "--threads", 1, "--store", store)
    assert short.code == 1
    assert re.search(r"--budget: 0\.0 s are too short for one network: about .* are needed", short.err)
    assert not (tmp_path / "run").exists()
    needed = wootz(*command(given, tmp_path / "run"), "--dry-run", "--threads", 1, "--store", store)
    seconds = float(re.search(r"expected: at most ([\d.]+) s", needed.out)[1])
    begun = [*command(given, tmp_path / "run"), "--budget", f"{seconds:.1f}s", "--threads", 1]
    done = wootz(*begun, "--store", store)
    assert "To fit into" in done.out, done.err
    assert "cut to" in done.out
    cut, uncut = (read_solver(folder / "solver.prototxt").max_iter for folder in (tmp_path / "run", run))
    assert cut < uncut
    files = {name: (tmp_path / "run" / name).read_bytes() for name in CHOSEN}
    again = wootz(*begun, "--store", tmp_path / "another")  # where another speed would be measured
    assert "this run is finished" in again.out
    assert {name: (tmp_path / "run" / name).read_bytes() for name in CHOSEN} == files


@pytest.mark.parametrize("option", [("--budget", "5m"), ("--effort", "quick")])
def test_there_is_nothing_to_choose_where_all_is_given(wootz, tmp_path, option):
    done = wootz("run", make_job(tmp_path), "--data", tmp_path / "data.npz", *option, "--dry-run")
    assert done.code == 1
    assert f"{option[0]} is about solvers and subspaces that are chosen, and all are given" in done.err


def test_without_data_the_one_thing_that_is_missing_is_named(wootz, given, tmp_path):
    done = wootz("run", given / "small.prototxt", "--out", tmp_path / "run")
    assert done.code == 1
    assert done.err.startswith("error: --data is missing")
    assert "nothing else has to be given" in done.err
    assert not (tmp_path / "run").exists()


def test_a_folder_that_says_no_command_is_not_repeated(wootz, run, tmp_path):
    mark = json.loads((run / "run.json").read_text())
    del mark["command"]
    (tmp_path / "run.json").write_text(json.dumps(mark))
    done = wootz("run", tmp_path)
    assert done.code == 1
    assert "does not say which command began it" in done.err
