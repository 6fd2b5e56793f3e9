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
nn, f = torch.nn, torch.nn.functional

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
            dynamic |= {"training": torch.onnx.TrainingMode.PRESERVE}  # nothing is folded into convolutions
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


class OneNumber(nn.Module):
    """A scale and a bias of one number each, as HGNet and MetaFormers have."""

    def __init__(self):
        super().__init__()
        self.scale, self.bias = nn.Parameter(torch.ones(1)), nn.Parameter(torch.zeros(1))

    def forward(self, x):
        return self.scale * x + self.bias


NORMS = {
    "one-number": OneNumber,
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


class Module(nn.Module):
    """`function(x, *layers)`."""

    def __init__(self, function, *layers):
        super().__init__()
        self.function, self.layers = function, nn.ModuleList(layers)

    def forward(self, x):
        return self.function(x, *self.layers)


def split_and_concat(x, conv):
    """YOLO's C2f."""
    a, b = x.chunk(2, 1)
    return torch.cat([a, b, conv(b)], 1)


def partial_convolution(x, conv):
    """FasterNet's PConv."""
    a, b = torch.split(x, [2, x.shape[1] - 2], 1)
    return torch.cat([conv(a), b], 1)


def shuffle(x, conv):
    """ShuffleNet's halves and its shuffle."""
    a, b = x.chunk(2, 1)
    n, c, h, w = x.shape
    return torch.cat([a, conv(b)], 1).view(n, 2, c // 2, h, w).transpose(1, 2).reshape(n, -1, h, w)


def same_padding(x, conv):
    """TensorFlow's SAME, of timm's Conv2dSame."""
    h, w = x.shape[-2:]
    rows, columns = (max((-(-n // 2) - 1) * 2 + 3 - n, 0) for n in (h, w))
    return conv(f.pad(x, [columns // 2, columns - columns // 2, rows // 2, rows - rows // 2]))


def pad_to_match(x, down, up):
    """U-Net's skip."""
    y = up(down(x))
    rows, columns = x.size(2) - y.size(2), x.size(3) - y.size(3)
    return torch.cat([x, f.pad(y, [columns // 2, columns - columns // 2, rows // 2, rows - rows // 2])], 1)


def head(x, conv):
    """SSD's: permute and view, with as many rows as there are places."""
    y = conv(x).permute(0, 2, 3, 1).contiguous()
    return y.view(y.size(0), -1, 4).transpose(1, 2).unsqueeze(-1)


def blurred(x, conv):
    """BlurPool's fixed filter."""
    row = torch.tensor([1.0, 2.0, 1.0])
    kernel = (row[:, None] * row / 16).expand(4, 1, 3, 3)
    return conv(f.conv2d(f.pad(x, (1, 1, 1, 1), mode="reflect"), kernel, stride=2, groups=4))


def channel_attention(x, conv):
    """ECA's."""
    y = x.mean((2, 3)).view(x.shape[0], 1, -1)
    return x * conv(y).view(x.shape[0], -1, 1, 1).sigmoid().expand_as(x)


def attention(x, qkv):
    """Self-attention over places, in two heads."""
    n, c, h, w = x.shape
    q, k, v = qkv(x).reshape(n, 2, -1, h * w).chunk(3, dim=2)
    y = v @ (q.transpose(-2, -1) @ k * q.shape[2] ** -0.5).softmax(-1).transpose(-2, -1)
    return x + y.reshape(n, c, h, w)


def windows(x, linear):
    """Swin's windows: the batch grows by their number."""
    n, c, h, w = x.shape
    y = x.permute(0, 2, 3, 1).view(n, h // 2, 2, w // 2, 2, c).permute(0, 1, 3, 2, 4, 5).reshape(-1, 4, c)
    y = linear(y).view(-1, h // 2, w // 2, 2, 2, c).permute(0, 1, 3, 2, 4, 5).reshape(n, h, w, c)
    return y.permute(0, 3, 1, 2)


def resized(x, conv):
    """To the size of another tensor."""
    return x + f.interpolate(conv(x), size=x.shape[-2:], mode="nearest")


def option_a(x, conv):
    """The shortcut of ResNets for CIFAR: strided and padded with zeros."""
    return torch.cat([x[:, :, ::2, ::2], torch.zeros_like(x[:, :, ::2, ::2])], 1) + f.pad(
        conv(x), (0, 0, 0, 0, 2, 2), "constant", 0
    )


def class_token(x, token):
    places = x.flatten(2).transpose(1, 2)
    return torch.cat([token().expand(x.shape[0], -1, -1), places], 1).transpose(1, 2).unsqueeze(-1)


class Token(nn.Module):
    def __init__(self):
        super().__init__()
        self.value = nn.Parameter(torch.zeros(1, 1, 4))

    def forward(self):
        return self.value


SHAPED = {
    "split": (lambda: Module(split_and_concat, nn.Conv2d(2, 2, 3, padding=1)), 6),
    "partial": (lambda: Module(partial_convolution, nn.Conv2d(2, 2, 3, padding=1)), 4),
    "shuffle": (lambda: Module(shuffle, nn.Conv2d(2, 2, 1)), 4),
    "same": (lambda: Module(same_padding, nn.Conv2d(4, 4, 3, stride=2)), 4),
    "skip": (lambda: Module(pad_to_match, nn.Conv2d(4, 4, 3, stride=2), nn.ConvTranspose2d(4, 2, 2, stride=2)), 6),
    "head": (lambda: Module(head, nn.Conv2d(4, 8, 1)), 4),
    "blur": (lambda: Module(blurred, nn.Conv2d(4, 4, 1)), 4),
    "channel-attention": (lambda: Module(channel_attention, nn.Conv1d(1, 1, 3, padding=1, bias=False)), 4),
    "attention": (lambda: Module(attention, nn.Conv2d(4, 12, 1)), 4),
    "windows": (lambda: Module(windows, nn.Linear(4, 4)), 4),
    "resized": (lambda: Module(resized, nn.Conv2d(4, 4, 2)), 4),
    "option-a": (lambda: Module(option_a, nn.Conv2d(4, 4, 3, stride=2, padding=1)), 8),
    "class-token": (lambda: Module(class_token, Token()), 4),
}


@pytest.mark.parametrize("exporter", ["older", "newer"])
@pytest.mark.parametrize("kind", SHAPED)
def test_shapes_that_are_computed_from_a_symbolic_batch(kind, exporter, run_steps):
    torch.manual_seed(0)
    module, channels = SHAPED[kind]
    network = classifier(nn.Conv2d(3, 4, 3), nn.ReLU(), module(), channels=channels)
    assert_same_training(network, exporter, "symbolic", run_steps)


def both_halves(x, trunk):
    """Siamese: one trunk for the left half and for the right one."""
    left, right = x.chunk(2, 3)
    return torch.cat([trunk(left), trunk(right)], 1)


def twice_in_a_row(x, trunk):
    return trunk(trunk(x))


def two_scales(x, conv, first, second):
    """RetinaNet's heads: a convolution for all levels, and a normalisation for each."""
    return first(conv(x)) + second(f.interpolate(conv(f.avg_pool2d(x, 2)), size=x.shape[-2:], mode="nearest"))


def trunk():
    return nn.Sequential(nn.Conv2d(4, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 4, 1))


SHARED = {
    "both-halves": (lambda: Module(both_halves, trunk()), 8),
    "twice": (lambda: Module(twice_in_a_row, trunk()), 4),
    "two-scales": (
        lambda: Module(two_scales, nn.Conv2d(4, 4, 3, padding=1), nn.BatchNorm2d(4), nn.BatchNorm2d(4)), 4
    ),
}  # fmt: skip


@pytest.mark.parametrize("exporter", ["older", "newer"])
@pytest.mark.parametrize("kind", SHARED)
def test_layers_that_are_called_several_times(kind, exporter, run_steps):
    torch.manual_seed(0)
    module, channels = SHARED[kind]
    network = classifier(nn.Conv2d(3, 4, 3), nn.ReLU(), module(), channels=channels)
    for name, values in network.state_dict().items():
        if "running" in name:  # of a network that has been trained: no two are equal by accident
            values.copy_(torch.rand_like(values) + 0.5)
    assert_same_training(network, exporter, "symbolic", run_steps)


def test_a_group_norm_without_parameters(run_steps):
    """The newer exporter writes what it writes for one that has just been initialised: docs/training-graphs.md."""
    torch.manual_seed(0)
    assert_same_training(twice(lambda: nn.GroupNorm(2, 4, affine=False)), "older", "symbolic", run_steps)
