"""Photographs that are decoded once: what is found again, and what broken ones and full disks leave behind."""

import os
import pickle
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from wootz.passes.errors import InputError, StorageError, WootzError
from wootz.passes.plan.transform import InputTransform
from wootz.runtime.batches import ordered_batches, training_batches
from wootz.runtime.data import cache as cache_module
from wootz.runtime.data import decoding
from wootz.runtime.data.cache import IMAGES_FILE, Cache
from wootz.runtime.data.decoding import Listener
from wootz.runtime.data.loading import load_dataset
from wootz.runtime.data.stored_images import StoredImages
from wootz.runtime.store.durable import temporary_name

SHAPE = (3, 8, 8)
COUNT = 150


@pytest.fixture(autouse=True)
def _everything_is_large(monkeypatch):
    monkeypatch.setattr(decoding, "IN_MEMORY", 0)


@pytest.fixture
def photographs(tmp_path):
    """Two classes of random pixels."""
    generator = np.random.default_rng(0)
    for name in ("cat", "dog"):
        folder = tmp_path / "photographs" / name
        folder.mkdir(parents=True)
        for i in range(COUNT // 2):
            Image.fromarray(generator.integers(0, 256, (12, 16, 3), np.uint8)).save(folder / f"{i}.png")
    return tmp_path / "photographs"


class Heard(Listener):
    def __init__(self):
        self.begun, self.advanced, self.ended = [], 0, 0

    def begin(self, photographs, size, folder):
        self.begun.append((photographs, size, folder))

    def advance(self, photographs):
        self.advanced += photographs

    def end(self):
        self.ended += 1


def load(folder: Path, cache: Path, listener=None, **options):
    return load_dataset(str(folder), SHAPE, cache=cache, listener=listener, **options)


def test_what_is_decoded_is_found_again(photographs, tmp_path, monkeypatch):
    first, second = Heard(), Heard()
    dataset = load(photographs, tmp_path / "cache", first)
    assert first.begun == [(COUNT, COUNT * 3 * 8 * 8, tmp_path / "cache")]
    assert (first.advanced, first.ended) == (COUNT, 1)
    again = load(photographs, tmp_path / "cache", second)
    assert second.begun == []
    assert dataset.digest == again.digest
    monkeypatch.setattr(decoding, "IN_MEMORY", 2**30)
    in_memory = load(photographs, tmp_path / "cache")
    for split in ("train", "validation"):
        stored, expected = getattr(again, split), getattr(in_memory, split)
        assert isinstance(stored.images, StoredImages)
        np.testing.assert_array_equal(stored.images[:], expected.images)
        np.testing.assert_array_equal(stored.labels, expected.labels)


def test_one_process_decodes_what_several_do(photographs, tmp_path, monkeypatch):
    several = load(photographs, tmp_path / "several")
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0}, raising=False)
    assert load(photographs, tmp_path / "one").digest == several.digest


def test_batches_are_those_of_images_in_memory(photographs, tmp_path, monkeypatch):
    transform = InputTransform(crop_size=5, mirror=True, least_area=0.2)
    stored = load(photographs, tmp_path / "cache", resize="crop")
    monkeypatch.setattr(decoding, "IN_MEMORY", 2**30)
    in_memory = load(photographs, tmp_path / "cache", resize="crop")
    for made, expected in (
        (training_batches(d.train, transform, 32, 9, seed=1) for d in (stored, in_memory)),
        (ordered_batches(d.validation, InputTransform(), 7) for d in (stored, in_memory)),
    ):
        for batch, other in zip(made, expected, strict=True):
            np.testing.assert_array_equal(batch.data, other.data)
            np.testing.assert_array_equal(batch.labels, other.labels)


def test_parts_stay_in_the_file(photographs, tmp_path):
    images = load(photographs, tmp_path / "cache").train.images
    part = images.part(np.array([5, 2, 9]))
    assert isinstance(part, StoredImages)
    assert part.shape == (3, *SHAPE)
    np.testing.assert_array_equal(np.asarray(part), images[:][[5, 2, 9]])
    np.testing.assert_array_equal(part[1], images[2])
    np.testing.assert_array_equal(part[-2:], images[:][[2, 9]])
    assert part[:0].shape == (0, *SHAPE)
    assert part.digest != images.part(np.array([2, 5, 9])).digest
    assert part.part(slice(2)).digest == images.part(np.array([5, 2])).digest
    with pytest.raises(IndexError):
        images[len(images)]


def test_a_pickled_data_set_finds_its_images(photographs, tmp_path):
    dataset = load(photographs, tmp_path / "cache")
    again = pickle.loads(pickle.dumps(dataset))
    np.testing.assert_array_equal(again.train.images[:], dataset.train.images[:])
    Image.new("RGB", (16, 12)).save(photographs / "cat" / "0.png")
    with pytest.raises(InputError, match="the data are not those that the run began with"):
        pickle.loads(pickle.dumps(dataset))


