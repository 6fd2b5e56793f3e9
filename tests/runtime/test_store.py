from pathlib import Path

import numpy as np
import pytest

from wootz.passes.ir.text import parse_text
from wootz.runtime.outcome import Failed
from wootz.runtime.store import ResultStore, Stored, digest

MODEL = """<ir_version: 8, opset_import: ["": 18]>
g (float[N,2] x) => (float[N,2] y) <float[2] w = {W, 2.0}> { y = Mul(x, w) }"""


def test_what_was_put_comes_back(tmp_path):
    store = ResultStore(tmp_path / "store")
    weights = {"a/w": np.arange(6, dtype=np.float32).reshape(2, 3), "n": np.array(3)}
    assert store.get("key") is None
    store.put("key", Stored(weights, {"curve": [[0, 0.5]], "seconds": 1.5}))
    found = store.get("key")
    assert found.record == {"curve": [[0, 0.5]], "seconds": 1.5}
    assert set(found.weights) == set(weights)
    for name, values in weights.items():
        np.testing.assert_array_equal(found.weights[name], values)
        assert found.weights[name].dtype == values.dtype
    assert [f.name for f in (tmp_path / "store").iterdir()] == ["key.npz"]


def test_a_failure_comes_back_as_one(tmp_path):
    store = ResultStore(tmp_path)
    store.put("key", Failed("the training diverged"))
    assert store.get("key") == Failed("the training diverged")


@pytest.mark.parametrize("damage", [lambda b: b[:-30], lambda b: b"", lambda b: b[:60] + b"?" * 60 + b[120:]])
def test_a_damaged_entry_is_as_good_as_none(tmp_path, damage):
    store = ResultStore(tmp_path)
    store.put("key", Stored({"w": np.arange(100, dtype=np.float32)}, {"seconds": 1.5}))
    file = tmp_path / "key.npz"
    file.write_bytes(damage(file.read_bytes()))
    assert store.get("key") is None


def test_an_entry_replaces_another_as_a_whole(tmp_path, monkeypatch):
    """What is killed while it writes, leaves the old one: it writes elsewhere, and renames."""
    store = ResultStore(tmp_path)
    store.put("key", Stored({"w": np.zeros(3)}, {}))

    def killed(self, target):
        assert (target, self.parent) == (tmp_path / "key.npz", tmp_path)
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "replace", killed)
    with pytest.raises(KeyboardInterrupt):
        store.put("key", Stored({"w": np.ones(3)}, {}))
    np.testing.assert_array_equal(store.get("key").weights["w"], np.zeros(3))
    assert [f.name for f in tmp_path.iterdir()] == ["key.npz"]


def test_digest_sees_every_weight_and_every_part():
    model, same, other = (parse_text(MODEL.replace("W", w)) for w in ("1.0", "1.0", "1.5"))
    assert digest(model, "a") == digest(same, "a")
    assert digest(model, "a") != digest(other, "a")
    assert digest(model, "a") != digest(model, "b")
    assert digest("ab", "c") != digest("a", "bc")
    assert digest(np.zeros(4, np.float32)) != digest(np.zeros((2, 2), np.float32))
