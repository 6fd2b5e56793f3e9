"""Many processes on one store at once."""

import numpy as np
import pytest

from wootz.runtime.store import Store

KEYS = [f"{number:02x}" * 16 for number in range(5)]
PUT_AND_GET = """
generator = np.random.default_rng(int(sys.argv[2]))
notes = []
store = Store.open(Path(sys.argv[1]), limit=3_000_000, note=notes.append)
keys = [f"{number:02x}" * 16 for number in range(5)]
found = 0
print("ready", flush=True)
sys.stdin.readline()
with store.using("a run"):
    for number in range(150):
        key, action = keys[generator.integers(5)], generator.integers(4)
        if action == 0:
            value = int(generator.integers(10**6))
            size = int(10 ** generator.uniform(0, 5))
            store.put(key, Trained({"w": np.full(size, value, np.float32)}, {"value": value}), what="", seconds=0)
        elif action == 3:
            store.collect(0)
        else:
            outcome = store.get(key)
            if outcome is not None:
                assert (outcome.weights["w"] == outcome.record["value"]).all()
                found += 1
assert notes == [], notes
print(found)
"""
COUNT_WORK = """
key = sys.argv[2]
while (outcome := store.get(key)) is None:
    lease = store.lease(key)
    if lease is None:
        store.wait(key, timeout=1000)
        continue
    with lease:
        outcome = store.get(key)
        if outcome is None:
            print("computes", flush=True)
            time.sleep(0.5)
            outcome = Trained({"w": np.ones(3)}, {})
            store.put(key, outcome, what="", seconds=0.5)
print(float(outcome.weights["w"].sum()))
"""


@pytest.mark.slow
def test_all_see_whole_entries(store, start):
    """While others write the same keys, and collect what nobody uses."""
    processes = [start(PUT_AND_GET, seed) for seed in range(4)]
    for process in processes:
        assert process.stdout.readline() == "ready\n"
    found = 0
    for process in processes:
        process.stdin.write("\n")
        process.stdin.flush()
    for process in processes:
        found += int(process.communicate()[0])
        assert process.returncode == 0
    assert found > 50
    assert Store.open(store.folder).collect(0).leftovers == 0


def test_one_computes_and_all_get(store, start):
    processes = [start(COUNT_WORK, KEYS[0]) for _ in range(4)]
    said = [process.communicate()[0].split() for process in processes]
    assert [words[-1] for words in said] == ["3.0"] * 4
    assert sum("computes" in words for words in said) == 1


def test_stores_are_opened_at_once(tmp_path, start):
    """In a folder that isn't there yet."""
    code = "[Store.open(Path(sys.argv[2]) / str(number)) for number in range(10)]"
    processes = [start(code, tmp_path / "many") for _ in range(4)]
    for process in processes:
        process.communicate()
        assert process.returncode == 0
    assert all([f.name for f in folder.iterdir()] == ["format"] for folder in (tmp_path / "many").iterdir())


def test_what_another_process_put_is_read(store, start):
    code = "store.put(sys.argv[2], Trained({'w': np.arange(5.0)}, {'x': 0.1}), what='', seconds=0)"
    start(code, KEYS[0]).communicate()
    found = store.get(KEYS[0])
    np.testing.assert_array_equal(found.weights["w"], np.arange(5.0))
    assert found.record == {"x": 0.1}
