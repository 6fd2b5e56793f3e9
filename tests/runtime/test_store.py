import numpy as np

from wootz.passes.ir.text import parse_text
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


def test_digest_sees_every_weight_and_every_part():
    model, same, other = (parse_text(MODEL.replace("W", w)) for w in ("1.0", "1.0", "1.5"))
    assert digest(model, "a") == digest(same, "a")
    assert digest(model, "a") != digest(other, "a")
    assert digest(model, "a") != digest(model, "b")
    assert digest("ab", "c") != digest("a", "bc")
    assert digest(np.zeros(4, np.float32)) != digest(np.zeros((2, 2), np.float32))
