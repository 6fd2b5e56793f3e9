"""Images without labels: in which forms they come, and that none becomes labelled or loses its place."""

import json

import numpy as np
import pytest
from PIL import Image

from wootz.passes.errors import InputError
from wootz.runtime.batches import ordered_batches, training_batches
from wootz.runtime.data.dataset import Split, divide
from wootz.runtime.data.loading import load_dataset

SHAPE = (1, 4, 4)
COUNT = 20


def photograph(file, grey):
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((4, 4), grey, np.uint8)).save(file)


def in_folder(root):
    for n in range(COUNT):
        photograph(root / f"{n:02d}.png", n)
    return root


def in_split_folders(root):
    for n in range(COUNT):
        photograph(root / ("val" if n >= 16 else "train") / f"{n:02d}.png", n)
    return root


def in_a_list(root):
    in_folder(root / "photos")
    rows = [{"path": f"photos/{n:02d}.png", "split": "val" if n >= 16 else "train"} for n in range(COUNT)]
    (root / "list.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return root / "list.jsonl"


def in_paths_alone(root):
    in_folder(root / "photos")
    (root / "list.csv").write_text("".join(f"photos/{n:02d}.png\n" for n in range(COUNT)))
    return root / "list.csv"


def greys():
    return np.repeat(np.arange(COUNT, dtype=np.uint8), 16).reshape(COUNT, 4, 4)


def in_an_array(root):
    np.save(root / "images.npy", greys())
    return root / "images.npy"


def in_an_archive(root):
    np.savez(root / "images.npz", x_train=greys()[:16], x_val=greys()[16:])
    return root / "images.npz"


def in_parquet(root):
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    in_folder(root / ".photos")
    cells = [{"bytes": (root / ".photos" / f"{n:02d}.png").read_bytes()} for n in range(COUNT)]
    for name, part in (("train", cells[:16]), ("validation", cells[16:])):
        parquet.write_table(pyarrow.table({"image": part}), root / f"{name}-00000-of-00001.parquet")
    return root


DIVIDED = (in_split_folders, in_a_list, in_an_archive, in_parquet)


@pytest.mark.parametrize("form", [in_folder, in_paths_alone, in_an_array, *DIVIDED])
def test_unlabelled_images_are_read_in_every_form(tmp_path, form):
    data = load_dataset(str(form(tmp_path)), SHAPE, resize="squash")
    found = {
        name: np.asarray(split.images)[:, 0, 0, 0] for name, split in vars(data).items() if isinstance(split, Split)
    }
    assert sorted(np.concatenate(list(found.values()))) == list(range(COUNT))
    assert len(found["validation"]) == 4
    assert data.splits_training == (form not in DIVIDED)
    if form in DIVIDED:
        assert sorted(found["validation"]) == [16, 17, 18, 19]
    assert data.classes == ()
    assert not data.train.has_classes
    assert bool(data.notes) == (form in (in_a_list, in_paths_alone, in_parquet))
    (batch,) = ordered_batches(data.train, transform(), 100)
    assert batch.labels is None
    assert next(iter(training_batches(data.train, transform(), 4, 1, seed=0))).labels is None


def transform():
    from wootz.passes.plan.transform import InputTransform

    return InputTransform(channel_order="RGB")


def test_class_folders_beside_photographs_stay_classes(tmp_path):
    in_folder(tmp_path)
    for name in ("bus", "car"):
        for n in range(5):
            photograph(tmp_path / name / f"{n}.png", n)
    assert load_dataset(str(tmp_path), SHAPE, resize="squash").classes == ("bus", "car")


@pytest.mark.parametrize("seed", [0, 1])
def test_a_fifth_is_taken_for_validation_by_the_seed(seed):
    rest, part = divide(Split(np.arange(50)[:, None, None, None]), 0.2, seed)
    assert (len(rest), len(part)) == (40, 10)
    assert sorted(np.concatenate([rest.images.ravel(), part.images.ravel()])) == list(range(50))
    again = divide(Split(np.arange(50)[:, None, None, None]), 0.2, seed)[1]
    assert np.array_equal(again.images, part.images)


def test_labels_are_for_all_splits_or_for_none(tmp_path):
    np.savez(tmp_path / "half.npz", x_train=greys(), y_train=np.arange(COUNT) % 2, x_val=greys())
    with pytest.raises(InputError, match="x_val has no labels y_val beside it"):
        load_dataset(str(tmp_path / "half.npz"), SHAPE)
    in_folder(tmp_path / "photos")
    (tmp_path / "half.jsonl").write_text('{"path": "photos/00.png", "label": "a"}\n{"path": "photos/01.png"}\n')
    with pytest.raises(InputError, match=r"half.jsonl:2: no label, while others have one"):
        load_dataset(str(tmp_path / "half.jsonl"), SHAPE)
    np.save(tmp_path / "one.npy", greys()[:1])
    with pytest.raises(InputError, match="there is a single image, and validation takes it"):
        load_dataset(str(tmp_path / "one.npy"), SHAPE)
