"""The subspace reader: every format, rows of both lengths, and everything it refuses."""

from __future__ import annotations

import io
import json
import os
import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from wootz.frontend.subspace import print_subspace, read_subspace, write_subspace
from wootz.passes.errors import InputError
from wootz.passes.plan.subspace import (
    SKIP,
    PrunableConvolution,
    PrunableNetwork,
    Subspace,
    format_configuration,
)

NETWORK = PrunableNetwork(
    modules=("res1", "res2"),
    convolutions=(
        PrunableConvolution("conv1", None),
        PrunableConvolution("res1_a", "res1"),
        PrunableConvolution("res1_b", "res1"),
        PrunableConvolution("res1_c", "res1", locked="its channels are added to those of conv1"),
        PrunableConvolution("res2_a", "res2"),
    ),
    unskippable={"res2": "its exit is smaller than its entry"},
)
CONFIGURATIONS = ((0.3, 0.0), (0.5, 0.7))


def write(path, rows):
    if path.suffix == ".npy":
        np.save(path, np.array(rows))
    elif path.suffix == ".json":
        path.write_text(json.dumps(rows))
    elif path.suffix == ".csv":
        path.write_text("\n".join(",".join(map(str, row)) for row in rows))
    else:
        path.write_bytes(pickle.dumps(rows))
    return path


def refusal(path):
    with pytest.raises(InputError) as refused:
        read_subspace(path, NETWORK)
    message = str(refused.value)
    assert message.startswith(str(path))
    assert "\n" not in message
    return message


@pytest.mark.parametrize("suffix", [".pickle", ".pkl", ".npy", ".json", ".csv"])
def test_formats(tmp_path, suffix):
    subspace, warnings = read_subspace(write(tmp_path / f"s{suffix}", [[0.3, 0], [0.5, 0.7]]), NETWORK)
    assert subspace == Subspace(NETWORK.modules, CONFIGURATIONS)
    assert warnings == ()


@pytest.mark.parametrize("suffix", [".pickle", ".pkl", ".npy", ".json", ".csv"])
def test_a_rate_of_1_leaves_a_module_out(tmp_path, suffix):
    rows = [[1, 0.5], [0.5, 0.5]]
    assert read_subspace(write(tmp_path / f"s{suffix}", rows), NETWORK)[0].configurations == ((SKIP, 0.5), (0.5, 0.5))


@pytest.mark.parametrize("name", ["s.json", "s.csv", "s.pkl"])
def test_skip_is_a_rate_of_1(tmp_path, name):
    path = write(tmp_path / name, [["skip", 0.5], [1.0, 0.5]])
    subspace, warnings = read_subspace(path, NETWORK)
    assert subspace.configurations == ((SKIP, 0.5),)
    assert subspace.rates == (0.5,)
    assert warnings == (f"{path}: left out rows that repeat an earlier one: 2 (as 1)",)


def test_modules_that_are_left_out_are_written_in_words(tmp_path):
    subspace = Subspace(NETWORK.modules, ((SKIP, 0.5), (0.25, 0.0)))
    assert print_subspace(subspace) == '[["skip", 0.5],\n [0.25, 0.0]]\n'
    write_subspace(tmp_path / "s.csv", subspace)
    assert (tmp_path / "s.csv").read_text() == "skip, 0.5\n0.25, 0.0\n"
    assert format_configuration(subspace.configurations[0]) == "[skip, 0.5]"


PICKLED = {
    "tuple of tuples": CONFIGURATIONS,
    "array": np.array(CONFIGURATIONS),
    "Fortran order": np.asfortranarray(CONFIGURATIONS),
    "big-endian": np.array(CONFIGURATIONS, dtype=">f8"),
    "float32": np.array(CONFIGURATIONS, dtype=np.float32),
    "float16": np.array(CONFIGURATIONS, dtype=np.float16),
    "list of arrays": [np.array(row) for row in CONFIGURATIONS],
    "scalars of NumPy": [[np.float32(0.3), np.int64(0)], [np.float64(0.5), 0.7]],
}


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("rows", PICKLED.values(), ids=PICKLED)
def test_pickles_of_plain_data(tmp_path, rows, protocol):
    path = tmp_path / "s.pkl"
    path.write_bytes(pickle.dumps(rows, protocol=protocol))
    assert read_subspace(path, NETWORK)[0].configurations == CONFIGURATIONS


