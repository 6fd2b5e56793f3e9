import gzip
import io
import struct
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from wootz.passes.errors import InputError
from wootz.runtime.dataset import load_dataset, stratified_split

SHAPE = (3, 4, 5)


def write_photographs(root: Path, splits=("train", "test"), classes=("cat", "dog"), count=5):
    for split in splits:
        for c, name in enumerate(classes):
            folder = root / split / name
            folder.mkdir(parents=True)
            for i in range(count):
                colour = (10 * i, 100 * c, 200)
                Image.new("RGB", (5, 4), colour).save(folder / f"{i}.png")


def test_class_folders_keep_pixels_and_order(tmp_path):
    write_photographs(tmp_path)
    dataset = load_dataset(str(tmp_path), SHAPE)
    assert dataset.classes == ("cat", "dog")
    assert dataset.test.images.shape == (10, *SHAPE)
    assert dataset.test.images.dtype == np.uint8
    np.testing.assert_array_equal(dataset.test.labels, [0] * 5 + [1] * 5)
    np.testing.assert_array_equal(dataset.test.images[7, :, 0, 0], [20, 100, 200])


def test_without_validation_a_fifth_of_each_class_is_taken(tmp_path):
    write_photographs(tmp_path)
    dataset = load_dataset(str(tmp_path), SHAPE, seed=3)
    assert (len(dataset.train), len(dataset.validation)) == (8, 2)
    assert sorted(dataset.validation.labels) == [0, 1]
    again = load_dataset(str(tmp_path), SHAPE, seed=3)
    assert dataset.digest == again.digest
    assert dataset.digest != load_dataset(str(tmp_path), SHAPE, seed=4).digest


def test_a_validation_folder_is_used(tmp_path):
    write_photographs(tmp_path, splits=("train", "val"))
    dataset = load_dataset(str(tmp_path), SHAPE)
    assert (len(dataset.train), len(dataset.validation), dataset.test) == (10, 10, None)


def test_photographs_are_resized_and_turned_grey(tmp_path):
    write_photographs(tmp_path)
    assert load_dataset(str(tmp_path), (1, 8, 8)).train.images.shape[1:] == (1, 8, 8)


def test_with_crops_images_keep_their_size(tmp_path):
    write_photographs(tmp_path)
    assert load_dataset(str(tmp_path), (3, 3, 3), crop_size=3).train.images.shape[1:] == (3, 4, 5)


def test_a_class_that_training_lacks_is_refused(tmp_path):
    write_photographs(tmp_path)
    (tmp_path / "test" / "fox").mkdir()
    with pytest.raises(InputError, match="class 'fox' is not among the classes cat, dog"):
        load_dataset(str(tmp_path), SHAPE)


def test_a_file_that_is_no_image_is_named(tmp_path):
    write_photographs(tmp_path)
    (tmp_path / "train" / "cat" / "x.jpg").write_text("hello")
    with pytest.raises(InputError, match=r"x\.jpg: not an image"):
        load_dataset(str(tmp_path), SHAPE)


def test_npz_and_npy_give_the_same(tmp_path):
    generator = np.random.default_rng(0)
    arrays = {
        "x_train": generator.integers(0, 255, (20, *SHAPE), dtype=np.uint8),
        "y_train": np.arange(20) % 2,
        "x_test": generator.integers(0, 255, (4, *SHAPE), dtype=np.uint8),
        "y_test": np.arange(4) % 2,
    }
    np.savez(tmp_path / "data.npz", **arrays)
    (tmp_path / "folder").mkdir()
    for name, array in arrays.items():
        np.save(tmp_path / "folder" / f"{name}.npy", array)
    from_file = load_dataset(str(tmp_path / "data.npz"), SHAPE)
    assert from_file.digest == load_dataset(str(tmp_path / "folder"), SHAPE).digest
    np.testing.assert_array_equal(from_file.test.images, arrays["x_test"])


def test_images_of_another_size_are_refused(tmp_path):
    np.savez(tmp_path / "data.npz", x_train=np.zeros((10, 3, 8, 8), np.uint8), y_train=np.arange(10) % 2)
    with pytest.raises(InputError, match="the train images are 3x8x8, the network takes 3x4x5"):
        load_dataset(str(tmp_path / "data.npz"), SHAPE)


