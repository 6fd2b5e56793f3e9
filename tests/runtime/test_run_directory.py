"""What a run may write into, what it continues, what it clears, and what it leaves."""

import json
import os
import subprocess
import sys
from functools import partial

import pytest

from wootz.passes.errors import WootzError
from wootz.runtime import run_directory
from wootz.runtime.delivery.finished import has_chosen_files
from wootz.runtime.run_directory import Command, check_inputs, open_run_directory, read_run_mark
from wootz.runtime.store.durable import temporary_name
from wootz.runtime.store.heartbeat import COUNTER_DIGITS, Watch

INPUTS = {"objective": "min ModelSize", "subspace": "0" * 64, "--seed": "0"}


def folder_with(root, names):
    for name in names:
        file = root / name
        if name.endswith("/"):
            file.mkdir(parents=True)
        else:
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text("content")
    return root


def begun(folder, inputs=INPUTS, fresh=False):
    """The id of a run that begins, or goes on, in `folder`, and ends."""
    with open_run_directory(folder, fresh) as directory:
        directory.claim(inputs)
        return directory.id


def inputs_of(folder):
    """What its mark says that the folder holds a run of."""
    return json.loads((folder / "run.json").read_text())["inputs"]


def files(folder):
    return sorted(str(file.relative_to(folder)) for file in folder.rglob("*"))


@pytest.mark.parametrize(
    "names",
    [
        ["thesis.txt"],
        ["teacher.onnx", "thesis.txt"],
        [".hidden"],
        ["plot.png"],
        ["plot.svg"],
        ["store/"],
        ["result.json", "thesis.txt", "logs/mine.log"],
        *([name] for name in ("teacher.onnx", "report.html", "sizes.svg", "assignment.json", "job.pickle")),
        *([name] for name in ("events.jsonl", ".best.onnx.12", "snapshots/", "logs/")),
        ["best.onnx", "result.json", "sizes.svg"],
    ],
)
def test_other_files_are_not_touched(tmp_path, names):
    folder = folder_with(tmp_path, names)
    before = files(folder)
    for fresh in (False, True):
        with pytest.raises(WootzError, match=r"holds files, and no run\.json"):
            begun(folder, fresh=fresh)
    assert files(folder) == before


def test_a_new_or_an_empty_folder_will_do_and_the_same_job_goes_on(tmp_path):
    for folder in (tmp_path / "empty", tmp_path / "new" / "er"):
        if folder.name == "empty":
            folder.mkdir()
        first = begun(folder)
        assert begun(folder) == first
        assert inputs_of(folder) == INPUTS
        assert begun(folder, fresh=True) != first


def test_a_folder_that_nothing_came_of_is_gone_again(tmp_path):
    with pytest.raises(WootzError, match="no such network"), open_run_directory(tmp_path / "new"):
        raise WootzError("no such network")
    assert not (tmp_path / "new").exists()


def test_a_run_that_was_killed_early_goes_on_without_a_word(tmp_path):
    kill = "import os, signal; os.kill(os.getpid(), signal.SIGKILL)"
    for place in ("pass", f"directory.claim({INPUTS!r})"):
        program = (
            "from pathlib import Path; from wootz.runtime.run_directory import open_run_directory\n"
            f"with open_run_directory(Path({str(tmp_path / 'run')!r})) as directory:\n    {place}; {kill}"
        )
        assert subprocess.run([sys.executable, "-c", program], check=False).returncode == -9
        begun(tmp_path / "run")


def test_a_run_that_was_killed_while_it_took_the_lock_goes_on(tmp_path):
    temporary_name(tmp_path).write_bytes(b"half")
    begun(tmp_path)


@pytest.mark.parametrize("operation", range(1, 12))
def test_a_run_that_was_killed_while_it_replaced_the_lock_of_a_killed_one_goes_on(tmp_path, operation):
    """Before any operation on the folder: whoever comes next sees that both have ended."""
    program = f"""
import os, signal, sys
from pathlib import Path
from wootz.runtime.run_directory import Command, check_inputs, open_run_directory, read_run_mark
left = int(sys.argv[1])
def count(event, arguments):
    global left
    if event in ("open", "os.link", "os.remove") and str(arguments[0]).startswith({str(tmp_path)!r}):
        left -= 1
        if not left:
            os.kill(os.getpid(), signal.SIGKILL)
sys.addaudithook(count)
with open_run_directory(Path({str(tmp_path)!r})):
    os.kill(os.getpid(), signal.SIGKILL)
"""
    for number in (1000, operation):
        assert subprocess.run([sys.executable, "-c", program, str(number)], check=False).returncode == -9
    begun(tmp_path)


