"""Subspaces, objectives, plans and data sets."""

from __future__ import annotations

import gzip
import io
import json
import pickle
import struct
import tempfile
from collections.abc import Callable
from pathlib import Path

import lmdb
import numpy as np
import pyarrow.parquet
from driver import BYTE_MUTATIONS, TEXT_MUTATIONS, Reader
from PIL import Image

from wootz.frontend.objective import read_objective
from wootz.frontend.subspace import read_subspace
from wootz.passes.errors import InputError, WootzError
from wootz.passes.ir.text import parse_text
from wootz.passes.plan.subspace import PrunableConvolution, PrunableNetwork
from wootz.passes.transforms.annotate_modules import AnnotateModules
from wootz.passes.transforms.apply_plan import ApplyPlan
from wootz.runtime.data.class_index import read_class_index
from wootz.runtime.data.loading import load_dataset

NETWORK = PrunableNetwork(
    ("a", "b"), (PrunableConvolution("a1", "a"), PrunableConvolution("b1", "b"), PrunableConvolution("c", None))
)
RATES = [[0.3, 0.0], [0.5, 0.7]]
MODEL = parse_text("""<ir_version: 8, opset_import: ["" : 18]>
g (float[N,1,2,2] x) => (float[N,1,2,2] y) <float[2,1,1,1] v = {1,2}, float[1,2,1,1] w = {1,2}> {
  [c1] h = Conv(x, v)
  [c2] y = Conv(h, w)
}""")
PLAN = b"""{"layers": [
  {"layer": "c1", "weight": "v", "filters": 2, "keep": [1], "tied": [], "locked": null},
  {"layer": "c2", "weight": "w", "filters": 1, "keep": [0], "tied": [], "locked": "an output"}
]}"""
PIXELS = np.arange(4 * 3 * 4 * 5, dtype=np.uint8).reshape(4, 3, 4, 5)
LABELS = np.array([0, 1, 0, 1])


def _saved(write: Callable[..., None], *arrays: np.ndarray, **named: np.ndarray) -> bytes:
    content = io.BytesIO()
    write(content, *arrays, **named)
    return content.getvalue()


def _photograph(kind: str) -> bytes:
    content = io.BytesIO()
    Image.fromarray(PIXELS[0].transpose(1, 2, 0)).save(content, kind)
    return content.getvalue()


def _database() -> bytes:
    def varint(number: int) -> bytes:
        return bytes([number & 0x7F | 0x80, number >> 7]) if number > 0x7F else bytes([number])

    with tempfile.TemporaryDirectory() as folder:
        with lmdb.open(folder, map_size=2**20) as environment, environment.begin(write=True) as transaction:
            for i in range(40):
                head = b"\x08\x03\x10\x04\x18\x05"
                datum = head + b"\x22" + varint(60) + PIXELS[i % 4].tobytes() + b"\x28" + varint(i % 2)
                transaction.put(f"{i:08}".encode(), datum)
        return Path(folder, "data.mdb").read_bytes()


def _subspace(file: Path) -> None:
    read_subspace(file, NETWORK)


