"""A process that is killed at any moment leaves a store that is right, and nothing that stays for ever."""

import time

import numpy as np
import pytest

from wootz.runtime.outcome import Trained
from wootz.runtime.store import Store

KEYS = [f"{number:02x}" * 16 for number in range(4)]
WRITE_FOR_EVER = """
generator = np.random.default_rng(int(sys.argv[2]))
keys = [f"{number:02x}" * 16 for number in range(4)]
number = int(sys.argv[3])
with store.using("a run"):
    print("ready", flush=True)
    while True:
        number += 1
        key = keys[generator.integers(4)]
        array = np.full(int(10 ** generator.uniform(0, 6)), number, np.float32)
        with store.lease(key) as lease:
            store.put_checkpoint(key, {"w": array}, {"value": number})
            store.put(key, Trained({"w": array}, {"value": number}), what="", seconds=0)
            store.drop_checkpoint(key)
        print(key, number, flush=True)
"""
A_STEP_AT_A_TIME = """
import os
import signal
from wootz.runtime.store.inventory import verify

KEY, OTHER = "00" * 16, "01" * 16
STEPS = ("open", "os.rename", "os.link", "os.remove", "os.mkdir", "os.rmdir", "os.chmod", "os.utime", "os.listdir")
reading, writing = os.pipe()

def work():
    with store.using("a run"):
        store.get(OTHER)
        with store.lease(KEY):
            store.put_checkpoint(KEY, {"w": np.ones(3)}, {"value": 1})
            store.put(KEY, Trained({"w": np.ones(3)}, {"value": 1}), what="", seconds=0)
            os.write(writing, b"put;")
            store.drop_checkpoint(KEY)
        (store.folder / "entries" / "01" / f"{OTHER}.entry").write_bytes(b"damaged")
        store.get(OTHER)
    store.collect(0)
    os.write(writing, b"done;")

def killed_at(step):
    store.put(OTHER, Trained({"w": np.ones(3)}, {"value": 1}), what="", seconds=0)
    child = os.fork()
    if child == 0:
        left = step
        def count(event, arguments):
            nonlocal left
            if event in STEPS and str(store.folder) in str(arguments[0]):
                left -= 1
                if left == 0:
                    os.kill(os.getpid(), signal.SIGKILL)
        sys.addaudithook(count)
        work()
        os._exit(0)
    os.waitpid(child, 0)
    os.write(writing, b".")
    said = os.read(reading, 100)

    notes = []
    after = Store.open(store.folder, note=notes.append)
    verify(after)
    assert len(notes) <= 1 and all(OTHER in note for note in notes), notes
    found = after.get(KEY)
    assert found is None or found.record == {"value": 1} and (found.weights["w"] == 1).all()
    if b"put" in said and b"done" not in said and found is None:
        assert not list(after.folder.glob("entries/00/*"))  # put, then collected
        assert list(after.folder.glob("users/*")) == []
    with after.lease(KEY) as lease:
        assert lease.is_held
    after.collect(0)
    left = [str(f.relative_to(store.folder)) for f in after.folder.rglob("*") if not f.is_dir()]
    assert left == ["format"], left
    return b"done" in said

step = 1
while not killed_at(step):
    step += 1
print(step)
"""


@pytest.mark.slow
def test_at_every_step(start):
    """Just before each change and each opening of a file, in all that a run does with its store."""
    process = start(A_STEP_AT_A_TIME)
    steps = process.communicate()[0]
    assert process.returncode == 0
    assert int(steps) > 50


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(10))
def test_at_any_moment(store, notes, start, seed):
    """What was acknowledged is there, unless something newer is; nothing is ever damaged, and nothing is left."""
    generator = np.random.default_rng(seed)
    acknowledged: dict[str, int] = {}
    for _ in range(2):
        last = max(acknowledged.values(), default=0)
        writer = start(WRITE_FOR_EVER, seed, last)
        assert writer.stdout.readline() == "ready\n"
        time.sleep(generator.uniform(0, 0.4))
        writer.kill()
        lines = writer.communicate()[0].split("\n")
        acknowledged |= {line.split()[0]: int(line.split()[1]) for line in lines[:-1]}
        for key in KEYS:
            found = store.get(key)
            if found is None:
                assert key not in acknowledged
                continue
            assert isinstance(found, Trained)
            assert found.record["value"] >= acknowledged.get(key, 0)
            assert (found.weights["w"] == found.record["value"]).all()
            checkpoint = store.get_checkpoint(key)
            assert checkpoint is None or (checkpoint.arrays["w"] == checkpoint.record["value"]).all()
            with store.lease(key) as lease:
                assert lease.is_held
    assert notes == []
    Store.open(store.folder).collect()
    left = {str(f.relative_to(store.folder)) for f in store.folder.rglob("*") if not f.is_dir()}
    outcomes = {key for key in KEYS if store.get(key)}
    assert left == {
        "format",
        *(f"entries/{key[:2]}/{key}.entry" for key in outcomes),
        *(f"checkpoints/{key[:2]}/{key}.entry" for key in KEYS if store.get_checkpoint(key)),
    }
    assert not any(store.get_checkpoint(key) for key in outcomes)
