"""Data sets that Python code gives: every form comes to the same arrays, read once."""

import numpy as np
import pytest

from wootz.passes.errors import InputError
from wootz.runtime.data.loading import load_dataset
from wootz.runtime.data.python_data import from_python
from wootz.runtime.inputs import NetworkInput

IMAGES = np.random.default_rng(0).integers(0, 256, (20, 1, 4, 4), np.uint8)
LABELS = np.arange(20) % 2
MAPS = np.arange(20 * 16).reshape(20, 4, 4).astype(np.float32)

FORMS = {
    "an array": lambda: IMAGES,
    "a generator of single images": lambda: iter(IMAGES),
    "batches": lambda: [IMAGES[:7], IMAGES[7:]],
    "by the name of the input": lambda: ({"image": batch} for batch in (IMAGES[:15], IMAGES[15:])),
    "a dictionary": lambda: {"image": IMAGES},
    "without channels": lambda: IMAGES[:, 0],
}


def all_images(data):
    return np.concatenate([data.train.images, data.validation.images])


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("is_function", [True, False])
def test_forms_of_images(form, is_function):
    data = from_python(FORMS[form] if is_function else FORMS[form](), "data", seed=0)
    expected = from_python(IMAGES, "data", seed=0)
    assert data.digest == expected.digest
    assert data.train.labels is None


@pytest.mark.parametrize("targets", [LABELS, MAPS])
@pytest.mark.parametrize("form", ["whole", "single", "batches"])
def test_forms_of_images_with_targets(targets, form):
    pairs = {
        "whole": (IMAGES, targets),
        "single": zip(IMAGES, targets, strict=True),
        "batches": [(IMAGES[:9], targets[:9]), (IMAGES[9:], targets[9:])],
    }
    data = from_python(pairs[form], "data", seed=0)
    assert data.digest == from_python((IMAGES, targets), "data", seed=0).digest
    assert data.train.has_classes == (targets is LABELS)
    assert data.classes == (("0", "1") if targets is LABELS else ())
    number = [int(np.flatnonzero((image == IMAGES).all(axis=(1, 2, 3)))[0]) for image in np.asarray(data.train.images)]
    assert np.array_equal(data.train.labels, targets[number])


def test_splits_by_their_names():
    data = from_python({"train": IMAGES[:10], "val": iter(IMAGES[10:16]), "test": IMAGES[16:]}, "data", seed=0)
    assert [len(split) for split in (data.train, data.validation, data.test)] == [10, 6, 4]
    assert not data.splits_training


def test_a_function_in_a_file_is_called_once(tmp_path):
    (tmp_path / "task.py").write_text(
        "import numpy\n\ndef frames():\n    with open(__file__ + '.calls', 'a') as calls:\n        calls.write('x')\n"
        "    for n in range(12):\n        yield numpy.full((1, 4, 4), n, numpy.uint8)\n"
    )
    data = load_dataset(f"{tmp_path}/task.py:frames", (1, 4, 4))
    assert sorted(all_images(data)[:, 0, 0, 0]) == list(range(12))
    assert (tmp_path / "task.py.calls").read_text() == "x"
    assert data.source is None, "other processes get the arrays"


