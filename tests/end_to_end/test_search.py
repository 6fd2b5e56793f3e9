"""`wootz search` from files to files, as a user runs it."""

import csv
import json
from pathlib import Path

import numpy as np
import onnxruntime
import pytest

from wootz.runtime.data.loading import load_dataset
from wootz.runtime.result import RunResult
from wootz.runtime.run_directory import read_run_mark

MODULES = 4
OBJECTIVE = "min ModelSize constraint Accuracy >= full - 0.1"


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("store")


@pytest.fixture(scope="module")
def search(wootz, job_files, store, tmp_path_factory):
    """Runs a search in a folder of its own: its exit code and outputs, and the folder."""
    pytest.importorskip("sklearn")
    model = tmp_path_factory.mktemp("model")
    for name in ("net.prototxt", "solver.prototxt", "pretrain.prototxt"):
        (model / name).write_text((job_files / name).read_text())

    def run(
        out: Path, *options: object, objective: str = OBJECTIVE, rates: str | None = "0.25,0.5,0.75",
        looks: int | None = 30,
    ):  # fmt: skip
        space = [*(() if rates is None else ("--rates", rates)), *(() if looks is None else ("--looks", looks))]
        return wootz(
            "search", model, "--data", "digits", "--objective", objective, *space, "--threads", 1, "--store", store,
            "--out", out, *options,
        )  # fmt: skip

    return run


