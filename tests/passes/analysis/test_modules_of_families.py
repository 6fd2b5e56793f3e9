"""The modules of each kind of network, as a graph of a few lines, and what prune-blocks can remove from them."""

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


def network(nodes: str) -> Model:
    """A network from x[N,4,6,6] to y.

    `b = Conv(a, 8 4 3)` is a convolution with 8 filters of 4 channels and 3 x 3 positions; `Depthwise(a, 8 3)` one of
    8 channels. Weights are called `w.OUTPUT` with OUTPUT the tensor, and are random.
    """
    random = np.random.default_rng(0)
    weights = []

    def weight(match: re.Match[str]) -> str:
        output, kind, data, *sizes = match.groups()
        filters, inputs, kernel = map(int, sizes) if sizes[1] else (int(sizes[0]), 1, int(sizes[2]))
        values = random.standard_normal((filters, inputs, kernel, kernel)) / np.sqrt(inputs * kernel * kernel)
        numbers = ",".join(f"{v:.4f}" for v in values.ravel())
        weights.append(f'float[{filters},{inputs},{kernel},{kernel}] "w.{output}" = {{{numbers}}}')
        group = f", group = {filters}" if kind == "Depthwise" else ""
        return f'{output} = Conv<pads = [{",".join([str(kernel // 2)] * 4)}]{group}>({data}, "w.{output}")'

    body = re.sub(r"(\w+) = (Conv|Depthwise)\((\w+), (\d+)(?: (\d+))? (\d+)\)", weight, nodes)
    body = re.sub(r"((\w+)(?:, \w+)*) = ([A-Z])", r"[\2] \1 = \3", body)
    return parse_text(
        '<ir_version: 8, opset_import: ["" : 18]> '
        f"g (float[N,4,6,6] x) => (float y) <{', '.join(weights)}> {{ {body} }}"
    )


UNIVERSAL_INVERTED_BOTTLENECK = """
    a = Conv(x, 4 4 3)
    b = Depthwise(a, 4 3)  c = Conv(b, 8 4 1)  d = Relu(c)  e = Depthwise(d, 8 3)  f = Relu(e)  g = Conv(f, 4 8 1)
    h = Conv(g, 8 4 1)  i = Relu(h)  j = Conv(i, 4 8 1)  k = Add(j, g)
    y = GlobalAveragePool(k)"""
XCEPTION_EXIT = """
    a = Relu(x)  b = Depthwise(a, 4 3)  c = Conv(b, 4 4 1)  d = Add(c, x)
    e = Depthwise(d, 4 3)  f = Conv(e, 6 4 1)  g = Relu(f)  h = Depthwise(g, 6 3)  i = Conv(h, 8 6 1)  j = Relu(i)
    k = Depthwise(j, 8 3)  l = Conv(k, 8 8 1)  m = Relu(l)
    y = GlobalAveragePool(m)"""
FUSED_BOTTLENECK = """
    a = Conv(x, 4 4 3)
    b = Conv(a, 8 4 3)  c = Relu(b)  d = Conv(c, 4 8 1)
    e = Conv(d, 8 4 1)  f = Relu(e)  g = Conv(f, 4 8 1)  h = Add(g, d)
    y = GlobalAveragePool(h)"""
ONE_SHOT_AGGREGATION = """
    a = Conv(x, 4 4 3)  b = Relu(a)  c = Conv(b, 4 4 3)  d = Relu(c)  e = Concat<axis = 1>(x, b, d)
    f = Conv(e, 6 12 1)  g = Relu(f)
    s = GlobalAveragePool(g)  t = Conv(s, 6 6 1)  u = HardSigmoid(t)  v = Mul(g, u)
    p = MaxPool<kernel_shape = [1,1]>(v)
    h = Conv(p, 4 6 3)  i = Relu(h)  j = Concat<axis = 1>(p, i)  k = Conv(j, 6 10 1)
    y = GlobalAveragePool(k)"""
CROSS_STAGE_PARTIAL = """
    a = Conv(x, 4 4 3)  b = Conv(a, 8 4 1)  c, d = Split<axis = 1, num_outputs = 2>(b)
    e = Conv(d, 4 4 3)  f = Relu(e)  g = Add(f, d)  h = Concat<axis = 1>(c, g)  i = Conv(h, 4 8 1)  j = Relu(i)
    k = Conv(j, 6 4 3)  l = Relu(k)  m = Conv(l, 8 6 1)  n, o = Split<axis = 1, num_outputs = 2>(m)
    p = Conv(o, 4 4 3)  q = Relu(p)  r = Add(q, o)  s = Concat<axis = 1>(n, r)  t = Conv(s, 4 8 1)
    y = GlobalAveragePool(t)"""
