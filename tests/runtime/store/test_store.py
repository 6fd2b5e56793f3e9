"""What is put comes back; what is damaged is set aside and counts as missing."""

import hashlib
import json
import math
import os
import shutil

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from wootz.passes.errors import WootzError
from wootz.runtime.outcome import Failed, Trained
from wootz.runtime.store import Store

KEY, OTHER = "ab" * 16, "cd" * 32
DTYPES = ["?", "i1", "u1", "<i2", "<i4", "<i8", "<u8", "<f2", "<f4", "<f8", "<c8", ">f4"]
ARRAYS = st.sampled_from(DTYPES).flatmap(
    lambda dtype: hnp.arrays(np.dtype(dtype), hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=4))
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=10,
)


def trained(value=1.0):
    weights = {"conv1.weight": np.full((2, 3), value, np.float32), "steps": np.array(7)}
    return Trained(weights, {"curve": [[0, 0.1], [10, 1 / 3]]})


def put(store, key=KEY, outcome=None):
    store.put(key, outcome or trained(), what="block 3(0.5) of resnet20", seconds=12.5)
    return store.folder / "entries" / key[:2] / f"{key}.entry"


def assert_same(found, expected):
    """Bit for bit, NaN included, except for the order of bytes."""
    assert list(found) == list(expected)
    for name, array in expected.items():
        assert found[name].shape == array.shape
        assert found[name].dtype == array.dtype.newbyteorder("<")
        assert found[name].tobytes() == array.astype(found[name].dtype).tobytes()


def same_json(a, b):
    if isinstance(a, float) and isinstance(b, float):
        return (a == b and math.copysign(1, a) == math.copysign(1, b)) or (math.isnan(a) and math.isnan(b))
    if isinstance(a, list) and isinstance(b, list):
        return len(a) == len(b) and all(map(same_json, a, b))
    if isinstance(a, dict) and isinstance(b, dict):
        return list(a) == list(b) and all(same_json(a[k], b[k]) for k in a)
    return type(a) is type(b) and a == b


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(weights=st.dictionaries(st.text(), ARRAYS, max_size=4), record=st.dictionaries(st.text(), JSON, max_size=4))
def test_what_was_put_comes_back(store, weights, record):
    put(store, KEY, Trained(weights, record))
    found = store.get(KEY)
    assert_same(found.weights, weights)
    assert same_json(found.record, record)
    assert same_json(store.get_record(KEY), record)


def test_layouts_of_memory_and_big_arrays_come_back(store):
    grid = np.arange(24.0).reshape(2, 3, 4)
    weights = {"transposed": grid.T, "strided": grid[:, ::2], "big": np.arange(2**20, dtype=np.float32)}
    put(store, KEY, Trained(weights, {}))
    found = store.get(KEY).weights
    assert_same(found, weights)
    assert all(array.flags.writeable and array.flags.aligned for array in found.values())


def test_a_failure_comes_back_as_one(store):
    assert store.get(KEY) is None
    put(store, KEY, Failed("the training diverged"))
    assert store.get(KEY) == Failed("the training diverged")
    assert store.get_record(KEY) is None
    assert store.entry(KEY).kind == "failed"


def test_an_entry_says_what_it_is(store):
    put(store)
    entry = store.entry(KEY)
    assert (entry.kind, entry.what, entry.seconds) == ("trained", "block 3(0.5) of resnet20", 12.5)
    assert [(a.name, a.dtype, a.shape) for a in entry.arrays] == [
        ("conv1.weight", np.float32, (2, 3)),
        ("steps", np.int64, ()),
    ]


def test_equal_outcomes_are_equal_bytes(store, tmp_path):
    other = Store.open(tmp_path / "other")
    assert put(store).read_bytes() == put(other).read_bytes()


def test_a_later_outcome_replaces_an_earlier_one(store):
    put(store)
    put(store, KEY, Failed("diverged"))
    assert store.get(KEY) == Failed("diverged")


