"""Photographs in folders: where splits and classes are found, which output a folder is, what is left alone."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from wootz.passes.errors import InputError
from wootz.runtime.data.loading import load_dataset

SHAPE = (3, 4, 5)


def write(folder: Path, count: int = 5, shade: int = 0) -> None:
    folder.mkdir(parents=True)
    for i in range(count):
        Image.new("RGB", (5, 4), (shade, i, 0)).save(folder / f"{i}.png")


def load(folder: Path, **options):
    return load_dataset(str(folder), SHAPE, **options)


def test_classes_without_splits(tmp_path):
    for shade, name in enumerate(("hot dog", "cat")):
        write(tmp_path / name, shade=shade)
    dataset = load(tmp_path)
    assert dataset.classes == ("cat", "hot dog")
    assert dataset.splits_training
    assert (len(dataset.train), len(dataset.validation), dataset.test) == (8, 2, None)
    np.testing.assert_array_equal(dataset.train.images[:, 0, 0, 0], 1 - dataset.train.labels)


@pytest.mark.parametrize("names", [("train", "val"), ("train", "valid"), ("train", "validation"), ("Train", "Val")])
def test_names_of_splits(tmp_path, names):
    for split in (*names, "test"):
        for name in ("cat", "dog"):
            write(tmp_path / split / name)
    dataset = load(tmp_path)
    assert [len(split) for split in (dataset.train, dataset.validation, dataset.test)] == [10, 10, 10]
    assert not dataset.splits_training


def test_two_names_of_one_split_are_refused(tmp_path):
    for split in ("train", "val", "valid"):
        write(tmp_path / split / "cat")
    with pytest.raises(InputError, match="val and valid are both there: which is the split"):
        load(tmp_path)


def test_trains_are_a_class_beside_cars(tmp_path):
    for name in ("train", "car", "test"):
        write(tmp_path / name)
    assert load(tmp_path).classes == ("car", "test", "train")


def test_stray_files_are_noted(tmp_path):
    for name in ("cat", "dog"):
        write(tmp_path / name)
        (tmp_path / name / ".DS_Store").write_bytes(b"")
    (tmp_path / "cat" / "labels.txt").write_text("cat")
    (tmp_path / "cat" / "scan.tif").write_bytes(b"II")
    (tmp_path / "README.md").write_text("Photographs.")
    Image.new("RGB", (5, 4)).save(tmp_path / "sample.png")
    dataset = load(tmp_path)
    assert len(dataset.train) + len(dataset.validation) == 10
    unread, first, second = dataset.notes
    assert unread == "Photographs in formats that aren't read are left out: 1 .tif. Convert them to JPEG or PNG."
    assert first == "Files in class folders that are no photographs are left alone: 1 .txt."
    assert second == f"Photographs beside the class folders are left alone: 1, as {tmp_path}/sample.png."


def test_folders_beside_the_splits_are_noted(tmp_path):
    for name in ("cat", "dog"):
        write(tmp_path / "train" / name)
        write(tmp_path / name)
    assert load(tmp_path).notes == ("Folders beside train are left alone: cat, dog.",)


def test_scans_alone_are_said_to_be_in_another_format(tmp_path):
    (tmp_path / "cat").mkdir()
    (tmp_path / "cat" / "scan.TIF").write_bytes(b"II")
    with pytest.raises(InputError, match=r"no data set in this folder: .*; \.tif isn't read: convert the photographs"):
        load(tmp_path)


def test_a_folder_around_the_data_set_is_named(tmp_path):
    write(tmp_path / "flowers" / "tulips")
    with pytest.raises(InputError, match=r"no data set in this folder: .*; is .*/flowers meant\?"):
        load(tmp_path)


def test_photographs_a_folder_too_deep_are_told(tmp_path):
    for name in ("cat", "dog"):
        write(tmp_path / name / "images")
    reason = r"; photographs lie in a folder within that of their class, .*/images: put them into it$"
    with pytest.raises(InputError, match=reason):
        load(tmp_path)


def test_one_photograph_in_a_hundred_may_be_broken(tmp_path):
    write(tmp_path / "cat", 60)
    write(tmp_path / "dog", 60, shade=1)
    (tmp_path / "cat" / "7.png").write_text("hello")
    dataset = load(tmp_path)
    (note,) = dataset.notes
    assert note == f"1 of 120 photographs can't be read and are left out: {tmp_path}/cat/7.png."
    assert len(dataset.train) + len(dataset.validation) == 119
    images = np.concatenate([dataset.train.images, dataset.validation.images])
    labels = np.concatenate([dataset.train.labels, dataset.validation.labels])
    np.testing.assert_array_equal(images[:, 0, 0, 0], labels)
    (tmp_path / "dog" / "7.png").write_bytes(b"")
    with pytest.raises(InputError, match=r"cat/7\.png: not an image .*; 2 of 120 photographs are broken, more than"):
        load(tmp_path)


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("index.txt", "eel\ndog\nhot dog\ncat\n"),
        ("index.json", json.dumps({"cat": 3, "dog": 1, "hot dog": 2})),
    ],
)
def test_labels_are_the_outputs_of_the_network(tmp_path, file, content):
    write(tmp_path / "data" / "cat")
    write(tmp_path / "data" / "dog", shade=1)
    (tmp_path / file).write_text(content)
    dataset = load(tmp_path / "data", classes=tmp_path / file, outputs=4)
    assert dataset.classes == ("0" if file.endswith("json") else "eel", "dog", "hot dog", "cat")
    labels = np.concatenate([dataset.train.labels, dataset.validation.labels])
    assert set(labels) == {1, 3}
    np.testing.assert_array_equal(dataset.train.images[:, 0, 0, 0], dataset.train.labels == 1)


def test_several_folders_may_be_one_class(tmp_path):
    for shade, name in enumerate(("poodle", "cat", "beagle")):
        write(tmp_path / "data" / name, shade=shade)
    (tmp_path / "index.json").write_text(json.dumps({"beagle": 0, "cat": 1, "poodle": 0}))
    dataset = load(tmp_path / "data", classes=tmp_path / "index.json")
    assert dataset.classes == ("beagle", "cat")
    assert np.bincount(dataset.train.labels).tolist() == [8, 4]
    np.testing.assert_array_equal(dataset.train.images[:, 0, 0, 0] == 1, dataset.train.labels)


def test_lines_that_describe_synsets(tmp_path):
    for name in ("n01440764", "n01443537"):
        write(tmp_path / "data" / name)
    index = tmp_path / "synset_words.txt"
    index.write_text("n01443537 goldfish, Carassius auratus\nn01440764 tench, Tinca tinca\n")
    dataset = load(tmp_path / "data", classes=index)
    assert dataset.classes == ("goldfish, Carassius auratus", "tench, Tinca tinca")
    assert set(dataset.train.labels) == {0, 1}


def test_some_of_imagenets_folders(tmp_path):
    """They have the numbers that networks for all of ImageNet give them; for others they are classes like any."""
    for name in ("n02102040", "n01440764"):
        write(tmp_path / name)
    dataset = load(tmp_path, outputs=1000)
    assert len(dataset.classes) == 1000
    assert dataset.classes[217] == "n02102040"
    assert set(dataset.train.labels) == {0, 217}
    assert load(tmp_path, outputs=2).classes == ("n01440764", "n02102040")
    write(tmp_path / "cat")
    assert len(load(tmp_path, outputs=1000).classes) == 3


@pytest.mark.parametrize(
    ("file", "content", "reason"),
    [
        ("index.txt", "dog\neel\n", "class 'cat' is not among the classes dog, eel"),
        ("index.txt", "dog\ncat\ndog\n", r"index\.txt: it names the class 'dog' twice"),
        ("index.txt", "\n\n", r"index\.txt: it names no class"),
        ("index.json", "{", r"index\.json: not JSON"),
        ("index.json", "[1]", r"index\.json: not JSON as \{.class.: output\}"),
        ("index.json", '{"cat": 4}', r"index\.json: 'cat' is 4: the network's outputs are numbers from 0 to 3"),
        ("index.json", '{"cat": true}', r"index\.json: 'cat' is True"),
        ("index.json", '{"cat": "0"}', r"index\.json: 'cat' is '0': the network's outputs are numbers"),
        ("index.txt", "cat 0\ndog 1", "class 'cat' is not among .*: outputs by number need JSON, as"),
    ],
)
def test_faults_of_an_index(tmp_path, file, content, reason):
    for name in ("cat", "dog"):
        write(tmp_path / "data" / name)
    (tmp_path / file).write_text(content)
    with pytest.raises(InputError, match=reason):
        load(tmp_path / "data", classes=tmp_path / file, outputs=4)


def test_arrays_have_no_folders_to_index(tmp_path):
    np.savez(tmp_path / "data.npz", x_train=np.zeros((10, *SHAPE), np.uint8), y_train=np.arange(10) % 2)
    with pytest.raises(InputError, match=r"--classes is for photographs: in .*data\.npz labels are the network's out"):
        load(tmp_path / "data.npz", classes=tmp_path / "index.txt")
