"""The modules of networks that go down and up again, or have several inputs or outputs, as graphs of a few lines."""

from __future__ import annotations

import re
from dataclasses import replace
from types import ModuleType

import numpy as np
import pytest

from wootz.passes.analysis.module_boundaries import check_modules
from wootz.passes.analysis.modules import find_modules
from wootz.passes.ir.model import Model
from wootz.passes.ir.text import parse_text
from wootz.passes.ir.verifier import verify
from wootz.passes.pruning.block_pruner import BlockPruner
from wootz.passes.transforms.teacher_student import TeacherStudent, parse_blocks

MAP = "float[N, C, H, W]"


def network(nodes: str, inputs: str, outputs: str) -> Model:
    """A network from maps [N,4,8,8] to maps of any size, or from and to what is said of one: `float[N, 4] t`.

    `b = Conv(a, 8 4 3)` is a convolution with 8 filters of 4 channels and 3 x 3 positions, `Down` one of stride 2, and
    `Up` a ConvTranspose with 4 inputs and 8 outputs that doubles the extents. A weight that is named, as in
    `Conv(a, shared 8 4 3)`, is the same each time.
    """
    random = np.random.default_rng(0)
    weights: dict[str, str] = {}

    def layer(match: re.Match[str]) -> str:
        result, kind, data, name, *sizes = match.groups()
        outer, inner, kernel = map(int, sizes)
        shape = (outer, inner, kernel, kernel)
        values = random.standard_normal(shape) / np.sqrt(inner * kernel * kernel)
        numbers = ", ".join(f"{value:.4f}" for value in values.ravel())
        weight = name.strip() or f"w_{result}"
        weights[weight] = f"float[{', '.join(map(str, shape))}] {weight} = {{{numbers}}}"
        pad = (kernel - 1) // 2
        settings = f"pads = [{', '.join([str(pad)] * 4)}], strides = [{'1, 1' if kind == 'Conv' else '2, 2'}]"
        operator = "ConvTranspose" if kind == "Up" else "Conv"
        return f"{result} = {operator} <{settings}> ({data}, {weight})"

    body = re.sub(r"(\w+) = (Conv|Down|Up)\((\w+), (\w+ |)(\d+) (\d+) (\d+)\)", layer, nodes)
    given, made = (
        ", ".join(part if "[" in part else f"float[N, {rest}] {part}" for part in text.split("; "))
        for text, rest in ((inputs, "4, 8, 8"), (outputs, "C, H, W"))
    )
    constants = {
        "scales": "float[4] scales = {1, 1, 2, 2}",
        "rows": "int64[3] rows = {-1, 2, 128}",
        "back": "int64[4] back = {0, 0, -1, 1}",
        "w_lstm": f"float[1, 4, 128] w_lstm = {{{', '.join(['0.1'] * 512)}}}",
        "r_lstm": "float[1, 4, 1] r_lstm = {0.1, 0.2, 0.3, 0.4}",
    }
    weights |= {name: text for name, text in constants.items() if name in body}
    header = '<ir_version: 8, opset_import: ["" : 18]>'
    return parse_text(f"{header} net ({given}) => ({made}) <{', '.join(weights.values())}> {{ {body} }}")


U_NET = """
    a = Conv(x, 4 4 3)  b = Relu(a)  c = Conv(b, 6 4 3)  d = Relu(c)
    e = MaxPool <kernel_shape = [2, 2], strides = [2, 2]> (d)
    f = Conv(e, 6 6 3)  g = Relu(f)  h = Conv(g, 6 6 3)  i = Relu(h)  j = Up(i, 6 4 2)
    k = Concat <axis = 1> (d, j)  l = Conv(k, 6 10 3)  m = Relu(l)  y = Conv(m, 2 6 1)"""
RESIDUAL_U_NET = """
    a = Conv(x, 4 4 1)  b = Relu(a)  c = Conv(b, 4 4 3)  d = Add(c, x)
    e = Down(d, 6 4 3)  f = Relu(e)  g = Conv(f, 6 6 3)  h = Down(d, 6 4 1)  i = Add(g, h)
    j = Up(i, 6 4 2)  k = Add(j, d)  l = Conv(k, 4 4 3)  m = Relu(l)  n = Conv(m, 4 4 3)  y = Add(n, k)"""
PYRAMID = """
    a = Conv(x, 4 4 1)  b = Relu(a)  c = Conv(b, 4 4 3)  d = Add(c, x)
    e = Down(d, 6 4 3)  f = Relu(e)  g = Conv(f, 6 6 3)  s = Down(d, 6 4 1)  h = Add(g, s)
    i = Conv(h, 4 6 1)  p = Conv(i, 4 4 3)
    j = Conv(d, 4 4 1)  k = Resize <mode = "nearest"> (i, , scales)  l = Add(j, k)  q = Conv(l, 4 4 3)"""
SHARED_HEADS = """
    a = Conv(x, 4 4 3)  b = Relu(a)  c = Conv(b, 4 4 3)  d = Relu(c)
    e = Down(d, 4 4 3)  f = Relu(e)
    g = Conv(d, first 4 4 3)  h = Relu(g)  p = Conv(h, second 2 4 3)
    i = Conv(f, first 4 4 3)  j = Relu(i)  q = Conv(j, second 2 4 3)"""
TWO_INPUTS = """
    a = Conv(x, 4 4 3)  b = Relu(a)  c = Conv(b, 4 4 3)  d = Relu(c)
    e = Conv(z, 4 4 3)  f = Relu(e)  g = Conv(f, 4 4 3)  h = Relu(g)
    i = Concat <axis = 1> (d, h)  j = Conv(i, 4 8 3)  k = Relu(j)  y = Conv(k, 2 4 3)"""
