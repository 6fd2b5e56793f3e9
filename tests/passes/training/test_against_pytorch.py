"""Ten steps of a small residual network equal PyTorch's, for every optimizer and loss."""

from __future__ import annotations

import numpy as np
import pytest

from wootz.passes.ir.model import MULTIPLIERS_KEY, Model
from wootz.passes.plan.solver import Solver, SolverType
from wootz.passes.training.apply_optimizer import ApplyOptimizer
from wootz.passes.training.attach_loss import AttachLoss
from wootz.passes.training.build_gradients import BuildGradients
from wootz.passes.training.interface import TrainingInterface
from wootz.passes.training.legalize import Legalize
from wootz.passes.training.training_graph import build_training_graph
from wootz.passes.training.training_mode import TrainingMode

torch = pytest.importorskip("torch")
functional = torch.nn.functional

NETWORK = """
g (float[N,3,13,13] x) => (probability) <
  float[8,3,3,3] c1, float[8] s1, float[8] b1, float[8] m1, float[8] v1_variance,
  float[8,4,3,3] c2, float[8] c2_bias, float[12,8,1,1] c3, float[12,8,1,1] shortcut,
  float[5,12] fc, float[5] fc_bias> {
  y1 = Conv<strides=[2,2], pads=[1,1,1,1]>(x, c1)
  n1 = BatchNormalization<epsilon=0.001>(y1, s1, b1, m1, v1_variance)
  r1 = Relu(n1)
  p1 = MaxPool<kernel_shape=[3,3], strides=[2,2], pads=[0,0,1,1]>(r1)
  y2 = Conv<group=2, pads=[1,1,1,1]>(p1, c2, c2_bias)
  r2 = Relu(y2)
  y3 = Conv<strides=[2,2]>(r2, c3)
  y4 = Conv<strides=[2,2]>(p1, shortcut)
  total = Add(y3, y4)
  r3 = Relu(total)
  a = AveragePool<kernel_shape=[2,2]>(r3)
  f = Flatten(a)
  logits = Gemm<transB=1>(f, fc, fc_bias)
  probability = Softmax<axis=1>(logits)
}"""
CONVOLUTIONS = {"c1": (8, 3, 3, 3), "c2": (8, 4, 3, 3), "c2_bias": (8,), "c3": (12, 8, 1, 1), "shortcut": (12, 8, 1, 1)}
NORMALIZATION = {"s1": (8,), "b1": (8,), "m1": (8,), "v1_variance": (8,)}
SHAPES = CONVOLUTIONS | NORMALIZATION | {"fc": (5, 12), "fc_bias": (5,)}
STATISTICS = {"m1", "v1_variance"}
STEPS = 10
RATE = 0.02
ADAM_RATE = 0.001
"""Small, since Adam makes steps of this size even of gradients that are nothing but rounding errors."""


def forward(w, x):
    y = functional.conv2d(x, w["c1"], stride=2, padding=1)
    y = functional.batch_norm(y, None, None, w["s1"], w["b1"], training=True, eps=1e-3).relu()
    p = functional.max_pool2d(functional.pad(y, (0, 1, 0, 1), value=-torch.inf), 3, 2)
    y = functional.conv2d(p, w["c2"], w["c2_bias"], padding=1, groups=2).relu()
    y = functional.conv2d(y, w["c3"], stride=2) + functional.conv2d(p, w["shortcut"], stride=2)
    y = functional.avg_pool2d(y.relu(), 2, 1).flatten(1)
    return functional.linear(y, w["fc"], w["fc_bias"])


@pytest.fixture(scope="module")
def network(make_model) -> Model:
    return make_model(NETWORK, **SHAPES)


@pytest.fixture(scope="module")
def batches():
    rng = np.random.default_rng(5)
    return [(rng.normal(size=(4, 3, 13, 13)).astype(np.float32), rng.integers(0, 5, 4)) for _ in range(STEPS)]


def torch_parameters(values):
    return {n: torch.tensor(v, requires_grad=n not in STATISTICS) for n, v in values.items() if n in SHAPES}


def train(graph, batches, run, values_of, rate=RATE):
    """State and losses after one run a batch."""
    interface = TrainingInterface.of(graph)
    constants = values_of(graph)
    state = {slot.input: constants[slot.input] for slot in interface.slots}
    losses = []
    for x, labels in batches:
        feeds = {interface.data: x, interface.learning_rate: np.array(rate, np.float32), **state}
        outputs = run(graph, feeds | ({interface.labels: labels} if interface.labels else {}))
        state = {slot.input: outputs[slot.output] for slot in interface.slots}
        losses.append([float(outputs[name]) for name in interface.losses])
    return state, np.squeeze(losses)


