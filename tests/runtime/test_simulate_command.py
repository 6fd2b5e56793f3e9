"""`wootz simulate` on a recorded run, and on other folders."""

import json
import subprocess
import sys

import pytest
from click.testing import CliRunner
from msgspec.structs import replace

from wootz.runtime.result import SearchResult
from wootz.tools.cli import wootz

HEAVY = ("onnxruntime", "matplotlib", "jinja2", "PIL")


def simulate(folder, *options):
    return CliRunner().invoke(wootz, ["simulate", str(folder), *options], standalone_mode=False)


@pytest.fixture
def folder(tmp_path, run_result, write_events, whole_run):
    run_result(count=12).save(write_events(tmp_path, whole_run))
    return tmp_path


def test_a_row_for_each_number_of_workers_and_way_of_assigning(folder):
    done = simulate(folder, "--workers", "1,16")
    rows = [line.split() for line in done.output.splitlines()]
    assert [row[:2] for row in rows if row[1:2] in (["static"], ["dynamic"])] == [
        ["1", "static"], ["1", "dynamic"], ["16", "static"], ["16", "dynamic"]
    ]  # fmt: skip
    assert "…" not in done.output
    for said in ("min ModelSize constraint Accuracy >= full - 0.1", "recorded with 1 worker", "were not trained"):
        assert said in done.output, said


def test_a_run_without_a_baseline_has_no_column_for_it(tmp_path, run_result, write_events, whole_run):
    run_result(baseline=None).save(write_events(tmp_path, whole_run))
    assert "default" not in simulate(tmp_path).output


def test_as_json(folder):
    found = json.loads(simulate(folder, "--json").output)
    assert [s["workers"] for s in found["block_trained"]] == [w for w in (1, 4, 16, 64, 256, 1024) for _ in range(2)]
    assert all(0 <= s["idle_seconds"] <= s["workers"] * s["seconds"] for s in found["default"])


@pytest.mark.parametrize("workers", ["0", "4,", "four", "-1"])
def test_numbers_of_workers_that_are_none(folder, workers):
    assert "numbers of workers from 1 on" in str(simulate(folder, f"--workers={workers}").exception)


def test_a_folder_without_a_run(tmp_path):
    assert "not the directory of a finished run" in str(simulate(tmp_path).exception)


def test_a_search_is_refused(tmp_path, run_result, write_events, whole_run):
    searched = replace(run_result(), search=SearchResult(options=(), space=8, cost="ModelSize", scores=(), networks=()))
    searched.save(write_events(tmp_path, whole_run))
    assert "of a search" in str(simulate(tmp_path).exception)


def test_neither_runtime_nor_plots_are_imported(folder):
    code = (
        "import sys\nfrom wootz.tools.cli import wootz\n"
        f"wootz(['simulate', {str(folder)!r}], standalone_mode=False)\n"
        f"print('imported', [m for m in {HEAVY!r} if m in sys.modules])\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "imported []"
