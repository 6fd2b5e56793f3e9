"""Parameters and MACs by their definitions, and of well-known networks."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from wootz.passes.analysis.cost import flops, layer_costs, macs, parameters
from wootz.passes.ir.model import Model
from wootz.passes.ir.text import parse_text

LAYERS = """<ir_version: 8, opset_import: ["" : 18]>
g (float[N,4,8,8] x) => (float[N,5] y)
<
  float[6,2,3,3] w = {%s}, float[6] b = {1,1,1,1,1,1}, float[6] s = {1,1,1,1,1,1},
  float[6] r = {1,1,1,1,1,1}, float[6] m = {0,0,0,0,0,0},
  float[6,3,2,2] t = {%s}, float[3,5] fc = {1,1,1,1,1,1,1,1,1,1,1,1,1,1,1}, float slope = {0.5}, float half = {0.5}
>
{
  [conv] a = Conv<group = 2>(x, w, b)
  [bn] c = BatchNormalization(a, s, r, m, m)
  [up] d = ConvTranspose<strides = [2, 2]>(c, t)
  [prelu] e = PRelu(d, slope)
  [scaled] f = Mul(e, half)
  [pool] h = GlobalAveragePool(f)
  [flat] i = Flatten(h)
  [fc] y = MatMul(i, fc)
}""" % (",".join(["1"] * 108), ",".join(["1"] * 72))  # noqa: UP031  # braces are ONNX's


def test_layers_by_definition() -> None:
    costs = {cost.name: (cost.parameters, cost.macs) for cost in layer_costs(parse_text(LAYERS))}
    assert costs == {
        "conv": (108 + 6, 6 * 6 * 6 * 2 * 9),
        "bn": (12, 0),
        "up": (72, 6 * 6 * 6 * 3 * 4),
        "prelu": (1, 0),
        "fc": (15, 15),
    }


def test_macs_are_for_one_image() -> None:
    batch = parse_text(LAYERS.replace("float[N,", "float[7,"))
    assert macs(batch) == macs(parse_text(LAYERS))
    assert flops(batch) == 2 * macs(batch)


@pytest.mark.parametrize(
    ("name", "millions"),
    [
        ("resnet18", 11.69),
        ("resnet50", 25.56),
        ("resnet101", 44.55),
        ("resnext50", 25.03),
        ("densenet121", 7.98),
        ("mobilenet_v2", 3.50),
        ("squeezenet", 1.24),
        ("shufflenet_v2", 2.28),
        ("efficientnet_b0", 5.29),
        ("convnext_t", 28.59),
    ],
)
def test_parameters_of_known_networks(name: str, millions: float, exported: Callable[[str], Model]) -> None:
    """The numbers that torchvision publishes for its networks, in millions."""
    assert parameters(exported(f"{name}.torchscript")) / 1e6 == pytest.approx(millions, abs=0.005)