def assert_same_weights(state, expected, tolerance=1e-5):
    for name, tensor in expected.items():
        if name not in STATISTICS:
            difference = np.abs(state[name] - tensor.detach().numpy()).max()
            assert difference <= tolerance * max(1.0, float(tensor.detach().abs().max())), name


# Caffe's Adam adds delta to √v, PyTorch's to √(v/(1-β₂ᵗ)): they agree where delta is next to nothing.
OPTIMIZERS = {
    "sgd": (Solver(), lambda p: torch.optim.SGD(p, RATE)),
    "momentum": (Solver(momentum=0.9), lambda p: torch.optim.SGD(p, RATE, momentum=0.9)),
    "decay": (Solver(weight_decay=0.1), lambda p: torch.optim.SGD(p, RATE, weight_decay=0.1)),
    "nesterov": (
        Solver(type=SolverType.NESTEROV, momentum=0.8, weight_decay=0.01),
        lambda p: torch.optim.SGD(p, RATE, momentum=0.8, nesterov=True, weight_decay=0.01),
    ),
    "adam": (
        Solver(type=SolverType.ADAM, momentum=0.9, delta=1e-12, weight_decay=0.01),
        lambda p: torch.optim.Adam(p, ADAM_RATE, eps=1e-12, weight_decay=0.01),
    ),
    "adamw": (
        Solver(type=SolverType.ADAMW, momentum=0.9, momentum2=0.99, weight_decay=0.1),
        lambda p: torch.optim.AdamW(p, ADAM_RATE, betas=(0.9, 0.99), weight_decay=0.1),
    ),
    "rmsprop": (
        Solver(type=SolverType.RMSPROP, rms_decay=0.95, delta=1e-4),
        lambda p: torch.optim.RMSprop(p, RATE, alpha=0.95, eps=1e-4),
    ),
    "adagrad": (
        Solver(type=SolverType.ADAGRAD, delta=1e-6),
        lambda p: torch.optim.Adagrad(p, RATE, eps=1e-6),
    ),
    "adadelta": (
        Solver(type=SolverType.ADADELTA, momentum=0.9, delta=1e-4),
        lambda p: torch.optim.Adadelta(p, RATE, rho=0.9, eps=1e-4),
    ),
}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_ten_steps(name, network, batches, run, values_of):
    solver, make_optimizer = OPTIMIZERS[name]
    rate = ADAM_RATE if name.startswith("adam") else RATE
    state, losses = train(build_training_graph(network, solver), batches, run, values_of, rate)
    w = torch_parameters(values_of(network))
    optimizer = make_optimizer([t for t in w.values() if t.requires_grad])
    for (x, labels), loss in zip(batches, losses, strict=True):
        expected = functional.cross_entropy(forward(w, torch.tensor(x)), torch.tensor(labels))
        assert loss == pytest.approx(expected.item(), rel=1e-5)
        optimizer.zero_grad()
        expected.backward()
        optimizer.step()
    assert_same_weights(state, w)


def test_clipping_bounds_the_norm_of_all_gradients(network, batches, run, values_of):
    graph = build_training_graph(network, Solver(momentum=0.9, clip_gradients=0.5))
    state, _ = train(graph, batches, run, values_of)
    w = torch_parameters(values_of(network))
    parameters = [t for t in w.values() if t.requires_grad]
    optimizer = torch.optim.SGD(parameters, RATE, momentum=0.9)
    for x, labels in batches:
        optimizer.zero_grad()
        functional.cross_entropy(forward(w, torch.tensor(x)), torch.tensor(labels)).backward()
        torch.nn.utils.clip_grad_norm_(parameters, 0.5)
        optimizer.step()
    assert_same_weights(state, w)


@pytest.mark.parametrize("type", [SolverType.SGD, SolverType.ADAM])
def test_iter_size_uses_the_mean_of_the_gradients(type, network, batches, run, values_of):
    graph = build_training_graph(network, Solver(type=type, momentum=0.9, delta=1e-12, weight_decay=0.01, iter_size=3))
    rate = ADAM_RATE if type is SolverType.ADAM else RATE
    state, _ = train(graph, batches[:9], run, values_of, rate)
    w = torch_parameters(values_of(network))
    parameters = [t for t in w.values() if t.requires_grad]
    make = {SolverType.SGD: lambda p: torch.optim.SGD(p, RATE, momentum=0.9, weight_decay=0.01)}
    make[SolverType.ADAM] = lambda p: torch.optim.Adam(p, ADAM_RATE, eps=1e-12, weight_decay=0.01)
    optimizer = make[type](parameters)
    for i, (x, labels) in enumerate(batches[:9]):
        (functional.cross_entropy(forward(w, torch.tensor(x)), torch.tensor(labels)) / 3).backward()
        if i % 3 == 2:
            optimizer.step()
            optimizer.zero_grad()
    assert_same_weights(state, w)


