"""`wootz status` on runs that go on, have finished, or are dead, and on other folders."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner
from msgspec.structs import replace

from wootz.passes.errors import InputError
from wootz.runtime.events import BestFound, Note
from wootz.runtime.result import RunResult
from wootz.runtime.status import read_status
from wootz.tools.cli import wootz

HEAVY = ("onnxruntime", "matplotlib", "jinja2", "PIL")


def status(folder, *options, columns=100):
    return CliRunner(env={"COLUMNS": str(columns)}).invoke(
        wootz, ["status", str(folder), *options], standalone_mode=False
    )


def test_a_run_that_goes_on(whole_run, write_events, tmp_path):
    done = status(write_events(tmp_path, [event for event in whole_run if event.elapsed <= 19.5]))
    assert done.return_value == 3
    for said in (
        "examples/digits on digits: trying networks",
        "on node3, 2 workers",
        "min ModelSize constraint Accuracy >= 0.8",
        "5 of 5 done, 2 known before",
        "1 of at most 8 done",
        "none yet",
        "at most ",
        "9.0 s, by results that were known before",
        "network 3 of 8, 52 % of full",
        "50 of 100",
    ):
        assert said in done.output, said


@pytest.mark.parametrize("until", [19.5, 100])
def test_no_line_is_wider_than_the_terminal(whole_run, write_events, tmp_path, until):
    """With long names, many modules and long notes."""
    events = [event for event in whole_run if event.elapsed <= until]
    begun = replace(events[0], network="/home/somebody/" + "networks/" * 20 + "net.onnx", data="photographs/" * 20)
    best = BestFound(index=4, configuration=(0.25,) * 99, model_size=10**9, quality=0.99999)
    note = Note(text="What is found out about a network may take a hundred words and more. " * 5)
    done = status(write_events(tmp_path, [begun, *events[1:], best, note]), columns=80)
    assert max(map(len, done.output.splitlines())) <= 80
    assert "networks/net.onnx on …" in done.output
    assert done.output.count("0.25") == 99


def test_a_finished_run(whole_run, write_events, tmp_path):
    done = status(write_events(tmp_path, whole_run))
    assert done.return_value == 0
    for said in ("finished in 27 s", "5 of at most 8 done, 1 failed",
                 "50 % of full (12,345 parameters), 80.0 % right: rates [0.4, 0.5/0.3]",
                 "workers lost", "note: network 4: it diverged"):  # fmt: skip
        assert said in done.output, said
    assert "time left" not in done.output


def test_a_run_is_known_by_a_file_in_its_folder_too(whole_run, write_events, tmp_path):
    done = status(write_events(tmp_path, whole_run) / "events.jsonl")
    assert done.return_value == 0
    assert "finished in 27 s" in done.output


@pytest.mark.parametrize(
    ("outcome", "code", "said"),
    [("nothing found", 4, "without a network: too strict"), ("failed", 5, "failed after 27 s: too strict"),
     ("interrupted", 5, "the same command continues it")],
)  # fmt: skip
def test_runs_that_ended_otherwise(whole_run, write_events, tmp_path, outcome, code, said):
    *rest, end = whole_run
    done = status(write_events(tmp_path, [*rest, replace(end, outcome=outcome, reason="too strict")]))
    assert done.return_value == code
    assert said in done.output


def test_a_run_whose_process_was_killed(whole_run, started, write_events, tmp_path):
    other = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    events = [replace(started, pid=other.pid, started=0), *whole_run[1:-1]]
    other.kill()
    other.wait()
    done = status(write_events(tmp_path, events))
    assert done.return_value == 5
    assert "ended without a word" in done.output


def test_as_json(whole_run, write_events, tmp_path):
    done = status(write_events(tmp_path, whole_run), "--json")
    assert done.return_value == 0
    table = json.loads(done.output)
    assert (table["state"], table["seconds"], table["seconds_left"]) == ("found", 27.0, None)
    assert table["status"]["best"]["configuration"] == [0.4, [0.5, 0.3]]
    assert table["status"]["done"]["network"]["tasks"] == 5


def test_what_is_in_names_and_notes_is_shown_as_it_is(whole_run, write_events, tmp_path):
    notes = [Note(text=f"[red]note {i}[/red]") for i in range(13)]
    done = status(write_events(tmp_path, [*whole_run, *notes]))
    assert "… and 4 notes before these" in done.output
    assert "note: [red]note 12[/red]" in done.output


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [("notes.txt", b"hello", "no events.jsonl in this folder"), ("events.jsonl", b"", "not the events of a run"),
     ("events.jsonl", b'{"event": "party"}\n', "events.jsonl:1: not an event of a run")],
)  # fmt: skip
def test_other_folders(tmp_path, name, content, said):
    (tmp_path / name).write_bytes(content)
    done = subprocess.run(
        [str(Path(sys.executable).parent / "wootz"), "status", str(tmp_path)], capture_output=True, text=True
    )
    assert done.returncode == 1
    assert done.stderr.startswith("error: ")
    assert said in done.stderr
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize("read", [read_status, RunResult.load])
def test_a_folder_that_is_not_there(tmp_path, read):
    with pytest.raises(InputError, match="no such folder"):
        read(tmp_path / "none")


def test_nothing_heavy_is_imported_and_nothing_written(whole_run, write_events, tmp_path):
    write_events(tmp_path, whole_run)
    before = {file: file.stat().st_mtime_ns for file in tmp_path.rglob("*")}
    tmp_path.chmod(0o555)
    program = (
        "import sys\n"
        "from wootz.tools.cli import wootz\n"
        f"code = wootz.main(['status', {str(tmp_path)!r}], standalone_mode=False)\n"
        f"print(code, [name for name in {HEAVY!r} if name in sys.modules])\n"
    )
    try:
        done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    finally:
        tmp_path.chmod(0o755)
    assert done.stdout.splitlines()[-1] == "0 []", done.stderr
    assert {file: file.stat().st_mtime_ns for file in tmp_path.rglob("*")} == before
