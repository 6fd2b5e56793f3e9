"""A joint graph of teacher and students in float16."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import onnxruntime
import pytest

from wootz.frontend.caffe.importer import import_caffe
from wootz.passes.ir.model import constants
from wootz.passes.ir.verifier import verify
from wootz.passes.plan.solver import Solver, SolverType
from wootz.passes.pruning.block_pruner import BlockPruner
from wootz.passes.training.interface import TrainingInterface
from wootz.passes.training.joint_graph import joint_training_graph
from wootz.passes.training.memory import training_memory
from wootz.passes.transforms.teacher_student import TEACHER, parse_blocks
from wootz.runtime.machine import gpu_memory
from wootz.runtime.session import Device, TrainingSession

DIGITS = Path(__file__).parents[3] / "examples" / "digits" / "net.prototxt"
SOLVER = Solver(type=SolverType.ADAM, momentum=0.9, batch_size=16)
ONE_THREAD = Device(threads=1)


@pytest.fixture(scope="module")
def graphs():
    """The joint graph of three students of the digits network, in both precisions."""
    pruner = BlockPruner.of(import_caffe(DIGITS).model, "l1")
    blocks = parse_blocks("res2a@0.5,res2b@0.5+res3a@0.75,res3a@0.25", pruner)
    return {p: joint_training_graph(pruner, blocks, SOLVER, "onnx-cuda", p) for p in ("float32", "float16")}


@pytest.fixture(scope="module")
def data():
    return np.random.default_rng(1).normal(0, 1, (16, 1, 8, 8)).astype(np.float32)


def train(graph, data, steps, device=ONE_THREAD):
    session = TrainingSession(graph, device, len(data))
    return np.array([session.step(data, None, 0.002) for _ in range(steps)]), session.weights()


def test_the_teachers_weights_are_half(graphs):
    verify(graphs["float16"])
    teacher = {n: v for n, v in constants(graphs["float16"].graph).items() if n.startswith(TEACHER) and v.size > 64}
    assert teacher
    assert {v.dtype for v in teacher.values()} == {np.dtype(np.float16)}
    single = {n: v for n, v in constants(graphs["float32"].graph).items() if n.startswith(TEACHER) and v.size > 64}
    assert sum(v.nbytes for v in teacher.values()) * 2 == sum(v.nbytes for v in single.values())


def test_activations_take_less_memory(graphs):
    """Statistics, masks and indices are as large as before."""
    needs = {p: training_memory(graph, batch_size=64) for p, graph in graphs.items()}
    assert needs["float16"].activations < 0.8 * needs["float32"].activations


def test_students_learn_as_in_float32(graphs, data):
    expected, _ = train(graphs["float32"], data, 20)
    found, weights = train(graphs["float16"], data, 20)
    np.testing.assert_allclose(found[0], expected[0], rtol=5e-3)
    assert (found[-1] < 0.9 * found[0]).all()
    np.testing.assert_allclose(found[-1], expected[-1], rtol=0.1)
    assert {w.dtype for w in weights.values()} == {np.dtype(np.float32)}


def test_students_scales_are_independent(graphs, data):
    """The scale of one student starts so high that its gradients overflow; the others make their step."""
    graph = dataclasses.replace(graphs["float16"], graph=graphs["float16"].graph.copy())
    interface = TrainingInterface.of(graph)
    tensors = graph.graph.tensors()
    for loss in interface.losses[1:]:
        tensors[f"{loss}.scale"].values = np.asarray(64.0, np.float32)
    first = interface.losses[0]
    tensors[f"{first}.scale"].values = np.asarray(2.0**40, np.float32)
    before = constants(graph.graph)
    _, after = train(graph, data, 1)
    moved = {s.loss for s in interface.slots if s.kind == "parameter" and (after[s.input] != before[s.input]).any()}
    assert moved == set(interface.losses[1:])


@pytest.mark.gpu
@pytest.mark.skipif(
    "CUDAExecutionProvider" not in onnxruntime.get_available_providers() or gpu_memory() is None,
    reason="no NVIDIA GPU, or an ONNX Runtime without CUDA",
)
@pytest.mark.parametrize("cuda_graphs", [False, True])
def test_a_gpu_trains_as_the_cpu_does(cuda_graphs, graphs, data):
    """ONNX Runtime captures no CUDA graph where a step copies to or from the host."""
    expected, _ = train(graphs["float16"], data, 20)
    found, weights = train(graphs["float16"], data, 20, Device("cuda", cuda_graphs=cuda_graphs))
    np.testing.assert_allclose(found[0], expected[0], rtol=5e-3)
    np.testing.assert_allclose(found[-1], expected[-1], rtol=0.1)
    assert all(np.isfinite(w).all() for w in weights.values())
