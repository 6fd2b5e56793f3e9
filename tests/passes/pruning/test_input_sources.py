"""Which modules take channels from which inputs."""

from dataclasses import replace

import pytest

from wootz.passes.analysis.modules import find_modules
from wootz.passes.ir.model import Module
from wootz.passes.ir.text import parse_text
from wootz.passes.pruning.block_pruner import BlockPruner
from wootz.passes.pruning.input_sources import InputSources

CHAIN = """<ir_version: 8, opset_import: ["" : 18]>
chain (float[1, 1, 2, 2] x) => (float[1, 2] y)
<float[2, 1, 1, 1] a = {1, 2}, float[2, 2, 1, 1] b = {1, 2, 3, 4}, float[8, 2] c = {%s}> {
  first = Conv (x, a)
  active = Relu (first)
  second = Conv (active, b)
  flat = Flatten (second)
  y = MatMul (flat, c)
}
"""

DEPTHWISE = """<ir_version: 8, opset_import: ["" : 18]>
depthwise (float[1, 1, 2, 2] x) => (float[1, 2, 2, 2] y)
<float[2, 1, 1, 1] a = {1, 2}, float[2, 1, 1, 1] d = {1, 2}, float[2, 2, 1, 1] b = {1, 2, 3, 4}> {
  first = Conv (x, a)
  deep = Conv <group = 2> (first, d)
  y = Conv (deep, b)
}
"""

RESIDUAL = """<ir_version: 8, opset_import: ["" : 18]>
residual (float[1, 2, 2, 2] x) => (float[1, 2, 2, 2] y)
<float[2, 2, 1, 1] a = {1, 2, 3, 4}, float[2, 2, 1, 1] b = {1, 2, 3, 4}, float[2, 2, 1, 1] c = {1, 2, 3, 4},
 float[2, 2, 1, 1] d = {1, 2, 3, 4}> {
  a1 = Conv (x, a)
  b1 = Conv (a1, b)
  m1 = Add (b1, x)
  a2 = Conv (m1, c)
  b2 = Conv (a2, d)
  y = Add (b2, m1)
}
"""


@pytest.mark.parametrize(
    ("text", "modules", "sources"),
    [
        (CHAIN % ", ".join("1" * 16), (), InputSources({1: (0,)}, outside=(1,))),
        (DEPTHWISE, (), InputSources({1: (0,)}, outside=())),
        (
            DEPTHWISE,
            (Module("a", "x", "first"), Module("d", "first", "deep"), Module("b", "deep", "y")),
            InputSources({}, outside=()),
        ),
        (RESIDUAL, (), InputSources({}, outside=())),
    ],
    ids=["chain", "depthwise in the module before", "channels tied across modules stay", "residual"],
)
def test_sources(text, modules, sources):
    model = parse_text(text)
    model = replace(model, modules=modules or find_modules(model)[0])
    assert BlockPruner.of(model).input_sources == sources
