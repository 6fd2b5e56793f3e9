"""Networks of several inputs, or of one that is no image: signals, volumes, masks, vectors, categories, states."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import onnx
import onnxruntime
import pytest

import wootz as library
from wootz.runtime.result import RunResult

HEADER = '<ir_version: 8, opset_import: ["" : 18]>'
CLASSES = 3
SAMPLES, TRAINING = 96, 64
MODULES = """
    a1 = Conv(h, a) a2 = Relu(a1) a3 = Conv<pads = {pads}>(a2, b) a4 = Add(a3, h) m1 = Relu(a4)
    b1 = Conv(m1, c) b2 = Relu(b1) b3 = Conv<pads = {pads}>(b2, d) b4 = Add(b3, m1) m2 = Relu(b4)
    p = GlobalAveragePool(m2) f = Flatten(p) scores = MatMul(f, fc)
"""


@dataclass(frozen=True)
class Case:
    """A network of two residual modules behind `h`, which the `stem` makes of inputs by their `extents`."""

    inputs: str
    stem: str
    extents: Mapping[str, tuple[int, ...]]
    rank: int = 2
    weights: Mapping[str, tuple[int, ...]] = ()
    outputs: str = f"float[N,{CLASSES}] scores"
    types: Mapping[str, str] = ()

    def write(self, file) -> None:
        ones, threes = (1,) * self.rank, (3,) * self.rank
        modules = {
            "a": (8, 8, *ones),
            "b": (8, 8, *threes),
            "c": (8, 8, *ones),
            "d": (8, 8, *threes),
            "fc": (8, CLASSES),
        }
        weights = {**modules, **dict(self.weights)}
        elided = ", ".join(f"float[{','.join(map(str, shape))}] {name}" for name, shape in weights.items())
        body = self.stem + MODULES.format(pads=[1] * (2 * self.rank))
        constants = f"{elided}, int64[2] places = {{2, 3}}, float zero = {{0}}"
        proto = onnx.parser.parse_model(f"{HEADER} g ({self.inputs}) => ({self.outputs}) <{constants}> {{ {body} }}")
        generator = np.random.default_rng(0)
        for name, shape in weights.items():
            values = generator.normal(size=shape, scale=np.sqrt(2 / np.prod(shape[1:] or shape[:1])))
            proto.graph.initializer.append(onnx.numpy_helper.from_array(values.astype(np.float32), name))
        del proto.graph.value_info[:]
        onnx.save(proto, file)

    def arrays(self) -> dict[str, np.ndarray]:
        generator = np.random.default_rng(1)
        return {name: self._array(generator, name, shape) for name, shape in self.extents.items()}

    def _array(self, generator, name, shape) -> np.ndarray:
        numbers = generator.normal(size=(SAMPLES, *shape))
        types = {"int64": lambda v: np.abs(3 * v).astype(np.int64) % 5, "bool": lambda v: v > 0}
        return types.get(dict(self.types).get(name), lambda v: v.astype(np.float32))(numbers)


CASES = {
    "signal": Case(
        "float[N,2,16] signal", "h = Conv<pads = [1,1]>(signal, stem)", {"signal": (2, 16)}, 1, {"stem": (8, 2, 3)}
    ),
    "volume": Case(
        "float[N,1,6,6,6] scan", "h = Conv<pads = [1,1,1,1,1,1]>(scan, stem)", {"scan": (1, 6, 6, 6)}, 3,
        {"stem": (8, 1, 3, 3, 3)},
    ),
    "two images": Case(
        "float[N,3,8,8] left, float[N,3,8,8] right", "l = Conv(left, stem) r = Conv(right, stem) h = Sub(l, r)",
        {"left": (3, 8, 8), "right": (3, 8, 8)}, weights={"stem": (8, 3, 1, 1)},
    ),
    "image and vector": Case(
        "float[N,1,8,8] image, float[N,5] facts",
        "i = Conv(image, stem) v = MatMul(facts, table) w = Unsqueeze(v, places) h = Add(i, w)",
        {"image": (1, 8, 8), "facts": (5,)}, weights={"stem": (8, 1, 1, 1), "table": (5, 8)},
    ),
    "category": Case(
        "int64[N] kind, float[N,1,8,8] image",
        "i = Conv(image, stem) v = Gather(table, kind) w = Unsqueeze(v, places) h = Add(i, w)",
        {"kind": (), "image": (1, 8, 8)}, weights={"stem": (8, 1, 1, 1), "table": (5, 8)}, types={"kind": "int64"},
    ),
    "mask": Case(
        "float[N,1,8,8] image, bool[N,1,8,8] mask", "i = Conv(image, stem) h = Where(mask, i, zero)",
        {"image": (1, 8, 8), "mask": (1, 8, 8)}, weights={"stem": (8, 1, 1, 1)}, types={"mask": "bool"},
    ),
    "state": Case(
        "float[N,1,8,8] frame, float[N,8,8,8] state", "i = Conv(frame, stem) h = Add(i, state)",
        {"frame": (1, 8, 8), "state": (8, 8, 8)}, weights={"stem": (8, 1, 1, 1)},
        outputs=f"float[N,{CLASSES}] scores, float[N,8,8,8] m2",
    ),
}  # fmt: skip
SOLVER = 'base_lr: 0.01 lr_policy: "fixed" momentum: 0.9 max_iter: 6 batch_size: 16'
OPTIONS = {
    "threads": 1, "show": False, "allow_untrained": True, "out": "out", "subspace": "subspace.json",
    "solver": "solver.prototxt", "pretrain_solver": "solver.prototxt",
}  # fmt: skip


@pytest.fixture(params=CASES)
def case(request, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("WOOTZ_STORE", str(tmp_path / "store"))
    (tmp_path / "solver.prototxt").write_text(SOLVER)
    (tmp_path / "subspace.json").write_text("[[0.5, 0.25], [0.25, 0.5]]")
    CASES[request.param].write("net.onnx")
    return CASES[request.param]


def part(arrays, rows):
    return {name: values[rows] for name, values in arrays.items()}


def run_file(file, feeds):
    return onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"]).run(None, feeds)


def test_it_is_pruned_and_delivered_as_it_was_given(case):
    arrays = case.arrays()
    first, rest = part(arrays, slice(TRAINING)), part(arrays, slice(TRAINING, None))
    (scores, *states) = run_file("net.onnx", arrays)
    labels = (scores - scores.mean(axis=0)).argmax(axis=1)
    if states:
        found = library.run("net.onnx", data={"train": first, "val": rest}, objective="min OutputError", **OPTIONS)
        wanted, given = (run_file(str(found.folder / name), rest) for name in ("teacher.onnx", "best.onnx"))
        errors = [np.sum((a - b) ** 2) / np.sum(b**2) for a, b in zip(given, wanted, strict=True)]
        assert found.result.best.quality == pytest.approx(np.mean(errors), rel=1e-3)
    else:
        data = {"train": (first, labels[:TRAINING]), "val": (rest, labels[TRAINING:])}
        found = library.run("net.onnx", data=data, objective="max Accuracy", **OPTIONS)
        (given,) = run_file(str(found.best), rest)
        assert found.result.best.quality == np.mean(given.argmax(axis=1) == labels[TRAINING:])
    described = json.loads((found.folder / "best.json").read_text())
    assert described["input"] is None
    original = onnx.load("net.onnx").graph.input
    assert [each["name"] for each in described["inputs"]] == [value.name for value in original]


@pytest.mark.parametrize("case", ["category"], indirect=True)
def test_the_command_reads_an_archive_searches_and_goes_on(case, wootz, tmp_path):
    arrays = case.arrays()
    (scores,) = run_file("net.onnx", arrays)
    targets = {"y": (scores - scores.mean(axis=0)).argmax(axis=1)}
    splits = {"train": slice(TRAINING), "val": slice(TRAINING, None)}
    named = {f"{name}_{split}": v[rows] for name, v in {**arrays, **targets}.items() for split, rows in splits.items()}
    np.savez("data.npz", **named)
    options = ("--data", "data.npz", "--solver", "solver.prototxt", "--pretrain-solver", "solver.prototxt",
               "--allow-untrained", "--threads", 1, "--workers", 2, "--objective", "max Accuracy")  # fmt: skip
    run = ("run", "net.onnx", *options, "--subspace", "subspace.json", "--finish", "int8", "--out", "run")
    done = wootz(*run, cwd=tmp_path)
    assert done.code == 0, done.err
    result = RunResult.load(tmp_path / "run")
    rest = part(arrays, splits["val"])
    for network in (result.best, *result.finishing.networks):
        (given,) = run_file(f"run/{network.model}", rest)
        assert network.quality == np.mean(given.argmax(axis=1) == named["y_val"])
    assert "this run is finished" in wootz(*run, cwd=tmp_path).out
    assert "'kind': numpy.zeros((1,), 'int64'), 'image': numpy.zeros((1, 1, 8, 8), 'float32')" in done.out
    searched = wootz("search", "net.onnx", *options, "--rates", "0.5", "--networks", 2, "--out", "found", cwd=tmp_path)
    assert searched.code == 0, searched.err
    found = RunResult.load(tmp_path / "found")
    for point in found.search.front:
        (given,) = run_file(f"found/{point.model}", rest)
        assert point.quality == np.mean(given.argmax(axis=1) == named["y_val"])
    report = (tmp_path / "run" / "report.html").read_text()
    assert "input kind" in report
    named["kind_val"] = named["kind_val"] + 0.5
    np.savez("data.npz", **named)
    refused = wootz(*run, "--fresh", cwd=tmp_path)
    assert refused.code != 0
    assert "kind of val has numbers that are no int64" in refused.err


@pytest.mark.parametrize("case", ["two images"], indirect=True)
def test_pixels_of_two_images_are_normalised_alike_and_described(case):
    generator = np.random.default_rng(2)
    arrays = {name: generator.integers(0, 256, (SAMPLES, *shape), np.uint8) for name, shape in case.extents.items()}
    fed = {name: (values.astype(np.float32) - np.float32(128)) * np.float32(0.02) for name, values in arrays.items()}
    (scores,) = run_file("net.onnx", fed)
    labels = (scores - scores.mean(axis=0)).argmax(axis=1)
    data = {"train": (part(arrays, slice(TRAINING)), labels[:TRAINING])}
    data["val"] = part(arrays, slice(TRAINING, None)), labels[TRAINING:]
    found = library.run("net.onnx", data=data, objective="max Accuracy", mean="128", scale="0.02", **OPTIONS)
    described = json.loads((found.folder / "best.json").read_text())
    assert (described["input"]["name"], described["input"]["mean"], described["input"]["scale"]) == (
        "left",
        [128],
        [0.02],
    )
    assert [each["takes"] for each in described["inputs"]] == ["pixels", "pixels"]
    (given,) = run_file(str(found.best), part(fed, slice(TRAINING, None)))
    assert found.result.best.quality == np.mean(given.argmax(axis=1) == labels[TRAINING:])


@pytest.mark.parametrize("case", ["mask"], indirect=True)
def test_options_that_would_mean_nothing_are_refused(case):
    data, others = case.arrays(), {**OPTIONS, "objective": "min OutputError"}
    refused = {
        "embed_normalization": (True, "--embed-normalization is about pixels, and no input is given any"),
        "normalize": ("imagenet", "--normalize is about pixels"),
        "data_on_device": (True, "--data-on-device is for networks of images alone"),
        "resize": ("crop", "--resize is for photographs"),
        "size": ("8x8", "a size is for networks of images alone"),
    }
    for name, (value, reason) in refused.items():
        with pytest.raises(library.WootzError, match=reason) as told:
            library.run("net.onnx", data=data, **{**others, name: value})
        assert "\n" not in str(told.value)
