import contextlib
import gzip
import io
import struct
import tempfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from wootz.passes.errors import InputError
from wootz.runtime.data.arrays import ARRAYS
from wootz.runtime.data.dataset import stratified_split
from wootz.runtime.data.loading import load_dataset
from wootz.runtime.digest import array_digest

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


def test_each_split_is_digested_once_for_all_that_ask(tmp_path, monkeypatch):
    write_photographs(tmp_path)
    data, read = load_dataset(str(tmp_path), SHAPE), []
    monkeypatch.setattr("wootz.runtime.data.dataset.array_digest", lambda a: read.append(a.shape) or array_digest(a))
    assert data.digest == data.digest
    assert data.train.digests == (array_digest(data.train.images), array_digest(data.train.labels))
    assert len(read) == 6


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


def test_too_many_files_that_are_no_images(tmp_path):
    write_photographs(tmp_path)
    (tmp_path / "train" / "cat" / "x.jpg").write_text("hello")
    with pytest.raises(InputError, match=r"x\.jpg: not an image .*; 1 of 21 photographs are broken, more than 1 %"):
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


IMAGES, LABELS = np.zeros((10, *SHAPE), np.uint8), np.arange(10) % 2


def with_pixel(value, kind=np.float32):
    images = IMAGES.astype(kind)
    images[4, 1, 2, 3] = images[7, 0, 0, 0] = value
    return images


@pytest.mark.parametrize(
    ("arrays", "reason"),
    [
        ({"y_train": LABELS}, "x_train is missing"),
        ({"x_train": IMAGES, "x_val": IMAGES, "y_val": [0, 1]}, "x_train has no labels y_train beside it"),
        ({"x_train": IMAGES[:0], "y_train": LABELS[:0]}, "x_train has no images"),
        ({"x_train": IMAGES, "y_train": LABELS, "x_test": IMAGES[:0], "y_test": LABELS[:0]}, "x_test has no images"),
        ({"x_train": IMAGES.reshape(10, -1), "y_train": LABELS}, r"x_train has shape \(10, 60\): .*channels"),
        ({"x_train": IMAGES.astype(str), "y_train": LABELS}, "x_train holds <U3, which are no pixels: .* uint8"),
        ({"x_train": IMAGES.astype(complex), "y_train": LABELS}, "x_train holds complex128, which are no pixels"),
        ({"x_train": IMAGES > 1, "y_train": LABELS}, "x_train holds bool, which are no pixels"),
        ({"x_train": with_pixel(np.nan), "y_train": LABELS}, "NaN or .* in 2 of 10 images of x_train, .* index 4"),
        ({"x_train": with_pixel(-np.inf), "y_train": LABELS}, "NaN or infinite pixels in 2 of 10 images"),
        ({"x_train": with_pixel(1e300, float), "y_train": LABELS}, "NaN or infinite pixels in 2 of 10 images"),
        ({"x_train": IMAGES, "y_train": LABELS / 2}, "y_train has the label 0.5: labels number the classes, from 0 on"),
        ({"x_train": IMAGES, "y_train": LABELS * np.nan}, "y_train has the label nan"),
        ({"x_train": IMAGES, "y_train": LABELS * 1e300}, r"y_train has the label 1e\+300"),
        ({"x_train": IMAGES, "y_train": LABELS - 1}, "y_train has the label -1"),
        ({"x_train": IMAGES, "y_train": LABELS * 10**12}, "y_train has the label 1000000000000"),
        ({"x_train": IMAGES, "y_train": np.array(["cat", "dog"])[LABELS]}, "y_train holds <U3: .*'classes'"),
        ({"x_train": IMAGES, "y_train": np.eye(2)[LABELS]}, r"y_train has shape \(10, 2\): one label .* argmax"),
        ({"x_train": IMAGES, "y_train": np.array(1)}, r"y_train has shape \(\): one label an image"),
        ({"x_train": IMAGES[:2], "y_train": LABELS[:2]}, "the class '0' has a single image, and validation takes it"),
        ({"x_train": IMAGES, "y_train": LABELS, "x_test": IMAGES, "y_test": LABELS + 1}, "a test label lies outside"),
        ({"x_train": IMAGES, "y_train": LABELS, "y_val": LABELS}, "y_val has no images x_val beside it"),
        ({"x_train": IMAGES + 9, "y_train": LABELS, "x_test": IMAGES / 255, "y_test": LABELS}, "of x_train and x_test"),
        (
            {"x_train": (IMAGES + 9) / 1, "y_train": LABELS, "x_test": IMAGES / 255, "y_test": LABELS},
            "of x_train and x_test",
        ),
    ],
)  # fmt: skip
def test_arrays_that_are_no_data_set(tmp_path, arrays, reason):
    np.savez(tmp_path / "data.npz", **arrays)
    with pytest.raises(InputError, match=rf"data\.npz: {reason}") as refusal:
        load_dataset(str(tmp_path / "data.npz"), SHAPE)
    assert "\n" not in str(refusal.value)