def test_a_run_in_a_folder_that_all_may_write_is_its_users_alone(tmp_path):
    """Its job is a pickle."""
    tmp_path.chmod(0o1777)
    before = os.umask(0o022)
    begun(tmp_path / "run")
    os.umask(before)
    assert (tmp_path / "run").stat().st_mode & 0o7777 == 0o755


def test_another_job_is_refused_and_told_apart_by_name_unless_it_is_fresh(tmp_path):
    begun(tmp_path)
    folder_with(tmp_path, ["best.onnx", "result.json", "logs/worker-0.log", "sizes.svg", ".best.onnx.12"])
    other = {**INPUTS, "objective": "max Accuracy", "subspace": "1" * 64}
    with pytest.raises(
        WootzError, match="objective 'min ModelSize' instead of 'max Accuracy', another subspace: --fresh"
    ):
        begun(tmp_path, other)
    assert (tmp_path / "best.onnx").exists()
    assert inputs_of(tmp_path) == INPUTS
    begun(tmp_path, other, fresh=True)
    assert files(tmp_path) == ["run.json"]
    assert inputs_of(tmp_path) == other


def test_a_fresh_run_takes_away_what_runs_write_alone(tmp_path):
    begun(tmp_path)
    folder_with(tmp_path, ["result.json", "logs/mine.log", "logs/worker-0.log", "logs/control-1/stop", "sizes.svg"])
    folder_with(tmp_path, ["mine.svg", "snapshots/alexnet_iter_10.caffemodel", "snapshots/alexnet_iter_10.npz"])
    folder_with(tmp_path, ["snapshots/snapshot_block-trained-network-1_iter_10.npz"])
    begun(tmp_path, fresh=True)
    kept = ["snapshots", "snapshots/alexnet_iter_10.caffemodel", "snapshots/alexnet_iter_10.npz"]
    assert files(tmp_path) == ["logs", "logs/mine.log", "mine.svg", "run.json", *kept]


def test_a_folder_stays_a_runs_where_a_fresh_one_fails_on_the_way(tmp_path):
    begun(tmp_path)
    (tmp_path / "mine").mkdir()
    with pytest.raises(OSError, match="mine"), open_run_directory(tmp_path, fresh=True) as directory:
        directory.claim(INPUTS, None, {"objective.txt": b"min ModelSize", "mine": b"in the way"})
    begun(tmp_path, fresh=True)


def test_a_damaged_mark_stays_until_it_is_replaced(tmp_path):
    """Without it nothing says that the folder is a run's."""
    begun(tmp_path)
    (tmp_path / "run.json").write_text("{")
    with pytest.raises(WootzError, match="no such network"), open_run_directory(tmp_path, fresh=True):
        raise WootzError("no such network")
    begun(tmp_path, fresh=True)


@pytest.mark.parametrize("name", ["teacher.onnx", "best.onnx", "solver.prototxt", "subspace.json", "result.json"])
def test_a_run_does_not_write_over_its_inputs(tmp_path, name):
    (folder_with(tmp_path, ["run/", "inputs/"]) / "inputs" / name).symlink_to(tmp_path / "run" / name)
    with pytest.raises(WootzError, match=f"inputs/{name} is an input, and a run in .*/run writes a file of that name"):
        check_inputs(tmp_path / "run", [tmp_path / "net.onnx", tmp_path / "inputs" / name])
    check_inputs(tmp_path / "another", [tmp_path / "inputs" / name])
    check_inputs(tmp_path / "run", [tmp_path / "run" / "net.onnx", tmp_path / "run", tmp_path / "run" / "data"])


def test_a_run_that_goes_on_is_left_alone(tmp_path):
    with (
        open_run_directory(tmp_path / "run"),
        pytest.raises(WootzError, match=f"a run goes on there .process {os.getpid()}"),
    ):
        begun(tmp_path / "run", fresh=True)


def test_what_a_killed_process_was_writing_goes(tmp_path):
    begun(tmp_path)
    folder_with(tmp_path, [".best.onnx.12", ".sizes.svg.12", ".mine", ".mine.12", ".mine.svg.12"])
    code = "from pathlib import Path; from wootz.runtime.store.durable import temporary_name as name"
    subprocess.run([sys.executable, "-c", f"{code}; name(Path({str(tmp_path)!r})).touch()"], check=True)
    of_the_living = temporary_name(tmp_path)
    of_the_living.touch()
    begun(tmp_path)
    assert files(tmp_path) == sorted([".mine", ".mine.12", ".mine.svg.12", "run.json", of_the_living.name])


