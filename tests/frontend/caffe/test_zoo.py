"""Real networks against what real Caffe computed. They are no part of the project: WOOTZ_SHARED says where they are."""

from __future__ import annotations

import json
import os
import re
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest

from wootz.frontend.caffe.importer import ImportedNetwork, import_caffe, import_network
from wootz.frontend.caffe.network import Layer, NetState, read_network
from wootz.frontend.caffe.prototxt import read_prototxt
from wootz.frontend.caffe.weights import Expected
from wootz.passes.ir.verifier import verify

ROOT = Path(__file__).parents[3]
ZOO = Path(os.environ.get("WOOTZ_SHARED", ROOT.parent / "shared")) / "zoo"
TOLERANCE = 1e-4

pytestmark = pytest.mark.skipif(not ZOO.is_dir(), reason="no WOOTZ_SHARED with the zoo")


def cases(folder: str, pattern: str) -> list[str]:
    return sorted(p.name for p in (ZOO / folder).glob(pattern)) if ZOO.is_dir() else []


WEIGHTED = [n for n in cases("weights", "*") if (ZOO / "weights" / n / "reference.npz").is_file()]
WITHOUT_INPUT = {"xilinx_enet_d"}
"""Their reference has outputs only; what they stand for is compared with its own fork below."""
PAIRS = ["xilinx_enet", "yolov3_nano_voc"]
"""Networks of forks, and (with `_d`) the same in stock layers."""
SLOW = {"faceboxes_ssd_nv", "unet", "hed", "segnet_synopsys", "caffenet"}
MERGED = {("darknet19", "bn18")}
"""Blobs that have no tensor: BatchNorm and Scale become one."""


@dataclass
class SeededWeights:
    """The rule of the zoo. A BatchNorm layer's blobs are draws of one generator: blob 0's come before blob 1's."""

    initialised: Sequence[str] = ()

    def stored_sizes(self, layer: Layer) -> list[int]:
        return []

    def values(self, layer: Layer, expected: Sequence[Expected]) -> list[np.ndarray]:
        return [np.asarray(self._blob(layer, e.index, e.shape), np.float32) for e in expected]

    def _blob(self, layer: Layer, index: int, shape: tuple[int, ...]) -> np.ndarray:
        random = np.random.default_rng(zlib.crc32(f"{layer.name}|{index}".encode()))
        if layer.type == "BatchNorm":
            factor = 999.98 if zlib.crc32(layer.name.encode()) % 2 else 1
            mean, variance = random.normal(0, 0.1, shape), random.uniform(0.5, 1.5, shape)
            return [mean * factor, variance * factor, np.full(shape, factor)][index]
        if layer.type == "Scale":
            return random.normal(0, 0.1, shape) if index else random.uniform(0.5, 1.5, shape)
        if layer.type == "PReLU":
            return random.uniform(0.05, 0.45, shape)
        if layer.type == "Normalize":
            return random.uniform(5, 15, shape)
        if index:
            return random.normal(0, 0.05, shape)
        return random.normal(0, np.sqrt(2 / max(1, np.prod(shape[1:]))), shape)


@dataclass
class Ones:
    """Weights that take no memory; `shapes` collects what is asked for."""

    shapes: dict[str, dict[int, tuple[int, ...]]] = field(default_factory=dict)
    initialised: Sequence[str] = ()

    def stored_sizes(self, layer: Layer) -> list[int]:
        return []

    def values(self, layer: Layer, expected: Sequence[Expected]) -> list[np.ndarray]:
        self.shapes.setdefault(layer.name, {}).update({e.index: e.shape for e in expected})
        return [np.broadcast_to(np.float32(1), e.shape) for e in expected]


def import_case(folder: Path) -> ImportedNetwork:
    weights = next(iter(sorted(folder.glob("net.caffemodel*"))), None)
    return import_caffe(folder / "net.prototxt", weights)


def feeds_of(reference: Mapping[str, np.ndarray], folder: Path) -> dict[str, np.ndarray]:
    given = {name[3:].replace("|", "/"): reference[name] for name in reference if name.startswith("in_")}
    if given:
        return given
    (case,) = (c for c in json.loads((folder.parent / "manifest.json").read_text()) if c["name"] == folder.name)
    random = np.random.default_rng(7)
    return {name: random.uniform(-1, 1, shape).astype(np.float32) for name, shape in case["inputs"]}


def run(result: ImportedNetwork, feeds: Mapping[str, np.ndarray], wanted: Sequence[str]) -> dict[str, np.ndarray]:
    """The outputs of the network, and the blobs called `wanted` that have a tensor."""
    graph = result.model.graph
    tensors, outputs = graph.tensors(), {t.name for t in graph.outputs}
    extra = [n for n in wanted if n in tensors and n not in outputs and tensors[n].inputs]
    graph.outputs = [*graph.outputs, *(tensors[n] for n in extra)]
    proto = result.model.to_proto()
    onnx.checker.check_model(proto, full_check=True)
    verify(result.model)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])
    inputs = {i.name: np.asarray(feeds[i.name], np.float32) for i in session.get_inputs()}
    return dict(zip([o.name for o in session.get_outputs()], session.run(None, inputs), strict=True))


