"""Disks that are full, and folders that can't be written."""

import os
import shutil
import tempfile
from pathlib import Path

import numpy as np
import pytest

from wootz.passes.errors import WootzError
from wootz.runtime.outcome import Failed, Trained
from wootz.runtime.store import Store

KEY, OTHER = "ab" * 16, "cd" * 16
NOBODY = 65534
WITH_A_LIMIT = """
import resource
from wootz.passes.errors import WootzError
key = sys.argv[2]
store.put(key, Failed("before"), what="", seconds=0)
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
for keep in (lambda: store.put(key, big, what="", seconds=0), lambda: store.put_checkpoint(key, big.weights, {})):
    big = Trained({"w": np.zeros(10**6)}, {})
    try:
        keep()
    except WootzError as error:
        print(error)
store.put(sys.argv[3], Failed("after"), what="", seconds=0)
"""


@pytest.fixture
def small_disk(mount):
    """A file system of 200 kB."""
    return mount("200k")


@pytest.fixture
def as_nobody():
    """A folder, and a process that is not root's: root could write everywhere."""
    folder = Path(tempfile.mkdtemp())
    if os.geteuid() != 0:
        yield folder
    else:
        os.chown(folder, NOBODY, NOBODY)
        os.seteuid(NOBODY)
        yield folder
        os.seteuid(0)
    for path in (folder, *folder.rglob("*")):
        path.chmod(0o700)
    shutil.rmtree(folder)


def files(folder):
    return sorted(str(f.relative_to(folder)) for f in folder.rglob("*") if f.is_file())


def test_a_file_that_can_not_be_written_is_named(store, start):
    said, _ = start(WITH_A_LIMIT, KEY, OTHER).communicate()
    outcome, checkpoint = said.splitlines()
    assert outcome.startswith(
        f"{store.folder / 'entries' / 'ab' / KEY}.entry: can't be written (File too large): make room"
    )
    assert checkpoint.startswith(f"{store.folder / 'checkpoints' / 'ab' / KEY}.entry: can't be written")
    assert store.get(KEY) == Failed("before")
    assert store.get(OTHER) == Failed("after")
    assert files(store.folder) == [f"entries/ab/{KEY}.entry", f"entries/cd/{OTHER}.entry", "format"]


def test_a_full_disk(small_disk):
    store = Store.open(small_disk / "store")
    store.put(KEY, Failed("before"), what="", seconds=0)
    big = Trained({"w": np.zeros(50_000)}, {})
    with pytest.raises(WootzError, match=rf"{OTHER}\.entry: can't be written \(No space left on device\): make room"):
        store.put(OTHER, big, what="", seconds=0)
    with pytest.raises(WootzError, match=rf"{KEY}\.entry: can't be written \(No space left on device\): make room"):
        store.put(KEY, big, what="", seconds=0)
    assert store.get(KEY) == Failed("before")
    assert store.get(OTHER) is None
    assert files(store.folder) == [f"entries/ab/{KEY}.entry", "format"]

    (small_disk / "film").write_bytes(b"\0" * (os.statvfs(small_disk).f_bavail * os.statvfs(small_disk).f_bsize))
    with pytest.raises(WootzError, match="store: can't be written"):
        Store.open(small_disk / "store")
    with pytest.raises(WootzError, match="can't be written"):
        store.lease(OTHER)
    assert store.get(KEY) == Failed("before")
    (small_disk / "film").unlink()
    store.put(OTHER, Failed("after"), what="", seconds=0)
    assert store.get(OTHER) == Failed("after")
    store.collect(limit=0)
    assert files(store.folder) == ["format"]


def test_a_folder_that_can_not_be_written_is_refused(as_nobody):
    as_nobody.chmod(0o500)
    with pytest.raises(WootzError, match=r"store: can't be written \(Permission denied\): choose another store"):
        Store.open(as_nobody / "store")
    with pytest.raises(WootzError, match="can't be written"):
        Store.open(as_nobody)


def test_a_store_that_became_read_only(as_nobody):
    notes = []
    store = Store.open(as_nobody / "store", note=notes.append)
    store.put(KEY, Failed("before"), what="", seconds=0)
    folders = [store.folder, *(f for f in store.folder.rglob("*") if f.is_dir())]
    for folder in folders:
        folder.chmod(0o500)
    with pytest.raises(WootzError, match=rf"{KEY}\.entry: can't be written \(Permission denied\)"):
        store.put(KEY, Failed("after"), what="", seconds=0)
    with pytest.raises(WootzError, match=f"{KEY}: can't be written"):
        store.lease(KEY)
    with pytest.raises(WootzError, match="can't be written"):
        Store.open(store.folder)
    assert Store.existing(store.folder).get(KEY) == Failed("before")
    (store.folder / "entries" / "ab" / f"{KEY}.entry").write_bytes(b"damaged")
    assert store.get(KEY) is None
    assert "it can't be set aside (Permission denied)" in notes[0]
    for folder in folders:
        folder.chmod(0o700)


def test_an_entry_without_permission_is_set_aside(as_nobody):
    notes = []
    store = Store.open(as_nobody / "store", note=notes.append)
    store.put(KEY, Failed("before"), what="", seconds=0)
    (store.folder / "entries" / "ab" / f"{KEY}.entry").chmod(0)
    assert store.get(KEY) is None
    assert f"{KEY}.entry: it can't be read (Permission denied); set aside" in notes[0]
    store.put(KEY, Failed("again"), what="", seconds=0)
    assert store.get(KEY) == Failed("again")


def test_too_many_open_files_are_not_the_entrys_fault(store, start):
    code = """
import resource
from wootz.passes.errors import WootzError
store.put(sys.argv[2], Failed("there"), what="", seconds=0)
resource.setrlimit(resource.RLIMIT_NOFILE, (3, 3))
try:
    store.get(sys.argv[2])
except WootzError as error:
    print(error)
"""
    said, _ = start(code, KEY).communicate()
    assert f"{KEY}.entry: can't be read (Too many open files)" in said
    assert store.get(KEY) == Failed("there")