def _read_data_set(file: Path, write_others: Callable[[Path, bytes], None], channels: int = 3) -> None:
    """Reads a folder of its own with `file` and what `write_others(folder, content)` puts beside it.

    Faults name the folder or a file in it.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_others(folder, file.read_bytes())
        try:
            load_dataset(str(folder), (channels, 4, 5))
        except WootzError as error:
            if name not in str(error):
                raise
            raise InputError(str(error), file) from error


def _archive(file: Path) -> None:
    load_dataset(str(file), (3, 4, 5))


def _images(file: Path) -> None:
    def write(folder: Path, content: bytes) -> None:
        np.save(folder / "y_train.npy", LABELS)
        (folder / "x_train.npy").write_bytes(content)

    _read_data_set(file, write)


def _labels(file: Path) -> None:
    def write(folder: Path, content: bytes) -> None:
        np.save(folder / "x_train.npy", PIXELS)
        (folder / "y_train.npy").write_bytes(content)

    _read_data_set(file, write)


def _idx(file: Path) -> None:
    def write(folder: Path, content: bytes) -> None:
        labels = b"\0\0\x08\x01" + struct.pack(">I", 4) + bytes([0, 1, 0, 1])
        (folder / "train-labels-idx1-ubyte").write_bytes(labels)
        (folder / file.name).write_bytes(content)

    _read_data_set(file, write, channels=1)


def _photographs(file: Path) -> None:
    def write(folder: Path, content: bytes) -> None:
        for name in ("cat", "dog"):
            (folder / "train" / name).mkdir(parents=True)
            (folder / "train" / name / file.name).write_bytes(content)
            (folder / "train" / name / "1.png").write_bytes(_photograph("png"))

    _read_data_set(file, write)


def _listed(file: Path) -> None:
    """A list of photographs, of which there are four; faults name the list, or a photograph beside it."""
    with tempfile.TemporaryDirectory() as name:
        for i in range(4):
            Path(name, f"{i}.png").write_bytes(_photograph("png"))
        Path(name, file.name).write_bytes(file.read_bytes())
        try:
            load_dataset(str(Path(name, file.name)), (3, 4, 5))
        except WootzError as error:
            raise InputError(str(error), file) from error


def _class_index(file: Path) -> None:
    read_class_index(file, outputs=4)


def _table(file: Path) -> None:
    load_dataset(str(file), (3, 4, 5))


def _parquet() -> bytes:
    images = [{"bytes": _photograph("png"), "path": f"{i}.png"} for i in range(8)]
    said = {"info": {"features": {"label": {"names": ["cat", "dog"], "_type": "ClassLabel"}}}}
    table = pyarrow.table({"image": images, "label": [0, 1] * 4})
    content = io.BytesIO()
    pyarrow.parquet.write_table(table.replace_schema_metadata({"huggingface": json.dumps(said)}), content)
    return content.getvalue()


def _lmdb(file: Path) -> None:
    def write(folder: Path, content: bytes) -> None:
        (folder / "train_lmdb").mkdir()
        (folder / "train_lmdb" / "data.mdb").write_bytes(content)

    _read_data_set(file, write)


def _apply_plan(file: Path) -> None:
    try:
        ApplyPlan(plan=file).apply(MODEL)
    except WootzError as error:  # of a plan that doesn't fit the model; the command line names the model
        raise InputError(str(error), file) from error


def _annotate_modules(file: Path) -> None:
    try:
        AnnotateModules(table=file).apply(MODEL)
    except WootzError as error:
        raise InputError(str(error), file) from error


PICKLES = [
    *(pickle.dumps(RATES, protocol=p) for p in (0, 2, 5)),
    *(pickle.dumps(np.array(RATES, dtype), protocol=p) for dtype, p in (("f4", 0), ("f8", 2), ("f4", 4), ("f8", 5))),
    pickle.dumps([[np.float32(0.3), np.int64(0)]], protocol=2),
]
LIST = b'0.png,cat,train\n1.png,"hot, dog",train\n2.png,cat,val\n3.png,"hot, dog",test\n'
JSON_LIST = b"".join(b'{"path": "%d.png", "label": %d}\n' % (i, i % 2) for i in range(4))
SYNSETS = b"n01440764 tench\nn01443537 goldfish\n"
IDX = b"\0\0\x08\x03" + struct.pack(">III", 4, 4, 5) + PIXELS[:, 0].tobytes()

READERS = (
    Reader("pickle", _subspace, "s.pickle", PICKLES, BYTE_MUTATIONS),
    Reader("npy", _subspace, "s.npy", [_saved(np.save, np.array(RATES, t)) for t in ("f4", "f8")], TEXT_MUTATIONS),
    Reader("json", _subspace, "s.json", [b"[[0.3, 0],\n [0.5, 0.7]]"], TEXT_MUTATIONS),
    Reader("csv", _subspace, "s.csv", [b"0.3, 0\n0.5,0.7\n"], TEXT_MUTATIONS),
    Reader(
        "objective",
        read_objective,
        "objective.txt",
        [b"min ModelSize constraint Accuracy >= full - 0.01", b"max Accuracy\nconstraint FLOPs < 0.5 * full # half"],
        TEXT_MUTATIONS,
    ),
    Reader("plan", _apply_plan, "plan.json", [PLAN], TEXT_MUTATIONS),
    Reader(
        "modules",
        _annotate_modules,
        "modules.json",
        [b'[{"name": "a", "entry": "x", "exit": "h"}, {"name": "b", "entry": "h", "exit": "y"}]'],
        TEXT_MUTATIONS,
    ),
    Reader(
        "npz",
        _archive,
        "data.npz",
        [_saved(write, x_train=PIXELS, y_train=LABELS) for write in (np.savez, np.savez_compressed)],
        BYTE_MUTATIONS,
    ),
    Reader("images.npy", _images, "x_train.npy", [_saved(np.save, PIXELS)], TEXT_MUTATIONS),
    Reader("labels.npy", _labels, "y_train.npy", [_saved(np.save, LABELS)], TEXT_MUTATIONS),
    Reader("idx", _idx, "train-images-idx3-ubyte", [IDX], BYTE_MUTATIONS),
    Reader("idx.gz", _idx, "train-images-idx3-ubyte.gz", [gzip.compress(IDX, mtime=0)], BYTE_MUTATIONS),
    *(Reader(kind, _photographs, f"0.{kind}", [_photograph(kind)], BYTE_MUTATIONS) for kind in ("png", "jpeg", "gif")),
    Reader("list.csv", _listed, "a.csv", [b"path,label,split\n" + LIST, LIST], TEXT_MUTATIONS),
    Reader("list.jsonl", _listed, "a.jsonl", [JSON_LIST], TEXT_MUTATIONS),
    Reader(
        "classes.txt", _class_index, "a.txt", [b"cat\nhot dog\n", b"n01440764 tench\nn01443537 e\n"], TEXT_MUTATIONS
    ),
    Reader("classes.json", _class_index, "a.json", [b'{"cat": 3, "hot dog": 0}'], TEXT_MUTATIONS),
    Reader("parquet", _table, "a.parquet", [_parquet()], BYTE_MUTATIONS),
    Reader("lmdb", _lmdb, "data.mdb", [_database()], BYTE_MUTATIONS),
)