def test_labels_may_be_a_column_or_whole_floats(tmp_path):
    np.savez(tmp_path / "data.npz", x_train=IMAGES, y_train=LABELS[:, None].astype(np.float32))
    labels = load_dataset(str(tmp_path / "data.npz"), SHAPE).train.labels
    assert (labels.dtype, labels.ndim) == (np.int64, 1)
    assert sorted(labels) == [0] * 4 + [1] * 4


@pytest.mark.parametrize("kind", [np.float64, np.float32, np.float16])
def test_pixels_from_0_to_1_become_those_from_0_to_255(tmp_path, kind):
    pixels = np.random.default_rng(0).integers(0, 256, (300, *IMAGES.shape[1:]), np.uint8)
    labels = np.arange(300) % 2
    np.savez(tmp_path / "whole.npz", x_train=pixels, y_train=labels)
    np.savez(tmp_path / "parts.npz", x_train=(pixels / 255).astype(kind), y_train=labels)
    whole, parts = (load_dataset(str(tmp_path / f"{name}.npz"), IMAGES.shape[1:]) for name in ("whole", "parts"))
    assert whole.digest == parts.digest
    assert (whole.numbers, parts.numbers) == ("pixels", "fractions")
    assert parts.notes == (
        "The arrays have pixels from 0 to 1: they are multiplied by 255, to be pixels as all others.",
    )


def test_pixels_between_whole_ones_stay_there(tmp_path):
    between = np.random.default_rng(0).random((10, *IMAGES.shape[1:]), np.float32)
    np.savez(tmp_path / "data.npz", x_train=between, y_train=LABELS, x_val=between, y_val=LABELS)
    dataset = load_dataset(str(tmp_path / "data.npz"), IMAGES.shape[1:])
    np.testing.assert_array_equal(dataset.train.images, between * np.float32(255))


def test_arrays_that_were_normalised_are_no_pixels(tmp_path):
    normalised = np.random.default_rng(0).normal(size=(10, *IMAGES.shape[1:])).astype(np.float32)
    np.savez(tmp_path / "data.npz", x_train=np.abs(normalised), y_train=LABELS, x_val=normalised, y_val=LABELS)
    dataset = load_dataset(str(tmp_path / "data.npz"), IMAGES.shape[1:])
    assert dataset.numbers == "as given"
    assert dataset.notes[0].startswith("The arrays have negative numbers, so they are no pixels")
    np.testing.assert_array_equal(dataset.validation.images, normalised)


def test_labels_of_arrays_may_be_counted_from_1(tmp_path):
    np.savez(tmp_path / "data.npz", x_train=IMAGES, y_train=LABELS + 1, x_test=IMAGES, y_test=LABELS + 1)
    dataset = load_dataset(str(tmp_path / "data.npz"), IMAGES.shape[1:], outputs=2)
    assert dataset.classes == ("1", "2")
    assert dataset.notes == (
        "The labels are 1 to 2: they are taken as counted from 1, so that 1 is the network's output 0.",
    )
    np.testing.assert_array_equal(dataset.test.labels, LABELS)
    three = load_dataset(str(tmp_path / "data.npz"), IMAGES.shape[1:], outputs=3)
    assert three.classes == ("0", "1", "2")
    np.testing.assert_array_equal(three.test.labels, LABELS + 1)
    assert three.notes == ("No image has the label 0: labels are taken as outputs of the network, of 3 classes.",)


