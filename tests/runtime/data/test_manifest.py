"""Photographs that a list names."""

import json

import numpy as np
import pytest
from PIL import Image

from wootz.passes.errors import InputError
from wootz.runtime.data.loading import load_dataset

SHAPE = (3, 4, 5)
ROWS = [
    (f"photos/{label}/{i}.png", label, split)
    for split, count in (("train", 4), ("validation", 2), ("test", 3))
    for label in ("hot dog", "cat, black")
    for i in range({"train": 0, "validation": 4, "test": 6}[split], {"train": 4, "validation": 6, "test": 9}[split])
]


@pytest.fixture
def folder(tmp_path):
    for path, label, _ in ROWS:
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (5, 4), (int(label == "hot dog"), 0, 0)).save(tmp_path / path)
    return tmp_path


def quoted(cells) -> str:
    return ",".join(f'"{cell}"' if "," in str(cell) else str(cell) for cell in cells)


def as_csv(rows, header=("path", "label", "split")) -> str:
    return "\n".join([*([quoted(header)] if header else []), *(quoted(row[: len(header or row)]) for row in rows)])


def as_json(rows) -> str:
    return "\n".join(json.dumps({"file_name": path, "label": label, "split": split}) for path, label, split in rows)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("list.csv", as_csv(ROWS)),
        ("list.csv", as_csv(ROWS, None)),
        ("list.csv", "\ufeff" + as_csv(ROWS, ("File_Name", "class_name", "subset")) + "\n\n"),
        ("list.tsv", "\n".join("\t".join(row) for row in [("path", "label", "split"), *ROWS])),
        ("list.jsonl", as_json(ROWS)),
        ("list.ndjson", as_json(ROWS) + "\n\n"),
        ("list.json", as_json(ROWS)),
        ("list.json", "[" + as_json(ROWS).replace("\n", ",\n") + "]"),
    ],
)
def test_a_list_is_read(folder, name, content):
    (folder / name).write_text(content, encoding="utf-8")
    dataset = load_dataset(str(folder / name), SHAPE)
    assert dataset.classes == ("cat, black", "hot dog")
    assert [len(s) for s in (dataset.train, dataset.validation, dataset.test)] == [8, 4, 6]
    for split in (dataset.train, dataset.validation, dataset.test):
        np.testing.assert_array_equal(split.images[:, 0, 0, 0], split.labels)


def test_columns_may_be_others_too_and_splits_be_left_out(folder):
    header = ("source", "label", "path")
    (folder / "list.csv").write_text(as_csv([("web", label, path) for path, label, _ in ROWS], header))
    dataset = load_dataset(str(folder / "list.csv"), SHAPE)
    assert dataset.splits_training
    assert len(dataset.train) + len(dataset.validation) == len(ROWS)


@pytest.mark.parametrize("suffix", ["csv", "jsonl"])
def test_labels_may_be_numbers_of_outputs(folder, suffix):
    numbers = {"hot dog": 1, "cat, black": 10}
    rows = [(path, numbers[label], split) for path, label, split in ROWS]
    (folder / f"list.{suffix}").write_text(as_csv(rows) if suffix == "csv" else as_json(rows))
    dataset = load_dataset(str(folder / f"list.{suffix}"), SHAPE)
    assert dataset.classes == tuple(map(str, range(11)))
    assert set(dataset.train.labels) == {1, 10}
    np.testing.assert_array_equal(dataset.train.images[:, 0, 0, 0] == 1, dataset.train.labels == 1)
    (folder / "index.txt").write_text("\n".join(f"class {i}" for i in range(12)))
    named = load_dataset(str(folder / f"list.{suffix}"), SHAPE, classes=folder / "index.txt")
    assert named.classes == tuple(f"class {i}" for i in range(12))
    np.testing.assert_array_equal(named.train.labels, dataset.train.labels)


@pytest.mark.parametrize(
    "labels", [("1", "2"), ("1.0", "2.0"), (1, 2), (1.0, 2.0)], ids=["text", "as a table writes it", "int", "float"]
)
def test_labels_may_be_counted_from_1(folder, labels):
    rows = [(path, labels[label == "hot dog"], split) for path, label, split in ROWS]
    (folder / "list.jsonl").write_text(as_json(rows))
    dataset = load_dataset(str(folder / "list.jsonl"), SHAPE, outputs=2)
    assert dataset.classes == ("1", "2")
    np.testing.assert_array_equal(dataset.train.images[:, 0, 0, 0], dataset.train.labels)
    assert dataset.notes[0].startswith("The labels are 1 to 2: they are taken as counted from 1")
    (folder / "index.txt").write_text("black\nhot")
    named = load_dataset(str(folder / "list.jsonl"), SHAPE, outputs=1000, classes=folder / "index.txt")
    assert named.classes == ("black", "hot")
    np.testing.assert_array_equal(named.train.labels, dataset.train.labels)
    kept = load_dataset(str(folder / "list.jsonl"), SHAPE, outputs=3)
    assert set(kept.train.labels) == {1, 2}


