"""The Python of docs/tasks.md is executed, with small networks and few steps."""

from __future__ import annotations

import ast
import re
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from residual import MODULES, WEIGHTS, write_network
from test_any_inputs import CASES

import wootz as library
from wootz.runtime.quality.quality import Quality

BLOCKS = re.findall(r"(?ms)^```python\n(.*?)^```$", (Path(__file__).parents[2] / "docs" / "tasks.md").read_text())
SOLVER = 'base_lr: 0.01 lr_policy: "fixed" momentum: 0.9 max_iter: 6 batch_size: 16'
OPTIONS = {
    "threads": 1, "show": False, "allow_untrained": True, "subspace": "subspace.json",
    "solver": "solver.prototxt", "pretrain_solver": "solver.prototxt",
}  # fmt: skip


def block_with(text: str) -> str:
    (found,) = (block for block in BLOCKS if text in block)
    return found


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Where `wootz.run` trains for a few steps."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("WOOTZ_STORE", str(tmp_path / "store"))
    monkeypatch.setattr(library, "run", partial(library.run, **OPTIONS))
    (tmp_path / "solver.prototxt").write_text(SOLVER)
    (tmp_path / "subspace.json").write_text("[[0.5, 0.25], [0.25, 0.5]]")
    return tmp_path


def test_all_blocks_are_executed_here():
    assert len(BLOCKS) == 4


def test_a_run_with_the_metric_of_the_page(folder):
    body = MODULES.replace("p = GlobalAveragePool(m2)", "maps = Conv(m2, head)")
    weights = {**{name: shape for name, shape in WEIGHTS.items() if name != "fc"}, "head": (2, 8, 1, 1)}
    write_network(folder, "(float[N,1,8,8] image) => (float[N,2,8,8] maps)", body, weights)
    images = np.random.default_rng(0).integers(0, 256, (96, 1, 8, 8), np.uint8)
    names = {"images": images, "masks": (images[:, 0] > 128).astype(np.int64)}
    (folder / "task.py").write_text(block_with("def mean_iou"))
    exec(compile((folder / "task.py").read_text(), str(folder / "task.py"), "exec"), names)
    text = block_with("import wootz\n").replace("mean_iou >= 0.7", "mean_iou >= 0.01")
    exec(compile(text, "tasks.md", "exec"), names)
    assert names["found"].best.is_file()
    assert names["found"].result.best.quality >= 0.01


def test_runs_of_networks_with_several_inputs(folder):
    first, second = ast.parse(block_with('"mask": masks')).body
    masked, pair = CASES["mask"].arrays(), CASES["two images"].arrays()
    labels = np.arange(len(masked["mask"])) % 3
    data = {"images": masked["image"], "masks": masked["mask"], "labels": labels}
    half = len(labels) // 2
    data |= {"a": pair["left"][:half], "b": pair["right"][:half], "y": labels[:half]}
    data |= {"c": pair["left"][half:], "d": pair["right"][half:], "z": labels[half:]}
    for name, statement in (("mask", first), ("two images", second)):
        CASES[name].write("net.onnx")
        names = {"wootz": library, **data}
        exec(
            compile(
                ast.unparse(statement).replace("data=", f"out='{name}', objective='max Accuracy', data="), "", "exec"
            ),
            names,
        )
        assert names["found"].best.is_file()


def test_the_metric_of_a_package():
    names = {}
    exec(block_with("class Largest"), names)
    quality = names["largest"]
    assert isinstance(quality, Quality)
    tally = quality.begin()
    tally.add({"y": np.array([1.0, 2.0])}, {"y": np.array([1.5, 2.0])}, None)
    assert tally.value == 0.5
