"""Gradients of what PyTorch's exporters write equal PyTorch's own."""

from __future__ import annotations

import contextlib
import io
import logging

import numpy as np
import onnx
import pytest

from wootz.passes.ir.model import Model
from wootz.passes.training.attach_loss import AttachLoss
from wootz.passes.training.build_gradients import BuildGradients
from wootz.passes.training.legalize import Legalize

torch = pytest.importorskip("torch")
nn, f = torch.nn, torch.nn.functional

IMAGES = (2, 3, 8, 8)
# y from the images x: f(conv(x)) with a convolution from 3 to 4 channels, 3×3
BEHIND_A_CONVOLUTION = {
    "nearest": lambda a: f.interpolate(a, scale_factor=2),
    "bilinear": lambda a: f.interpolate(a, scale_factor=1.5, mode="bilinear"),
    "align-corners": lambda a: f.interpolate(a, size=(9, 11), mode="bilinear", align_corners=True),
    "bicubic": lambda a: f.interpolate(a, scale_factor=1.5, mode="bicubic"),
    "gelu": f.gelu,
    "gelu-tanh": lambda a: f.gelu(a, approximate="tanh"),
    "silu": f.silu,
    "mish": f.mish,
    "hardswish": lambda a: f.hardswish(5 * a),
    "hardsigmoid": f.hardsigmoid,
    "relu6": lambda a: f.relu6(5 * a),
    "glu": lambda a: f.glu(a, 1),
    "clamp": lambda a: a.clamp(min=-0.2) + a.clamp(-0.3, 0.3),
    "pools-ceil": lambda a: f.avg_pool2d(
        f.max_pool2d(a, 3, 2, 1, ceil_mode=True), 3, 2, ceil_mode=True, count_include_pad=False
    ),
    "adaptive-pool": lambda a: f.adaptive_avg_pool2d(a, 2),
    "lp-pool": lambda a: f.lp_pool2d(a + 3, 2, 2),
    "paddings": lambda a: f.pad(f.pad(a, (1, 2, 0, 1), mode="reflect"), (2, 0, 1, 1), mode="replicate"),
    "channel-shuffle": lambda a: a.reshape(2, 2, 2, 6, 6).transpose(1, 2).reshape(2, 4, 6, 6),
    "split": lambda a: torch.cat([p * q for p, q in zip(a.chunk(2, 1), a.split([2, 2], 1), strict=True)], 1),
    "slices": lambda a: a[:, 1:, ::2, -3:].flip(3),
    "pixel-shuffle": lambda a: f.pixel_unshuffle(f.pixel_shuffle(a, 2), 3),
    "squeeze-excite": lambda a: a * torch.sigmoid(a.mean((2, 3), keepdim=True)),
    "standardised": lambda a: a / a.std((2, 3), keepdim=True),
    "normalised": lambda a: f.normalize(a, dim=1),
    "local-response": lambda a: f.local_response_norm(a, 3, alpha=0.5),
    "expand-repeat": lambda a: a.mean(1, keepdim=True).expand(-1, 3, -1, -1) + a[:, :3, :1].repeat(1, 1, 6, 1),
    "where-power": lambda a: torch.where(a > 0, a**2, (a.abs() + 0.1).sqrt()),
    "extrema": lambda a: torch.maximum(a, -a).max(1).values + a.amin(1) + a.prod(1) + a.logsumexp(1),
    "einsum": lambda a: torch.einsum("nchw,ndhw->ncd", a, a),
    "cumulative": lambda a: a.cumsum(1).tril(),
    "top-k": lambda a: a.topk(2, 1).values,
    "dropout": lambda a: f.dropout(a, 0.5, training=False),
}
NETWORKS = {
    "deconvolution": (nn.ConvTranspose2d(3, 2, 3, stride=2, padding=1, output_padding=1), IMAGES),
    "group-norm": (nn.Sequential(nn.Conv2d(3, 4, 3), nn.GroupNorm(2, 4)), IMAGES),
    "instance-norm": (nn.Sequential(nn.Conv2d(3, 4, 3), nn.InstanceNorm2d(4, affine=True)), IMAGES),
    "padded-convolutions": (
        nn.Sequential(
            nn.Conv2d(3, 4, 3, padding=1, padding_mode="reflect"),
            nn.Conv2d(4, 4, 3, padding=2, padding_mode="replicate"),
        ),
        IMAGES,
    ),
    "prelu": (nn.Sequential(nn.Conv2d(3, 4, 3), nn.PReLU()), IMAGES),
    "1d": (nn.Sequential(nn.Conv1d(3, 4, 3), nn.BatchNorm1d(4), nn.MaxPool1d(2)), (2, 3, 16)),
    "3d": (nn.Sequential(nn.Conv3d(3, 4, 3, padding=1), nn.AvgPool3d(2)), (2, 3, 4, 6, 6)),
    "attention": (nn.Sequential(nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=True)), (2, 5, 8)),
}


