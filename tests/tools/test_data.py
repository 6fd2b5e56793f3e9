"""Which resizing photographs get for which network, and what options say of it."""

from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from wootz.frontend.caffe.importer import ImportedNetwork
from wootz.passes.errors import InputError
from wootz.passes.ir.text import parse_text
from wootz.passes.plan.transform import TRANSFORM_KEY, InputTransform
from wootz.runtime.data.resizing import LEAST_AREA
from wootz.tools.data import open_data

OPTIONS = {"seed": 0, "classes": None, "resize": None, "cache": None, "mirror": None, "new_head": None}
RGB = InputTransform(channel_order="RGB")


def network(channels: int = 3, said: InputTransform | None = None) -> ImportedNetwork:
    model = parse_text(
        f"""<ir_version: 8, opset_import: ["" : 18]>
        g (float[N,{channels},28,28] x) => (float[N,{channels}] y) {{
          [pool] p = GlobalAveragePool(x)
          [flat] y = Flatten(p)
        }}"""
    )
    if said is not None:
        model = replace(model, metadata={TRANSFORM_KEY: said.to_json()})
    return ImportedNetwork(model, train_transform=said or RGB, test_transform=said or RGB)


@pytest.fixture
def photographs(tmp_path):
    for name in ("cat", "dog"):
        (tmp_path / name).mkdir()
        for i in range(5):
            Image.new("RGB", (50, 40), (i, 0, 0)).save(tmp_path / name / f"{i}.png")
    return str(tmp_path)


def opened(location, imported, given=None, **options):
    transforms = imported.train_transform, imported.test_transform
    return open_data(location, imported, transforms, OPTIONS | options, given)


def test_photographs_are_cropped_and_mirrored_for_an_onnx_network(photographs):
    dataset, (train, test) = opened(photographs, network())
    assert test == replace(RGB, resize="crop", resize_to=32, crop_size=28)
    assert train == replace(test, least_area=LEAST_AREA, mirror=True)
    assert dataset.train.images.shape[1:] == (3, 32, 32)
    assert not opened(photographs, network(), mirror=False)[1][0].mirror


@pytest.mark.parametrize(
    ("imported", "expected"),
    [
        (network(1), RGB),
        (network(said=InputTransform()), InputTransform()),
        (network(said=replace(RGB, resize="pad")), replace(RGB, resize="pad")),
        (
            network(said=replace(RGB, resize="crop", resize_to=32, crop_size=28)),
            replace(RGB, resize="crop", resize_to=32, crop_size=28),
        ),
    ],
    ids=["grey", "a network that was squashed", "padded", "cropped"],
)
def test_a_network_says_what_it_was_trained_with(photographs, imported, expected):
    _, (train, test) = opened(photographs, imported)
    assert test == expected
    assert (train.least_area < 1) == train.mirror == (expected.resize == "crop")


def test_options_come_first(photographs):
    imported = network(said=InputTransform())
    assert opened(photographs, imported, resize="pad")[1] == (InputTransform(resize="pad"),) * 2
    assert opened(photographs, network(), resize="squash")[1] == (RGB, RGB)
    cropped = network(said=replace(RGB, resize="crop", resize_to=32, crop_size=28))
    dataset, transforms = opened(photographs, cropped, resize="squash")
    assert transforms == (RGB, RGB)
    assert dataset.train.images.shape[1:] == (3, 28, 28)


def test_caffes_crops_are_taken_from_photographs_of_the_first_ones_size(photographs):
    said = InputTransform(crop_size=28)
    dataset, transforms = opened(photographs, network(said=said))
    assert transforms == (said, said)
    assert dataset.train.images.shape[1:] == (3, 40, 50)


def test_arrays_are_not_resized(tmp_path):
    images = np.zeros((10, 3, 28, 28), np.uint8)
    np.savez(tmp_path / "data.npz", x_train=images, y_train=np.arange(10) % 2)
    assert opened(str(tmp_path / "data.npz"), network())[1] == (RGB, RGB)
    with pytest.raises(InputError, match=r"data\.npz: --resize is for photographs: arrays are taken as they are"):
        opened(str(tmp_path / "data.npz"), network(), resize="crop")


def test_only_an_option_resizes_photographs_of_the_networks_size(tmp_path):
    for name in ("cat", "dog"):
        (tmp_path / name).mkdir()
        for i in range(5):
            Image.new("RGB", (28, 28), (i, 0, 0)).save(tmp_path / name / f"{i}.png")
    assert opened(str(tmp_path), network())[1] == (RGB, RGB)
    assert opened(str(tmp_path), network(), resize="pad")[1] == (replace(RGB, resize="pad"),) * 2


def test_images_are_not_mirrored_where_targets_have_positions():
    images = np.zeros((10, 3, 28, 28), np.uint8)
    mirrored = network(said=replace(RGB, mirror=True))
    maps = np.zeros((10, 28, 28), np.float32)
    dataset, (train, _) = opened("arrays", mirrored, given=(images, maps))
    assert not train.mirror
    assert dataset.notes == ("Images aren't mirrored: targets with positions would no longer fit.",)
    dataset, (train, _) = opened("arrays", mirrored, given=(images, np.zeros((10, 4), np.float32)))
    assert train.mirror
    assert dataset.notes == ()
    named = {"map": maps, "class": np.zeros(10)}
    assert not opened("arrays", mirrored, given=(images, named))[1][0].mirror
    larger = np.zeros((10, 3, 32, 32), np.uint8)
    with pytest.raises(InputError, match=r"images are cropped \(crop_size\), and targets with positions"):
        opened("arrays", network(said=replace(RGB, crop_size=28)), given=(larger, maps))


def test_images_are_not_mirrored_beside_other_inputs():
    model = parse_text("""<ir_version: 8, opset_import: ["" : 18]>
        g (float[N,3,8,8] x, float[N,3,8,8] z) => (float[N,3,8,8] y) { y = Add(x, z) }""")
    both = ImportedNetwork(model, train_transform=replace(RGB, mirror=True), test_transform=RGB)
    pixels = np.full((10, 3, 8, 8), 255, np.uint8)
    dataset, (train, test) = opened("arrays", both, given={"x": pixels, "z": pixels.astype(np.float32)})
    assert (train.mirror, train.units, test.units) == (False, "0-255", "0-255")
    assert dataset.train.images.pixels == ("x",)
    assert dataset.notes == ("Images aren't mirrored: other inputs would no longer fit.",)
    dataset, (train, _) = opened("arrays", both, given={"x": np.zeros((10, 3, 8, 8)), "z": np.zeros((10, 3, 8, 8))})
    assert train.units == "as given"
