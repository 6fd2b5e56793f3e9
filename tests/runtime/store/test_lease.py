"""Who has the right to compute, and when it passes to another."""

import errno
import json
import os
import subprocess
import sys
import threading

import pytest

from wootz.runtime.outcome import Failed
from wootz.runtime.store import Store
from wootz.runtime.store.heartbeat import PATIENCE_SECONDS, Mark, Watch, read_mark, remove_mark
from wootz.runtime.store.lease import take_lease
from wootz.runtime.store.process import Process

KEY, OTHER = "ab" * 16, "cd" * 16
HOLD = """
with store.lease(sys.argv[2]) as lease:
    print("held", flush=True)
    sys.stdin.readline()
"""


class Clock:
    """Seconds that pass when the test says so."""

    def __init__(self):
        self.now = 1000.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


def held_elsewhere(file, beat=0, identity="other"):
    """The mark of a process on a machine that can't be asked."""
    said = {"id": identity, "owner": "process 1 on node3", "machine": "elsewhere", "pid": os.getpid(), "started": 1}
    file.parent.mkdir(exist_ok=True)
    file.write_text(f"{beat:016d}{json.dumps(said)}")
    return file


def ended_process():
    """One that has ended, on this machine."""
    code = "from wootz.runtime.store.process import Process; p = Process.current(); print(p.machine, p.pid, p.started)"
    words = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    return Process(words[0], int(words[1]), int(words[2]))


def test_one_at_a_time(store):
    with store.lease(KEY, "block 3") as lease:
        assert lease.is_held
        assert store.lease(KEY) is None
        assert Store.open(store.folder).lease(KEY) is None
        assert store.holder(KEY) == f"process {os.getpid()} on {os.uname().nodename} (block 3)"
        with store.lease(OTHER):
            pass
    assert not lease.is_held
    assert store.holder(KEY) is None
    with store.lease(KEY):
        pass


def test_an_error_releases(store):
    with pytest.raises(ZeroDivisionError), store.lease(KEY):
        _ = 1 / 0
    assert store.holder(KEY) is None


def test_another_process_gets_it_when_the_holder_lets_go(store, start):
    holder = start(HOLD, KEY)
    assert holder.stdout.readline() == "held\n"
    assert store.lease(KEY) is None
    assert store.wait(KEY, timeout=0.1) is None
    assert store.lease(KEY) is None
    holder.communicate("\n")
    assert store.wait(KEY, timeout=60) is None
    with store.lease(KEY) as lease:
        assert lease.is_held


@pytest.mark.parametrize("is_reaped", [True, False])
def test_another_process_gets_it_at_once_when_the_holder_is_killed(store, start, is_reaped):
    """Also where the dead one's parent has not asked for it yet."""
    holder = start(HOLD, KEY)
    assert holder.stdout.readline() == "held\n"
    holder.kill()
    os.waitid(os.P_PID, holder.pid, os.WEXITED | (0 if is_reaped else os.WNOWAIT))
    assert read_mark(store.folder / "leases" / KEY).process.has_ended()
    assert store.wait(KEY, timeout=1e6) is None
    with store.lease(KEY) as lease:
        assert lease.is_held


def test_waiting_gives_what_the_holder_puts(store, start):
    holder = start(
        HOLD.replace("sys.stdin.readline()", "store.put(sys.argv[2], Failed('no'), what='', seconds=0)"), KEY
    )
    assert holder.stdout.readline() == "held\n"
    assert store.wait(KEY, timeout=1e6) == Failed("no")


def test_a_machine_that_is_silent_is_given_up(store, clock):
    """Its clock and the file's times say nothing: only that the number did not change while ours went on."""
    waiting = Store(store.folder, store.limit, clock=clock)
    file = held_elsewhere(store.folder / "leases" / KEY)
    for _ in range(5):
        assert waiting.lease(KEY) is None
        clock.now += PATIENCE_SECONDS / 5
        os.utime(file)
    with waiting.lease(KEY) as lease:
        assert lease.is_held


def test_a_machine_that_beats_is_never_given_up(store, clock):
    """Whatever the clocks of files and machines show."""
    waiting = Store(store.folder, store.limit, clock=clock)
    for beat in range(100):
        file = held_elsewhere(store.folder / "leases" / KEY, beat)
        os.utime(file, (0, 0) if beat % 2 else (2**33, 2**33))
        assert waiting.lease(KEY) is None
        clock.now += 0.99 * PATIENCE_SECONDS


def test_a_watcher_that_slept_does_not_take_the_others_for_dead(store, clock):
    waiting = Store(store.folder, store.limit, clock=clock)
    held_elsewhere(store.folder / "leases" / KEY)
    assert waiting.lease(KEY) is None
    for _ in range(3):
        clock.now += 3600
        assert waiting.lease(KEY) is None


def test_a_holder_whose_place_was_taken_knows(store, clock, tmp_path):
    with store.lease(KEY) as lease:
        file = store.folder / "leases" / KEY
        held_elsewhere(file, identity="another")
        assert not lease.is_held
    assert read_mark(file).id == "another"


