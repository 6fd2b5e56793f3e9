"""A network that comes with weights: complete ones, and those of a network with another number of classes."""

import re
import struct

import numpy as np
import pytest

from wootz.passes.ir.files import load
from wootz.passes.ir.model import constants
from wootz.runtime.data.loading import load_dataset
from wootz.runtime.result import RunResult


def varint(value: int) -> bytes:
    groups = []
    while value >= 128:
        groups.append(value % 128 | 128)
        value //= 128
    return bytes([*groups, value])


def field(number: int, content: bytes) -> bytes:
    """A length-delimited field of the protobuf wire format."""
    return varint(number << 3 | 2) + varint(len(content)) + content


def caffemodel(layers: dict[str, list[np.ndarray]]) -> bytes:
    """NetParameter { layer = 100 { name = 1, blobs = 7 { data = 5, shape = 7 { dim = 1 } } } }."""
    content = b""
    for name, blobs in layers.items():
        body = field(1, name.encode())
        for blob in blobs:
            shape = field(7, field(1, b"".join(varint(extent) for extent in blob.shape)))
            body += field(7, shape + field(5, struct.pack(f"<{blob.size}f", *blob.ravel())))
        content += field(100, body)
    return content


def layers_of(model) -> dict[str, list[np.ndarray]]:
    """The blobs of Caffe's layers: a convolution has a weight, BatchNorm three blobs, Scale two."""
    weights = constants(model.graph)
    layers: dict[str, list[np.ndarray]] = {}
    for name, values in weights.items():
        layer, _, kind = name.rpartition(".")
        if kind == "mean":
            layers[layer] = [values, weights[f"{layer}.variance"], np.ones(1, np.float32)]
            scale = "scale" + layer.removeprefix("bn_").removeprefix("bn")
            layers[scale.replace("scaleconv1", "scale_conv1")] = [weights[f"{layer}.scale"], weights[f"{layer}.bias"]]
        elif kind == "weight":
            layers[layer] = [values, *([weights[f"{layer}.bias"]] if f"{layer}.bias" in weights else [])]
    return layers


@pytest.fixture(scope="module")
def trained(finished_run) -> dict[str, list[np.ndarray]]:
    return layers_of(load(finished_run / "teacher.onnx"))


def test_a_network_with_all_its_weights_is_not_trained(wootz, job_files, trained, finished_run, tmp_path):
    (tmp_path / "net.caffemodel").write_bytes(caffemodel(trained))
    done = wootz(
        "run", job_files, "--weights", tmp_path / "net.caffemodel", "--data", "digits", "--threads", 1,
        "--out", tmp_path / "out",
    )  # fmt: skip
    assert done.code == 0, done.err
    result = RunResult.load(tmp_path / "out")
    assert (result.full.origin, result.full.seconds) == ("given", 0)
    assert result.full.quality == RunResult.load(finished_run).full.quality


def test_weights_of_the_same_name_beside_a_prototxt_are_taken(wootz, job_files, trained, tmp_path):
    (tmp_path / "net.prototxt").write_text((job_files / "net.prototxt").read_text())
    command = ("run", "net.prototxt", "--data", "digits", "--effort", "quick", "--dry-run", "--store", "store")
    assert "full network: " in wootz(*command, cwd=tmp_path).out
    (tmp_path / "net.caffemodel").write_bytes(caffemodel(trained))
    planned = wootz(*command, cwd=tmp_path)
    assert planned.code == 0, planned.err
    assert "The weights are those in net.caffemodel, beside the network" in planned.out
    assert "full network: " not in planned.out
    assert "tried on training images" not in planned.out, "the prototxt says what becomes of pixels"
    deploy = re.sub("transform_param {[^}]*}", "", (tmp_path / "net.prototxt").read_text())
    (tmp_path / "net.prototxt").write_text(deploy)
    assert "-1..1 is taken" in wootz(*command, cwd=tmp_path).out


def test_another_number_of_classes(wootz, job_files, trained, tmp_path):
    dataset = load_dataset("digits", (1, 8, 8))
    splits = {"train": dataset.train, "val": dataset.validation, "test": dataset.test}
    arrays = {}
    for name, split in splits.items():
        arrays[f"x_{name}"], arrays[f"y_{name}"] = split.images[split.labels < 5], split.labels[split.labels < 5]
    np.savez(tmp_path / "five.npz", **arrays)
    net = (job_files / "net.prototxt").read_text().replace("fc10", "fc5").replace("num_output: 10", "num_output: 5")
    (tmp_path / "net.prototxt").write_text(net)
    (tmp_path / "net.caffemodel").write_bytes(caffemodel(trained))
    for name in ("solver.prototxt", "pretrain.prototxt", "subspace.json", "objective.txt"):
        (tmp_path / name).write_text((job_files / name).read_text())
    done = wootz(
        "run", ".", "--weights", "net.caffemodel", "--data", "five.npz", "--threads", 1, "--out", "out", cwd=tmp_path
    )
    assert done.code == 0, done.err
    assert "The full network is fine-tuned; new layers: fc5" in done.out
    assert "fc10" in done.out  # the file's layer that the network doesn't have
    result = RunResult.load(tmp_path / "out")
    assert result.full.curve[0][1] < 0.6 < 0.9 < result.full.quality