class Behind(nn.Module):
    def __init__(self, function):
        super().__init__()
        self.conv, self.function = nn.Conv2d(3, 4, 3), function

    def forward(self, x):
        return self.function(self.conv(x))


def _network(name):
    torch.manual_seed(0)
    network, shape = NETWORKS[name] if name in NETWORKS else (Behind(BEHIND_A_CONVOLUTION[name]), IMAGES)
    return network.eval(), torch.randn(shape)


def _assert_same_gradients(network, x, proto, run):
    lossy = AttachLoss(loss="mse").apply(Model.from_proto(proto)).model
    y = network(x)
    target = torch.randn(y.shape)
    graph = Legalize().apply(BuildGradients().apply(lossy).model).model
    found = run(graph, {lossy.graph.inputs[0].name: x.numpy(), "target": target.numpy()})
    network.zero_grad()
    f.mse_loss(y, target).backward()
    named = {n: p.grad.numpy() for n, p in network.named_parameters() if f"{n}.grad" in found}
    assert named
    for name, expected in named.items():
        difference = np.abs(found[f"{name}.grad"] - expected).max()
        assert difference <= 3e-5 * max(1e-2, np.abs(expected).max()), name


@pytest.mark.parametrize("name", [*BEHIND_A_CONVOLUTION, *NETWORKS])
def test_older_exporter(name, run):
    network, x = _network(name)
    buffer = io.BytesIO()
    options = {"training": torch.onnx.TrainingMode.PRESERVE, "do_constant_folding": False, "opset_version": 17}
    with pytest.warns():  # that it is the older one
        torch.onnx.export(network, x, buffer, dynamo=False, **options)
    _assert_same_gradients(network, x, onnx.load_from_string(buffer.getvalue()), run)


@pytest.mark.parametrize("name", ["bilinear", "gelu", "paddings", "slices", "group-norm", "3d"])
@pytest.mark.parametrize("opset", [18, 21])
def test_newer_exporter(name, opset, run):
    pytest.importorskip("onnxscript")
    logging.disable(logging.CRITICAL)
    network, x = _network(name)
    with contextlib.redirect_stdout(io.StringIO()):
        proto = torch.onnx.export(network, (x,), dynamo=True, opset_version=opset).model_proto
    logging.disable(logging.NOTSET)
    _assert_same_gradients(network, x, proto, run)


def test_a_branch_that_shapes_decide_is_no_obstacle(run):
    """The older exporter writes an If into local_response_norm."""
    network = Behind(lambda a: f.local_response_norm(a, 3)).eval()
    buffer, x = io.BytesIO(), torch.randn(IMAGES)
    with pytest.warns():
        torch.onnx.export(network, x, buffer, dynamo=False, opset_version=17)
    proto = onnx.load_from_string(buffer.getvalue())
    assert "If" in {node.op_type for node in proto.graph.node}
    _assert_same_gradients(network, x, proto, run)
