import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from wootz.passes.plan.transform import InputTransform
from wootz.runtime.schedule import training_schedule


def schedule(images=10, extents=(6, 8), size=4, count=5, seed=0, **transform):
    return list(training_schedule(images, extents, InputTransform(**transform), size, count, seed))


def test_every_epoch_takes_each_image_once():
    taken = np.concatenate([choice.images for choice in schedule()])
    assert sorted(taken[:10]) == sorted(taken[10:]) == list(range(10))
    assert list(taken[:10]) != list(taken[10:])


@given(st.integers(1, 6), st.integers(0, 50))
def test_crops_lie_inside_the_images(crop_size, seed):
    for choice in schedule(crop_size=crop_size, seed=seed, count=3):
        assert choice.tops.min() >= 0
        assert choice.tops.max() <= 6 - crop_size
        assert choice.lefts.min() >= 0
        assert choice.lefts.max() <= 8 - crop_size


def test_what_the_transform_lacks_is_not_drawn():
    (choice,) = schedule(count=1)
    assert choice.tops is None
    assert choice.lefts is None
    assert choice.flips is None
    (mirrored,) = schedule(count=1, mirror=True)
    np.testing.assert_array_equal(mirrored.images, choice.images)


def test_random_numbers_are_drawn_in_the_order_that_stored_results_were_trained_with():
    generator = np.random.default_rng(7)
    first, second = schedule(count=2, size=6, seed=7, crop_size=3, mirror=True)
    order = generator.permutation(10)
    for choice, images in ((first, order[:6]), (second, None)):
        if images is None:
            images = np.concatenate([order[6:], generator.permutation(10)])[:6]
        np.testing.assert_array_equal(choice.images, images)
        np.testing.assert_array_equal(choice.tops, generator.integers(0, 4, 6))
        np.testing.assert_array_equal(choice.lefts, generator.integers(0, 6, 6))
        np.testing.assert_array_equal(choice.flips, generator.random(6) < 0.5)


@given(st.floats(0.05, 0.9), st.integers(0, 50))
def test_crops_that_are_resized_lie_inside_the_images(least_area, seed):
    for choice in schedule(images=40, extents=(60, 80), size=40, least_area=least_area, seed=seed, count=2):
        assert choice.heights.min() >= 1
        assert choice.widths.min() >= 1
        assert choice.tops.min() >= 0
        assert choice.lefts.min() >= 0
        assert np.all(choice.tops + choice.heights <= 60)
        assert np.all(choice.lefts + choice.widths <= 80)


def test_areas_and_proportions_of_crops_that_are_resized():
    (choice,) = schedule(images=4000, extents=(1000, 1000), size=4000, least_area=0.08, count=1)
    inside = (choice.heights < 1000) & (choice.widths < 1000)
    proportions, areas = choice.widths / choice.heights, choice.widths * choice.heights / 1e6
    assert 0.74 < proportions[inside].min() < 0.77
    assert 1.3 < proportions[inside].max() < 1.35
    assert abs(np.log(proportions).mean()) < 0.01
    assert 0.079 < areas.min() < 0.09
    assert abs(np.quantile(areas, 0.25) - (0.08 + 0.92 / 4)) < 0.02