@pytest.mark.parametrize("key", ["", "ab", "../" + "a" * 29, "AB" * 16, "ab" * 16 + "\n", "g" * 32, "a" * 33, "/" * 32])
def test_other_texts_are_no_keys(store, key):
    for use in (store.get, store.get_record, store.lease, store.get_checkpoint, store.drop_checkpoint):
        with pytest.raises(ValueError, match="is no key"):
            use(key)
    with pytest.raises(ValueError, match="is no key"):
        put(store, key)


@pytest.mark.parametrize("array", [np.array(["text"]), np.array([{}], object), np.zeros(2, "f4,i4")])
def test_arrays_of_other_types_are_refused(store, array):
    with pytest.raises(TypeError, match="array 'w' has the type"):
        put(store, KEY, Trained({"w": array}, {}))
    assert store.get(KEY) is None


def test_checkpoints_are_apart_from_outcomes(store):
    assert store.get_checkpoint(KEY) is None
    store.put_checkpoint(KEY, {"slot": np.ones(3)}, {"step": 100})
    assert store.get(KEY) is None
    store.put_checkpoint(KEY, {"slot": np.zeros(3)}, {"step": 200})
    found = store.get_checkpoint(KEY)
    assert_same(found.arrays, {"slot": np.zeros(3)})
    assert found.record == {"step": 200}
    store.drop_checkpoint(KEY)
    store.drop_checkpoint(KEY)
    assert store.get_checkpoint(KEY) is None


def assert_set_aside(store, notes, file):
    """Nobody gets what was in `file`, the user is told, and it lies where it can be looked at."""
    notes.clear()
    assert store.get(KEY) is None
    (note,) = notes
    assert not os.path.lexists(file)
    why, aside = sorted((store.folder / "damaged").iterdir(), key=lambda path: path.suffix, reverse=True)
    assert note.startswith(f"{file}: it")
    assert note.endswith(f"set aside as {aside}, it will be computed again")
    assert note.startswith(why.read_text().strip())
    why.unlink()
    return aside


def test_an_entry_truncated_anywhere_is_set_aside(store, notes):
    file = put(store)
    content = file.read_bytes()
    for length in range(len(content)):
        file.write_bytes(content[:length])
        aside = assert_set_aside(store, notes, file)
        assert aside.read_bytes() == content[:length]
        aside.unlink()


def test_a_flipped_bit_anywhere_is_noticed(store, notes):
    file = put(store)
    content = file.read_bytes()
    generator = np.random.default_rng(0)
    for place in range(len(content)):
        altered = bytearray(content)
        altered[place] ^= 1 << generator.integers(8)
        file.write_bytes(altered)
        assert_set_aside(store, notes, file).unlink()


def test_what_was_set_aside_can_be_put_again(store, notes):
    file = put(store)
    file.write_bytes(b"damaged")
    assert_set_aside(store, notes, file)
    put(store)
    assert_same(store.get(KEY).weights, trained().weights)


@pytest.mark.parametrize(
    "damage",
    [
        pytest.param(lambda file: file.write_bytes(b""), id="empty"),
        pytest.param(lambda file: file.write_bytes(b"PK\x03\x04 another program's"), id="foreign"),
        pytest.param(lambda file: file.write_bytes(file.read_bytes() + b"\0"), id="longer"),
        pytest.param(lambda file: file.write_bytes(b"wootz entry 2\n" + file.read_bytes()[14:]), id="newer format"),
        pytest.param(lambda file: (file.unlink(), file.mkdir()), id="a folder in its place"),
        pytest.param(lambda file: (file.unlink(), os.mkfifo(file)), id="a pipe in its place"),
        pytest.param(lambda file: (file.unlink(), file.symlink_to(file)), id="a link to itself"),
    ],
)
def test_what_is_no_entry_is_set_aside(store, notes, damage):
    file = put(store)
    damage(file)
    assert_set_aside(store, notes, file)


