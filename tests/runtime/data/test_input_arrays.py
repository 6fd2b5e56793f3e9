"""Arrays by the names of a network's inputs: what they become, and what is refused."""

import numpy as np
import pytest

from wootz.passes.errors import InputError
from wootz.runtime.data.input_arrays import read_input_archive, read_input_folder
from wootz.runtime.data.loading import load_dataset
from wootz.runtime.data.python_data import from_python
from wootz.runtime.inputs import NetworkInput

IMAGE = NetworkInput("image", "float32", (3, 4, 4))
MASK = NetworkInput("mask", "bool", (1, 4, 4))
KIND = NetworkInput("kind", "int64", ())
SIGNAL = NetworkInput("signal", "float32", (2, 8))
INPUTS = (IMAGE, MASK, KIND)
LABELS = np.arange(20) % 2


def arrays(count=20, **others):
    generator = np.random.default_rng(0)
    return {
        "image": generator.integers(0, 256, (count, 3, 4, 4), np.uint8),
        "mask": generator.integers(0, 2, (count, 1, 4, 4)),
        "kind": generator.integers(0, 5, count).astype(np.float64),
        **others,
    }


def read(data, inputs=INPUTS):
    return from_python(data, "data", 0, inputs)


def test_arrays_get_the_types_of_inputs_and_bytes_of_images_are_pixels():
    data = read({"train": (arrays(), LABELS), "val": (arrays(8), LABELS[:8])})
    images = data.train.images
    assert {name: values.dtype.name for name, values in images.arrays.items()} == {
        "image": "uint8", "mask": "bool", "kind": "int64"
    }  # fmt: skip
    assert images.pixels == ("image",)
    assert data.numbers == "pixels"
    assert (len(data.train), len(data.validation)) == (20, 8)
    floats = read(arrays(image=np.zeros((20, 3, 4, 4))))
    assert (floats.train.images.pixels, floats.numbers) == ((), "as given")
    drawn = read(arrays(image=np.ones((20, 3, 4, 4), np.uint8)))
    assert drawn.train.images.pixels == ()
    assert drawn.train.images.arrays["image"].dtype == np.float32


def test_the_digest_covers_all_arrays_and_their_names():
    other = arrays()
    other["kind"] = other["kind"] + 1
    assert len({read(given).digest for given in (arrays(), other, arrays(mask=np.zeros((20, 1, 4, 4), bool)))}) == 3
    assert read(arrays()).digest == read(arrays()).digest


def test_items_of_an_iterable_are_samples_or_batches():
    whole = arrays()
    order = ("image", "mask", "kind")
    samples = [({name: whole[name][i] for name in order}, LABELS[i]) for i in range(20)]
    batches = [({name: whole[name][i : i + 5] for name in order}, LABELS[i : i + 5]) for i in range(0, 20, 5)]
    assert read(iter(samples)).digest == read(iter(batches)).digest == read((whole, LABELS)).digest


def test_archives_and_folders_name_arrays_by_inputs_and_splits(tmp_path):
    parts = {"train": arrays(), "val": arrays(8)}
    named = {f"{name}_{split}": values for split, part in parts.items() for name, values in part.items()}
    targets = {"y_train": LABELS, "y_val": LABELS[:8]}
    np.savez(tmp_path / "data.npz", **named, **targets)
    (tmp_path / "folder").mkdir()
    for name, values in {**named, **targets}.items():
        np.save(tmp_path / "folder" / f"{name}.npy", values)
    wanted = read({split: (part, targets[f"y_{split}"]) for split, part in parts.items()})
    assert read_input_archive(tmp_path / "data.npz", INPUTS, 0).digest == wanted.digest
    assert read_input_folder(tmp_path / "folder", INPUTS, 0).digest == wanted.digest
    assert load_dataset(str(tmp_path / "data.npz"), IMAGE.shape, inputs=INPUTS).digest == wanted.digest
    np.savez(tmp_path / "bare.npz", **arrays(), y=LABELS)
    assert read_input_archive(tmp_path / "bare.npz", INPUTS, 0).digest == read((arrays(), LABELS)).digest
    signal = np.random.default_rng(0).normal(size=(20, 2, 8))
    np.savez(tmp_path / "one.npz", x_train=signal, y_train=LABELS)
    one = read_input_archive(tmp_path / "one.npz", (SIGNAL,), 0)
    assert one.digest == read((signal, LABELS), (SIGNAL,)).digest


