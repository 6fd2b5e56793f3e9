"""`wootz store`."""

import json
import os
import subprocess
import sys
import time

import numpy as np
import pytest
from click.testing import CliRunner

from wootz.passes.errors import WootzError
from wootz.runtime.outcome import Failed, Trained
from wootz.runtime.store import Store
from wootz.tools.cli import wootz

KEYS = ["01" * 16, "02" * 32, "0f" * 16]


@pytest.fixture
def store():
    """The one that `$WOOTZ_STORE` names."""
    store = Store.open()
    weights = {"conv1.weight": np.zeros((4, 3, 3, 3), np.float32), "steps": np.array(5)}
    store.put(KEYS[0], Trained(weights, {"accuracy": 0.1 + 0.2}), what="block 3(0.5) of resnet20", seconds=840)
    store.put(KEYS[1], Failed("the training diverged"), what="network 5", seconds=12)
    store.put_checkpoint(KEYS[2], {"slot": np.zeros(1000)}, {"step": 100}, what="teacher", seconds=7200)
    return store


def run(*arguments, code=0):
    done = CliRunner().invoke(wootz, ["store", *map(str, arguments)], standalone_mode=False)
    if done.exception is not None:
        raise done.exception
    assert (done.return_value or 0) == code
    return done.output


def test_ls(store):
    lines = run("ls").splitlines()
    assert lines[0].split() == ["KEY", "KIND", "SIZE", "TOOK", "LAST", "USED", "WHAT"]
    assert [line.split()[:2] for line in lines[1:4]] == [
        ["0f0f0f0f0f0f", "checkpoint"],
        ["020202020202", "failed"],
        ["010101010101", "trained"],
    ]
    assert "14 min" in lines[3]
    assert lines[3].endswith(" ago  block 3(0.5) of resnet20")
    size = sum(f.stat().st_size for f in store.folder.rglob("*.entry"))
    assert lines[4] == f"{store.folder}: 3 entries, {size / 1000:.3g} kB, which took 2.2 h"


@pytest.mark.parametrize(("sort", "first"), [("used", "010101"), ("size", "0f0f0f"), ("seconds", "0f0f0f")])
def test_ls_sorts(store, sort, first):
    store.get(KEYS[0])
    assert run("ls", "--sort", sort).splitlines()[1].startswith(first)


def test_ls_of_an_empty_store(tmp_path):
    Store.open(tmp_path / "empty")
    assert run("ls", "--store", tmp_path / "empty") == f"{tmp_path / 'empty'}: 0 entries, 0 B, which took 0.0 s\n"
    with pytest.raises(WootzError, match=r"no store \(--store DIR"):
        run("ls", "--store", tmp_path / "none")
    assert not (tmp_path / "none").exists()


def test_ls_is_not_confused_by_damage(store):
    store.layout.entry(KEYS[0]).write_bytes(b"damaged")
    assert len(run("ls").splitlines()) == 4
    assert store.layout.entry(KEYS[0]).exists()


def test_show(store):
    said = run("show", "01")
    assert f"key:     {KEYS[0]}\nwhat:    block 3(0.5) of resnet20\nkind:    trained\n" in said
    assert f"  accuracy: {json.dumps(0.1 + 0.2)}\n" in said
    assert said.endswith("arrays:\n  conv1.weight: float32[4,3,3,3]\n  steps: int64[]\n")
    assert 'reason: "the training diverged"' in run("show", KEYS[1])


def test_show_needs_one_key(store):
    with pytest.raises(WootzError, match="0: 3 entries have keys that begin so: give more digits"):
        run("show", "0")
    with pytest.raises(WootzError, match="77: no entry has this key"):
        run("show", "77")


def test_verify(store):
    assert "3 entries whole" in run("verify")
    file = store.layout.entry(KEYS[0])
    file.write_bytes(file.read_bytes()[:-1])
    checkpoint = store.layout.checkpoint(KEYS[2])
    checkpoint.write_bytes(b"")
    said = run("verify", code=1)
    assert f"{file}: its header is truncated or altered" not in said
    assert f"{file}: it has" in said
    assert f"{checkpoint}: it doesn't begin as an entry does" in said
    assert "1 entry whole" in said
    assert "2 damaged" in said
    assert "1 entry whole" in run("verify")


def test_verify_is_no_use(store):
    used = store.layout.entry(KEYS[0]).stat().st_mtime_ns
    run("verify")
    run("show", "01")
    run("ls")
    assert store.layout.entry(KEYS[0]).stat().st_mtime_ns == used


def test_gc(store):
    size = store.layout.entry(KEYS[0]).stat().st_size
    before = time.time() - 10  # a file system may give files that are written within milliseconds the same time
    for file in store.folder.rglob("*.entry"):
        os.utime(file, (before, before))
    store.get(KEYS[0])
    assert "removed 2 entries" in run("gc", "--limit", size)
    assert store.entry(KEYS[0])
    assert "removed 0 entries, 0 B" in run("gc", "--older-than", "1h")
    assert "removed 0 entries, 0 B" in run("gc")


def test_export_and_import(store, tmp_path):
    assert "2 entries" in run("export", tmp_path / "all.tar")
    assert "1 entry" in run("export", tmp_path / "one.tar.gz", "01")
    assert "1 entry new, 0 known before" in run("import", tmp_path / "one.tar.gz", "--store", tmp_path / "other")
    assert "1 entry new, 1 known before" in run("import", tmp_path / "all.tar", "--store", tmp_path / "other")
    assert Store.existing(tmp_path / "other").get(KEYS[1]) == Failed("the training diverged")


def test_nothing_of_onnx_runtime_is_imported():
    code = "import sys, wootz.tools.commands.store; print('onnxruntime' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
