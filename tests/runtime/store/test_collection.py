"""What goes when room is needed, and what stays."""

import os
import subprocess
import sys

import numpy as np
import pytest

from wootz.runtime.outcome import Failed, Trained
from wootz.runtime.store import Store
from wootz.runtime.store import collection as collection_module

KEYS = [f"{number:02x}" * 16 for number in range(6)]
DAY = 24 * 3600
USE = """
with store.using("a run"):
    store.get(sys.argv[2])
    store.put(sys.argv[3], Trained({"w": np.zeros(1000)}, {}), what="", seconds=0)
    print("used", flush=True)
    sys.stdin.readline()
"""


def file_of(store, key, folder="entries"):
    return store.folder / folder / key[:2] / f"{key}.entry"


def put(store, key, used=None, size=1000):
    store.put(key, Trained({"w": np.zeros(size)}, {}), what="", seconds=0)
    if used is not None:
        age(file_of(store, key), used)


def age(file, seconds):
    """Makes `file` one that was touched so many seconds ago."""
    now = (file.parent / file.name).stat().st_mtime
    os.utime(file, (now - seconds, now - seconds))


def kept(store):
    return [key for key in KEYS if file_of(store, key).exists()]


def test_what_was_not_used_for_longest_goes_first(store):
    for number, key in enumerate(KEYS):
        put(store, key, used=100 * (number + 1))
    store.get(KEYS[5])  # the oldest is the newest now
    size = file_of(store, KEYS[0]).stat().st_size
    done = store.collect(limit=3 * size)
    assert kept(store) == [KEYS[0], KEYS[1], KEYS[5]]
    assert (done.entries, done.freed, done.size) == (3, 3 * size, 3 * size)


def test_looking_at_the_record_is_a_use(store):
    put(store, KEYS[0], used=200)
    put(store, KEYS[1], used=100)
    assert store.get_record(KEYS[0]) == {}
    store.collect(limit=file_of(store, KEYS[0]).stat().st_size)
    assert kept(store) == [KEYS[0]]


def test_what_is_older_than_asked_goes(store):
    put(store, KEYS[0], used=3 * DAY)
    put(store, KEYS[1], used=DAY)
    store.collect(older_than=2 * DAY)
    assert kept(store) == [KEYS[1]]


def test_a_time_in_the_future_is_no_age(store):
    put(store, KEYS[0], used=-1000 * DAY)
    store.collect(older_than=0.5 * DAY)
    assert kept(store) == [KEYS[0]]


def test_what_a_live_run_uses_stays(store, start):
    for key in KEYS[:4]:
        put(store, key, used=DAY)
    user = start(USE, KEYS[1], KEYS[5])
    assert user.stdout.readline() == "used\n"
    for key in (KEYS[1], KEYS[5]):
        age(file_of(store, key), 10 * DAY)
    assert store.collect(limit=0, older_than=1.0).entries == 3
    assert kept(store) == [KEYS[1], KEYS[5]]

    user.kill()
    user.wait()
    assert store.collect(limit=0).leftovers == 2
    assert kept(store) == []


def test_it_goes_when_the_run_is_over(store):
    with store.using("a run"):
        put(store, KEYS[0])
        Store.open(store.folder).collect(limit=0)
        assert kept(store) == [KEYS[0]]
    Store.open(store.folder).collect(limit=0)
    assert kept(store) == []


def test_what_is_being_computed_stays(store):
    store.put_checkpoint(KEYS[0], {"w": np.zeros(3)}, {"step": 1})
    store.put_checkpoint(KEYS[1], {"w": np.zeros(3)}, {"step": 1})
    with store.lease(KEYS[0]):
        Store.open(store.folder).collect(limit=0)
        assert store.get_checkpoint(KEYS[0]).record == {"step": 1}
    assert store.get_checkpoint(KEYS[1]) is None


def test_the_checkpoint_of_what_is_finished_goes(store):
    for key in KEYS[:2]:
        store.put_checkpoint(key, {}, {})
    put(store, KEYS[0])
    store.collect()
    assert store.get_checkpoint(KEYS[0]) is None
    assert store.get_checkpoint(KEYS[1]) is not None


def test_a_store_keeps_to_its_limit_by_itself(tmp_path, notes):
    store = Store.open(tmp_path / "store", limit=50_000, note=notes.append)
    for number in range(40):
        put(store, f"{number:02x}" * 16)
        held = sum(f.stat().st_size for f in store.folder.rglob("*.entry"))
        assert held <= 50_000 + 50_000 / 50 + 8200
    assert store.get("27" * 16) is not None
    assert notes == []


