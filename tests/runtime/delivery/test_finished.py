"""Which runs are finished, and which have to go on."""

import shutil
from pathlib import Path

import pytest
from msgspec.structs import replace

from wootz.runtime.delivery.finished import finished_result
from wootz.runtime.run_directory import open_run_directory
from wootz.runtime.session import runtime_version

BEST_JSON = Path(__file__).parents[2] / "fixtures" / "best.json"


@pytest.fixture
def finished(tmp_path, run_result, whole_run, write_events):
    result = run_result()
    result = replace(result, environment=replace(result.environment, runtime=runtime_version()))
    with open_run_directory(tmp_path) as directory:
        directory.claim({"--seed": "0"})
        result.save(write_events(tmp_path, whole_run))
        for name in ("report.html", "teacher.onnx", "best.onnx"):
            (tmp_path / name).write_bytes(b"0" * 100)
        shutil.copy(BEST_JSON, tmp_path)
        directory.end()
    return result


def test_a_run_that_came_to_its_end(tmp_path, finished):
    assert finished_result(tmp_path) == finished


@pytest.mark.parametrize(
    "name", ["result.json", "events.jsonl", "report.html", "teacher.onnx", "best.onnx", "best.json"]
)
def test_one_without_a_file_goes_on(tmp_path, finished, name):
    (tmp_path / name).unlink()
    assert finished_result(tmp_path) is None


@pytest.mark.parametrize("name", ["result.json", "events.jsonl", "teacher.onnx", "best.onnx", "best.json", "run.json"])
def test_one_with_a_damaged_file_goes_on(tmp_path, finished, name):
    (tmp_path / name).write_bytes((tmp_path / name).read_bytes()[:-40])
    assert finished_result(tmp_path) is None


@pytest.mark.parametrize("name", ["teacher.onnx", "best.onnx"])
def test_one_with_a_bit_that_fell_over_goes_on(tmp_path, finished, name):
    (tmp_path / name).write_bytes(b"0" * 99 + b"1")
    assert finished_result(tmp_path) is None


def test_the_same_command_leaves_a_finished_run_finished(tmp_path, finished):
    with open_run_directory(tmp_path) as directory:
        directory.claim({"--seed": "0"})
    assert finished_result(tmp_path) == finished


def test_one_that_was_begun_again_goes_on(tmp_path, finished, whole_run, started, write_events):
    write_events(tmp_path, [*whole_run, started])
    assert finished_result(tmp_path) is None


@pytest.mark.parametrize("outcome", ["failed", "interrupted"])
def test_one_that_was_ended_in_between_goes_on(tmp_path, finished, whole_run, write_events, outcome):
    write_events(tmp_path, [*whole_run[:-1], replace(whole_run[-1], outcome=outcome)])
    assert finished_result(tmp_path) is None


@pytest.mark.parametrize("part", ["wootz", "runtime"])
def test_one_of_another_version_is_looked_at_again(tmp_path, finished, part):
    replace(finished, environment=replace(finished.environment, **{part: "0"})).save(tmp_path)
    assert finished_result(tmp_path) is None


def test_a_run_that_found_nothing_has_no_best_network(tmp_path, finished):
    (tmp_path / "best.onnx").unlink()
    nothing = replace(finished, best=None)
    nothing.save(tmp_path)
    with open_run_directory(tmp_path) as directory:
        directory.end()
    assert finished_result(tmp_path) == nothing


def test_files_that_are_no_longer_asked_for_go_and_those_that_are_make_nothing_unfinished(tmp_path, finished):
    file = tmp_path / "best.int8.onnx"
    with open_run_directory(tmp_path) as directory:
        directory.claim({"--seed": "0"}, further=[file.name])
        assert finished_result(tmp_path) == finished, "it has to be made, and nothing else"
        file.write_bytes(b"network")
        directory.end()
    assert finished_result(tmp_path) == finished
    file.write_bytes(b"damaged")
    assert finished_result(tmp_path) is None
    (tmp_path / "best.mine.onnx").touch()
    with open_run_directory(tmp_path) as directory:
        directory.claim({"--seed": "0"})
    assert not file.exists()
    assert (tmp_path / "best.mine.onnx").exists(), "another's file stays"
    assert finished_result(tmp_path) == finished
