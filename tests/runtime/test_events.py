"""`events.jsonl`: what is appended is read back, whatever a killed process left behind."""

import json
import os
import threading

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from wootz.passes.errors import InputError
from wootz.passes.plan.metrics import Metric
from wootz.runtime.events import (
    BestFound,
    EventLog,
    Note,
    PhaseStarted,
    Planned,
    Progress,
    RunEnded,
    RunStarted,
    TaskCancelled,
    TaskEnded,
    TaskId,
    TaskRaised,
    TaskStarted,
    WorkerLost,
    read_events,
)
from wootz.runtime.result import QualityResult

STARTED = RunStarted(
    wootz="0.1.0", host="here", machine="", pid=1, started=0, network="net", data="digits", objective="max Accuracy",
    quality=QualityResult.of(Metric.ACCURACY),
    executor="local processes", workers=2,
)  # fmt: skip

counts = st.integers(0, 2**53)
fractions = st.floats(0, 1)
numbers = st.floats(allow_nan=False, allow_infinity=False)
seconds = st.floats(0, 1e9)
words = st.text(max_size=8)
kinds = st.sampled_from(["teacher", "blocks", "network", "default network"])
tasks = st.builds(TaskId, kinds, counts)
known = {"task": tasks, "worker": counts}
configurations = st.lists(fractions | st.lists(fractions, max_size=3).map(tuple), max_size=3).map(tuple)
events = st.one_of(
    st.builds(Planned, **dict.fromkeys(("networks_total", "networks_feasible", "blocks", "groups"), counts)),
    st.builds(PhaseStarted),
    st.builds(TaskStarted, task=tasks, worker=st.none() | counts, steps=counts, display=counts),
    st.builds(Progress, **known, step=counts, loss=st.none() | numbers, quality=st.none() | fractions),
    st.builds(TaskEnded, **known, key=words, seconds=seconds, reused=st.booleans(), blocks=counts,
              quality=st.none() | fractions, ended=st.sampled_from(["all steps", "bound met", "given up"]),
              steps_saved=counts, reason=st.none() | words),
    st.builds(TaskCancelled, task=tasks, worker=st.none() | counts),
    st.builds(TaskRaised, **known),
    st.builds(WorkerLost, **known),
    st.builds(BestFound, index=counts, configuration=configurations, model_size=counts, quality=fractions),
    st.builds(Note),
    st.builds(RunEnded, reason=st.none() | words),
)  # fmt: skip


@given(st.lists(events, max_size=6))
def test_what_is_emitted_is_read_back_and_heard(tmp_path_factory, emitted):
    file, heard = tmp_path_factory.mktemp("run") / "events.jsonl", []
    with EventLog(file, [heard.append]) as log:
        for event in (STARTED, *emitted):
            log.emit(event)
    assert list(read_events(file)) == heard
    assert [type(event) for event in heard] == [RunStarted, *map(type, emitted)]
    lines = [json.loads(line) for line in file.read_bytes().splitlines()]
    assert len(lines) == len(heard)
    elapsed = [line["elapsed"] for line in lines]
    assert elapsed == sorted(elapsed)


@given(st.integers(0, 10**6))
def test_a_process_may_be_killed_in_any_write(tmp_path_factory, cut):
    file = tmp_path_factory.mktemp("run") / "events.jsonl"
    with EventLog(file) as log:
        for event in (STARTED, Note(text="first"), Note(text="zweitens, ü")):
            log.emit(event)
    content = file.read_bytes()
    whole = content[: content.index(b"\n") + 1]
    cut = len(whole) + cut % (len(content) - len(whole) + 1)
    file.write_bytes(content[:cut])
    before = content[:cut].count(b"\n") + (cut + 1 <= len(content) and content[cut : cut + 1] == b"\n")
    assert len(list(read_events(file))) == before
    with EventLog(file) as log:
        log.emit(STARTED)
        log.emit(Note(text="again"))
    read = list(read_events(file))
    assert len(read) == before + 2
    assert isinstance(read[-2], RunStarted)
    assert read[-1].text == "again"


def test_threads_share_a_log(tmp_path):
    file = tmp_path / "events.jsonl"

    def work(worker):
        for step in range(200):
            log.emit(Progress(task=TaskId("network", 0), worker=worker, step=step))

    with EventLog(file) as log:
        log.emit(STARTED)
        threads = [threading.Thread(target=work, args=(number,)) for number in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    _, *read = read_events(file)
    for number in range(3):
        assert [event.step for event in read if event.worker == number] == list(range(200))


def test_the_file_is_touched_while_nothing_happens(tmp_path):
    file = tmp_path / "events.jsonl"
    beaten = threading.Event()
    with EventLog(file, heartbeat=0.01) as log:
        log.emit(STARTED)
        os.utime(file, (0, 0))
        for _ in range(1000):
            if file.stat().st_mtime > 0:
                break
            beaten.wait(0.01)
        assert file.stat().st_mtime > 0
    assert len(list(read_events(file))) == 1


def test_a_full_disk_is_told_with_the_files_name():
    with pytest.raises(OSError, match="No space left") as refused, EventLog(Full()) as log:
        log.emit(STARTED)
    assert refused.value.filename == "/dev/full"


class Full:
    """Looks like a path; writing there finds the disk full."""

    def __fspath__(self):
        return "/dev/full"

    __str__ = __fspath__


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "there is none in it"),
        (b"no json\n", "there is none in it"),
        (b'{"event": "note", "text": "hello"}\n', "no 'run started' comes first"),
        (b'{"event": "party"}\n', "Invalid value 'party'"),
        (b'{"colour": "blue"}\n', "missing required field `event`"),
        (b"[1, 2]\n", "Expected `object`, got `array`"),
        (msgspec.json.encode(msgspec.structs.replace(STARTED, schema=7)), "schema 7, not 2"),
    ],
)  # fmt: skip
def test_foreign_files(tmp_path, content, said):
    file = tmp_path / "events.jsonl"
    file.write_bytes(content)
    with pytest.raises(InputError) as refused:
        list(read_events(file))
    assert str(refused.value).startswith(str(file))
    assert said in str(refused.value)