def test_a_mixture_of_numbers_and_names_is_told(folder):
    rows = [(path, "7" if label == "hot dog" else label, split) for path, label, split in ROWS]
    (folder / "list.csv").write_text(as_csv(rows))
    dataset = load_dataset(str(folder / "list.csv"), SHAPE)
    assert dataset.classes == ("7", "cat, black")
    assert dataset.notes == (
        "Some labels are numbers (7), others names (cat, black): all are taken as names, of 2 classes.",
    )


def test_names_may_be_those_of_an_index(folder):
    (folder / "list.csv").write_text(as_csv(ROWS))
    (folder / "index.json").write_text(json.dumps({"hot dog": 3, "cat, black": 0}))
    dataset = load_dataset(str(folder / "list.csv"), SHAPE, classes=folder / "index.json", outputs=5)
    assert dataset.classes == ("cat, black", "1", "2", "hot dog", "4")
    assert set(dataset.test.labels) == {0, 3}


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("a.csv", "", r"a\.csv: it lists no photograph"),
        ("a.csv", "path,label\n", r"a\.csv: it lists no photograph"),
        ("a.csv", "a.png,cat\nb.png\n", r"a\.csv:2: 1 values under 2 columns"),
        ("a.csv", "a.png,cat\na.png,dog\n", r"a\.csv:2: 'a\.png' is listed twice"),
        ("a.csv", "a.png,cat,dev\n", r"a\.csv:1: the split 'dev' is none of train, val"),
        ("a.csv", "a.png,\n", r"a\.csv:1: '' is no label"),
        ("a.csv", "path,label\n,cat\n", r"a\.csv:2: '' is no path"),
        ("a.csv", "a.png,cat,test\n", r"a\.csv: it lists no photograph for training"),
        ("a.csv", "a.png,9999999999999999999999\n", r"a\.csv: there is the label 92.*: labels number the classes"),
        ("a.csv", "a.png,cat\nb.png,dog\n", r"a\.png: can't be read: No such file"),
        ("a.json", "[[1]]", r"a\.json: entry 1 is no object as"),
        ("a.json", '[{"path"', r"a\.json: no JSON"),
        ("a.jsonl", "{", r"a\.jsonl:1: no JSON"),
        ("a.jsonl", "[1]", r"a\.jsonl:1: no object as"),
        ("a.jsonl", '{"path": "a.png", "label": 1.5}', r"a\.jsonl:1: 1\.5 is no label"),
        ("a.jsonl", '{"path": 3, "label": "cat"}', r"a\.jsonl:1: 3 is no path"),
    ],
)
def test_faults_of_a_list(tmp_path, name, content, reason):
    (tmp_path / name).write_text(content)
    with pytest.raises(InputError, match=reason):
        load_dataset(str(tmp_path / name), SHAPE)


@pytest.mark.parametrize("name", ["a.csv", "a.jsonl"])
def test_a_list_in_another_encoding(tmp_path, name):
    (tmp_path / name).write_bytes(b"path,label\n\xff\xfe.png,cat\n")
    with pytest.raises(InputError, match=rf"{name}: not a list of photographs in UTF-8"):
        load_dataset(str(tmp_path / name), SHAPE)


def test_one_file_in_a_hundred_may_be_missing(tmp_path):
    for i in range(120):
        Image.new("RGB", (5, 4), (i % 2, 0, 0)).save(tmp_path / f"{i}.png")
    (tmp_path / "list.csv").write_text("\n".join(f"{i}.png,{'ab'[i % 2]}" for i in range(120)))
    (tmp_path / "8.png").unlink()
    dataset = load_dataset(str(tmp_path / "list.csv"), SHAPE)
    assert dataset.notes == (f"1 of 120 photographs can't be read and are left out: {tmp_path}/8.png.",)
    np.testing.assert_array_equal(dataset.train.images[:, 0, 0, 0], dataset.train.labels)