FIRE = """
    a = Conv(x, 4 4 1)  b = Conv(a, 4 4 1)  c = Relu(b)  d = Conv(a, 4 4 3)  e = Relu(d)  f = Concat<axis = 1>(c, e)
    p = MaxPool<kernel_shape = [1,1]>(f)
    g = Conv(p, 4 8 1)  h = Relu(g)  i = Conv(h, 4 4 1)  j = Relu(i)  k = Conv(h, 4 4 3)  l = Relu(k)
    m = Concat<axis = 1>(j, l)  n = Conv(m, 5 8 1)
    y = GlobalAveragePool(n)"""
SPATIAL_PYRAMID = """
    a = Conv(x, 8 4 1)  b = Relu(a)  c = Conv(b, 4 8 1)  d = Add(c, x)
    e = Conv(d, 4 4 1)  f = Relu(e)  g = Conv(d, 4 4 3)  h = Relu(g)  i = GlobalAveragePool(d)  j = Conv(i, 4 4 1)
    k = Add(h, j)  l = Concat<axis = 1>(f, k)  m = Conv(l, 4 8 1)  n = Relu(m)
    o = Conv(n, 6 4 3)  p = Relu(o)  q = Conv(p, 3 6 1)  y = GlobalAveragePool(q)"""
DENSE = """
    a = Conv(x, 4 4 1)  b = Relu(a)  c = Conv(b, 2 4 3)  d = Concat<axis = 1>(x, c)
    e = Relu(d)  f = Conv(e, 4 6 1)  g = AveragePool<kernel_shape = [1,1]>(f)
    h = Conv(g, 4 4 1)  i = Relu(h)  j = Conv(i, 2 4 3)  k = Concat<axis = 1>(g, j)  l = Relu(k)
    y = GlobalAveragePool(l)"""
REPARAMETERISED = """
    a = Conv(x, 6 4 3)  b = Conv(x, 6 4 1)  c = Add(a, b)  d = Relu(c)
    e = Conv(d, 6 6 3)  f = Conv(d, 6 6 1)  g = Add(e, f)  h = Add(g, d)  i = Relu(h)
    j = Conv(i, 8 6 3)  k = Conv(i, 8 6 1)  l = Add(j, k)  m = Relu(l)
    n = GlobalAveragePool(m)  y = Conv(n, 3 8 1)"""
REPARAMETERISED_DEPTHWISE = """
    a = Conv(x, 6 4 3)  b = Relu(a)
    c = Depthwise(b, 6 3)  d = Depthwise(b, 6 1)  e = Add(c, d)  f = Relu(e)
    g = Conv(f, 8 6 1)  h = Conv(f, 8 6 1)  i = Add(g, h)  j = Relu(i)
    k = Depthwise(j, 8 3)  l = Depthwise(j, 8 1)  m = Add(k, l)  n = Add(m, j)  o = Relu(n)
    p = Conv(o, 8 8 1)  q = Add(p, o)  r = Relu(q)
    s = GlobalAveragePool(r)  y = Conv(s, 3 8 1)"""
TOKEN_AND_CHANNEL_MIXER = """
    a = Conv(x, 4 4 3)
    b = Depthwise(a, 4 3)  c = Depthwise(a, 4 1)  d = Add(b, c)  e = Add(d, a)
    s = GlobalAveragePool(e)  t = Conv(s, 2 4 1)  u = Relu(t)  v = Conv(u, 4 2 1)  w = Sigmoid(v)  z = Mul(e, w)
    f = Conv(z, 8 4 1)  g = Relu(f)  h = Conv(g, 4 8 1)  i = Add(z, h)
    j = Depthwise(i, 4 3)  k = Conv(j, 6 4 1)  l = Conv(k, 8 6 1)  m = Relu(l)  n = Conv(m, 6 8 1)  o = Add(k, n)
    y = GlobalAveragePool(o)"""