def test_labels_of_another_number_are_refused(tmp_path):
    np.savez(tmp_path / "data.npz", x_train=np.zeros((10, *SHAPE), np.uint8), y_train=np.zeros(9, int))
    with pytest.raises(InputError, match="10 images x_train but 9 labels"):
        load_dataset(str(tmp_path / "data.npz"), SHAPE)


def write_idx(file: Path, array: np.ndarray, compress: bool):
    content = struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape) + array.tobytes()
    file.write_bytes(gzip.compress(content) if compress else content)


@pytest.mark.parametrize("compress", [False, True])
def test_idx(tmp_path, compress):
    images = np.arange(10 * 4 * 5, dtype=np.uint8).reshape(10, 4, 5)
    labels = (np.arange(10) % 2).astype(np.uint8)
    suffix = ".gz" if compress else ""
    for name in ("train", "t10k"):
        write_idx(tmp_path / f"{name}-images-idx3-ubyte{suffix}", images, compress)
        write_idx(tmp_path / f"{name}-labels-idx1-ubyte{suffix}", labels, compress)
    dataset = load_dataset(str(tmp_path), (1, 4, 5))
    np.testing.assert_array_equal(dataset.test.images[:, 0], images)
    np.testing.assert_array_equal(dataset.test.labels, labels)


def test_a_truncated_idx_file_is_refused(tmp_path):
    write_idx(tmp_path / "train-images-idx3-ubyte", np.zeros((3, 4, 5), np.uint8), False)
    file = tmp_path / "train-images-idx3-ubyte"
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(InputError, match="the header says 3x4x5 values, 59 follow"):
        load_dataset(str(tmp_path), (1, 4, 5))


def test_digits_have_three_disjoint_stratified_splits():
    pytest.importorskip("sklearn")
    dataset = load_dataset("digits", (1, 8, 8))
    assert len(dataset.train) + len(dataset.validation) + len(dataset.test) == 1797
    assert dataset.train.images.max() == 255
    for split in (dataset.train, dataset.validation, dataset.test):
        counts = np.bincount(split.labels)
        assert counts.max() - counts.min() <= 0.2 * counts.max()


@pytest.mark.parametrize(
    ("location", "reason"), [("nowhere", "no such data set"), ("empty", "neither train/CLASS/ folders")]
)
def test_a_missing_data_set(tmp_path, location, reason):
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=reason):
        load_dataset(str(tmp_path / location), SHAPE)


def test_stratified_split_covers_everything_once():
    labels = np.random.default_rng(0).integers(0, 7, 500)
    rest, part = stratified_split(labels, 0.2, seed=1)
    assert sorted([*rest, *part]) == list(range(500))
    for label in range(7):
        assert np.sum(labels[part] == label) == round(0.2 * np.sum(labels == label))


def write_lmdb(folder: Path, images: np.ndarray, labels: np.ndarray, encoded: bool = False):
    lmdb = pytest.importorskip("lmdb")
    from wootz.runtime.caffe_lmdb import _datum_class

    with lmdb.open(str(folder), map_size=1 << 20) as environment, environment.begin(write=True) as transaction:
        for i, (image, label) in enumerate(zip(images, labels, strict=True)):
            channels, height, width = image.shape
            content = image[::-1].tobytes()
            if encoded:
                file = io.BytesIO()
                Image.fromarray(image.transpose(1, 2, 0)).save(file, "png")
                content = file.getvalue()
            datum = _datum_class()(
                channels=channels, height=height, width=width, data=content, label=int(label), encoded=encoded
            )
            transaction.put(f"{i:08}".encode(), datum.SerializeToString())


@pytest.mark.parametrize("encoded", [False, True])
def test_lmdb_turns_bgr_into_rgb(tmp_path, encoded):
    images = np.random.default_rng(0).integers(0, 255, (10, *SHAPE), dtype=np.uint8)
    labels = np.arange(10) % 2
    for name in ("train", "test"):
        write_lmdb(tmp_path / f"{name}_lmdb", images, labels, encoded)
    dataset = load_dataset(str(tmp_path), SHAPE)
    np.testing.assert_array_equal(dataset.test.images, images)
    np.testing.assert_array_equal(dataset.test.labels, labels)
    assert (len(dataset.train), len(dataset.validation)) == (8, 2)


def test_a_folder_that_is_no_database(tmp_path):
    pytest.importorskip("lmdb")
    (tmp_path / "train_lmdb").mkdir()
    with pytest.raises(InputError, match="not a database of Caffe's images"):
        load_dataset(str(tmp_path), SHAPE)