FAULTS = {
    "raises": ("def f():\n    yield 1 / 0\n", r"task.py:2: ZeroDivisionError: division by zero"),
    "nothing": ("def f():\n    return []\n", r"task.py:1: there are no images"),
    "no data": ("def f():\n    return 3\n", r"task.py:1: the data are int: give arrays"),
    "half": (
        "import numpy as n\ndef f():\n    yield n.zeros((1, 4, 4), 'B'), 1\n    yield n.zeros((1, 4, 4), 'B')\n",
        r"task.py:2: some images have targets, others have none",
    ),
    "two inputs": (
        "def f():\n    return {'a': [1], 'b': [2]}\n",
        r"task.py:1: there is an array a, and the network takes image",
    ),
    "few targets": (
        "import numpy as n\ndef f():\n    return n.zeros((9, 1, 4, 4), 'B'), n.zeros((8, 4, 4))\n",
        r"task.py: 9 samples but 8 targets in train",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_what_goes_wrong_is_told_with_the_file(tmp_path, fault):
    source, reason = FAULTS[fault]
    (tmp_path / "task.py").write_text(source)
    with pytest.raises(InputError, match=reason) as told:
        load_dataset(f"{tmp_path}/task.py:f", (1, 4, 4))
    assert "\n" not in str(told.value)


@pytest.mark.parametrize("form", ["whole", "single", "batches"])
def test_targets_by_name(form):
    named = {"map": MAPS, "class": LABELS}
    pairs = {
        "whole": (IMAGES, named),
        "single": [(image, {"map": a, "class": b}) for image, a, b in zip(IMAGES, MAPS, LABELS, strict=True)],
        "batches": [(IMAGES[part], {name: a[part] for name, a in named.items()}) for part in (slice(9), slice(9, 20))],
    }
    data = from_python(pairs[form], "data", seed=0)
    number = [int(np.flatnonzero((image == IMAGES).all(axis=(1, 2, 3)))[0]) for image in np.asarray(data.train.images)]
    assert not data.train.has_classes
    assert data.train.labels.keys() == named.keys()
    for name, values in named.items():
        np.testing.assert_array_equal(data.train.labels[name], values[number])
    assert data.digest == from_python((IMAGES, named), "data", seed=0).digest
    assert data.digest != from_python((IMAGES, {**named, "class": 1 - LABELS}), "data", seed=0).digest


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        ([(IMAGES[0], {"a": 1}), (IMAGES[1], {"b": 1})], "the targets of some images have other names"),
        ([(IMAGES[0], {"a": 1}), (IMAGES[1], 1)], "the targets of some images have other names"),
        (
            (IMAGES, [{"boxes": [[1, 2, 3, 4]]}] * 20),
            "the targets are a list of dictionaries: give a dictionary",
        ),
        ((IMAGES, [{"boxes": [1]}, {}] * 10), "dictionary of arrays; pad them to one length, such as by rows of -1"),
        ((IMAGES, [[0] * (n % 3) for n in range(20)]), "the targets differ in shape from example to example: pad them"),
        ((IMAGES, {"a": [[0] * (n % 3) for n in range(20)]}), "the targets a differ in shape from example to example"),
        (
            ([IMAGES[0], IMAGES[0, :, :2]], LABELS[:2]),
            "image differ in shape from example to example: all have",
        ),
        ((IMAGES, np.array([np.zeros(n % 3) for n in range(20)], object)), "the targets differ in shape from example"),
        ((IMAGES, [None] * 20), "the targets hold NoneType, which is no number"),
        (
            [(image, MAPS[0, : 1 + n % 3]) for n, image in enumerate(IMAGES)],
            r"data: there are targets of \[1, 4\] and of \[2, 4\]: they have to have one shape: pad them to one length",
        ),
        (
            [(image, {"boxes": MAPS[0, : 1 + n % 3]}) for n, image in enumerate(IMAGES)],
            r"there are targets boxes of \[1, 4\] and of \[2, 4\]: they have to have one shape: pad them",
        ),
        ((IMAGES, LABELS, LABELS), "images and targets are a pair, and several targets a dictionary of arrays"),
        (
            [(image, 1, 1) for image in IMAGES],
            "a tuple of 3: images and targets are a pair, and several targets",
        ),
        (
            [IMAGES[0], IMAGES[0, :, :2]],
            r"image of \[1, 4, 4\] and of \[1, 2, 4\]: they have to have one shape$",
        ),
        ({"val": IMAGES}, "data: there is val, and train is missing"),
        ({"val": IMAGES, "test": IMAGES}, "there is val and test, and train is missing"),
        ((IMAGES, {"a": LABELS[:3]}), "20 samples but 3 targets in train, a"),
        ((IMAGES, {"a": np.array(["x"] * 20)}), "the targets of train, a, hold <U1, which are no numbers"),
    ],
)
def test_targets_by_name_that_do_not_fit(data, reason):
    with pytest.raises(InputError, match=reason):
        from_python(data, "data", seed=0)


def test_arrays_of_another_size_are_told_without_a_file():
    with pytest.raises(InputError, match=r"^arrays: the train images are 1x4x4, the network takes 1x8x8$"):
        load_dataset("arrays", (1, 8, 8), given=IMAGES)


def test_a_tuple_of_images_is_an_iterable():
    assert from_python(tuple(IMAGES), "data", seed=0).digest == from_python(IMAGES, "data", seed=0).digest


def test_an_input_may_be_called_as_a_split_is():
    inputs = (NetworkInput("val", "float32", (3,)),)
    assert len(from_python({"val": np.zeros((10, 3), np.float32)}, "data", 0, inputs).train) == 8


@pytest.mark.parametrize("ages", [np.arange(20), np.arange(20) - 7, np.arange(20) * 10**6])
def test_whole_numbers_for_a_network_that_gives_one_are_no_classes(ages):
    data = from_python((IMAGES, ages), "data", seed=0, are_numbers=True)
    assert not data.train.has_classes
    assert data.classes == ()
    assert data.train.labels.dtype == np.float32
    assert sorted([*data.train.labels, *data.validation.labels]) == [*ages]
    assert "the targets are no classes (--new-head: they are)" in data.notes[-1]


def test_bits_stand_for_classes_whatever_the_network_gives():
    data = from_python((IMAGES, LABELS), "data", seed=0, are_numbers=True)
    assert data.train.has_classes
    assert data.digest == from_python((IMAGES, LABELS), "data", seed=0).digest
