"""Parameters and MACs by their definitions, and of well-known networks."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from wootz.passes.analysis.cost import flops, layer_costs, macs, parameters
from wootz.passes.ir.model import Model
from wootz.passes.ir.text import parse_text
from wootz.passes.pipeline import parse_pass

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


OTHERS = parse_text("""<ir_version: 8, opset_import: ["" : 18, "com.microsoft" : 1]>
g (float[1,2,4,4] x, int64[4] shape, float[3,2,1,1] given) => (float y, float z)
<float[3,2,1,1] w = {1,2,3,4,5,6}, int8[3,2,1,1] q = {1,2,3,4,5,6}, float scale = {0.1},
 float[3,3,1,1] v = {1,2,3,4,5,6,7,8,9}> {
  [fused] a = com.microsoft.FusedConv(x, w)
  d = DequantizeLinear(q, scale)
  [quantized] b = Conv(x, d)
  [computed] c = Conv(x, given)
  r = Reshape(c, shape)
  [unknown] u = Conv(r, w)
  e = Relu(a)
  [next] f = Conv(e, v)
  y = Add(f, b)
  z = Relu(u)
}
""")


def test_convolutions_of_all_kinds_count() -> None:
    found = {c.name: (c.parameters, c.macs, c.is_known) for c in layer_costs(OTHERS)}
    assert found["fused"] == (6, 0, False)
    assert found["quantized"] == (6, 96, True)
    assert found["computed"] == (0, 96, True)
    assert found["unknown"] == (0, 0, False)  # its weight was counted with 'fused'


def test_what_is_not_known_is_no_zero() -> None:
    result = parse_pass("print-stats").apply(OTHERS)
    (line,) = (line for line in result.report.splitlines() if line.startswith("unknown"))
    assert line.split()[-1] == "?"
    assert result.notes == (
        "the MACs of 'fused', 'unknown' are not known, as shapes aren't: the total is without them",
    )