MIXED = """
    a = Conv(x, 4 4 3)  b = Relu(a)
    c, d = Split<axis = 1, num_outputs = 2>(b)  e = Conv(c, 4 2 1)  f = Conv(d, 4 2 1)  g = Concat<axis = 1>(e, f)
    h = Relu(g)  i, j = Split<axis = 1, num_outputs = 2>(h)  k = Depthwise(i, 4 3)  l = Depthwise(j, 4 5)
    m = Concat<axis = 1>(k, l)  n = Relu(m)  o = Conv(n, 4 8 1)
    p = Conv(o, 6 4 1)  q = Relu(p)  r = Conv(q, 4 6 1)  s = Add(r, o)
    y = GlobalAveragePool(s)"""
GATED_CHAIN = """
    a = Conv(x, 6 4 3)  b = Relu(a)  c = Depthwise(b, 6 3)  d = Relu(c)
    s = GlobalAveragePool(d)  t = Conv(s, 2 6 1)  u = Relu(t)  v = Conv(u, 6 2 1)  w = Sigmoid(v)  z = Mul(w, d)
    e = Conv(z, 8 6 1)  f = Relu(e)  g = Depthwise(f, 8 3)  h = Relu(g)
    i = GlobalAveragePool(h)  y = Conv(i, 3 8 1)"""
HEAD_OF_CONVOLUTIONS = """
    a = Conv(x, 8 4 1)  b = Relu(a)  c = Conv(b, 4 8 1)  d = Add(c, x)
    e = Conv(d, 8 4 3)  f = Relu(e)  g = Conv(f, 6 8 3)  h = Relu(g)
    y = GlobalAveragePool(h)"""
AUXILIARY_DEAD_END = """
    a = Conv(x, 8 4 1)  b = Relu(a)  c = Conv(b, 4 8 1)  d = Add(c, x)
    e = Conv(d, 8 4 1)  f = Relu(e)  unread = Sigmoid(b)  g = Conv(f, 4 8 1)  h = Add(g, d)
    y = GlobalAveragePool(h)"""


@pytest.mark.parametrize(
    ("nodes", "modules", "prunable"),
    [
        pytest.param(UNIVERSAL_INVERTED_BOTTLENECK, "a-g g-k", "c; h", id="MobileNetV4"),
        pytest.param(XCEPTION_EXIT, "x-d d-m", "; f i", id="Xception"),
        pytest.param(FUSED_BOTTLENECK, "a-d d-h", "b; e", id="EfficientNetV2"),
        pytest.param(ONE_SHOT_AGGREGATION, "x-v p-k", "a c; h", id="VoVNet"),
        pytest.param(CROSS_STAGE_PARTIAL, "b-j j-t", "; k m p", id="CSPNet"),
        pytest.param(FIRE, "a-h h-n", "b d; i k", id="SqueezeNet"),
        pytest.param(SPATIAL_PYRAMID, "x-d d-n n-q", "a; e g j; o", id="DeepLab"),
        pytest.param(DENSE, "x-f g-l", "a c; h", id="DenseNet"),
        pytest.param(REPARAMETERISED, "x-i i-m n-y", "a b e f; j k;", id="RepVGG"),
        pytest.param(REPARAMETERISED_DEPTHWISE, "x-f f-r s-y", "a; g h p;", id="MobileOne"),
        pytest.param(TOKEN_AND_CHANNEL_MIXER, "a-i i-o", "t f; l", id="RepViT"),
        pytest.param(MIXED, "b-o o-s", "e f; p", id="MixNet"),
        pytest.param(GATED_CHAIN, "x-z z-h i-y", "a t v; e;", id="gated chain"),
        pytest.param(HEAD_OF_CONVOLUTIONS, "x-d d-h", "a; e", id="head"),
        pytest.param(AUXILIARY_DEAD_END, "x-d d-h", "a; e", id="a node that nobody needs"),
    ],
)
def test_family(nodes: str, modules: str, prunable: str, oracles: ModuleType) -> None:
    """`modules` are ENTRY-EXIT; `prunable` has the layers of each that can be pruned, by the tensors they compute."""
    model = network(nodes)
    found, source = find_modules(model)
    assert source == "structure"
    assert " ".join(f"{module.entry}-{module.exit}" for module in found) == modules
    check_modules(model, found)
    pruner = BlockPruner.of(replace(model, modules=found))
    assert "; ".join(" ".join(table.prunable) for table in pruner.convolutions).strip() == prunable
    plan = pruner.plan({table.module: 0.5 for table in pruner.convolutions if table.prunable})
    oracles.assert_pruned_correctly(model, pruner.materialize(plan), plan)
    blocks = parse_blocks(",".join(f"{t.module}@0.5" for t in pruner.convolutions if t.prunable), pruner)
    verify(TeacherStudent().join(pruner, blocks))
