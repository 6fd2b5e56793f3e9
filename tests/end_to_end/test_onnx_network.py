"""A network that comes as ONNX, with parameters that its exporter merged, no module marks and telling no names."""

import numpy as np
import pytest

from wootz.passes.ir.files import load, save
from wootz.passes.ir.model import Constant, Model, Node
from wootz.runtime.result import RunResult


@pytest.fixture
def exported(finished_run, tmp_path):
    """The trained digits network as an exporter leaves it: tensors by number, one constant for two equal biases."""
    teacher = load(finished_run / "teacher.onnx")
    graph = teacher.graph
    tensors = graph.tensors()
    first, second = tensors["bn2a_branch2a.bias"], tensors["bn2a_branch2b.bias"]
    second.values = first.values
    for i, tensor in enumerate(t for name, t in tensors.items() if name not in ("data", "prob")):
        tensor.name = f"t{i}"
    for i, node in enumerate(graph.nodes):
        node.name = f"n{i}"
    merged = second.to_variable(np.float32, second.values.shape)
    merged.type = "tensor_type"
    graph.nodes.insert(0, Node("Identity", "identity", inputs=[first], outputs=[merged]))
    assert isinstance(first, Constant)
    save(Model(graph), tmp_path / "exported.onnx")
    return tmp_path / "exported.onnx"


def test_it_is_pruned_and_trained_like_any_other(wootz, exported, job_files, tmp_path):
    options = [
        f"--{option}={job_files / file}"
        for option, file in (
            ("subspace", "subspace.json"), ("solver", "solver.prototxt"), ("objective", "objective.txt"),
            ("pretrain-solver", "pretrain.prototxt"),
        )
    ]  # fmt: skip
    done = wootz(
        "run", exported, "--data", "digits", "--mean", "128", "--scale", "0.0078125", "--threads", 1,
        "--out", tmp_path / "out", *options,
    )  # fmt: skip
    assert done.code == 0, done.err
    result = RunResult.load(tmp_path / "out")
    assert result.modules_source == "structure"
    assert len(result.modules) == 4
    assert result.best.quality > 0.5
