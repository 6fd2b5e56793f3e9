"""The benchmark that goes from a network to a smaller one by several ways, at toy size, and its counting of lines."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from argparse import Namespace
from pathlib import Path
from types import ModuleType

import numpy as np
import onnx
import pytest
from PIL import Image

from wootz.passes.plan.transform import InputTransform
from wootz.runtime.batches import ordered_batches
from wootz.runtime.data.loading import load_dataset

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
BY_HAND = BENCHMARKS / "paper" / "by_hand"
SOLVER = (
    'base_lr: 0.01 lr_policy: "cosine" momentum: 0.9 max_iter: 18 warmup_iter: 2 batch_size: 8 test_interval: 9 '
    "weight_decay: 0.0005"
)
NETWORK = """<ir_version: 8, opset_import: ["" : 18]>
g (float[N,3,8,8] image) => (float[N,2] scores) <WEIGHTS> {
    h = Conv<pads = [1,1,1,1]>(image, stem, stem_bias)
    a1 = Conv<pads = [1,1,1,1]>(h, a, a_bias) a2 = Relu(a1) a3 = Conv<pads = [1,1,1,1]>(a2, b, b_bias)
    a4 = Add(a3, h) m1 = Relu(a4)
    b1 = Conv<pads = [1,1,1,1]>(m1, c, c_bias) b2 = Relu(b1) b3 = Conv<pads = [1,1,1,1]>(b2, d, d_bias)
    b4 = Add(b3, m1) m2 = Relu(b4)
    p = GlobalAveragePool(m2) f = Flatten(p) scores = Gemm<transB = 1>(f, fc, fc_bias)
}"""
SHAPES = {"stem": (16, 3, 3, 3), **dict.fromkeys("abcd", (16, 16, 3, 3)), "fc": (2, 16)}


def module(name: str, folder: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, folder / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    loaded = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loaded)
    return loaded


def test_lines_of_code_are_those_that_do_something() -> None:
    source = '''"""What it is.

And more.
"""

# why
import os  # for its name

LEFT = """two
lines"""
"""What is left."""


def name(
    of: str,
) -> str:
    """Its name."""
    return os.name
'''
    assert module("written_lines", BENCHMARKS).lines_of_code(source) == 1 + 2 + 3 + 1


def test_lines_of_what_is_imported_from_beside_count_once_but_for_what_was_given(tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text("import json\nimport one\nfrom two import name\nfrom given import network\n")
    (tmp_path / "one.py").write_text("from two import name\n\nONE = name\n")
    (tmp_path / "two.py").write_text("name = 2\n")
    (tmp_path / "given.py").write_text("network = 3\n" * 50)
    count = module("written_lines", BENCHMARKS).written_lines
    assert count(tmp_path / "script.py", {"given"}) == 4 + 2 + 1
    assert count(tmp_path / "script.py") == 4 + 2 + 1 + 50


def test_bisection_closes_in_on_the_largest_share() -> None:
    tried: list[float] = []

    def is_enough(share: float) -> bool:
        tried.append(share)
        return share <= 0.6

    module("bisection", BY_HAND).largest(is_enough, 5)
    assert tried == [0.5, 0.75, 0.625, 0.5625, 0.59375]


@pytest.fixture(scope="module")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of two classes, dark and light."""
    folder, drawn = tmp_path_factory.mktemp("photographs"), np.random.default_rng(0)
    for split, count in (("train", 40), ("val", 100), ("test", 20)):
        for label, kind in enumerate(("dark", "light")):
            (folder / split / kind).mkdir(parents=True)
            for number in range(count):
                pixels = drawn.integers(0, 160, (8, 8, 3)) + 90 * label
                Image.fromarray(pixels.astype(np.uint8)).save(folder / split / kind / f"{number}.png")
    return folder