@pytest.mark.parametrize("content", [b"", b"0000", b"0" * 16 + b"{}", b"0" * 16 + b"[1]", b"\xff" * 5000])
def test_what_is_no_lease_is_given_up(store, clock, content):
    waiting = Store(store.folder, store.limit, clock=clock)
    file = store.folder / "leases" / KEY
    file.parent.mkdir()
    file.write_bytes(content)
    for _ in range(5):
        assert waiting.lease(KEY) is None
        clock.now += PATIENCE_SECONDS / 5
    with waiting.lease(KEY):
        pass


def test_a_folder_in_the_place_of_a_lease_is_given_up(store, clock):
    waiting = Store(store.folder, store.limit, clock=clock)
    (store.folder / "leases" / KEY).mkdir(parents=True)
    for _ in range(5):
        assert waiting.lease(KEY) is None
        clock.now += PATIENCE_SECONDS / 5
    with waiting.lease(KEY):
        pass


def test_of_many_who_find_it_dead_one_gets_it(store):
    """Each with eyes of its own, as processes are; again and again."""
    ended = ended_process()
    assert ended.has_ended()
    assert not Process.current().has_ended()
    file = store.folder / "leases" / KEY
    file.parent.mkdir()
    for _ in range(100):
        said = {"id": "dead", "owner": "", "machine": ended.machine, "pid": ended.pid, "started": ended.started}
        file.write_text(f"{0:016d}{json.dumps(said)}")
        barrier, got = threading.Barrier(8), []

        def take(barrier=barrier, got=got):
            barrier.wait()
            got.append(take_lease(file, "", Watch()))

        threads = [threading.Thread(target=take) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        (lease,) = [lease for lease in got if lease is not None]
        assert lease.is_held
        lease.release()
        assert list(file.parent.iterdir()) == []


def test_who_is_late_does_not_remove_the_lease_of_the_next(store, clock):
    """It judged by the mark that stood there before."""
    file = held_elsewhere(store.folder / "leases" / KEY)
    dead = read_mark(file)
    file.unlink()
    with store.lease(KEY) as lease:
        assert not remove_mark(file, dead, Watch(clock))
        assert lease.is_held


def test_who_dies_while_it_removes_a_dead_lease_is_no_obstacle(store, clock):
    file = held_elsewhere(store.folder / "leases" / KEY)
    guard = held_elsewhere(file.with_name(f"{KEY}.removal"))
    waiting = Store(store.folder, store.limit, clock=clock)
    lease, looks = None, 0
    while lease is None:
        lease = waiting.lease(KEY)
        clock.now += PATIENCE_SECONDS / 5
        looks += 1
        assert looks < 20
    lease.release()
    assert not guard.exists()


def test_a_mark_is_never_seen_without_its_content(tmp_path):
    """Whose process is killed while it makes a mark, leaves none or one that says that it has ended."""
    file, seen, is_over = tmp_path / "mark", set(), threading.Event()

    def look():
        while not is_over.is_set():
            content = read_mark(file)
            seen.add(content is not None and (content.process == Process.current(), len(content.beat)))

    watcher = threading.Thread(target=look)
    watcher.start()
    while len(seen) < 2:
        for _ in range(100):
            Mark.create(file, "").remove()
    is_over.set()
    watcher.join()
    assert seen == {False, (True, 16)}
    assert list(tmp_path.iterdir()) == []


def test_file_systems_without_hard_links_do(store, monkeypatch):
    def link(source, target):
        raise PermissionError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "link", link)
    with store.lease(KEY) as lease:
        assert lease.is_held
        assert store.lease(KEY) is None
        assert store.holder(KEY).startswith(f"process {os.getpid()}")
    assert list((store.folder / "leases").iterdir()) == []


def test_a_mark_beats_until_it_is_removed(tmp_path, clock):
    mark = Mark.create(tmp_path / "mark", "")
    first = read_mark(mark.file)
    mark.start_beating(0.001)
    seen = {first.beat}
    while len(seen) < 5:
        seen.add(read_mark(mark.file).beat)
    mark.remove()
    assert not mark.file.exists()
    assert Mark.create(tmp_path / "mark", "") is not None


def test_a_mark_beats_on_after_its_file_could_not_be_read(tmp_path):
    """A file system that stumbles is no reason to lose a lease."""
    mark = Mark.create(tmp_path / "mark", "")
    content = mark.file.read_bytes()
    mark.file.write_bytes(b"")
    mark.start_beating(0.001)
    while mark.file.read_bytes()[:16] in (b"", b"0" * 16):
        pass
    mark.file.write_bytes(content)
    while not (read_mark(mark.file).id and int(read_mark(mark.file).beat) > 0):
        pass
    assert mark.is_held
    mark.remove()


def test_a_process_with_the_number_of_one_that_ended_is_another():
    here = Process.current()
    assert not here.has_ended()
    assert Process(here.machine, here.pid, here.started + 1).has_ended()
    assert not Process("elsewhere", here.pid, here.started + 1).has_ended()
    assert not Process("", here.pid, 0).has_ended()
