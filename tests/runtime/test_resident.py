"""Training on a data set that stays on the device gives what training on batches of the host gives."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from wootz.frontend.caffe.importer import import_caffe
from wootz.passes.errors import PassError, WootzError
from wootz.passes.ir.text import parse_text
from wootz.passes.plan.blocks import Symbol, TuningBlock
from wootz.passes.plan.lesson import TargetLoss
from wootz.passes.plan.solver import Solver, SolverType
from wootz.passes.plan.transform import InputTransform
from wootz.passes.pruning.block_pruner import BlockPruner
from wootz.passes.training.joint_graph import joint_training_graph
from wootz.passes.training.training_graph import build_training_graph
from wootz.runtime import resident
from wootz.runtime.batches import training_batches
from wootz.runtime.data.dataset import Split
from wootz.runtime.resident import ResidentSteps, keeps_on_device, with_batches
from wootz.runtime.schedule import training_schedule
from wootz.runtime.session import Device, TrainingSession
from wootz.runtime.training import HostSteps, train

NET = """
layer { name: "data" type: "Input" top: "data" input_param { shape { dim: 1 dim: 3 dim: 6 dim: 6 } } }
layer { name: "conv" type: "Convolution" bottom: "data" top: "conv"
        convolution_param { num_output: 4 kernel_size: 3 weight_filler { type: "msra" } } }
layer { name: "bn" type: "BatchNorm" bottom: "conv" top: "conv" }
layer { name: "scale" type: "Scale" bottom: "conv" top: "conv" scale_param { bias_term: true } }
layer { name: "relu" type: "ReLU" bottom: "conv" top: "conv" }
layer { name: "conv2" type: "Convolution" bottom: "conv" top: "conv2" module: "m"
        convolution_param { num_output: 4 kernel_size: 3 pad: 1 weight_filler { type: "msra" } } }
layer { name: "conv3" type: "Convolution" bottom: "conv2" top: "conv3" module: "m"
        convolution_param { num_output: 4 kernel_size: 1 weight_filler { type: "msra" } } }
layer { name: "fc" type: "InnerProduct" bottom: "conv3" top: "fc"
        inner_product_param { num_output: 3 weight_filler { type: "xavier" } } }