def test_pickle_of_an_older_numpy(tmp_path):
    """NumPy 1 called its package numpy.core; Python 2 stored the bytes as a string."""
    content = pickle.dumps(np.array(CONFIGURATIONS), protocol=2).replace(b"numpy._core.", b"numpy.core.")
    assert b"numpy._core" not in content
    path = tmp_path / "s.pkl"
    path.write_bytes(content)
    assert read_subspace(path, NETWORK)[0].configurations == CONFIGURATIONS
    python_2 = (
        b"\x80\x02cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R(K\x01K\x01K\x02\x86"
        b"cnumpy\ndtype\nU\x02f8K\x00K\x01\x87R(K\x03U\x01<NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89U\x10"
        + np.array([0.3, 0.7]).tobytes()
        + b"tb."
    )
    in_protocol_0 = (
        b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(I0\ntS'b'\ntR(I1\n(I1\nI2\ntcnumpy\ndtype\n(S'f8'\n"
        b"I0\nI1\ntR(I3\nS'<'\nNNNI-1\nI-1\nI0\ntbI00\nS'333333\\xd3?ffffff\\xe6?'\ntb."
    )
    for content in (python_2, in_protocol_0):
        path.write_bytes(content)
        assert read_subspace(path, NETWORK)[0].configurations == ((0.3, 0.7),)


def test_spans_of_time_are_no_rates(tmp_path):
    np.save(tmp_path / "s.npy", np.zeros((1, 2), "m8[s]"))
    with pytest.raises(InputError, match=r"row 1: expected a number as rate 1, found np\.timedelta64"):
        read_subspace(tmp_path / "s.npy", NETWORK)


class Attack:
    """Runs a shell command when it is unpickled the usual way."""

    def __init__(self, command):
        self.command = command

    def __reduce__(self):
        return os.system, (self.command,)


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_an_attack_is_refused_and_not_executed(tmp_path, protocol):
    trace = tmp_path / "executed"
    path = tmp_path / "s.pkl"
    path.write_bytes(pickle.dumps([[0.3, 0.0], Attack(f"touch {trace}")], protocol=protocol))
    assert "the pickle asks for posix.system: only lists" in refusal(path).replace("nt.system", "posix.system")
    assert not trace.exists()
    pickle.loads(path.read_bytes())
    assert trace.exists(), "the attack would have worked"


def forged_array(code, content, state=(3, "|", None, None, None, -1, -1, 0)):
    """A pickle, protocol 2, of a (1, 1) array of element type `code` whose memory is `content`."""

    class Forged(pickle._Pickler):
        def save_array(self):
            self.write(b"\x80\x02cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85K\x00\x87R")
            self.write(b"(K\x01K\x01K\x01\x86cnumpy\ndtype\n")
            self.save(code)
            self.write(b"\x89\x88\x87R")
            self.save(state)
            self.write(b"b\x89")
            self.save(content)
            self.write(b"tb.")

    file = io.BytesIO()
    Forged(file, protocol=2).save_array()
    return file.getvalue()


HOSTILE = {
    "objects forged from bytes": (forged_array("O8", b"\x41" * 8), "array of object"),
    "objects": (pickle.dumps(np.array([[None]], dtype=object)), "array of object"),
    "strings": (pickle.dumps(np.array([["a"]])), "array of str"),
    "records": (pickle.dumps(np.zeros((1, 1), "f8,f8")), "array of"),
    "too little memory": (forged_array("f8", b"\x00" * 4), "not a pickle of plain data"),
    "memory that is a number": (forged_array("f8", 2**40), "not a pickle of plain data"),
    "a subclass of arrays": (pickle.dumps(np.ma.masked_array([[0.5]])), "asks for numpy.ma"),
    "another encoding": (b"\x80\x02c_codecs\nencode\nX\x01\x00\x00\x00aX\x04\x00\x00\x00zlib\x86R.", "encoding zlib"),
    "builtins": (b"cbuiltins\neval\n(S'1'\ntR.", "asks for builtins.eval"),
    "a dotted name": (b"\x80\x04\x8c\x05numpy\x8c\x0edtype.__init__\x93.", "asks for numpy.dtype.__init__"),
    "attributes of a function": (b"\x80\x02cnumpy\ndtype\n}X\x01\x00\x00\x00aK\x01sb.", "no attribute '__dict__'"),
    "a call of a class": (b"\x80\x02cnumpy\nndarray\n)R.", "not a pickle of plain data"),
    "a persistent object": (b"Pname\n.", "not a pickle of plain data"),
    "an index of the memo": (b"\x80\x02]r\x00\x00\x00\x08.", "an impossible index at byte 3"),
    "an index written out": (b"(lp999999999\n.", "an impossible index at byte 2"),
    "a negative index": (b"(lp-1\n.", "an impossible index at byte 2"),
    "bytes that are not there": (b"\x80\x04\x8e" + b"\xff" * 7 + b"\x00.", "not a pickle of plain data"),
    "a number of many digits": (b"I" + b"9" * 10_000 + b"\n.", "not a pickle of plain data"),
    "cut off": (pickle.dumps(CONFIGURATIONS)[:-5], "not a pickle of plain data"),
    "empty": (b"", "not a pickle of plain data"),
    "text": (b"[[0.3, 0.5]]", "not a pickle of plain data"),
    "itself": (b"]q\x00h\x00a.", "row 1: expected a number as rate 1, found a list of 1 element"),
}


@pytest.mark.parametrize(("content", "reason"), HOSTILE.values(), ids=HOSTILE)
def test_hostile_pickles(tmp_path, content, reason):
    path = tmp_path / "s.pickle"
    path.write_bytes(content)
    assert reason in refusal(path)


@given(st.binary(max_size=60))
def test_any_bytes_are_read_or_refused(tmp_path_factory, content):
    path = tmp_path_factory.getbasetemp() / "any.pkl"
    path.write_bytes(content)
    refusal(path)


def test_rows_of_convolutions(tmp_path):
    rows = [[0, 0.3, 0.5, 0, 0.7], [0, 0.3, 0.3, 0, 0]]
    subspace, warnings = read_subspace(write(tmp_path / "s.json", rows), NETWORK)
    assert subspace.configurations == (((0.3, 0.5), 0.7), (0.3, 0.0))
    assert warnings == ()


def test_repeated_configurations_are_left_out_with_a_warning(tmp_path):
    path = write(tmp_path / "s.json", [[0.3, 0], [0, 0.3, 0.3, 0, 0], [0.5, 0.5], [0.3, 0.0]])
    subspace, warnings = read_subspace(path, NETWORK)
    assert subspace.configurations == ((0.3, 0.0), (0.5, 0.5))
    assert warnings == (f"{path}: left out rows that repeat an earlier one: 2 (as 1), 4 (as 1)",)


REFUSED_ROWS = {
    "length": ([[0.3, 0], [0.3, 0, 0]], "row 2: 3 rates; a row has 2 rates, one a module, or 5, one a convolution"),
    "no rates": ([[]], "row 1: 0 rates; a row has 2"),
    "one": ([[0.3, 1]], "row 1: module res2 can't be left out: its exit is smaller than its entry"),
    "skip": ([[0, 0], [0.3, "skip"]], "row 2: module res2 can't be left out: its exit is smaller than its entry"),
    "skip of a convolution": (
        [[0, 0.3, "skip", 0, 0]],
        "row 1: rate 1 for res1_b: whole modules are left out, in rows of rates a module",
    ),
    "percent": ([[30, 0.5]], "row 1: rate 1 is 30: a rate is a fraction, from 0 to below 1, or 1 (skip); 30 % is 0.3"),
    "negative": ([[0, -0.3]], "row 1: rate 2 is -0.3"),
    "not a number": ([[0, float("nan")]], "row 1: rate 2 is nan"),
    "infinite": ([[float("inf"), 0]], "row 1: rate 1 is inf"),
    "beyond floats": ([[10**400, 0]], "row 1: rate 1 is inf"),
    "text": ([["a lot", 0]], "row 1: expected a number as rate 1, found 'a lot'"),
    "truth": ([[True, 0]], "row 1: expected a number as rate 1, found True"),
    "null": ([[0, None]], "row 1: expected a number as rate 2, found None"),
    "nested": ([[[0.3], 0]], "row 1: expected a number as rate 1, found a list of 1 element"),
    "flat": ([0.3, 0.5], "row 1: expected a list of rates, found 0.3"),
    "mapping": ({"res1": 0.3}, "expected a list of configurations, found a dict of 1 element"),
    "just above 1": (
        [[1.0000001, 0.5]],
        "row 1: rate 1 is 1.0000001: a rate is a fraction, from 0 to below 1, or 1 (skip)",
    ),
    "number": (0.3, "expected a list of configurations, found 0.3"),
    "empty": ([], "the subspace has no configurations"),
    "outside of modules": ([[0.3, 0, 0, 0, 0]], "rate 0.3 for conv1, which can't be pruned: it lies outside of all"),
    "locked": (
        [[0, 0, 0, 0.3, 0]],
        "rate 0.3 for res1_c, which can't be pruned: its channels are added to those of conv1",
    ),
}


@pytest.mark.parametrize(("rows", "reason"), REFUSED_ROWS.values(), ids=REFUSED_ROWS)
def test_refused_rows(tmp_path, rows, reason):
    assert reason in refusal(write(tmp_path / "s.json", rows))


def test_a_module_in_which_nothing_can_be_pruned(tmp_path):
    network = PrunableNetwork(("a", "b"), (PrunableConvolution("a1", "a", locked="the network's output"),))
    path = write(tmp_path / "s.json", [[0, 0], [0, 0.3]])
    with pytest.raises(InputError, match=r"row 2: rate 0.3 for module b, where nothing can .* \(it has no convol"):
        read_subspace(path, network)
    path = write(tmp_path / "s.json", [[0.3, 0]])
    with pytest.raises(InputError, match=r"row 1: rate 0.3 for module a, where .* \(a1: the network's output\)"):
        read_subspace(path, network)


def test_an_array_of_three_dimensions(tmp_path):
    assert "row 1: expected a list of rates, found an array of shape (2, 2)" in refusal(
        write(tmp_path / "s.npy", np.zeros((3, 2, 2)))
    )


def test_npy_of_objects_is_refused(tmp_path):
    np.save(tmp_path / "s.npy", np.array([[Attack("true"), 0]], dtype=object), allow_pickle=True)
    assert "not a plain NumPy array of numbers" in refusal(tmp_path / "s.npy")


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("s.json", b"[[0.3, 0],\n [0.5,, 0]]", ":2:7: not JSON: Expecting value"),
        ("s.json", b"[" * 100_000, "not JSON"),
        ("s.json", b'["\xff"]', "not JSON"),
        ("s.csv", b"0.3, x\n", "row 1: expected a number as rate 2, found ' x'"),
        ("s.csv", b"\xff\xfe0", "not CSV"),
        ("s.npy", b"\x93NUMPY", "not a plain NumPy array"),
        ("s.npy", b"PK\x03\x04", "not a plain NumPy array"),
        ("s.txt", b"[[0.3, 0]]", "unknown format '.txt': a subspace is one of .pickle, .pkl, .npy, .json, .csv"),
    ],
)
def test_unreadable_files(tmp_path, name, content, reason):
    (tmp_path / name).write_bytes(content)
    assert reason in refusal(tmp_path / name)


def test_a_missing_file(tmp_path):
    assert "can't be read: No such file" in refusal(tmp_path / "s.json")


def test_csv_with_blank_lines_and_a_byte_order_mark(tmp_path):
    (tmp_path / "s.csv").write_bytes(b"\xef\xbb\xbf0.3, 0\r\n\r\n0.5,0.7\r\n")
    assert read_subspace(tmp_path / "s.csv", NETWORK)[0].configurations == CONFIGURATIONS


@pytest.mark.parametrize("suffix", [".json", ".csv"])
@given(rows=st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1, exclude_max=True)), min_size=1, unique=True))
def test_written_subspaces_are_read_back(tmp_path_factory, suffix, rows):
    path = tmp_path_factory.getbasetemp() / f"written{suffix}"
    written = Subspace(NETWORK.modules, tuple(rows))
    write_subspace(path, written)
    assert read_subspace(path, NETWORK) == (written, ())


@pytest.mark.parametrize(
    ("name", "configuration", "reason"),
    [("s.pkl", (0.3, 0.0), "written as .json or .csv"), ("s.json", ((0.3, 0.5), 0.0), "one rate a module")],
)
def test_what_is_not_written(tmp_path, name, configuration, reason):
    with pytest.raises(InputError, match=reason):
        write_subspace(tmp_path / name, Subspace(NETWORK.modules, (configuration,)))
    assert not (tmp_path / name).exists()