WITHOUT_MASK = {name: values for name, values in arrays().items() if name != "mask"}
WRONG = {
    "missing": (WITHOUT_MASK, "there is no array for mask: the network takes image, mask, kind"),
    "unknown": (arrays(maks=LABELS), "there is an array maks, and the network takes image, mask, kind"),
    "splits": ({"training": arrays()}, r"there is an array training, and .* \(splits are train, val, test\)"),
    "an array": (np.zeros((20, 3, 4, 4)), "the network takes image, mask, kind: give a dictionary"),
    "length": (arrays(kind=LABELS[:9]), "train has other numbers of samples .*: 20 of image, 20 of mask, 9 of kind"),
    "targets": ((arrays(), LABELS[:9]), "20 samples but 9 targets in train"),
    "shape": (
        arrays(mask=np.zeros((20, 4, 4), bool)),
        r"mask of train has shape \[20, 4, 4\], the network takes mask ",
    ),
    "fractions": (arrays(kind=LABELS + 0.5), "kind of train has numbers that are no int64"),
    "beyond a mask": (arrays(mask=np.full((20, 1, 4, 4), 2)), "mask of train has numbers that are no bool"),
    "text": (arrays(kind=LABELS.astype(str)), "kind of train holds <U21, the network takes kind int64"),
    "not finite": (arrays(image=np.full((20, 3, 4, 4), np.nan)), "image of train has numbers that are NaN"),
    "no samples": (arrays(0), "the train split has no samples"),
    "pixels no more": (
        {"train": arrays(), "val": arrays(image=np.zeros((20, 3, 4, 4)))},
        "image of val holds float64, and in train it has pixels",
    ),
}


@pytest.mark.parametrize("fault", WRONG)
def test_what_does_not_fit_is_one_line(fault):
    data, reason = WRONG[fault]
    with pytest.raises(InputError, match=reason) as told:
        read(data)
    assert "\n" not in str(told.value)


def test_pixels_of_several_numbers_of_channels_are_refused():
    grey = NetworkInput("grey", "float32", (1, 4, 4))
    given = {"image": arrays()["image"], "grey": arrays()["image"][:, :1]}
    with pytest.raises(InputError, match="pixels of several numbers of channels"):
        read(given, (IMAGE, grey))


def test_files_that_do_not_fit_are_refused(tmp_path):
    np.savez(tmp_path / "unknown.npz", **arrays(), depth=LABELS)
    np.savez(tmp_path / "missing.npz", **WITHOUT_MASK)
    np.savez(tmp_path / "untrained.npz", **{f"{name}_val": values for name, values in arrays().items()})
    (tmp_path / "photographs").mkdir()
    wrong = {
        "unknown.npz": "the array depth isn't read: they are called image_train, mask_train, kind_train, y_train",
        "missing.npz": "the array mask_train is missing",
        "untrained.npz": "there are no training arrays: image_train, mask_train, kind_train",
        "photographs": r"the network takes image float32\[N, 3, 4, 4\], .*: give an .npz file",
    }
    for name, reason in wrong.items():
        with pytest.raises(InputError, match=reason):
            load_dataset(str(tmp_path / name), IMAGE.shape, inputs=INPUTS)


def test_a_file_of_one_array_is_for_a_single_input(tmp_path):
    signal = np.random.default_rng(0).normal(size=(20, 2, 8))
    np.save(tmp_path / "signals.npy", signal)
    found = load_dataset(str(tmp_path / "signals.npy"), SIGNAL.shape, inputs=(SIGNAL,))
    assert found.digest == read(signal, (SIGNAL,)).digest
    with pytest.raises(InputError, match="the network takes image, mask, kind: give a dictionary"):
        load_dataset(str(tmp_path / "signals.npy"), IMAGE.shape, inputs=INPUTS)


def test_maps_of_other_channels_than_images_are_taken_as_they_are(tmp_path):
    maps = np.random.default_rng(0).random((20, 16, 4, 4)).astype(np.float32)
    np.savez(tmp_path / "maps.npz", x_train=maps[:16], x_val=maps[16:])
    takes = NetworkInput("maps", "float32", (16, 4, 4))
    from_file = load_dataset(str(tmp_path / "maps.npz"), (16, 4, 4), inputs=(takes,))
    for found in (from_file, read({"train": maps[:16], "val": maps[16:]}, (takes,))):
        np.testing.assert_array_equal(found.train.images, maps[:16])
        assert found.numbers == "as given"
        assert found.notes == ("Maps of 16 channels are no pixels: the arrays are taken as they are.",)