@pytest.fixture
def lock_of_another_machine(tmp_path, monkeypatch):
    """The lock of a process that may have ended or not; it is waited for a part of a second."""
    monkeypatch.setattr(run_directory, "LOOK_SECONDS", 0.01)
    monkeypatch.setattr(run_directory, "Watch", partial(Watch, patience=0.2))
    said = {"id": "0" * 32, "machine": "another", "pid": 7, "started": 1, "owner": "process 7 on node9 (a run)"}
    lock = tmp_path / ".lock"
    lock.write_bytes(b"0" * COUNTER_DIGITS + json.dumps(said).encode())
    return lock


def test_the_lock_of_a_machine_that_is_gone_is_waited_for_and_taken(tmp_path, lock_of_another_machine):
    notes = []
    with open_run_directory(tmp_path, note=notes.append) as directory:
        assert b"node9" not in lock_of_another_machine.read_bytes()
        directory.claim(INPUTS)
    assert len(notes) == 1
    assert "waiting for a sign of life of process 7 on node9" in notes[0]


def test_the_lock_of_a_machine_that_is_alive_is_left_alone(tmp_path, lock_of_another_machine):
    def beat(note):
        with lock_of_another_machine.open("r+b") as stream:
            stream.write(b"1")

    with (
        pytest.raises(WootzError, match=r"a run goes on there \(process 7 on node9 \(a run\)\)"),
        open_run_directory(tmp_path, note=beat),
    ):
        pass
    assert b"node9" in lock_of_another_machine.read_bytes()


@pytest.mark.parametrize("content", ["", "{", "[]", '{"schema": 1}', '{"schema": "x", "id": 3}'])
def test_a_damaged_mark_is_named_and_replaced_where_that_is_asked_for(tmp_path, content):
    (tmp_path / "run.json").write_text(content)
    with pytest.raises(WootzError, match=r"run\.json: .*: --fresh begins anew"):
        begun(tmp_path)
    assert (tmp_path / "run.json").read_text() == content
    begun(tmp_path, fresh=True)
    assert inputs_of(tmp_path) == INPUTS


def test_the_mark_of_a_newer_version_is_not_overwritten(tmp_path):
    content = json.dumps({"schema": 99, "number": "a"})
    (tmp_path / "run.json").write_text(content)
    for fresh in (False, True):
        with pytest.raises(WootzError, match="a newer version of wootz"):
            begun(tmp_path, fresh=fresh)
    assert (tmp_path / "run.json").read_text() == content


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_cannot_be_written_is_noticed_at_once(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(WootzError, match="can't be written"):
        begun(tmp_path / "run")
    tmp_path.chmod(0o700)


def test_a_file_in_the_way(tmp_path):
    (tmp_path / "run").write_text("")
    with pytest.raises(WootzError, match="is a file: --out names a folder"):
        begun(tmp_path / "run")
    with pytest.raises(WootzError, match="can't be written"):
        begun(tmp_path / "run" / "inside")


def test_chosen_files_are_a_runs_own_where_a_run_is(tmp_path):
    command = Command(model="net.onnx", options={"data": "photos", "size": [32, 32]})
    folder = tmp_path / "run"
    with open_run_directory(folder) as directory:
        directory.claim(INPUTS, command, {"solver.prototxt": b"chosen"})
    assert read_run_mark(folder).command == command
    assert (folder / "solver.prototxt").read_bytes() == b"chosen"
    with open_run_directory(folder, fresh=True) as directory:
        directory.claim(INPUTS, command, {"objective.txt": b"another"})
    assert not (folder / "solver.prototxt").exists()
    assert (folder / "objective.txt").read_bytes() == b"another"


def test_files_with_the_names_of_chosen_ones_make_no_run_of_a_folder(tmp_path):
    folder = folder_with(tmp_path, ["solver.prototxt", "subspace.json"])
    with pytest.raises(WootzError, match=r"holds files, and no run\.json"):
        begun(folder)
    assert (folder / "solver.prototxt").read_text() == "content"


def test_a_mark_says_what_chosen_files_were_when_the_run_last_began(tmp_path):
    folder = tmp_path / "run"
    with open_run_directory(folder) as directory:
        directory.claim(INPUTS, None, {"solver.prototxt": b"chosen"})
    assert has_chosen_files(folder)
    (folder / "objective.txt").write_text("max Accuracy")
    assert not has_chosen_files(folder)
    begun(folder)
    assert has_chosen_files(folder)
