"""What becomes of a photograph's proportions, and what is said of it in the input transform."""

import re
import textwrap
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps

from wootz.passes.plan.transform import InputTransform
from wootz.runtime.batches import ordered_batches, training_batches
from wootz.runtime.data.loading import load_dataset
from wootz.runtime.data.resizing import LEAST_AREA, PADDING, Resizing, resized_transforms

RGB = InputTransform(channel_order="RGB")


def ramp(width: int, height: int) -> Image.Image:
    """Red is how far right a pixel is, green how far down, from 0 to 255."""
    across, down = (np.rint(255 * (np.arange(n) + 0.5) / n).astype(np.uint8) for n in (width, height))
    pixels = np.zeros((height, width, 3), np.uint8)
    pixels[..., 0], pixels[..., 1] = across, down[:, None]
    return Image.fromarray(pixels)


def write(folder, sizes, suffix="png"):
    for name in ("cat", "dog"):
        (folder / name).mkdir(parents=True)
        for i, size in enumerate(sizes):
            ramp(*size).save(folder / name / f"{i}.{suffix}")


def load(folder, shape=(3, 28, 28), **options):
    dataset = load_dataset(str(folder), shape, **options)
    assert dataset.resizing is not None
    return dataset, resized_transforms((RGB, RGB), dataset.resizing, shape)


def test_crop_keeps_proportions_and_leaves_a_margin(tmp_path):
    write(tmp_path, [(120, 60)] * 5)
    dataset, (train, test) = load(tmp_path, resize="crop")
    assert dataset.train.images.shape[1:] == (3, 32, 32)
    assert test == InputTransform(channel_order="RGB", crop_size=28, resize="crop", resize_to=32)
    assert train == InputTransform(
        channel_order="RGB", crop_size=28, resize="crop", resize_to=32, least_area=LEAST_AREA
    )
    (batch,) = ordered_batches(dataset.validation, test, 2)
    red, green = batch.data[0, 0, 14], batch.data[0, 1, :, 14]
    middle = (np.arange(2, 30) + 0.5) / 32
    np.testing.assert_allclose(red, 255 * (0.25 + middle / 2), atol=2)
    np.testing.assert_allclose(green, 255 * middle, atol=2)


def test_the_crop_is_that_of_the_usual_recipe(tmp_path):
    """The shorter side to 32, 28 from the centre, as torchvision does it, whose crops begin at whole pixels."""
    write(tmp_path, [(96, 64)] * 5)
    dataset, (_, test) = load(tmp_path, resize="crop")
    (batch,) = ordered_batches(dataset.validation, test, 2)
    expected = np.asarray(ramp(96, 64).resize((48, 32), Image.Resampling.BILINEAR).crop((10, 2, 38, 30)))
    np.testing.assert_allclose(batch.data[0], expected.transpose(2, 0, 1), atol=1)


def test_networks_that_are_not_square_get_their_proportions(tmp_path):
    write(tmp_path, [(120, 120)] * 5)
    dataset, (train, test) = load(tmp_path, (3, 20, 40), resize="crop")
    assert dataset.train.images.shape[1:] == (3, 20, 40)
    assert (test.resize, test.resize_to, test.crop_size) == ("crop", 0, 0)
    np.testing.assert_allclose(dataset.train.images[0, 1, :, 7], 255 * (0.25 + (np.arange(20) + 0.5) / 40), atol=2)
    batch = next(training_batches(dataset.train, train, 4, 1, seed=0))
    assert batch.data.shape == (4, 3, 20, 40)


def test_pad_shows_the_whole_photograph(tmp_path):
    write(tmp_path, [(112, 56)] * 5)
    dataset, (train, test) = load(tmp_path, resize="pad")
    assert train == test == InputTransform(channel_order="RGB", resize="pad")
    image = dataset.train.images[0]
    assert (image[:, :7] == PADDING[0]).all()
    assert (image[:, 21:] == PADDING[0]).all()
    np.testing.assert_allclose(image[0, 14], 255 * (np.arange(28) + 0.5) / 28, atol=2)
    np.testing.assert_allclose(image[1, 7:21, 9], 255 * (np.arange(14) + 0.5) / 14, atol=2)


@pytest.mark.parametrize("resize", ["squash", "crop", "pad"])
def test_photographs_of_the_networks_size_stay_as_they_are(tmp_path, resize):
    write(tmp_path, [(28, 28)] * 5)
    dataset, (train, test) = load(tmp_path, resize=resize)
    np.testing.assert_array_equal(dataset.train.images[0], np.asarray(ramp(28, 28)).transpose(2, 0, 1))
    assert train == test == RGB