def test_a_run_that_uses_more_than_the_limit_is_told(tmp_path, notes):
    store = Store.open(tmp_path / "store", limit=10_000, note=notes.append)
    with store.using("a run"):
        for key in KEYS:
            put(store, key)
        assert kept(store) == KEYS
    (note,) = notes
    assert "are in use, more than the limit of 10 kB (--store-limit, WOOTZ_STORE_LIMIT)" in note
    assert sum(f.stat().st_size for f in store.folder.rglob("*.entry")) <= 10_000


def test_damaged_entries_are_the_first_to_go(store):
    put(store, KEYS[0], used=100)
    put(store, KEYS[1], used=50)
    file_of(store, KEYS[0]).write_bytes(b"damaged")
    age(file_of(store, KEYS[0]), 100)
    assert store.get(KEYS[0]) is None
    store.collect(limit=file_of(store, KEYS[1]).stat().st_size)
    assert kept(store) == [KEYS[1]]
    assert [f for f in (store.folder / "damaged").iterdir() if f.suffix == ".entry"] == []


def test_the_temporary_file_of_a_living_process_stays(store, start):
    put(store, KEYS[0])
    code = """
from wootz.runtime.store.durable import replacing
with replacing(store.folder / "entries" / "00" / "x") as (content, temporary):
    content.write(b"half")
    print(temporary, flush=True)
    sys.stdin.readline()
"""
    writer = start(code)
    temporary = store.folder / writer.stdout.readline().strip()
    assert store.collect(limit=0).leftovers == 0
    assert temporary.exists()
    writer.kill()
    writer.wait()
    assert store.collect(limit=0).leftovers == 1
    assert not temporary.exists()


def of_another_machine(file, beat=0):
    file.parent.mkdir(exist_ok=True)
    file.write_text(f'{beat:016d}{{"id": "i", "owner": "", "machine": "elsewhere", "pid": 1, "started": 1}}')
    return file


def test_what_another_machine_left_goes_after_a_day(store, monkeypatch):
    monkeypatch.setattr(collection_module.time, "sleep", lambda seconds: None)
    put(store, KEYS[0])
    user = of_another_machine(store.folder / "users" / ("a" * 32))
    user.with_suffix(".keys").write_text(KEYS[0])
    lease = of_another_machine(store.folder / "leases" / KEYS[1])
    temporary = file_of(store, KEYS[0]).with_name(f".tmp-e15e-1-1-{'0' * 32}")
    temporary.write_bytes(b"half")
    for file in (user, lease, temporary):
        age(file, 0.9 * DAY)
    assert store.collect(limit=0).leftovers == 0
    assert kept(store) == [KEYS[0]]
    for file in (user, lease, temporary):
        age(file, 1.1 * DAY)
    assert store.collect(limit=0).leftovers == 4
    assert not any(file.exists() for file in (user, lease, temporary))


def test_a_clock_that_was_set_forward_makes_nobody_old(store, monkeypatch):
    """Its next beat shows that it is alive."""
    put(store, KEYS[0])
    user = of_another_machine(store.folder / "users" / ("a" * 32))
    user.with_suffix(".keys").write_text(KEYS[0])
    age(user, 365 * DAY)
    monkeypatch.setattr(collection_module.time, "sleep", lambda seconds: of_another_machine(user, beat=1))
    store.collect(limit=0)
    assert kept(store) == [KEYS[0]]


def test_files_of_others_stay(store):
    put(store, KEYS[0])
    foreign = file_of(store, KEYS[0]).with_name("notes.txt")
    foreign.write_text("mine")
    store.collect(limit=0, older_than=0.0)
    assert foreign.read_text() == "mine"


@pytest.mark.skipif(os.name != "posix", reason="permissions of POSIX")
def test_entries_are_for_those_who_have_the_store(tmp_path):
    """A group shares a store whose folder it can write, whatever the umask of who puts."""
    store = Store.open(tmp_path / "store")
    store.folder.chmod(0o2770)
    code = (
        "import os, sys; os.umask(0o077); from pathlib import Path; from wootz.runtime.store import Store; "
        "from wootz.runtime.outcome import Failed; "
        "Store.open(Path(sys.argv[1])).put('00' * 16, Failed('no'), what='', seconds=0)"
    )
    subprocess.run([sys.executable, "-c", code, str(store.folder)], check=True)
    assert store.get(KEYS[0]) == Failed("no")
    file = file_of(store, KEYS[0])
    assert file.stat().st_mode & 0o777 == 0o660
    assert file.parent.stat().st_mode & 0o7777 == 0o2770