@pytest.mark.parametrize("change", ["content", "resize", "size", "another"])
def test_what_has_changed_is_decoded_anew(photographs, tmp_path, change):
    before = load(photographs, tmp_path / "cache")
    file, options, shape, heard = photographs / "cat" / "3.png", {}, SHAPE, Heard()
    if change == "content":  # of the same size, at the same time
        stat, content = file.stat(), file.read_bytes()
        Image.fromarray(255 - np.asarray(Image.open(file))).save(file)
        file.write_bytes(file.read_bytes()[: len(content)].ljust(len(content), b"\0"))
        os.utime(file, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    elif change == "resize":
        options = {"resize": "pad"}
    elif change == "size":
        shape = (3, 9, 8)
    else:
        shutil.copy(file, photographs / "cat" / "more.png")
    after = load_dataset(str(photographs), shape, cache=tmp_path / "cache", listener=heard, **options)
    assert len(heard.begun) == 1
    assert after.digest != before.digest


def of_class(dataset, label):
    """All images of a class, in an order that is theirs."""
    splits = (dataset.train, dataset.validation)
    return np.unique(np.concatenate([s.images[s.labels == label].reshape(-1, 192) for s in splits]), axis=0)


def test_other_classes_and_another_place_need_no_decoding(photographs, tmp_path):
    dataset = load(photographs, tmp_path / "cache")
    photographs.rename(tmp_path / "moved")
    (tmp_path / "index.txt").write_text("eel\ndog\ncat\n")
    heard = Heard()
    moved = load(tmp_path / "moved", tmp_path / "cache", heard, classes=tmp_path / "index.txt")
    assert heard.begun == []
    assert moved.classes == ("eel", "dog", "cat")
    np.testing.assert_array_equal(of_class(moved, 1), of_class(dataset, 1))
    np.testing.assert_array_equal(of_class(moved, 2), of_class(dataset, 0))


def test_of_two_who_need_it_at_once_one_decodes(photographs, tmp_path):
    heard = [Heard(), Heard()]
    with ThreadPoolExecutor(2) as pool:
        first, second = pool.map(lambda h: load(photographs, tmp_path / "cache", h).digest, heard)
    assert first == second
    assert sorted(len(h.begun) for h in heard) == [0, 1]
    assert [p.name for p in (tmp_path / "cache").iterdir() if p.suffix] == []


@pytest.mark.parametrize("damage", ["cut off", "no digests", "no entry", "no json"])
def test_damaged_entries_are_made_anew(photographs, tmp_path, damage):
    dataset = load(photographs, tmp_path / "cache")
    pixels = dataset.train.images[:]
    (place,) = (tmp_path / "cache").iterdir()
    if damage == "cut off":
        os.truncate(place / IMAGES_FILE, 1000)
    elif damage == "no json":
        (place / "entry.json").write_text("{")
    else:
        (place / {"no digests": "digests", "no entry": "entry.json"}[damage]).unlink()
    heard = Heard()
    again = load(photographs, tmp_path / "cache", heard)
    assert len(heard.begun) == 1
    assert again.digest == dataset.digest
    np.testing.assert_array_equal(again.train.images[:], pixels)
    assert [p.name for p in (tmp_path / "cache").iterdir()] == [place.name]


def test_broken_photographs_are_left_out_of_an_entry(photographs, tmp_path):
    (photographs / "dog" / "7.png").write_text("hello")
    for _ in range(2):
        dataset = load(photographs, tmp_path / "cache")
        (note,) = dataset.notes
        assert note == f"1 of {COUNT} photographs can't be read and are left out: {photographs}/dog/7.png."
        assert len(dataset.train) + len(dataset.validation) == COUNT - 1
    assert not (dataset.train.images[:].reshape(len(dataset.train), -1) == 0).all(axis=1).any()


def test_too_many_broken_photographs_leave_nothing_behind(photographs, tmp_path):
    for i in (3, 4, 5):
        (photographs / "cat" / f"{i}.png").write_text("hello")
    heard = Heard()
    with pytest.raises(InputError, match=r"cat/3\.png: not an image .*more than 1 %"):
        load(photographs, tmp_path / "cache", heard)
    assert heard.ended == 1
    assert list((tmp_path / "cache").iterdir()) == []


def test_a_disk_without_room_is_told_before(photographs, tmp_path, monkeypatch):
    monkeypatch.setattr(cache_module.shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(1000, 900, 100))
    heard = Heard()
    with pytest.raises(StorageError, match=r"the decoded photographs take 28\.8 kB, and 100 B are free: make room"):
        load(photographs, tmp_path / "cache", heard)
    assert heard.begun == []


def test_a_cache_that_is_a_file_is_refused(photographs, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(WootzError, match=r"file: can't be written \(.*\): choose another folder \(--cache"):
        load(photographs, tmp_path / "file")


def test_what_was_not_used_for_longest_goes_first(photographs, tmp_path):
    cache = Cache(tmp_path / "cache")
    for number, resize in enumerate(("squash", "crop", "pad")):
        load(photographs, cache.folder, resize=resize)
        for holding in cache.holdings():
            if holding.entry.resize == resize:
                os.utime(cache.folder / holding.key / "entry.json", (1e9 + number, 1e9 + number))
    load(photographs, cache.folder, resize="squash")
    assert [holding.entry.resize for holding in cache.holdings()] == ["squash", "pad", "crop"]
    size = sum(holding.size for holding in cache.holdings()[:2])
    assert cache.tidy(limit=size).entries == 1
    assert [holding.entry.resize for holding in cache.holdings()] == ["squash", "pad"]
    assert cache.tidy(older_than=1e6).entries == 1
    assert [holding.entry.resize for holding in cache.holdings()] == ["squash"]


def test_tidying_takes_what_dead_processes_left_and_no_file_of_others(photographs, tmp_path):
    cache = Cache(tmp_path / "cache")
    dataset = load(photographs, cache.folder)
    expected = dataset.train.images[:]
    living = temporary_name(cache.folder)
    living.mkdir()
    dead = cache.folder / living.name.replace(f"-{os.getpid()}-", "-999999999-")
    dead.mkdir()
    (cache.folder / "notes.txt").write_text("mine")
    done = cache.tidy(limit=0)
    assert (done.entries, done.leftovers) == (1, 1)
    assert {path.name for path in cache.folder.iterdir()} == {living.name, "notes.txt"}
    np.testing.assert_array_equal(dataset.train.images[:], expected)