def test_what_another_network_cropped_is_forgotten():
    """A network whose metadata say crop, and photographs that have its size."""
    said = InputTransform(crop_size=28, resize="crop", resize_to=32)
    assert resized_transforms((said, said), Resizing.to("squash", 28, 28), (3, 28, 28)) == (InputTransform(),) * 2
    caffe = InputTransform(crop_size=27)
    assert resized_transforms((caffe, caffe), Resizing.to("squash", 32, 32), (3, 27, 27)) == (caffe, caffe)


@pytest.mark.parametrize("resize", ["crop", "pad"])
def test_large_jpeg_files_look_alike_in_whichever_size_they_are_decoded(tmp_path, resize):
    write(tmp_path, [(900, 600)] * 5, "jpg")
    whole = np.asarray(Resizing.to(resize, 28, 28).apply(ramp(900, 600)))
    dataset, _ = load(tmp_path, resize=resize)
    np.testing.assert_allclose(dataset.train.images[0], whole.transpose(2, 0, 1), atol=4)


def test_digests_differ(tmp_path):
    write(tmp_path, [(40, 30)] * 5)
    found = [load(tmp_path, resize=resize)[0].digest for resize in ("squash", "crop", "pad", "crop")]
    assert len(set(found)) == 3
    assert found[1] == found[3]


def test_stored_results_have_keys_of_the_transform_as_it_was():
    assert repr(InputTransform((1.0,), (2.0,), 3, True, "RGB")) == (
        "InputTransform(mean=(1.0,), scale=(2.0,), crop_size=3, mirror=True, channel_order='RGB')"
    )
    assert repr(InputTransform(resize="crop", resize_to=256, least_area=0.5)).endswith(
        "channel_order='BGR', resize='crop', resize_to=256, least_area=0.5)"
    )


def test_a_policy_that_is_asked_for_holds_for_photographs_of_the_networks_size_too(tmp_path):
    write(tmp_path, [(28, 28)] * 5)
    dataset, (_, test) = load(tmp_path, resize="crop", resizes_all=True)
    assert (test.resize, test.resize_to) == ("crop", 32)
    assert dataset.train.images.shape[1:] == (3, 32, 32)


def test_photographs_of_all_splits_decide_whether_they_stay_as_they_are(tmp_path):
    write(tmp_path / "train", [(28, 28)] * 5)
    write(tmp_path / "test", [(120, 60)] * 5)
    dataset, (_, test) = load(tmp_path, resize="pad")
    assert test.resize == "pad"
    assert (dataset.test.images[:, :, :7] == PADDING[0]).all()


@pytest.mark.parametrize("orientation", range(1, 9))
def test_photographs_are_turned_upright(tmp_path, orientation):
    """As Pillow's own `exif_transpose` turns them, before they are resized."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    for name in ("cat", "dog"):
        (tmp_path / name).mkdir()
        for i in range(5):
            ramp(900, 600).save(tmp_path / name / f"{i}.jpg", exif=exif, quality=95)
    with Image.open(tmp_path / "cat" / "0.jpg") as opened:
        upright = ImageOps.exif_transpose(opened).convert("RGB")
    dataset, _ = load(tmp_path, (3, 28, 20), resize="crop")
    expected = np.asarray(Resizing.to("crop", 28, 20).apply(upright)).transpose(2, 0, 1)
    np.testing.assert_allclose(dataset.train.images[0], expected, atol=5)


def test_damage_to_what_a_camera_says_is_none_to_the_photograph(tmp_path):
    write(tmp_path, [(40, 40)] * 5, "jpg")
    ramp(40, 40).save(tmp_path / "cat" / "0.jpg", exif=b"Exif\0\0no TIFF header")
    assert load(tmp_path)[0].notes == ()


@pytest.mark.parametrize("resize", ["squash", "crop", "pad"])
@pytest.mark.parametrize("size", [(28, 28), (28, 20)])
def test_the_lines_in_the_docs_do_the_same(tmp_path, resize, size):
    width, height = size
    write(tmp_path, [(97, 61)] * 5)
    dataset, (_, test) = load(tmp_path, (3, height, width), resize=resize)
    page = (Path(__file__).parents[3] / "docs" / "data.md").read_text()
    lines = re.search(r"\n((?:    .*\n)*    image = ImageOps\.exif.*\n(?:    .*\n)*)", page)
    known = {"resize": test.resize, "resize_to": test.resize_to, "crop_size": test.crop_size}
    known |= {"width": width, "height": height, "photograph": ramp(97, 61), "Image": Image, "ImageOps": ImageOps}
    exec(textwrap.dedent(lines[1]), known)
    (batch,) = ordered_batches(dataset.validation, test, 2)
    np.testing.assert_array_equal(batch.data[0], np.asarray(known["image"]).transpose(2, 0, 1))