@pytest.fixture(scope="module")
def searched(search, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("searches") / "first"
    done = search(out, "--networks", 5)
    assert done.code == 0, done.err
    return out


def right(file: Path) -> float:
    """The accuracy of a file on the validation images, by ONNX Runtime alone."""
    described = json.loads(
        (file.parent / "best.json" if file.parent.name != "front" else file.parents[1] / "best.json").read_text()
    )
    split = load_dataset("digits", (1, 8, 8)).validation
    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    image = described["input"]
    pixels = (np.asarray(split.images, np.float32) - image["mean"][0]) * image["scale"][0]
    scores = session.run(None, {session.get_inputs()[0].name: pixels.astype(np.float32)})[0]
    return float((scores.reshape(len(pixels), -1).argmax(1) == split.labels).mean())


def test_the_best_network_is_smaller_and_as_accurate_as_asked(searched):
    found = RunResult.load(searched)
    assert found.best.model_size < 0.8 * found.full.model_size
    assert found.best.quality >= found.full.reference_quality - 0.1
    assert right(searched / "best.onnx") == pytest.approx(found.best.quality, abs=0.005)


def test_each_network_of_the_front_is_a_file_that_does_what_the_table_says(searched):
    found = RunResult.load(searched)
    with (searched / "front.csv").open() as file:
        rows = {row["file"]: row for row in csv.DictReader(file) if row["file"]}
    assert set(rows) == {"teacher.onnx", *(point.model for point in found.search.front)}
    for point in found.search.front:
        assert float(rows[point.model]["quality"]) == pytest.approx(point.quality, abs=1e-5)
        assert right(searched / point.model) == pytest.approx(point.quality, abs=0.005)
        session = onnxruntime.InferenceSession(str(searched / point.model), providers=["CPUExecutionProvider"])
        assert session.get_outputs()[0].shape[-1] == 10


def test_the_page_shows_the_search(searched):
    page = (searched / "report.html").read_text()
    assert "<h2>The search</h2>" in page
    assert (searched / "front.svg").is_file()
    search = RunResult.load(searched).search
    assert f"side by side, with the full network at {search.latency_of_full.median_ms:.3g}\N{NO-BREAK SPACE}ms" in page
    for point in search.front:
        assert point.model in page


def test_a_finished_search_is_shown_again_and_a_changed_file_makes_it_anew(search, searched):
    again = search(searched, "--networks", 5)
    assert again.code == 0
    assert "this run is finished" in again.out
    point = RunResult.load(searched).search.front[0].model
    before = (searched / point).read_bytes()
    (searched / point).unlink()
    mended = search(searched, "--networks", 5)
    assert "this run is finished" not in mended.out
    assert (searched / point).read_bytes() == before


def test_it_is_repeated_by_its_folder_and_by_no_other_command(wootz, searched, store):
    assert read_run_mark(searched).command.name == "search"
    other = wootz("run", searched, "--store", store)
    assert other.code == 1
    assert f"is the folder of `wootz search`: wootz search {searched} repeats it" in other.err
    same = wootz("search", searched, "--store", store)
    assert same.code == 0
    assert "this run is finished" in same.out


def test_another_objective_finds_blocks_scores_and_networks_in_the_store(search, searched, tmp_path):
    done = search(tmp_path / "other", "--networks", 3, objective="max Accuracy constraint FLOPs <= 0.6 * full")
    assert done.code == 0, done.err
    found = RunResult.load(tmp_path / "other")
    assert found.reuse.blocks == len(found.blocks)
    assert found.best.flops <= 0.6 * found.full.flops
    assert "saved" in done.out


def test_workers_find_what_one_process_does(search, tmp_path):
    found = []
    for name, workers in (("a", 2), ("b", 2)):
        done = search(tmp_path / name, "--networks", 4, "--workers", workers)
        assert done.code == 0, done.err
        found.append(RunResult.load(tmp_path / name).best.configuration)
    assert found[0] == found[1]


def test_a_dry_run_says_what_would_be_trained(search, tmp_path):
    done = search(tmp_path / "dry", "--dry-run")
    assert done.code == 0, done.err
    assert "expected: at most" in done.out
    assert "400 networks of 12 blocks" in done.out
    assert not (tmp_path / "dry").exists()


@pytest.mark.parametrize(
    ("options", "objective", "message"),
    [
        ((), "max ModelSize", "a search is for the cheapest or the best network"),
        ((), "min FLOPs constraint Accuracy < 0.5", "a search can't keep a network bad"),
        (("--latency-table", "nowhere.json"), OBJECTIVE, "nowhere.json"),
        (("--rates", "0.5,1"), OBJECTIVE, "rates are between 0 and 1"),
    ],
)
def test_wrong_inputs_are_told_in_a_line_and_leave_nothing(search, tmp_path, options, objective, message):
    done = search(tmp_path / "wrong", *options, objective=objective)
    assert done.code in (1, 2)
    assert message in done.err
    assert not (tmp_path / "wrong").exists()


def test_bounds_that_no_network_meets_are_told_before_anything_is_trained(search, tmp_path):
    done = search(tmp_path / "none", objective="max Accuracy constraint ModelSize <= 10")
    assert done.code == 1
    assert "no network of the space can meet 'ModelSize <= 10'" in done.err
    assert not (tmp_path / "none" / "teacher.onnx").exists()


def test_a_search_keeps_to_the_networks_that_are_listed(search, searched, tmp_path):
    rates = np.random.default_rng(0).choice([0.0, 0.25, 0.5, 0.75], (12, MODULES))
    listed = {tuple(row) for row in rates.tolist()}
    (tmp_path / "twelve.json").write_text(json.dumps([*map(list, listed)]))
    done = search(tmp_path / "out", "--subspace", tmp_path / "twelve.json", rates=None, looks=None)
    assert done.code == 0, done.err
    found = RunResult.load(tmp_path / "out")
    assert {n.configuration for n in found.search.networks} == listed
    assert {n.origin for n in found.search.networks} == {"listed"}
    assert found.best.configuration in listed
    assert found.best.quality >= found.full.reference_quality - 0.1
    assert found.reuse.blocks == len(found.blocks), "those of another search"
    assert right(tmp_path / "out" / "best.onnx") == pytest.approx(found.best.quality, abs=0.005)
    assert not found.search.scores, "all are looked at, and nothing is chosen before"
    assert "Scores of the modules" not in (tmp_path / "out" / "report.html").read_text()
    again = search(tmp_path / "out", "--subspace", tmp_path / "twelve.json", rates=None, looks=None)
    assert "this run is finished" in again.out


def test_of_a_long_list_few_are_looked_at(search, searched, tmp_path):
    rates = np.random.default_rng(1).choice([0.0, 0.25, 0.5, 0.75], (12, MODULES))
    (tmp_path / "twelve.json").write_text(json.dumps(rates.tolist()))
    done = search(tmp_path / "out", "--subspace", tmp_path / "twelve.json", rates=None, looks=5)
    assert done.code == 0, done.err
    found = RunResult.load(tmp_path / "out")
    assert 0 < len(found.search.networks) <= 5
    assert {n.configuration for n in found.search.networks} <= {tuple(row) for row in rates.tolist()}
    assert all(n.loss > 0 and n.looked is not None for n in found.search.networks)
    assert found.search.scores, "by which these were chosen"


ROW = [0.5] * MODULES


@pytest.mark.parametrize(
    ("rows", "options", "message"),
    [
        (
            [ROW],
            {"rates": "0.5", "looks": None},
            "--rates is for a search of a whole space: leave it out",
        ),
        ([[0.0] * MODULES], {"rates": None, "looks": None}, "it has the unpruned network alone"),
    ],
)
def test_a_list_that_says_nothing_is_refused(search, tmp_path, rows, options, message):
    (tmp_path / "listed.json").write_text(json.dumps(rows))
    done = search(tmp_path / "out", "--subspace", tmp_path / "listed.json", **options)
    assert done.code == 1
    assert message in done.err


def test_what_a_list_is_too_short_for_is_said(search, searched, tmp_path):
    """The unpruned network is none to be chosen, a bound leaves one of the others, and that one does not suffice."""
    (tmp_path / "three.json").write_text(json.dumps([[0.0] * MODULES, ROW, [0.25] * MODULES]))
    objective = "min ModelSize constraint Accuracy >= full + 0.15 constraint ModelSize < 0.5 * full"
    given = ("--subspace", tmp_path / "three.json", "--reference", "given")
    done = search(tmp_path / "out", *given, objective=objective, rates=None, looks=None)
    assert done.code == 1
    assert "the unpruned network is left out" in done.out
    assert "The list has 2 networks" in done.out
    assert "No other network is expected to meet the objective: the search is complete." in done.out
    assert "relax the constraint or add larger configurations" in done.err
    found = RunResult.load(tmp_path / "out")
    assert [network.configuration for network in found.search.networks] == [tuple(ROW)]
    page = (tmp_path / "out" / "report.html").read_text()
    assert "The list has 2 networks; 1 of them" in " ".join(page.split())
    assert "answers are proven" not in page