def test_multipliers_scale_rate_and_decay_and_zero_freezes(network, batches, run, values_of):
    table = '{"c1": [0, 0], "fc": [10, 1], "fc_bias": [2, 0]}'
    model = Model(network.graph, metadata={MULTIPLIERS_KEY: table})
    graph = build_training_graph(model, Solver(momentum=0.9, weight_decay=0.01))
    assert "c1" not in {slot.input for slot in TrainingInterface.of(graph).slots}
    state, _ = train(graph, batches, run, values_of)
    w = torch_parameters(values_of(network))
    others = [t for n, t in w.items() if n not in {"c1", "fc", "fc_bias", *STATISTICS}]
    groups = [
        {"params": others, "weight_decay": 0.01},
        {"params": [w["fc"]], "lr": 10 * RATE, "weight_decay": 0.01},
        {"params": [w["fc_bias"]], "lr": 2 * RATE, "weight_decay": 0.0},
    ]
    optimizer = torch.optim.SGD(groups, RATE, momentum=0.9)
    for x, labels in batches:
        optimizer.zero_grad()
        functional.cross_entropy(forward(w, torch.tensor(x)), torch.tensor(labels)).backward()
        optimizer.step()
    assert_same_weights(state | {"c1": w["c1"].detach().numpy()}, w, 2e-5)


LOSSES = {
    "smoothing": (
        AttachLoss(label_smoothing=0.1),
        lambda y, t: functional.cross_entropy(y, t, label_smoothing=0.1),
    ),
    "weights": (
        AttachLoss(class_weights=(1.0, 2.0, 0.5, 3.0, 1.0)),
        lambda y, t: functional.cross_entropy(y, t, torch.tensor([1.0, 2.0, 0.5, 3.0, 1.0])),
    ),
    "both": (
        AttachLoss(class_weights=(1.0, 2.0, 0.5, 3.0, 1.0), label_smoothing=0.2, scale=0.3),
        lambda y, t: 0.3 * functional.cross_entropy(y, t, torch.tensor([1.0, 2.0, 0.5, 3.0, 1.0]), label_smoothing=0.2),
    ),
}


@pytest.mark.parametrize("name", LOSSES)
def test_gradients_of_losses(name, network, batches, run, values_of):
    attach, expected_loss = LOSSES[name]
    graph = TrainingMode().apply(network).model
    for step in (attach, BuildGradients(), Legalize()):
        graph = step.apply(graph).model
    x, labels = batches[0]
    outputs = run(graph, {"x": x, "labels": labels})
    w = torch_parameters(values_of(network))
    loss = expected_loss(forward(w, torch.tensor(x)), torch.tensor(labels))
    loss.backward()
    assert float(outputs["loss"]) == pytest.approx(loss.item(), rel=1e-5)
    trained = {name for name in outputs if name.endswith(".grad")}
    assert trained == {f"{name}.grad" for name, tensor in w.items() if tensor.requires_grad}
    for name, tensor in w.items():
        if tensor.requires_grad:
            np.testing.assert_allclose(outputs[f"{name}.grad"], tensor.grad, rtol=1e-4, atol=1e-6, err_msg=name)


@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_distillation_and_mse(temperature, make_model, run):
    text = """g (float[N,6] x) => (y) <float[6,4] w, float[6,4] teacher> {
      y = MatMul(x, w)
      target = MatMul(x, teacher)
    }"""
    network = make_model(text, w=(6, 4), teacher=(6, 4))
    x = np.random.default_rng(0).normal(size=(5, 6)).astype(np.float32)
    w, teacher = (torch.tensor(network.graph.tensors()[n].values) for n in ("w", "teacher"))
    w.requires_grad_()
    y, target = torch.tensor(x) @ w, torch.tensor(x) @ teacher
    expected = {
        "mse": functional.mse_loss(y, target),
        "distillation": temperature**2
        * functional.kl_div((y / temperature).log_softmax(1), (target / temperature).softmax(1), reduction="batchmean"),
    }
    for kind, loss in expected.items():
        graph = AttachLoss(loss=kind, target="target", temperature=temperature).apply(network).model
        graph = Legalize().apply(BuildGradients(frozen=("teacher",)).apply(graph).model).model
        outputs = run(graph, {"x": x})
        assert float(outputs["loss"]) == pytest.approx(loss.item(), rel=1e-5)
        (gradient,) = torch.autograd.grad(loss, w, retain_graph=True)
        np.testing.assert_allclose(outputs["w.grad"], gradient, rtol=1e-4, atol=1e-6)


def test_pass_and_solver_hold_the_same_settings():
    solver = Solver(type=SolverType.ADAM, momentum=0.9, delta=1e-6, iter_size=4, clip_gradients=2.0)
    options = ApplyOptimizer(**ApplyOptimizer.settings(solver))
    assert options.solver() == solver