def test_the_entry_of_another_key_is_set_aside(store, notes):
    file, other = put(store), put(store, OTHER, trained(2.0))
    file.write_bytes(other.read_bytes())
    assert_set_aside(store, notes, file)
    assert_same(store.get(OTHER).weights, trained(2.0).weights)


def test_a_checkpoint_in_the_place_of_an_outcome_is_set_aside(store, notes):
    file = put(store)
    store.put_checkpoint(KEY, {}, {})
    file.write_bytes((store.folder / "checkpoints" / KEY[:2] / f"{KEY}.entry").read_bytes())
    assert_set_aside(store, notes, file)


def test_a_damaged_checkpoint_is_set_aside(store, notes):
    store.put_checkpoint(KEY, {"slot": np.ones(3)}, {})
    file = store.folder / "checkpoints" / KEY[:2] / f"{KEY}.entry"
    file.write_bytes(file.read_bytes()[:-1])
    assert store.get_checkpoint(KEY) is None
    assert str(file) in notes[0]


def test_a_store_of_a_newer_format_is_refused(tmp_path):
    Store.open(tmp_path)
    (tmp_path / "format").write_text("wootz store 2\n")
    with pytest.raises(WootzError, match="of format 2, and this version of Wootz reads format 1: use a newer Wootz"):
        Store.open(tmp_path)


@pytest.mark.parametrize("content", [b"", b"wootz store \xff\n", b"wootz store 1", b"x" * 10**6])
def test_a_mark_of_no_format_is_refused(tmp_path, content):
    (tmp_path / "format").write_bytes(content)
    with pytest.raises(WootzError, match="not the mark of a store"):
        Store.open(tmp_path)


def test_a_folder_of_other_files_is_refused(tmp_path):
    (tmp_path / "thesis.tex").write_text("")
    with pytest.raises(WootzError, match="holds files that are not a store's"):
        Store.open(tmp_path)
    assert [file.name for file in tmp_path.iterdir()] == ["thesis.tex"]


def test_a_file_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(WootzError, match="is a file: a store is a folder"):
        Store.open(tmp_path / "file")
    with pytest.raises(WootzError, match="can't be written"):
        Store.open(tmp_path / "file" / "store")


def test_the_environment_names_the_store_and_its_limit(tmp_path, monkeypatch):
    monkeypatch.setenv("WOOTZ_STORE", str(tmp_path / "named"))
    monkeypatch.setenv("WOOTZ_STORE_LIMIT", "1.5G")
    store = Store.open()
    assert (store.folder, store.limit) == (tmp_path / "named", 1_500_000_000)
    assert Store.open(tmp_path / "other", 5).folder == tmp_path / "other"
    monkeypatch.setenv("WOOTZ_STORE_LIMIT", "plenty")
    with pytest.raises(WootzError, match="WOOTZ_STORE_LIMIT: 'plenty' is no amount of bytes"):
        Store.open()
    monkeypatch.delenv("WOOTZ_STORE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert Store.open(limit=5).folder == tmp_path / "cache" / "wootz" / "store"


def test_a_store_that_is_removed_while_it_is_open_is_made_again(store):
    put(store)
    shutil.rmtree(store.folder)
    assert store.get(KEY) is None
    assert store.lease(OTHER).is_held
    put(store)
    assert Store.open(store.folder).get(KEY).record == trained().record


def test_what_is_said_of_an_entry_is_one_line(store, notes):
    file = put(store)
    line = json.dumps({"key": "a\nb\u2028", "kind": "trained", "what": "", "seconds": 0, "record": {}, "arrays": [],
                       "sha256": ""}).encode() + b"\n"  # fmt: skip
    file.write_bytes(b"wootz entry 1\n" + hashlib.sha256(line).hexdigest().encode() + b"\n" + line)
    assert store.get(KEY) is None
    assert notes[0].isprintable()


def test_existing_makes_none(tmp_path):
    with pytest.raises(WootzError, match="no store"):
        Store.existing(tmp_path / "none")
    assert not (tmp_path / "none").exists()