"""
CPU = Device(threads=1)
TRANSFORM = InputTransform(mean=(120.0, 110.0, 100.0), scale=(1 / 64,), crop_size=6, mirror=True)


@pytest.fixture
def network(tmp_path):
    (tmp_path / "net.prototxt").write_text(NET)
    return import_caffe(tmp_path / "net.prototxt").model


@pytest.fixture
def split():
    generator = np.random.default_rng(0)
    labels = np.arange(40) % 3
    images = generator.integers(0, 120, (40, 3, 8, 7)) + 60 * labels[:, None, None, None]
    return Split(images.astype(np.uint8), labels)


def host(graph, split, solver, transform=TRANSFORM, device=CPU):
    session = TrainingSession(graph, device, solver.batch_size)
    count = solver.max_iter * solver.iter_size
    batches = training_batches(split, transform, solver.batch_size, count, solver.random_seed)
    return session, HostSteps(session, batches, solver)


def on_device(graph, split, solver, transform=TRANSFORM, device=CPU):
    graph = with_batches(graph, split, transform, solver)
    session = TrainingSession(graph, device)
    extents, count = split.images.shape[2:], solver.max_iter * solver.iter_size
    schedule = training_schedule(len(split), extents, transform, solver.batch_size, count, solver.random_seed)
    return session, ResidentSteps(graph, session, split, schedule, solver)


@pytest.fixture
def short_window(monkeypatch):
    monkeypatch.setattr(resident, "WINDOW", 8)


@pytest.mark.usefixtures("short_window")
@pytest.mark.parametrize(
    "solver",
    [
        Solver(base_lr=0.01, momentum=0.9, weight_decay=1e-3, lr_policy="cosine", max_iter=30, batch_size=8),
        Solver(type=SolverType.ADAM, base_lr=0.01, momentum=0.9, iter_size=3, max_iter=13, batch_size=4),
        Solver(base_lr=0.1, iter_size=9, max_iter=3, batch_size=4, clip_gradients=1.0),
    ],
)
@pytest.mark.parametrize("least_area", [1.0, 0.3])
def test_losses_and_weights_are_those_of_batches_from_the_host(network, split, solver, least_area):
    graph, transform = build_training_graph(network, solver), replace(TRANSFORM, least_area=least_area)
    first, steps = host(graph, split, solver, transform)
    second, resident_steps = on_device(graph, split, solver, transform)
    expected, found = train(steps, solver), train(resident_steps, solver)
    assert found.losses.shape == (solver.max_iter, 1)
    np.testing.assert_allclose(found.losses, expected.losses, rtol=1e-5)
    for name, values in first.weights().items():
        np.testing.assert_allclose(second.weights()[name], values, rtol=1e-4, atol=1e-6)


def test_a_joint_graph_records_the_loss_of_every_student(network, split):
    solver = Solver(base_lr=0.05, max_iter=10, batch_size=8)
    blocks = [TuningBlock((Symbol(0, rate),)) for rate in (0.3, 0.5, 0.7)]
    graph = joint_training_graph(BlockPruner.of(network, "l1"), blocks, solver)
    (_, steps), (_, resident_steps) = host(graph, split, solver), on_device(graph, split, solver)
    expected, found = train(steps, solver), train(resident_steps, solver)
    assert expected.losses.shape == (10, 3)
    np.testing.assert_allclose(found.losses, expected.losses, rtol=1e-5)


@pytest.mark.usefixtures("short_window")
def test_tests_and_snapshots_see_the_weights_of_their_step(network, split):
    solver = Solver(base_lr=0.1, max_iter=20, batch_size=8, test_interval=6, snapshot=5)
    graph = build_training_graph(network, solver)

    def seen(session, steps):
        at: dict[object, float] = {}

        def on_step(done, losses):
            if done % solver.snapshot == 0:
                at[done] = session.weights()["fc.weight"].sum()

        def measure():
            return float(session.weights()["conv.weight"].sum())

        history = train(steps, solver, on_step=on_step, measure=measure)
        return at | dict(history.qualities)

    expected = seen(*host(graph, split, solver))
    assert sorted(expected) == [5, 6, 10, 12, 15, 18, 20]
    assert seen(*on_device(graph, split, solver)) == pytest.approx(expected, rel=1e-4)


def test_a_loss_that_is_not_finite_is_reported_with_its_step(network, split):
    """An image of NaN spoils the step that takes it, and all behind it."""
    solver = Solver(base_lr=0.01, max_iter=30, batch_size=2)
    images = split.images.astype(np.float32)
    images[17] = np.nan
    schedule = training_schedule(40, (8, 7), TRANSFORM, 2, 30, solver.random_seed)
    step = next(i for i, choice in enumerate(schedule, 1) if 17 in choice.images)
    assert 3 < step < 20
    graph = build_training_graph(network, solver)
    for open_steps in (host, on_device):
        _, steps = open_steps(graph, Split(images, split.labels), solver)
        history = train(steps, solver)
        assert history.diverged == {"loss": step}
        assert len(history.losses) == step
        assert np.isfinite(history.losses[:-1]).all()


def test_weights_that_the_last_step_spoils_are_found(network, split):
    solver = Solver(base_lr=1e38, weight_decay=1e10, max_iter=1, batch_size=8)
    _, steps = on_device(build_training_graph(network, solver), split, solver)
    history = train(steps, solver)
    assert np.isfinite(history.losses).all()
    assert history.diverged == {"loss": 1}


@pytest.mark.parametrize("target", ["onnx", "onnx-cuda"])
def test_no_shape_is_left_to_the_run(network, split, target):
    """A shape that is computed, on the host, keeps a step from being captured as a CUDA graph."""
    solver = Solver(base_lr=0.01, momentum=0.9, iter_size=2, batch_size=8, clip_gradients=1.0)
    blocks = [TuningBlock((Symbol(0, 0.5),))]
    for graph in (
        build_training_graph(network, solver, target=target),
        joint_training_graph(BlockPruner.of(network, "l1"), blocks, solver, target),
    ):
        operators = {node.op for node in with_batches(graph, split, TRANSFORM, solver).graph.nodes}
        assert not operators & {"Shape", "Size", "ConstantOfShape", "Range", "NonZero", "If", "Loop", "Scan"}


def test_mixed_precision(network, split):
    solver = Solver(base_lr=0.01, momentum=0.9, max_iter=20, batch_size=8)
    graph = build_training_graph(network, solver, target="onnx-cuda", precision="float16")
    (_, steps), (_, resident_steps) = host(graph, split, solver), on_device(graph, split, solver)
    expected, found = train(steps, solver), train(resident_steps, solver)
    np.testing.assert_allclose(found.losses, expected.losses, rtol=1e-2)


def test_the_host_looks_in_no_more_often_than_it_has_to(network, split, monkeypatch):
    monkeypatch.setattr(resident, "SECONDS_BETWEEN_LOOKS", 1e9)
    solver = Solver(base_lr=0.01, max_iter=300, batch_size=2)
    session, steps = on_device(build_training_graph(network, solver), split, solver)
    weights, reads = list(session.weights()), []
    read_slot = session.read_slot
    monkeypatch.setattr(session, "read_slot", lambda name: reads.append(name) or read_slot(name))
    assert len(train(steps, solver).losses) == 300
    assert reads == ["loss.recorded"] * 4 + weights  # 1 step, then 128, 128 and 43; at the end all weights


def test_what_is_displayed_is_not_late(network, split):
    solver = Solver(base_lr=0.01, max_iter=30, batch_size=2, display=10)
    session, steps = on_device(build_training_graph(network, solver), split, solver)
    runs: list[int] = []
    run = session.run
    session.run = lambda: runs.append(1) or run()
    heard: dict[int, int] = {}
    train(steps, solver, on_step=lambda done, losses: heard.update({done: len(runs)}))
    assert {done: heard[done] for done in (10, 20, 30)} == {10: 10, 20: 20, 30: 30}


def test_the_host_looks_in_every_second(network, split, monkeypatch):
    monkeypatch.setattr(resident, "SECONDS_BETWEEN_LOOKS", 0.0)
    solver = Solver(base_lr=0.01, max_iter=300, batch_size=2)
    _, steps = on_device(build_training_graph(network, solver), split, solver)
    assert [len(steps.advance(step, 300)) for step in range(5)] == [1] * 5


def test_what_keeps_on_device_a_gpu(split, monkeypatch):
    monkeypatch.setattr(resident, "gpu_memory", lambda index: 4 * split.images.nbytes)
    assert keeps_on_device(Device("cuda"), split)
    assert not keeps_on_device(Device("cpu"), split)
    monkeypatch.setattr(resident, "gpu_memory", lambda index: 4 * split.images.nbytes - 1)
    assert not keeps_on_device(Device("cuda"), split)
    monkeypatch.setattr(resident, "gpu_memory", lambda index: None)
    assert not keeps_on_device(Device("cuda"), split)
    many = Split(np.broadcast_to(np.uint8(0), (2**16, 1, 2**8, 2**7)), np.zeros(2**16, np.int64))
    monkeypatch.setattr(resident, "gpu_memory", lambda index: 2**40)
    assert not keeps_on_device(Device("cuda"), many)
    with pytest.raises(WootzError, match="2,147,483,648 values, ONNX Runtime addresses 2,147,483,648 on a GPU"):
        keeps_on_device(Device("cuda"), many, asked=True)
    assert keeps_on_device(Device("cpu"), many, asked=True)
    assert not keeps_on_device(Device("cuda"), split, asked=False)


HEADS = """
g (float[N,3,6,6] x) => (maps, heights) <float[4,3,1,1] w, float[4,1] v> {
  maps = Conv(x, w)
  p = GlobalAveragePool(maps)
  f = Flatten(p)
  heights = MatMul(f, v)
}"""
MAPS = np.arange(40 * 36).reshape(40, 6, 6) % 4
HEIGHTS = np.linspace(-1, 1, 40, dtype=np.float32)
WHOLE = InputTransform(scale=(1 / 64,), crop_size=6)


@pytest.fixture
def heads():
    model = parse_text(f'<ir_version: 8, opset_import: ["" : 18]> {HEADS}')
    tensors, generator = model.graph.tensors(), np.random.default_rng(0)
    for name, shape in {"w": (4, 3, 1, 1), "v": (4, 1)}.items():
        tensors[name].to_constant(generator.normal(size=shape).astype(np.float32))
    return model


@pytest.mark.parametrize(
    ("losses", "labels"),
    [
        ((TargetLoss(output="maps"),), MAPS),
        ((TargetLoss(output="maps"), TargetLoss("mse", "heights")), {"maps": MAPS, "heights": HEIGHTS, "more": MAPS}),
    ],
)
def test_targets_of_any_shape_stay_on_the_device(heads, losses, labels):
    """Those of several outputs by name; heights are one number an image, and the output is [N, 1]."""
    images = np.random.default_rng(0).integers(0, 255, (40, 3, 6, 6), np.uint8)
    split, solver = Split(images, labels), Solver(base_lr=0.01, max_iter=12, batch_size=8)
    graph = build_training_graph(heads, solver, loss=losses)
    (first, steps), (second, resident_steps) = (make(graph, split, solver, WHOLE) for make in (host, on_device))
    expected, found = train(steps, solver), train(resident_steps, solver)
    np.testing.assert_allclose(found.losses, expected.losses, rtol=1e-5)
    assert found.losses[-1] != found.losses[0]
    for name, values in first.weights().items():
        np.testing.assert_allclose(second.weights()[name], values, rtol=1e-4, atol=1e-6)


def test_targets_with_positions_want_images_that_stay_where_they_are(heads):
    split, solver = Split(np.zeros((40, 3, 6, 6), np.uint8), MAPS), Solver(max_iter=1, batch_size=8)
    graph = build_training_graph(heads, solver, loss=(TargetLoss(output="maps"),))
    with pytest.raises(
        PassError, match=r"target/maps: targets with positions don't fit images that are cropped or mir"
    ):
        with_batches(graph, split, replace(WHOLE, mirror=True), solver)