LATE_VECTOR = """
    a = Conv(x, 4 4 1)  b = Relu(a)  s = Conv(t, 4 4 1)  c = Add(b, s)  d = Conv(c, 4 4 3)  e = Add(d, x)
    f = Conv(e, 4 4 1)  g = Relu(f)  r = Conv(t, 4 4 1)  h = Add(g, r)  i = Conv(h, 4 4 3)  y = Add(i, e)"""
DETECTOR = """
    a = Conv(x, 4 4 1)  b = Relu(a)  c = Conv(b, 4 4 3)  d = Add(c, x)
    e = Down(d, 6 4 3)  f = Relu(e)  g = Conv(f, 4 6 1)  h = Relu(g)
    i = Conv(d, 2 4 3)  j = Flatten(i)  k = Conv(h, 2 4 3)  l = Flatten(k)  y = Concat <axis = 1> (j, l)"""
LONG_SKIP = """
    a = Conv(x, 4 4 3)
    b = Conv(a, 4 4 1)  c = Relu(b)  d = Conv(c, 4 4 3)  e = Add(d, a)
    f = Conv(e, 4 4 1)  g = Relu(f)  h = Conv(g, 4 4 3)  i = Add(h, e)
    j = Conv(i, 4 4 3)  y = Add(j, a)"""
RECURRENT = """
    a = Conv(x, 4 4 3)  b = Relu(a)  c = Conv(b, 4 4 3)  d = Relu(c)  e = Reshape(d, rows)
    f, state = LSTM <hidden_size = 1> (e, w_lstm, r_lstm)  y = Reshape(f, back)"""
LATE_MASK = """
    a = Conv(x, 4 4 1)  b = Relu(a)  c = Conv(b, 4 4 3)  d = Add(c, x)
    e = Conv(d, 4 4 1)  f = Relu(e)  g = Conv(f, 4 4 3)  h = Add(g, d)  y = Where(mask, h, x)"""

SIAMESE = """
    a = Conv(x, first 4 4 1)  b = Relu(a)  c = Conv(b, second 4 4 3)  d = Add(c, x)
    e = Conv(d, third 4 4 1)  f = Relu(e)  g = Conv(f, fourth 4 4 3)  h = Add(g, d)
    i = Conv(z, first 4 4 1)  j = Relu(i)  k = Conv(j, second 4 4 3)  l = Add(k, z)
    m = Conv(l, third 4 4 1)  n = Relu(m)  o = Conv(n, fourth 4 4 3)  p = Add(o, l)
    y = Sub(h, p)"""
UNROLLED = """
    a = Conv(x, first 4 4 1)  b = Relu(a)  c = Conv(b, second 4 4 3)  d = Add(c, z)
    e = Conv(d, first 4 4 1)  f = Relu(e)  g = Conv(f, second 4 4 3)  y = Add(g, z)"""


@pytest.mark.parametrize(
    ("nodes", "ends", "modules", "prunable"),
    [
        pytest.param(U_NET, "x -> y", "x > d | e > j | k > y", "a; f h; l", id="U-Net"),
        pytest.param(RESIDUAL_U_NET, "x -> y", "x > d | d > i | k > y", "a; e; l", id="residual U-Net"),
        pytest.param(PYRAMID, "x -> p; q", "x > d | d > h | h d > q p", "a; e; i j", id="FPN"),
        pytest.param(SHARED_HEADS, "x -> p; q", "x > d | d f > q p", "a; g i", id="heads that share weights"),
        pytest.param(TWO_INPUTS, "x; z -> y", "x > d | z > h | i > y", "a; e; j", id="two inputs"),
        pytest.param(
            LATE_VECTOR, "x; float[N, 4, 1, 1] t -> y", "x t > e | e t > y", "a s; f r", id="a vector that is added"
        ),
        pytest.param(DETECTOR, "x -> float[N, M] y", "x > d | d > h", "a; e", id="SSD"),
        pytest.param(LONG_SKIP, "x -> y", "a > e | e > i", "b; f", id="super-resolution"),
        pytest.param(RECURRENT, "x -> y; float[1, 2, 1] state", "x > b | b > d", "a; ", id="a chain before an LSTM"),
        pytest.param(LATE_MASK, "x; bool[N, 1, 8, 8] mask -> y", "x > d | d > h", "a; e", id="a mask"),
        pytest.param(SIAMESE, "x; z -> y", "x z > l d | d l > p h", "a i; e m", id="one trunk for two inputs"),
        pytest.param(UNROLLED, "x; z -> y", "x z > g", "a e", id="one layer again and again"),
    ],
)
def test_regions(nodes: str, ends: str, modules: str, prunable: str, oracles: ModuleType) -> None:
    """`modules` are ENTRIES > EXITS; `prunable` has the layers of each that can be pruned, by what they compute."""
    model = network(nodes, *ends.split(" -> "))
    found, source = find_modules(model)
    assert source == "structure"
    assert " | ".join(f"{' '.join(m.entries)} > {' '.join(m.exits)}" for m in found) == modules
    check_modules(model, found)
    pruner = BlockPruner.of(replace(model, modules=found))
    assert "; ".join(" ".join(table.prunable) for table in pruner.convolutions) == prunable
    prunable_modules = [table.module for table in pruner.convolutions if table.prunable]
    plan = pruner.plan(dict.fromkeys(prunable_modules, 0.5))
    oracles.assert_pruned_correctly(model, pruner.materialize(plan), plan)
    verify(TeacherStudent().join(pruner, parse_blocks("+".join(f"{name}@0.5" for name in prunable_modules), pruner)))
