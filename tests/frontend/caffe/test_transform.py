from __future__ import annotations

import struct

import numpy as np
import pytest

from wootz.frontend.caffe.network import NetState, Phase, read_network
from wootz.frontend.caffe.prototxt import parse_prototxt
from wootz.frontend.caffe.transform import read_transform, says_pixels
from wootz.passes.errors import InputError
from wootz.passes.plan.transform import InputTransform


def read(parameter: str, phase: Phase = Phase.TEST, file: str = "net") -> tuple[InputTransform, list[str]]:
    text = f'layer {{ name: "d" type: "Data" top: "x" transform_param {{ {parameter} }} }}'
    notes: list[str] = []
    network = read_network(parse_prototxt(text, file))
    return read_transform(network.layers, NetState(phase), notes), notes


@pytest.mark.parametrize(
    ("parameter", "transform", "says"),
    [
        ("", InputTransform(), False),
        ("scale: 0.5", InputTransform((0.0,), (0.5,)), True),
        ("scale: 0.5 mean_value: 128", InputTransform((128.0,), (0.5,)), True),
        ("mean_value: 1 mean_value: 2 mean_value: 3 crop_size: 224", InputTransform((1, 2, 3), crop_size=224), True),
        ("mirror: true", InputTransform(), False),
    ],
)
def test_transforms(parameter, transform, says) -> None:
    assert read(parameter) == (transform, [])
    assert says_pixels(transform) == says


def test_images_are_mirrored_while_training_only() -> None:
    assert read("mirror: true", Phase.TRAIN)[0].mirror


def test_a_mean_image_beside_the_network(tmp_path) -> None:
    values = np.arange(12, dtype="<f4").reshape(3, 2, 2)
    blob = b"\x08\x01\x10\x03\x18\x02\x20\x02" + b"\x2a" + struct.pack("B", 48) + values.tobytes()
    (tmp_path / "mean.binaryproto").write_bytes(blob)
    transform, notes = read('mean_file: "mean.binaryproto"', file=str(tmp_path / "net.prototxt"))
    assert transform.mean == (1.5, 5.5, 9.5)
    assert "the mean image 'mean.binaryproto' became one mean a channel" in notes[0]


def test_a_mean_image_that_is_not_there_is_noted() -> None:
    transform, notes = read('mean_file: "none.binaryproto"')
    assert transform == InputTransform()
    assert notes == ["net:1: layer 'd' (Data): the mean image 'none.binaryproto' is not there: no mean is subtracted"]


def test_augmentation_that_is_not_applied_is_noted() -> None:
    _, notes = read("resize_param { prob: 1 } glow: 3")
    assert notes == [
        "net:1: layer 'd' (Data): transform_param.resize_param is not applied",
        "net:1: layer 'd' (Data): transform_param.glow is not applied",
    ]


@pytest.mark.parametrize(
    ("parameter", "message"),
    [
        ('mean_value: 1 mean_file: "a"', "mean_file and mean_value exclude each other"),
        ("scale: big", "takes a number, not 'big'"),
    ],
)
def test_faults_are_named(parameter, message) -> None:
    with pytest.raises(InputError, match=message):
        read(parameter)
