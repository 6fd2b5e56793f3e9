"""A run that is ended at any moment loses nothing: the same command goes on, and comes to the same."""

import json
import os
import random
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pytest
import tiny

from wootz.runtime.status import read_status, state
from wootz.runtime.store import Store
from wootz.runtime.store.inventory import verify

KILLING = Path(__file__).with_name("killing.py")
SEED = 1128
KILLS = [
    ("", "run.json", 1),
    ("", "job.pickle", 1),
    ("", "rehearsal", 3),
    ("", "planned", 1),
    ("teacher", "checkpoint", tiny.STEPS),
    ("teacher", "entry", 1),
    ("blocks", "checkpoint", tiny.STEPS),
    ("blocks", "entry", 2),
    ("blocks", "removal of checkpoint", 1),
    ("network", "checkpoint", tiny.STEPS),
    ("network", "task ended", 1),
    ("network", "entry", 1),
    ("default network", "checkpoint", tiny.STEPS),
    ("", "teacher.onnx", 1),
    ("", "best.onnx", 1),
    ("", "result.json", 1),
    ("", "report.html", 1),
    ("", "run ended", 1),
]
"""In the order of a run: the kind of task that is under way, what is about to happen, up to how many times before."""


SIGTERM_IN_IMPORTS = """
import os, signal, sys
left = int(sys.argv.pop(1))
def count(event, arguments):
    global left
    if event == "import" and "wootz.tools.commands.run" in sys.modules:
        left -= 1
        if left == 0:
            os.kill(os.getpid(), signal.SIGTERM)
sys.addaudithook(count)
from wootz.tools.cli import main
main()
"""


@dataclass(frozen=True)
class Command:
    """`wootz run` of a small job, in a folder of its own, with a store of its own."""

    job: Path
    folder: Path
    options: tuple[str, ...] = ()

    @property
    def arguments(self) -> list[str]:
        return [*tiny.arguments(self.job, self.out, self.store), *self.options]

    @property
    def out(self) -> Path:
        return self.folder / "run"

    @property
    def store(self) -> Path:
        return self.folder / "store"

    def start(self, moment: dict) -> tuple[int, str, str]:
        """Runs until it ends or the moment has come: exit status, output, errors. No process is left."""
        command = [sys.executable, KILLING, self.folder, json.dumps(moment), *self.arguments]
        done = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
        )
        said, errors = done.communicate(timeout=300)
        wait_until(lambda: not processes_of_session(done.pid))
        return done.returncode, said, errors

    def result(self) -> dict:
        """Without times."""
        return tiny.without_times(json.loads((self.out / "result.json").read_text()))

    def best(self) -> bytes:
        return (self.out / "best.onnx").read_bytes()

    def first_steps(self) -> list[str]:
        file = self.folder / "steps.txt"
        return file.read_text().splitlines() if file.exists() else []


