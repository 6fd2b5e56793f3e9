"""Training on an NVIDIA GPU: what the CPU computes, within the rounding of other kernels."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnxruntime
import pytest

from wootz.passes.ir.model import Model, constants, with_weights
from wootz.passes.ir.text import parse_text
from wootz.passes.plan.solver import Solver, SolverType
from wootz.passes.plan.transform import InputTransform
from wootz.passes.training.training_graph import build_training_graph
from wootz.runtime.batches import training_batches
from wootz.runtime.data.dataset import Split
from wootz.runtime.machine import gpu_memory
from wootz.runtime.quality.measuring import measured
from wootz.runtime.quality.quality import ACCURACY
from wootz.runtime.resident import ResidentSteps, keeps_on_device, with_batches
from wootz.runtime.schedule import training_schedule
from wootz.runtime.session import Device, InferenceSession, TrainingSession, WeightedSession
from wootz.runtime.training import History, HostSteps, train
from wootz.runtime.variants.scoring import score_variants

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(
        "CUDAExecutionProvider" not in onnxruntime.get_available_providers() or gpu_memory() is None,
        reason="no NVIDIA GPU, or an ONNX Runtime without CUDA",
    ),
]
CPU, CUDA = Device(), Device("cuda")
TRANSFORM = InputTransform(mean=(110.0, 120.0, 130.0), scale=(1 / 64,), crop_size=8, mirror=True)
SOLVER = Solver(base_lr=0.02, momentum=0.9, weight_decay=1e-3, max_iter=40, batch_size=16, lr_policy="cosine")


def network() -> Model:
    """Convolutions of two kinds, BatchNormalization, Concat of unequal parts, pooling, a classifier."""
    generator = np.random.default_rng(0)

    def tensor(name: str, *shape: int) -> str:
        values = generator.normal(0, np.sqrt(2 / np.prod(shape[1:])), shape).ravel()
        return f"float[{','.join(map(str, shape))}] {name} = {{{', '.join(f'{v:.6f}' for v in values)}}}"

    return parse_text(f"""<ir_version: 8, opset_import: ["" : 18]>
        g (float[N,3,8,8] x) => (float[N,3] y) <
          {tensor("w1", 8, 3, 3, 3)}, {tensor("w2", 16, 8, 3, 3)}, {tensor("w3", 8, 8, 1, 1)}, {tensor("w4", 24, 3)},
          float[8] scale = {{{", ".join("1" * 8)}}}, float[8] shift = {{{", ".join("0" * 8)}}},
          float[8] mean = {{{", ".join("0" * 8)}}}, float[8] variance = {{{", ".join("1" * 8)}}}> {{
            c1 = Conv<pads = [1, 1, 1, 1]>(x, w1)
            b1 = BatchNormalization(c1, scale, shift, mean, variance)
            r1 = Relu(b1)
            c2 = Conv<pads = [1, 1, 1, 1]>(r1, w2)
            c3 = Conv(r1, w3)
            joined = Concat<axis = 1>(c2, c3)
            r2 = Relu(joined)
            pooled = MaxPool<kernel_shape = [2, 2], strides = [2, 2]>(r2)
            p = GlobalAveragePool(pooled)
            f = Flatten(p)
            y = MatMul(f, w4)
        }}""")


@pytest.fixture(scope="module")
def split():
    generator = np.random.default_rng(0)
    labels = np.arange(90) % 3
    images = generator.integers(0, 120, (90, 3, 10, 9)) + 60 * labels[:, None, None, None]
    return Split(images.astype(np.uint8), labels)


def graph(solver: Solver = SOLVER, target: str = "onnx-cuda") -> Model:
    return build_training_graph(network(), solver, target=target)


def on_host(split: Split, device: Device, solver: Solver = SOLVER, target: str = "onnx-cuda"):
    session = TrainingSession(graph(solver, target), device, solver.batch_size)
    count = solver.max_iter * solver.iter_size
    batches = training_batches(split, TRANSFORM, solver.batch_size, count, solver.random_seed)
    return session, train(HostSteps(session, batches, solver), solver)


def on_device(split: Split, device: Device, solver: Solver = SOLVER) -> tuple[TrainingSession, History]:
    program = with_batches(graph(solver), split, TRANSFORM, solver)
    session = TrainingSession(program, device)
    count = solver.max_iter * solver.iter_size
    schedule = training_schedule(len(split), (10, 9), TRANSFORM, solver.batch_size, count, solver.random_seed)
    return session, train(ResidentSteps(program, session, split, schedule, solver), solver)


def assert_same_training(found, expected, rtol=1e-3):
    np.testing.assert_allclose(found[1].losses, expected[1].losses, rtol=rtol, atol=rtol)
    for name, values in expected[0].weights().items():
        np.testing.assert_allclose(found[0].weights()[name], values, rtol=10 * rtol, atol=rtol, err_msg=name)


def test_batches_from_the_host(split):
    assert_same_training(on_host(split, CUDA), on_host(split, CPU))


@pytest.mark.parametrize(
    "solver",
    [
        SOLVER,
        replace(SOLVER, type=SolverType.ADAM, base_lr=0.003, clip_gradients=5.0),
        replace(SOLVER, iter_size=3, batch_size=8, max_iter=20),
    ],
)
def test_a_data_set_on_the_device(split, solver):
    assert_same_training(on_device(split, CUDA, solver), on_host(split, CPU, solver))


@pytest.mark.parametrize("solver", [SOLVER, replace(SOLVER, iter_size=3, batch_size=8, max_iter=20)])
def test_cuda_graphs(split, solver):
    """ONNX Runtime captures none where a step copies to or from the host: that they work shows that none is."""
    device = Device("cuda", cuda_graphs=True)
    assert_same_training(on_device(split, device, solver), on_device(split, CUDA, solver))


def test_cuda_graphs_with_batches_from_the_host(split):
    device = Device("cuda", cuda_graphs=True)
    assert_same_training(on_host(split, device), on_host(split, CUDA))


def test_two_trainings_with_cuda_graphs_beside_each_other(split):
    device = Device("cuda", cuda_graphs=True)
    expected = on_device(split, CUDA)
    first = on_device(split, device)
    second = on_device(split, device)
    assert_same_training(first, expected)
    assert_same_training(second, expected)


def test_tf32_rounds_operands_and_not_more(split):
    assert_same_training(on_device(split, Device("cuda", tf32=True)), on_device(split, CUDA), rtol=3e-2)


def test_accuracies_are_those_of_the_cpu(split):
    session, _ = on_device(split, CUDA)
    evaluator = WeightedSession(network(), session.weights(), CUDA)
    evaluator.set_weights(session.device_weights())
    on_cpu = WeightedSession(network(), session.weights(), CPU)
    on_cpu.set_weights(session.weights())
    test_transform = replace(TRANSFORM, mirror=False)
    found = measured(ACCURACY, evaluator.outputs, split, test_transform)
    assert found == pytest.approx(measured(ACCURACY, on_cpu.outputs, split, test_transform), abs=1.5 / 90)
    assert measured > 0.9
    data = np.zeros((7, 3, 8, 8), np.float32)
    np.testing.assert_allclose(
        InferenceSession(network(), CUDA).run(data), InferenceSession(network(), CPU).run(data), atol=1e-5
    )


def test_a_small_split_fits(split):
    assert keeps_on_device(CUDA, split)


def test_scores_of_variants_are_those_of_the_cpu(split):
    full = network()
    weights = constants(full.graph)
    variants = {name: with_weights(full, {name: weights[name] * np.float32(1.5)}) for name in ("w1", "w2", "w4")}
    on_cpu, on_gpu = (score_variants(full, variants, split, TRANSFORM, device) for device in (CPU, CUDA))
    for name in variants:
        assert on_gpu[name].quality == pytest.approx(on_cpu[name].quality, abs=1 / len(split))
        assert on_gpu[name].divergence == pytest.approx(on_cpu[name].divergence, rel=1e-3)
        assert on_gpu[name].error == pytest.approx(on_cpu[name].error, rel=1e-3)
