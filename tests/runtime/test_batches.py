import threading
import time
from dataclasses import replace
from itertools import islice

import numpy as np
import pytest
from PIL import Image

from wootz.passes.plan.transform import InputTransform
from wootz.runtime.batches import PREPARED_AHEAD, normalize, ordered_batches, training_batch, training_batches
from wootz.runtime.data.dataset import Split
from wootz.runtime.schedule import Choice

IDENTITY = InputTransform(channel_order="RGB")


def numbered(count: int, shape=(1, 2, 2)) -> Split:
    """Image i has the value i everywhere, and the label i."""
    images = np.broadcast_to(np.arange(count, dtype=np.uint8).reshape(-1, 1, 1, 1), (count, *shape)).copy()
    return Split(images, np.arange(count))


def test_every_epoch_shows_each_image_once():
    batches = list(training_batches(numbered(10), IDENTITY, size=4, count=5, seed=0))
    shown = np.concatenate([b.labels for b in batches])
    assert sorted(shown[:10]) == sorted(shown[10:]) == list(range(10))
    assert list(shown[:10]) != list(shown[10:])
    for batch in batches:
        np.testing.assert_array_equal(batch.data[:, 0, 0, 0], batch.labels)


def test_the_seed_decides_the_sequence():
    def sequence(seed):
        transform = InputTransform(mirror=True, crop_size=3)
        split = Split(np.random.default_rng(0).integers(0, 255, (9, 3, 5, 5), dtype=np.uint8), np.arange(9))
        return np.concatenate([b.data for b in training_batches(split, transform, 4, 6, seed)])

    np.testing.assert_array_equal(sequence(1), sequence(1))
    assert not np.array_equal(sequence(1), sequence(2))


def test_mirroring_flips_some_images_and_leaves_the_split_alone():
    images = np.tile(np.arange(4, dtype=np.uint8), (64, 1, 1, 1)).reshape(64, 1, 1, 4)
    split = Split(images.copy(), np.zeros(64, np.int64))
    (batch,) = training_batches(split, InputTransform(mirror=True), 64, 1, seed=0)
    flipped = batch.data[:, 0, 0, 0] == 3
    assert 10 < flipped.sum() < 54
    np.testing.assert_array_equal(batch.data[~flipped], images[~flipped])
    np.testing.assert_array_equal(batch.data[flipped], images[flipped][..., ::-1])
    np.testing.assert_array_equal(split.images, images)


def test_crops_are_windows_of_the_image():
    image = np.arange(30, dtype=np.uint8).reshape(1, 1, 5, 6)
    split = Split(np.repeat(image, 40, axis=0), np.zeros(40, np.int64))
    (batch,) = training_batches(split, InputTransform(crop_size=3), 40, 1, seed=0)
    windows = {tuple(image[0, 0, t : t + 3, left : left + 3].ravel()) for t in range(3) for left in range(4)}
    seen = {tuple(crop.ravel()) for crop in batch.data}
    assert seen <= windows
    assert len(seen) > 6
    (centre,) = ordered_batches(Split(image, np.zeros(1, np.int64)), InputTransform(crop_size=3), 8)
    np.testing.assert_array_equal(centre.data[0, 0], image[0, 0, 1:4, 1:4])


def test_testing_shows_every_image_once_and_a_short_last_batch():
    batches = list(ordered_batches(numbered(10), IDENTITY, 4))
    assert [len(b.labels) for b in batches] == [4, 4, 2]
    np.testing.assert_array_equal(np.concatenate([b.labels for b in batches]), np.arange(10))


def test_normalisation_is_caffes():
    image = np.array([10, 20, 30], np.uint8).reshape(1, 3, 1, 1)
    transform = InputTransform(mean=(3.0, 2.0, 1.0), scale=(0.5,), channel_order="BGR")
    np.testing.assert_allclose(normalize(image, transform).ravel(), [(30 - 3) / 2, (20 - 2) / 2, (10 - 1) / 2])
    np.testing.assert_allclose(normalize(image, InputTransform(mean=(1.0,), channel_order="RGB")).ravel(), [9, 19, 29])


def test_an_error_in_the_background_reaches_the_loop():
    split = numbered(4)
    with pytest.raises(ValueError, match=r"high <= 0|low >= high"):
        list(training_batches(split, InputTransform(crop_size=5), 2, 3, seed=0))


def test_a_loop_that_stops_early_ends_the_background_thread():
    before = threading.active_count()
    batches = training_batches(numbered(100), IDENTITY, 2, 1000, seed=0)
    assert len(list(islice(batches, PREPARED_AHEAD))) == PREPARED_AHEAD
    batches.close()
    for _ in range(50):
        if threading.active_count() == before:
            break
        time.sleep(0.1)
    assert threading.active_count() == before


def test_crops_are_resized_as_pillow_does():
    """Enlarged ones, that is: for others Pillow averages over more than two pixels."""
    generator = np.random.default_rng(0)
    images = generator.integers(0, 256, (3, 3, 20, 24), dtype=np.uint8)
    heights, widths, tops, lefts = np.array([[7, 16, 1], [12, 5, 1], [2, 4, 19], [3, 19, 0]])
    choice = Choice(np.arange(3), tops, lefts, None, heights, widths)
    transform = InputTransform(crop_size=16, channel_order="RGB", least_area=0.1)
    batch = training_batch(Split(images, np.zeros(3, np.int64)), transform, choice)
    for i, (h, w, top, left) in enumerate(zip(heights, widths, tops, lefts, strict=True)):
        for found, channel in zip(batch.data[i], images[i], strict=True):
            window = Image.fromarray(channel[top : top + h, left : left + w])
            expected = np.asarray(window.resize((16, 16), Image.Resampling.BILINEAR))
            np.testing.assert_allclose(found, expected, atol=1.5)


def test_a_crop_of_everything_is_the_image():
    images = np.random.default_rng(0).integers(0, 256, (2, 3, 8, 6), dtype=np.uint8)
    choice = Choice(np.arange(2), np.zeros(2, int), np.zeros(2, int), None, np.full(2, 8), np.full(2, 6))
    batch = training_batch(Split(images, np.zeros(2, np.int64)), replace(IDENTITY, least_area=0.5), choice)
    np.testing.assert_array_equal(batch.data, images)


def test_batches_of_resized_crops_go_on_where_a_training_was_interrupted():
    images = np.random.default_rng(0).integers(0, 256, (10, 3, 8, 6), dtype=np.uint8)
    split = Split(images, np.arange(10))
    transform = InputTransform(mirror=True, crop_size=4, least_area=0.2)
    whole = list(training_batches(split, transform, 4, 6, seed=5))
    rest = list(training_batches(split, transform, 4, 6, seed=5, first=4))
    assert len(rest) == 2
    for batch, again in zip(whole[4:], rest, strict=True):
        np.testing.assert_array_equal(batch.data, again.data)
        np.testing.assert_array_equal(batch.labels, again.labels)
