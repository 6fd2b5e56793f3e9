"""Photographs in Parquet files, as the library `datasets` writes them."""

import io
import json

import numpy as np
import pytest
from PIL import Image

from wootz.passes.errors import InputError
from wootz.runtime.data import decoding
from wootz.runtime.data.loading import load_dataset

pyarrow = pytest.importorskip("pyarrow")
parquet = pytest.importorskip("pyarrow.parquet")

SHAPE = (3, 4, 5)


def png(shade: int) -> bytes:
    content = io.BytesIO()
    Image.new("RGB", (5, 4), (shade, 0, 0)).save(content, "png")
    return content.getvalue()


def write(file, labels, names=None, contents=None, column="image", group=4):
    """Red is the label; a row group has four rows."""
    contents = [png(int(label)) for label in labels] if contents is None else contents
    table = pyarrow.table(
        {column: [{"bytes": c, "path": f"{i}.png"} for i, c in enumerate(contents)], "label": pyarrow.array(labels)}
    )
    if names is not None:
        features = {"image": {"_type": "Image"}, "label": {"names": names, "_type": "ClassLabel"}}
        table = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    file.parent.mkdir(parents=True, exist_ok=True)
    parquet.write_table(table, file, row_group_size=group)


@pytest.mark.parametrize(
    "place", ["{split}-0000{i}-of-00002.parquet", "data/{split}-0000{i}.parquet", "{split}/{i}.parquet"]
)
@pytest.mark.parametrize("in_memory", [0, 2**30])
def test_splits_are_in_the_names(tmp_path, monkeypatch, place, in_memory):
    monkeypatch.setattr(decoding, "IN_MEMORY", in_memory)
    for split, count in (("train", 10), ("validation", 6), ("test", 7)):
        for i in range(2):
            write(tmp_path / place.format(split=split, i=i), [(i + n) % 3 for n in range(count)], ["eel", "cat", "dog"])
    dataset = load_dataset(str(tmp_path), SHAPE, cache=tmp_path / "cache")
    assert dataset.classes == ("eel", "cat", "dog")
    assert [len(s) for s in (dataset.train, dataset.validation, dataset.test)] == [20, 12, 14]
    for split in (dataset.train, dataset.validation, dataset.test):
        np.testing.assert_array_equal(split.images[:][:, 0, 0, 0], split.labels)


def test_one_file_of_numbers(tmp_path):
    write(tmp_path / "photographs.parquet", [0, 2] * 8, column="img")
    dataset = load_dataset(str(tmp_path / "photographs.parquet"), SHAPE)
    assert dataset.classes == ("0", "1", "2")
    assert dataset.splits_training
    np.testing.assert_array_equal(dataset.train.images[:, 0, 0, 0], dataset.train.labels)


def test_the_finer_of_two_labels_is_taken(tmp_path):
    table = {"image": [{"bytes": png(i % 4)} for i in range(16)], "fine_label": [i % 4 for i in range(16)]}
    table["coarse_label"] = [i % 2 for i in range(16)]
    parquet.write_table(pyarrow.table(table), tmp_path / "a.parquet")
    dataset = load_dataset(str(tmp_path / "a.parquet"), SHAPE)
    np.testing.assert_array_equal(dataset.train.images[:, 0, 0, 0], dataset.train.labels)
    assert dataset.notes == ("The labels are the column fine_label; coarse_label is left alone.",)


def test_one_row_in_a_hundred_may_be_broken(tmp_path):
    contents = [png(i % 2) for i in range(120)]
    contents[5] = None
    write(tmp_path / "a.parquet", [i % 2 for i in range(120)], contents=contents, group=50)
    dataset = load_dataset(str(tmp_path / "a.parquet"), SHAPE)
    (note,) = dataset.notes
    assert note.endswith(f"left out: {tmp_path}/a.parquet (row 5 of row group 0).")
    np.testing.assert_array_equal(dataset.train.images[:, 0, 0, 0], dataset.train.labels)


def damaged(file):
    file.write_bytes(b"PAR1 hello PAR1")


def without_images(file):
    parquet.write_table(pyarrow.table({"picture": ["a.png"], "label": [0]}), file)


def with_gaps(file):
    write(file, [0, 1, None, 1], contents=[png(0)] * 4)


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (damaged, r"a\.parquet: not a Parquet file of images, or damaged"),
        (without_images, r"a\.parquet: no column has images \(columns: picture, label\)"),
        (with_gaps, r"a\.parquet: labels are neither all names nor all numbers"),
    ],
)
def test_faults(tmp_path, spoil, reason):
    spoil(tmp_path / "a.parquet")
    with pytest.raises(InputError, match=reason):
        load_dataset(str(tmp_path / "a.parquet"), SHAPE)