def processes_of_session(number: int) -> list[str]:
    """Those that are alive, where the system tells them."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            fields = (folder / "stat").read_text().rpartition(")")[2].split()
            if int(fields[3]) == number and fields[0] != "Z":
                found.append(folder.name)
    return found


def wait_until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 120
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.fixture(scope="module")
def undisturbed(wootz, tiny_job, tmp_path_factory) -> Command:
    command = Command(tiny_job, tmp_path_factory.mktemp("undisturbed"))
    done = wootz(*command.arguments)
    assert done.code == 0, done.err
    return command


def check_what_is_left(command: Command) -> None:
    """Nothing is damaged, and a run that has begun says that it is dead."""
    notes: list[str] = []
    if (command.store / "format").exists():
        verify(Store.existing(command.store, notes.append))
    assert not notes
    if (command.out / "events.jsonl").exists() and (command.out / "events.jsonl").read_bytes().count(b"\n"):
        assert state(read_status(command.out), command.out) == "dead"


def check_that_it_comes_to_the_same(command: Command, undisturbed: Command, wootz) -> None:
    done = wootz(*command.arguments)
    assert done.code == 0, done.err
    assert done.err == ""
    result, expected = command.result(), undisturbed.result()
    if command.options:  # two workers get the blocks in two groups
        for one in (result, expected):
            del one["environment"], one["groups"]
    assert result == expected
    assert command.best() == undisturbed.best()
    assert state(read_status(command.out), command.out) == "found"
    assert {file.name for file in command.out.iterdir()} == {file.name for file in undisturbed.out.iterdir()}
    left = {file.relative_to(command.store).parts[0] for file in command.store.rglob("*") if file.is_file()}
    assert left == {"entries", "format"}


def test_a_run_that_is_killed_in_each_task_and_each_write(wootz, tiny_job, undisturbed, tmp_path):
    command, seeded = Command(tiny_job, tmp_path), random.Random(SEED)
    expected_steps = []
    for task, what, most in KILLS:
        count = seeded.randint(min(2, most), most)
        code, said, errors = command.start({"task": task, "what": what, "count": count})
        assert code == -9, f"{task}, {what} {count}: {code} {said} {errors}"
        check_what_is_left(command)
        if what == "checkpoint":
            expected_steps.append(f"{task}: {count - 1}")
    check_that_it_comes_to_the_same(command, undisturbed, wootz)
    assert set(expected_steps) <= set(command.first_steps()), "no more is lost than what came after the checkpoint"


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_run_of_two_workers_whose_driver_alone_or_all_are_ended(wootz, tiny_job, undisturbed, tmp_path):
    command, seeded = Command(tiny_job, tmp_path, ("--workers", "2")), random.Random(SEED)
    for task, number, group in (
        ("blocks", "KILL", False),
        ("network", "KILL", True),
        ("default network", "TERM", False),
    ):
        moment = {"task": task, "what": "task started", "count": 1, "signal": f"SIG{number}", "group": group}
        code, _, errors = command.start({**moment, "delay": seeded.uniform(0, 1)})
        if number == "KILL":
            assert code == -9, errors
            check_what_is_left(command)
        else:
            assert (code, errors) == (130, "interrupted: the same command goes on from here\n")
            assert wootz("status", command.out).code == 5
            assert state(read_status(command.out), command.out) == "interrupted"
    check_that_it_comes_to_the_same(command, undisturbed, wootz)


def test_a_training_that_is_interrupted_stores_what_it_has(wootz, tiny_job, undisturbed, tmp_path):
    command, expected_steps = Command(tiny_job, tmp_path), []
    for task, step, number in (("teacher", 2, "SIGTERM"), ("blocks", 5, "SIGINT"), ("network", 7, "SIGTERM")):
        moment = {"task": task, "what": "step", "count": step, "signal": number, "checkpoints": "rare"}
        code, _, errors = command.start(moment)
        assert (code, errors) == (130, "interrupted: the same command goes on from here\n")
        assert state(read_status(command.out), command.out) == "interrupted"
        expected_steps.append(f"{task}: {step}")
    assert command.start({"checkpoints": "rare"})[0] == 0
    assert set(expected_steps) <= set(command.first_steps())
    check_that_it_comes_to_the_same(command, undisturbed, wootz)


@pytest.mark.parametrize("seed", range(4))
def test_sigterm_while_modules_are_imported_ends_in_a_line(tiny_job, tmp_path, seed):
    command = Command(tiny_job, tmp_path)
    count = random.Random(seed).randint(1, 400)
    done = subprocess.run(
        [sys.executable, "-c", SIGTERM_IN_IMPORTS, str(count), *command.arguments], capture_output=True, text=True
    )
    assert (done.returncode, done.stderr.strip()) == (130, "interrupted"), f"at import {count}"
    assert not command.out.exists()


@pytest.mark.slow
def test_a_run_that_is_killed_at_any_operation(wootz, tiny_job, undisturbed, tmp_path):
    """Ten times, before any operation on its files; WOOTZ_KILLS=N for more."""
    command, seeded = Command(tiny_job, tmp_path), random.Random(SEED)
    for _ in range(int(os.environ.get("WOOTZ_KILLS", 10))):
        code, _, errors = command.start({"what": "operation", "count": int(10 ** seeded.uniform(0, 3))})
        assert code in (0, -9), errors
        if code:
            check_what_is_left(command)
    check_that_it_comes_to_the_same(command, undisturbed, wootz)
