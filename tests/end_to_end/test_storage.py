"""Full disks, folders that others use or have damaged: one line, nothing lost, and the same command goes on."""

import json
import os
import re
import signal
import subprocess
import sys
from errno import ENOSPC
from pathlib import Path

import pytest
import tiny
from tiny import Finished

from wootz.runtime.run_directory import open_run_directory
from wootz.runtime.store import Store, store
from wootz.runtime.store.inventory import verify
from wootz.tools.cli import run_command, wootz


@pytest.fixture
def run_here(capfd):
    """Runs `wootz` in this process."""

    def run(arguments: list[str]) -> Finished:
        handler = signal.getsignal(signal.SIGTERM)
        try:
            with pytest.raises(SystemExit) as ended:
                run_command(wootz, arguments)
        finally:
            signal.signal(signal.SIGTERM, handler)
        return Finished(ended.value.code, *capfd.readouterr())

    return run


@pytest.fixture(scope="module")
def expected(tiny_job, tmp_path_factory):
    """The result of an undisturbed run, and its network."""
    out = tmp_path_factory.mktemp("undisturbed") / "run"
    with pytest.raises(SystemExit):
        run_command(wootz, tiny.arguments(tiny_job, out, out.parent / "store"))
    return result_of(out)


@pytest.fixture
def small_disk(mount):
    """A file system of 4 MB."""
    return mount("4m")


def result_of(out: Path) -> tuple[object, bytes]:
    return tiny.without_times(json.loads((out / "result.json").read_text())), (out / "best.onnx").read_bytes()


def fill(disk: Path, leave: int) -> Path:
    """A file that takes all room but so many bytes."""
    status = os.statvfs(disk)
    (disk / "film").write_bytes(b"\0" * (status.f_bavail * status.f_bsize - leave))
    return disk / "film"


def check_line(done: Finished, pattern: str) -> None:
    assert (done.code, len(done.err.splitlines())) == (1, 1), done.err
    assert re.search(pattern, done.err), done.err


def test_a_full_disk_ends_the_run_at_once(run_here, tiny_job, tmp_path, expected, monkeypatch):
    """Nothing more is trained for a store that can't keep it."""
    arguments = tiny.arguments(tiny_job, tmp_path / "run", tmp_path / "store")
    write = store.write_durably

    def full(file, pieces):
        pieces = list(pieces)
        if b'"what":"2 blocks' in pieces[2] or b'"what":"block ' in pieces[2]:
            raise OSError(ENOSPC, "No space left on device", str(file))
        write(file, pieces)

    monkeypatch.setattr(store, "write_durably", full)
    done = run_here(arguments)
    check_line(
        done, r"error: .*/store/entries/.*\.entry: can't be written \(No space left on device\): make room there"
    )
    full_network = ["the full network", "the full network, fine-tuned too"]
    assert done.trained == full_network, "the blocks are trained, and can't be stored"
    assert "tried again" not in done.out
    assert run_here(["status", str(tmp_path / "run")]).code == 5
    monkeypatch.setattr(store, "write_durably", write)
    again = run_here(arguments)
    assert (again.code, again.err) == (0, "")
    assert result_of(tmp_path / "run") == expected


def test_the_status_says_of_a_full_disk_what_the_run_said(run_here, tiny_job, tmp_path, monkeypatch):
    def full(folder):
        raise OSError(ENOSPC, "No space left on device")

    monkeypatch.setattr("wootz.runtime.reporting.report.write_report", full)
    done = run_here(tiny.arguments(tiny_job, tmp_path / "run", tmp_path / "store"))
    check_line(done, f"error: {tmp_path}/run: No space left on device: what was trained is kept; ")
    status = run_here(["status", str(tmp_path / "run")])
    assert done.err.removeprefix("error: ").strip() in " ".join(status.out.split())