@pytest.mark.parametrize("order", ["RGB", "BGR"])
def test_by_hand_a_network_is_fed_as_by_us(photographs: Path, order: str) -> None:
    mean, scale = (104.0, 117.0, 124.0), (0.5, 0.25, 0.125)
    options = Namespace(data=photographs, mean=mean, scale=scale, channel_order=order)
    images, labels = module("photographs", BY_HAND).load("val", options)
    transform = InputTransform(mean=mean, scale=scale, channel_order=order)
    ours = list(ordered_batches(load_dataset(str(photographs), (3, 8, 8)).validation, transform, 100))
    np.testing.assert_allclose(images, np.concatenate([batch.data for batch in ours]), rtol=1e-6)
    np.testing.assert_array_equal(labels, np.concatenate([batch.labels for batch in ours]))


@pytest.fixture(scope="module")
def toy(photographs: Path, tmp_path_factory: pytest.TempPathFactory) -> list[object]:
    """The benchmark's command. All that is smaller will do."""
    folder = tmp_path_factory.mktemp("toy")
    shapes = SHAPES | {f"{name}_bias": shape[:1] for name, shape in SHAPES.items()}
    weights = ", ".join(f"float[{','.join(map(str, shape))}] {name}" for name, shape in shapes.items())
    network, drawn = onnx.parser.parse_model(NETWORK.replace("WEIGHTS", weights)), np.random.default_rng(0)
    for name, shape in shapes.items():
        values = drawn.normal(size=shape, scale=np.sqrt(2 / np.prod(shape[1:] or shape)))
        network.graph.initializer.append(onnx.numpy_helper.from_array(values.astype(np.float32), name))
    del network.graph.value_info[:]
    onnx.save(network, folder / "net.onnx")
    (folder / "solver.prototxt").write_text(SOLVER)
    solvers = ("--solver", folder / "solver.prototxt", "--pretrain-solver", folder / "solver.prototxt")
    pixels = ("--mean", "128", "--scale", "0.0078125", "--channel-order", "RGB")
    search = ("--rates", "0.5", "--networks", "1", "--looks", "4", "--round-to", "4", "--allow-untrained")
    script = BENCHMARKS / "paper" / "end_to_end.py"
    given = (folder / "net.onnx", "--data", photographs, "--name", "toy", "--out", folder / "out")
    return [script, *given, "--drop", 0.5, "--trainings", 1, *solvers, *pixels, *search]


def rows_of(command: list[object], *further: object) -> dict[str, list[str]]:
    """The cells of a table's lines, by the first one."""
    done = subprocess.run(list(map(str, (sys.executable, *command, *further))), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    cells = [[cell.strip() for cell in line.split("|")[1:-1]] for line in done.stdout.splitlines() if line[:1] == "|"]
    return {first: others for first, *others in cells[2:]}


@pytest.mark.slow
def test_all_ways_at_toy_size(toy: list[object]) -> None:
    for package in ("torch", "torch_pruning", "onnxsim"):
        pytest.importorskip(package)
    rows = rows_of(toy)
    assert list(rows) == ["wootz", "torch-pruning", "onnxsim"]
    assert rows["wootz"][0] == "1"
    for lines, seconds_to, seconds, size, *_, meets in rows.values():
        assert int(lines) >= 1
        assert 0 <= int(seconds_to) <= int(seconds)
        assert 0 < float(size) < 1
        assert meets == "1 of 1"

    out = Path(str(toy[toy.index("--out") + 1])) / "toy" / "seed-0"
    found = {file: file.stat().st_mtime_ns for file in sorted(out.glob("*/*.onnx"))}
    assert len(found) >= 3
    again = rows_of(toy)
    assert [cells[:6] for cells in again.values()] == [cells[:6] for cells in rows.values()]
    assert found == {file: file.stat().st_mtime_ns for file in sorted(out.glob("*/*.onnx"))}

    (out / "torch-pruning" / "finished.json").unlink()
    (out / "onnxsim" / "finished.json").write_text(json.dumps({"seconds_to": None, "seconds": 7.0}))
    (out / "onnxsim" / "found.onnx").unlink()
    rest = rows_of(toy, "--report")
    assert list(rest) == ["wootz", "onnxsim"]
    assert rest["onnxsim"][1:] == ["none", "7", "none", "none", "none", "none", "0 of 1"]
