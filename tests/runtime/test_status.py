"""What the events of a run come to."""

import os
import subprocess
import sys

import pytest
from msgspec.structs import replace

from wootz.passes.errors import InputError
from wootz.runtime.events import Planned, RunEnded, TaskId, TaskStarted
from wootz.runtime.status import (
    SILENT_SECONDS,
    Done,
    RunStatus,
    read_status,
    seconds_left,
    state,
    status_of,
    time_spent,
)


def until(events, elapsed):
    return [event for event in events if event.elapsed <= elapsed]


def test_a_whole_run(whole_run):
    found = status_of(whole_run)
    assert (found.attempt, found.phase, found.blocks, found.blocks_reused) == (1, "exploration", 5, 2)
    assert found.of("teacher") == Done(tasks=1, computed=1, seconds=6.0)
    assert found.of("blocks") == Done(tasks=2, computed=1, reused=1, seconds=6.0, seconds_saved=9.0)
    assert found.of("network") == Done(tasks=5, computed=5, failed=1, seconds=20.0)
    assert found.of("default network") == Done()
    assert (found.best.index, found.best.quality) == (4, 0.8)
    assert (found.lost, found.notes, found.under_way) == ((1,), ("network 4: it diverged",), ())
    assert found.ended.outcome == "found"


def test_what_the_workers_do(whole_run):
    found = status_of(until(whole_run, 15.5))
    assert [(work.worker, work.task.index, work.step, work.loss) for work in found.under_way] == [
        (0, 0, 50, 0.5),
        (1, 1, 50, 0.5),
    ]
    assert [work.quality for work in found.under_way] == [0.5, 0.55]
    lost = status_of(until(whole_run, 17.5))
    assert [work.worker for work in lost.under_way] == [0]


def test_a_worker_is_known_when_it_is_heard_of(started):
    unknown = status_of([started, TaskStarted(task=TaskId("blocks", 3), title="blocks")])
    assert [work.worker for work in unknown.under_way] == [None]


def test_a_run_that_is_continued_begins_anew(whole_run, started):
    again = status_of([*whole_run, started])
    assert again == RunStatus(attempt=2, run=started, phase_seconds={"plan": 2, "teacher": 6, "exploration": 19})
    assert again.earlier == 27


def test_the_time_of_all_attempts_by_phase(whole_run, started, write_events, tmp_path):
    events = tmp_path / "events.jsonl"
    assert time_spent(events) == {"plan": 0}
    events.touch()
    assert time_spent(events) == {}
    first, second = until(whole_run, 14), until(whole_run, 5)
    write_events(tmp_path, [*first, *second])
    assert time_spent(events) == {"plan": 2 + 2, "teacher": 6 + 3, "exploration": 6}
    assert status_of([*first, *second]).earlier == 14


@pytest.mark.parametrize(
    ("elapsed", "left"),
    [
        (1, None),  # nothing is planned
        (6, None),  # the full network's pace is known, that of blocks isn't
        (16, (8 * 4 - 2 * 2) / 2),  # two networks are half done after 2 s
        (18, (7 * 4 - 2 * 0) / 2),  # one is done after 4 s, one was lost, two have just begun
        (19.5, (7 * 4 - 2 * 1.5) / 2),
        (27, 3 * 4 / 2),  # five are done, of 8
    ],
)
def test_the_time_left_by_what_tasks_take(whole_run, elapsed, left):
    assert seconds_left(status_of(until(whole_run, elapsed)), elapsed) == left


def test_default_networks_are_expected_to_take_as_long_as_networks(whole_run):
    with_baseline = [replace(e, baseline=True) if isinstance(e, Planned) else e for e in whole_run]
    assert seconds_left(status_of(until(with_baseline, 16)), 16) == (16 * 4 - 2 * 2) / 2
    assert seconds_left(status_of(until(with_baseline, 27)), 27) == (3 * 4 + 8 * 4) / 2


def test_how_a_run_ended_is_what_it_says_itself(whole_run, started, write_events, tmp_path):
    gone = replace(started, pid=2**22 - 1)
    for outcome in ("found", "nothing found", "failed", "interrupted"):
        events = [gone, RunEnded(outcome=outcome)]
        assert state(status_of(events), write_events(tmp_path, events)) == outcome


def test_a_process_of_this_machine_is_looked_up(started, write_events, tmp_path):
    assert state(status_of([started]), write_events(tmp_path, [started])) == "running"
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as other:
        ended = replace(started, pid=other.pid)
        other.communicate()
    assert state(status_of([ended]), tmp_path) == "dead"
    reused_number = replace(started, started=started.started - 1)
    assert state(status_of([reused_number]), tmp_path) == "dead"


def test_of_a_process_elsewhere_the_heartbeat_tells(started, write_events, tmp_path):
    elsewhere = status_of([replace(started, machine="elsewhere", pid=2**22 - 1)])
    file = write_events(tmp_path, [started]) / "events.jsonl"
    assert state(elsewhere, tmp_path) == "running"
    changed = file.stat().st_mtime
    os.utime(file, (changed, changed - SILENT_SECONDS - 1))
    assert state(elsewhere, tmp_path) == "silent"
    assert state(status_of([started]), tmp_path) == "silent", "a suspended process is there, and says nothing"


def test_a_folder_without_a_run(tmp_path):
    with pytest.raises(InputError, match=r"no events\.jsonl in this folder"):
        read_status(tmp_path)