def assert_equal(found: np.ndarray, wanted: np.ndarray, sample: int | None) -> None:
    if sample is not None:
        found = found.reshape(-1)[::sample]
    assert found.shape == wanted.shape
    np.testing.assert_array_equal(np.isnan(found), np.isnan(wanted))
    scale = max(1e-12, float(np.nanmax(np.abs(wanted), initial=0)))
    np.testing.assert_allclose(found / scale, wanted / scale, rtol=0, atol=TOLERANCE)


def compare(result: ImportedNetwork, reference: Mapping[str, np.ndarray], folder: Path, kinds: tuple[str, ...]) -> None:
    wanted = {}
    for name in reference:
        kind, _, blob = name.replace("|", "/").partition("_")
        sampled = re.fullmatch(r"sample(\d+)_(.*)", blob)
        blob, sample = (sampled[2], int(sampled[1])) if sampled else (blob, None)
        if kind in kinds and (folder.name, blob) not in MERGED:
            wanted[blob] = (reference[name], sample)
    found = run(result, feeds_of(reference, folder), list(wanted))
    compared = set(wanted) & set(found)
    assert compared
    for blob in compared:
        assert_equal(found[blob], *wanted[blob])
    assert all(name in found for name in wanted if f"out_{name}".replace("/", "|") in reference)


@pytest.mark.parametrize("name", [n for n in WEIGHTED if n not in WITHOUT_INPUT])
def test_weighted_networks_compute_what_caffe_computes(name: str) -> None:
    folder = ZOO / "weights" / name
    compare(import_case(folder), np.load(folder / "reference.npz"), folder, ("out",))


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=pytest.mark.slow if n in SLOW else ()) for n in cases("seeded", "*[!.json]")]
)
def test_seeded_networks_compute_what_caffe_computes(name: str) -> None:
    folder = ZOO / "seeded" / name
    manifest = json.loads((folder.parent / "manifest.json").read_text())
    saturated = next(c["saturated"] for c in manifest if c["name"] == name)
    result = import_network(read_network(read_prototxt(folder / "net.prototxt")), SeededWeights(), NetState(), {})
    reference = np.load(folder / "reference.npz")
    has_inner = any(n.startswith("pre_") and (name, n[4:]) not in MERGED for n in reference)
    compare(result, reference, folder, ("pre",) if saturated and has_inner else ("pre", "out"))


@pytest.mark.parametrize("name", cases("layers", "*.prototxt"))
def test_layers_compute_what_caffe_computes(name: str) -> None:
    file = ZOO / "layers" / name
    weights = file.with_suffix(".caffemodel")
    result = import_caffe(file, weights if weights.is_file() else None)
    compare(result, np.load(file.with_suffix(".npz")), file, ("out",))


@pytest.mark.parametrize("name", PAIRS)
def test_a_network_of_a_fork_equals_the_same_in_stock_layers(name: str) -> None:
    if not (ZOO / "weights" / name).is_dir():
        pytest.skip(f"no {name}")
    fork, stock = (import_case(ZOO / "weights" / n) for n in (name, f"{name}_d"))
    size = [1, *fork.model.graph.inputs[0].shape[1:]]
    x = np.random.default_rng(0).uniform(-1, 1, size)
    (found, wanted) = (run(net, {"data": x}, ()) for net in (fork, stock))
    assert found.keys() == wanted.keys()
    for output in found:
        assert_equal(found[output], wanted[output], None)


SHAPES = json.loads((ZOO / "structures" / "shapes.json").read_text()) if ZOO.is_dir() else {}
LOSS_ONLY = {"label", "(automatic)"}
"""Blobs that inference does without."""


@pytest.mark.parametrize("name", sorted(SHAPES))
def test_structures_have_the_shapes_that_caffe_sees(name: str) -> None:
    weights = Ones()
    network = read_network(read_prototxt(ZOO / "structures" / f"{name}.prototxt"))
    result = import_network(network, weights, NetState(), {})
    verify(result.model)
    wanted = SHAPES[name]
    batch = next(iter(wanted["blobs"].values()))[0]
    for blob, shape in wanted["blobs"].items():
        if "_split_" in blob or blob in LOSS_ONLY:
            continue
        found = [_at_batch(d, batch) for d in result.blobs[blob]]
        assert len(found) == len(shape)
        assert all(a is None or a == b for a, b in zip(found, shape, strict=True)), (blob, found, shape)
    for layer, text in wanted["params"].items():
        shapes = [tuple(int(d) for d in part.split()) for part in text.split(" | ")[1:]]
        assert [weights.shapes[layer][i] for i in range(len(shapes))] == shapes, layer


def _at_batch(dimension: int | str, batch: int) -> int | None:
    """The dimension as a number; None where only the run decides it."""
    if isinstance(dimension, int):
        return dimension
    multiple = re.fullmatch(r"(\d*)N", dimension)
    return int(multiple[1] or 1) * batch if multiple else None
