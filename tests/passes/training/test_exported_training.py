"""Twenty steps of what PyTorch's exporters write equal PyTorch's own, with weight decay and momentum.

PyTorch trains the network itself, the training graph the exported file: parameters that the exporter has merged, folded
or made up, and shapes that it computes from a symbolic batch, must make no difference.
"""

from __future__ import annotations

import contextlib
import copy
import io
import logging

import numpy as np
import onnx
import pytest

from wootz.passes.ir.model import Model
from wootz.passes.plan.solver import Solver
from wootz.passes.training.interface import TrainingInterface
from wootz.passes.training.training_graph import build_training_graph

torch = pytest.importorskip("torch")
pytest.importorskip("onnxscript")
nn = torch.nn

IMAGES, CLASSES, STEPS = (3, 8, 8), 5, 20
RATE, MOMENTUM, DECAY = 0.1, 0.9, 0.01
TOLERANCE = 1e-5
"""|a - b| / |b| of each loss; measured is 3e-7."""


def classifier(*layers, channels=4):
    return nn.Sequential(*layers, nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, CLASSES))


def twice(norm):
    """Two convolutions with a norm each, whose parameters are equal before training."""
    return classifier(nn.Conv2d(3, 4, 3), norm(), nn.Conv2d(4, 4, 1), norm())


def export(network, exporter, batch):
    """The file that `exporter` ("older", "newer") writes for a "static" or "symbolic" batch."""
    network, images = network.eval(), torch.randn(2, *IMAGES)
    logging.disable(logging.CRITICAL)
    try:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            if exporter == "newer":
                dynamic = {"dynamic_shapes": ({0: torch.export.Dim.DYNAMIC},)} if batch == "symbolic" else {}
                return torch.onnx.export(network, (images,), dynamo=True, **dynamic).model_proto
            buffer = io.BytesIO()
            dynamic = {"input_names": ["x"], "dynamic_axes": {"x": {0: "N"}}} if batch == "symbolic" else {}
            with pytest.warns():  # that it is the older one
                torch.onnx.export(network, images, buffer, dynamo=False, opset_version=17, **dynamic)
            return onnx.load_from_string(buffer.getvalue())
    finally:
        logging.disable(logging.NOTSET)


def batches(size):
    rng = np.random.default_rng(0)
    for _ in range(STEPS):
        yield rng.normal(size=(size, *IMAGES)).astype(np.float32), rng.integers(0, CLASSES, size=size)


def losses_of_graph(graph, size, run_steps):
    return run_steps(graph, list(batches(size)), RATE)


def losses_of_pytorch(network, size):
    network.train()
    optimizer = torch.optim.SGD(network.parameters(), RATE, momentum=MOMENTUM, weight_decay=DECAY)
    for images, labels in batches(size):
        loss = nn.functional.cross_entropy(network(torch.tensor(images)), torch.tensor(labels))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        yield loss.item()


def assert_same_training(network, exporter, batch, run_steps):
    proto = export(copy.deepcopy(network), exporter, batch)
    graph = build_training_graph(Model.from_proto(proto), Solver(momentum=MOMENTUM, weight_decay=DECAY))
    size = 2 if batch == "static" else 3
    found, expected = losses_of_graph(graph, size, run_steps), list(losses_of_pytorch(network, size))
    np.testing.assert_allclose(found, expected, rtol=TOLERANCE)
    trained = [s.input for s in TrainingInterface.of(graph).slots if s.kind == "parameter"]
    assert len(trained) == len(list(network.parameters())), trained


NORMS = {
    "group": lambda: nn.GroupNorm(2, 4),
    "instance": lambda: nn.InstanceNorm2d(4),
    "instance-affine": lambda: nn.InstanceNorm2d(4, affine=True),
    "layer": lambda: nn.GroupNorm(1, 4),
    "prelu": lambda: nn.PReLU(4),
}


@pytest.mark.parametrize("batch", ["static", "symbolic"])
@pytest.mark.parametrize("exporter", ["older", "newer"])
@pytest.mark.parametrize("norm", NORMS)
def test_norms_that_have_just_been_initialised(norm, exporter, batch, run_steps):
    torch.manual_seed(0)
    assert_same_training(twice(NORMS[norm]), exporter, batch, run_steps)


@pytest.mark.parametrize("exporter", ["older", "newer"])
@pytest.mark.parametrize("affine", [True, False])
def test_layer_norm_over_an_image(affine, exporter, run_steps):
    torch.manual_seed(0)
    network = twice(lambda: nn.LayerNorm([4, 6, 6], elementwise_affine=affine))
    assert_same_training(network, exporter, "symbolic", run_steps)


def test_a_group_norm_without_parameters(run_steps):
    """The newer exporter writes what it writes for one that has just been initialised: docs/training-graphs.md."""
    torch.manual_seed(0)
    assert_same_training(twice(lambda: nn.GroupNorm(2, 4, affine=False)), "older", "symbolic", run_steps)