def test_a_class_with_a_single_image_is_refused(tmp_path):
    """Validation would take it, and training never see the class."""
    np.savez(tmp_path / "data.npz", x_train=IMAGES, y_train=np.arange(10) // 9, classes=["cat", "dog"])
    with pytest.raises(InputError, match=r"data\.npz: the class 'dog' has a single image, .* two images a class"):
        load_dataset(str(tmp_path / "data.npz"), SHAPE)


def test_a_single_class_is_refused(tmp_path):
    write_photographs(tmp_path, classes=("cat",))
    with pytest.raises(InputError, match="all training images are of one class, 'cat'"):
        load_dataset(str(tmp_path), SHAPE)


def objects(file):
    np.savez(file, x_train=np.array([np.zeros((3, 4, 5)), None], object), y_train=LABELS)


def truncated(file):
    np.savez(file, x_train=IMAGES, y_train=LABELS)
    file.write_bytes(file.read_bytes()[:-30])


def flipped(file):
    np.savez_compressed(file, x_train=np.random.default_rng(0).integers(0, 255, IMAGES.shape), y_train=LABELS)
    content = bytearray(file.read_bytes())
    content[300] ^= 0xFF
    file.write_bytes(content)


def text_inside(file):
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("x_train.npy", "hello")
        archive.writestr("y_train.npy", "hello")


def one_array(file):
    with file.open("wb") as opened:
        np.save(opened, IMAGES)


def text(file):
    file.write_text("hello")


def nothing(file):
    file.write_bytes(b"")


@pytest.mark.parametrize(
    "write",
    [objects, truncated, flipped, text_inside, one_array, text, nothing],
)
def test_npz_files_that_are_none(tmp_path, write):
    write(tmp_path / "data.npz")
    with pytest.raises(InputError, match=r"data\.npz: not an archive that numpy\.savez wrote") as refusal:
        load_dataset(str(tmp_path / "data.npz"), SHAPE)
    assert "\n" not in str(refusal.value)


def test_other_arrays_of_an_npz_file_are_left_alone(tmp_path):
    np.savez(tmp_path / "data.npz", x_train=IMAGES, y_train=LABELS, notes=np.array([None], object))
    assert len(load_dataset(str(tmp_path / "data.npz"), SHAPE).train) == 8


@pytest.mark.parametrize("content", [b"", b"hello", b"\x93NUMPY\x01\0"])
def test_npy_files_that_are_none(tmp_path, content):
    np.save(tmp_path / "x_train.npy", IMAGES)
    (tmp_path / "y_train.npy").write_bytes(content)
    with pytest.raises(InputError, match=r"y_train\.npy: not an array of numbers that numpy\.save wrote"):
        load_dataset(str(tmp_path), SHAPE)


@pytest.mark.parametrize(
    "shape",
    ["(10000000000000,)", "(3, 18446744073709551616)", "(-1, -10000)", "(99, 100)", "(1e3, 10)", "'abc'", "(True,)"],
)
@pytest.mark.parametrize("archived", [False, True])
def test_a_header_that_does_not_fit_its_file(tmp_path, shape, archived):
    """Nothing is allocated for what the file doesn't hold."""
    file = tmp_path / "x_train.npy"
    np.save(file, np.zeros((100, 100), np.uint8))
    np.save(tmp_path / "y_train.npy", LABELS)
    header = b"(100, 100), }" + b" " * 40
    assert header in file.read_bytes()
    file.write_bytes(file.read_bytes().replace(header, f"{shape}, }}".encode().ljust(len(header))))
    location = tmp_path
    if archived:
        location = tmp_path / "data.npz"
        with zipfile.ZipFile(location, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.write(file, file.name)
    with pytest.raises(InputError, match=r"(x_train\.npy|data\.npz): not an ar.* wrote"):
        load_dataset(str(location), SHAPE)


def test_an_archive_that_says_it_holds_more_than_it_can(tmp_path):
    file = tmp_path / "data.npz"
    np.savez_compressed(file, x_train=IMAGES, y_train=LABELS)
    content = file.read_bytes()
    with zipfile.ZipFile(file) as archive:
        size = archive.getinfo("x_train.npy").file_size
    file.write_bytes(content.replace(size.to_bytes(4, "little"), (2**32 - 2).to_bytes(4, "little")))
    with pytest.raises(InputError, match=r"can't hold 4294967294 bytes"):
        load_dataset(str(file), SHAPE)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("suffix", ["png", "ppm"])
def test_grey_pixels_of_16_bits_are_scaled_to_8(tmp_path, channels, suffix):
    grey = (257 * np.arange(256, dtype=np.uint16)).reshape(16, 16)
    for i in range(10):
        folder = tmp_path / "train" / ("cat" if i < 5 else "dog")
        folder.mkdir(parents=True, exist_ok=True)
        file = folder / f"{i}.{suffix}"
        if suffix == "png":
            Image.fromarray(grey).save(file)
        else:
            file.write_bytes(b"P5 16 16 65535 " + grey.astype(">u2").tobytes())
    images = load_dataset(str(tmp_path), (channels, 16, 16)).train.images
    for channel in range(channels):
        np.testing.assert_array_equal(images[0, channel].ravel(), np.arange(256))


def test_floating_point_pixels_of_a_photograph_are_refused(tmp_path):
    write_photographs(tmp_path)
    (tmp_path / "train" / "cat" / "x.ppm").write_bytes(b"Pf 5 4 -1.0\n" + np.zeros(20, "<f4").tobytes())
    with pytest.raises(InputError, match=r"x\.ppm: pixels of another kind than 8 or 16 bits: save it as an 8-bit PNG"):
        load_dataset(str(tmp_path), SHAPE)


@pytest.mark.parametrize("crop_size", [0, 3])
def test_a_photograph_cut_off_is_named(tmp_path, crop_size):
    write_photographs(tmp_path)
    file = tmp_path / "train" / "cat" / "0.png"
    file.write_bytes(file.read_bytes()[:20])
    with pytest.raises(InputError, match=r"0\.png: not an image"):
        load_dataset(str(tmp_path), (3, 3, 3) if crop_size else SHAPE, crop_size)


def test_what_editors_and_archives_leave_is_no_class(tmp_path):
    write_photographs(tmp_path)
    for name in ("train/.ipynb_checkpoints", "test/.ipynb_checkpoints", "train/__MACOSX"):
        (tmp_path / name).mkdir()
    (tmp_path / "train/cat/._0.png").write_bytes(b"\0\5\x16\7")
    dataset = load_dataset(str(tmp_path), SHAPE)
    assert dataset.classes == ("cat", "dog")
    assert np.bincount(dataset.train.labels).tolist() == [4, 4]


def test_a_class_whose_images_are_not_read_is_refused(tmp_path):
    write_photographs(tmp_path)
    (tmp_path / "train/eel/folder").mkdir(parents=True)
    with pytest.raises(
        InputError, match=r"train/eel: no images in it: they lie in the folder of the class, as .*\.png"
    ):
        load_dataset(str(tmp_path), SHAPE)


@pytest.mark.parametrize("name", ["dev", "Training"])
def test_splits_of_other_names_are_refused(tmp_path, name):
    write_photographs(tmp_path, splits=("train", name))
    with pytest.raises(InputError, match=rf"the folder {name} isn't read: the splits are train, val and test"):
        load_dataset(str(tmp_path), SHAPE)


@pytest.mark.parametrize("name", ["valid", "validation", "dev"])
def test_arrays_of_other_names_are_refused(tmp_path, name):
    arrays = {"x_train": IMAGES, "y_train": LABELS, f"x_{name}": IMAGES, f"y_{name}": LABELS}
    np.savez(tmp_path / "data.npz", **arrays)
    with pytest.raises(InputError, match=rf"the array x_{name} isn't read: they are called x_train, "):
        load_dataset(str(tmp_path / "data.npz"), SHAPE)
    for array, values in arrays.items():
        np.save(tmp_path / f"{array}.npy", values)
    with pytest.raises(InputError, match=rf"the array [xy]_{name} isn't read: they are called x_train, "):
        load_dataset(str(tmp_path), SHAPE)


def test_names_of_classes_from_a_list(tmp_path):
    """A line is a name, which may have spaces; the order is the labels'."""
    write_photographs(tmp_path, classes=("hot dog", "cat"))
    (tmp_path / "classes.txt").write_text("\ufeffhot dog\ncat\n\neel\n", encoding="utf-8")
    assert load_dataset(str(tmp_path), SHAPE).classes == ("hot dog", "cat", "eel")
    (tmp_path / "classes.txt").write_text("hot dog\ncat\nhot dog\n")
    with pytest.raises(InputError, match=r"classes\.txt: it names the class 'hot dog' twice"):
        load_dataset(str(tmp_path), SHAPE)


def test_names_of_classes_may_be_bytes(tmp_path):
    np.savez(tmp_path / "data.npz", x_train=IMAGES, y_train=LABELS, classes=np.array([b"cat", b"dog"]))
    assert load_dataset(str(tmp_path / "data.npz"), SHAPE).classes == ("cat", "dog")


def test_class_names_that_are_no_text(tmp_path):
    write_photographs(tmp_path)
    (tmp_path / "classes.txt").write_bytes(b"\xff\xfe\0")
    with pytest.raises(InputError, match=r"classes\.txt: not a text of class names in UTF-8"):
        load_dataset(str(tmp_path), SHAPE)


def write_idx(file: Path, array: np.ndarray, compress: bool):
    content = struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape) + array.tobytes()
    file.write_bytes(gzip.compress(content) if compress else content)


@pytest.mark.parametrize("before_idx", "-.")
@pytest.mark.parametrize("compress", [False, True])
def test_idx(tmp_path, compress, before_idx):
    images = np.arange(10 * 4 * 5, dtype=np.uint8).reshape(10, 4, 5)
    labels = (np.arange(10) % 2).astype(np.uint8)
    suffix = ".gz" if compress else ""
    for name in ("train", "t10k"):
        write_idx(tmp_path / f"{name}-images{before_idx}idx3-ubyte{suffix}", images, compress)
        write_idx(tmp_path / f"{name}-labels{before_idx}idx1-ubyte{suffix}", labels, compress)
    dataset = load_dataset(str(tmp_path), (1, 4, 5))
    np.testing.assert_array_equal(dataset.test.images[:, 0], images)
    np.testing.assert_array_equal(dataset.test.labels, labels)


def test_a_truncated_idx_file_is_refused(tmp_path):
    write_idx(tmp_path / "train-images-idx3-ubyte", np.zeros((3, 4, 5), np.uint8), False)
    file = tmp_path / "train-images-idx3-ubyte"
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(InputError, match="the header says 3x4x5 values, 59 follow"):
        load_dataset(str(tmp_path), (1, 4, 5))


@pytest.mark.parametrize("content", [b"", b"\0\0\x08\x03", b"\0\0\x09\x01\0\0\0\x01\0", b"hello"])
def test_a_file_that_is_no_idx_file(tmp_path, content):
    (tmp_path / "train-images-idx3-ubyte").write_bytes(content)
    with pytest.raises(InputError, match="images-idx3-ubyte: not an IDX file of unsigned bytes"):
        load_dataset(str(tmp_path), (1, 4, 5))


@pytest.mark.parametrize("content", [b"", b"hello", gzip.compress(b"hello" * 9, mtime=0)[:-9]])
def test_a_damaged_gzip_file(tmp_path, content):
    (tmp_path / "train-images-idx3-ubyte.gz").write_bytes(content)
    with pytest.raises(InputError, match=r"ubyte\.gz: .*(not an IDX file|damaged)"):
        load_dataset(str(tmp_path), (1, 4, 5))


def test_idx_files_of_unequal_lengths_are_refused(tmp_path):
    write_idx(tmp_path / "train-images-idx3-ubyte", np.zeros((3, 4, 5), np.uint8), False)
    write_idx(tmp_path / "train-labels-idx1-ubyte", np.zeros(2, np.uint8), False)
    with pytest.raises(InputError, match="3 images train-images-idx3-ubyte but 2 labels train-labels-idx1-ubyte"):
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
    ("location", "reason"), [("nowhere", "no such data set"), ("empty", "no data set in this folder: neither CLASS/")]
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
    from wootz.runtime.data.caffe_lmdb import _datum_class

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


@pytest.mark.parametrize("spoil", ["pixels", "label", "image"])
def test_faults_in_a_database(tmp_path, spoil):
    lmdb = pytest.importorskip("lmdb")
    from wootz.runtime.data.caffe_lmdb import _datum_class

    datum = _datum_class()(channels=3, height=4, width=5, float_data=[1.0] * 60, label=0)
    if spoil == "pixels":
        datum.float_data[7] = np.nan
    elif spoil == "label":
        datum.label = -1
    else:
        datum.encoded, datum.data = True, b"hello"
    with (
        lmdb.open(str(tmp_path / "train_lmdb"), map_size=1 << 20) as environment,
        environment.begin(write=True) as transaction,
    ):
        transaction.put(b"0", datum.SerializeToString())
    reason = {
        "pixels": "NaN or infinite pixels in 1 of 1 images of train_lmdb",
        "label": "train_lmdb has the label -1",
        "image": "train_lmdb: not a database of images that Pillow can read",
    }[spoil]
    with pytest.raises(InputError, match=reason):
        load_dataset(str(tmp_path), SHAPE)


@pytest.mark.parametrize("share", [0.3, 0.6, 0.9])
def test_a_truncated_database_does_not_end_the_process(tmp_path, share):
    write_lmdb(tmp_path / "train_lmdb", np.zeros((40, *SHAPE), np.uint8), np.arange(40) % 2)
    file = tmp_path / "train_lmdb" / "data.mdb"
    file.write_bytes(file.read_bytes()[: int(share * file.stat().st_size)])
    with pytest.raises(InputError, match=r"train_lmdb: not a database of Caffe's images, or damaged \(.*\)"):
        load_dataset(str(tmp_path), SHAPE)


@given(st.integers(0, 2**32))
@settings(max_examples=15)
def test_a_damaged_database_is_read_or_refused(seed):
    random = np.random.default_rng(seed)
    with tempfile.TemporaryDirectory() as folder:
        write_lmdb(Path(folder, "train_lmdb"), np.zeros((30, *SHAPE), np.uint8), np.arange(30) % 2)
        file = Path(folder, "train_lmdb", "data.mdb")
        content = bytearray(file.read_bytes())
        page = random.integers(len(content) // 4096) * 4096
        for place in page + random.integers(64, size=random.integers(1, 9)):
            content[place] = random.integers(256)
        file.write_bytes(content)
        with contextlib.suppress(InputError):
            load_dataset(folder, SHAPE)


def test_a_program_for_printers_is_no_photograph(tmp_path):
    """Pillow would start Ghostscript on it, whatever its suffix."""
    write_photographs(tmp_path)
    (tmp_path / "train" / "cat" / "0.png").write_bytes(
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 5 4\n%%EndComments\n"
    )
    with pytest.raises(InputError, match=r"0\.png: not an image that Pillow can read"):
        load_dataset(str(tmp_path), SHAPE)


def test_the_page_about_arrays_names_them_all_and_its_example_is_a_data_set(tmp_path, monkeypatch):
    page = (Path(__file__).parents[3] / "docs" / "data.md").read_text()
    assert all(f"`{name}`" in page for name in ARRAYS)
    monkeypatch.chdir(tmp_path)
    example = page[page.index("    import numpy as np") :]
    exec("\n".join(line[4:] for line in example.splitlines() if line.startswith("    ")), {})
    dataset = load_dataset("images.npz", (3, 32, 32))
    assert (dataset.classes, len(dataset.train), len(dataset.validation)) == (("cat", "dog"), 80, 20)