@pytest.mark.parametrize(
    ("full", "leave"), [("store", 8_192), ("store", 57_344), ("run", 8_192), ("run", 24_576), ("run", 120_000)]
)
def test_a_disk_that_is_really_full(run_here, tiny_job, tmp_path, small_disk, expected, full, leave):
    folders = {"run": tmp_path / "run", "store": tmp_path / "store", full: small_disk / full}
    arguments = tiny.arguments(tiny_job, folders["run"], folders["store"])
    film = fill(small_disk, leave)
    done = run_here(arguments)
    check_line(done, rf"error: {small_disk}/{full}.*No space left on device")
    film.unlink()
    notes: list[str] = []
    if (folders["store"] / "format").exists():
        verify(Store.existing(folders["store"], notes.append))
    assert not notes
    again = run_here(arguments)
    assert (again.code, again.err) == (0, "")
    assert result_of(folders["run"]) == expected


def test_a_store_that_cannot_be_used_is_told_before_anything_is_trained(run_here, tiny_job, tmp_path, small_disk):
    newer = tmp_path / "newer"
    newer.mkdir()
    (newer / "format").write_text("wootz store 99\n")
    (tmp_path / "file").write_text("")
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    for folder, said in (
        (newer, "a store of format 99, and this version of Wootz reads format 1"),
        (tmp_path / "file", "is a file: a store is a folder"),
        (small_disk / "store", r"can't be written \(Read-only file system\): choose another store"),
    ):
        done = run_here(tiny.arguments(tiny_job, tmp_path / "run", folder))
        check_line(done, f"error: {folder}.*{said}")
        assert not done.trained
        assert "checked in" not in done.out
    done = run_here(tiny.arguments(tiny_job, small_disk / "run", tmp_path / "store"))
    said = rf"it can't be written \({small_disk} may not be written into\): choose another --out"
    check_line(done, f"error: {small_disk}/run: {said}")


def test_a_folder_in_which_a_run_goes_on(run_here, tiny_job, tmp_path):
    with open_run_directory(tmp_path / "run"):
        done = run_here(tiny.arguments(tiny_job, tmp_path / "run", tmp_path / "store"))
    check_line(done, rf"a run goes on there \(process {os.getpid()} on .*\): wait for it, or choose another --out")


def test_damaged_files_of_a_run_are_no_obstacle(run_here, tiny_job, tmp_path, expected):
    out = tmp_path / "run"
    arguments = tiny.arguments(tiny_job, out, tmp_path / "store")
    assert run_here(arguments).code == 0
    for damage in (lambda content: content[: len(content) // 2], lambda content: b"", lambda content: b"[1]\n\0"):
        for name in ("job.pickle", "events.jsonl", "result.json", "best.onnx", "report.html"):
            (out / name).write_bytes(damage((out / name).read_bytes()))
        done = run_here(arguments)
        assert (done.code, done.err) == (0, "")
        assert not done.trained
        assert result_of(out) == expected
        assert run_here(["status", str(out)]).code == 0
    assert (out / "events.damaged.jsonl").read_bytes() == b"[1]\n\0"

    content = (out / "run.json").read_bytes()
    (out / "run.json").write_bytes(content[:20])
    check_line(run_here(arguments), r"run\.json: .*: --fresh begins anew, with what the store has of the run")
    fresh = run_here([*arguments, "--fresh"])
    assert (fresh.code, fresh.err) == (0, "")
    assert not fresh.trained
    assert (out / "best.onnx").read_bytes() == expected[1]


def test_two_runs_on_one_store_train_nothing_twice(tiny_job, tmp_path, expected):
    runs = [tmp_path / "one", tmp_path / "other"]
    command = str(Path(sys.executable).parent / "wootz")
    processes = [
        subprocess.Popen(
            [command, *tiny.arguments(tiny_job, run, tmp_path / "store")], stdout=subprocess.PIPE, text=True
        )
        for run in runs
    ]
    trained = [title for process in processes for title in tiny.trained(process.communicate(timeout=300)[0])]
    assert len(trained) == len(set(trained)) == 9, "the teacher, twice; the blocks; three networks, twice"
    results = [json.loads((run / "result.json").read_text()) for run in runs]
    for part in (
        lambda r: [r["full"]],
        lambda r: r["blocks"],
        lambda r: r["networks"],
        lambda r: r["baseline"]["networks"],
    ):
        for one, other in zip(*map(part, results), strict=True):
            assert one["reused"] != other["reused"]
    assert all((run / "best.onnx").read_bytes() == expected[1] for run in runs)
