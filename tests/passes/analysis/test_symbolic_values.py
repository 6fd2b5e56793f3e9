"""What is said of a graph with a symbolic batch holds for every batch."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx.reference import ReferenceEvaluator

from wootz.passes.analysis.symbolic_values import Extent, symbolic_values
from wootz.passes.ir.builder import Builder
from wootz.passes.ir.model import Model
from wootz.passes.ir.text import parse_text

N = Extent(1, ("N",))
HEADER = '<ir_version: 8, opset_import: ["" : 18]> '


def values(body, constants=""):
    model = parse_text(f"{HEADER}g (float[N,6,4,M] x) => (y) <{constants}> {{ s = Shape(x) {body} y = Relu(x) }}")
    found = symbolic_values(model.graph)
    return lambda name: found.values[name].tolist() if name in found.values else None


def test_entries_are_numbers_products_of_symbols_or_unknown():
    at = values(
        "t = Gather(s, places) a = Mul(t, two) b = Add(a, a) c = Div(b, two) d = Div(c, three) e = Sub(b, b) "
        "f = Add(t, two) p = ReduceProd<keepdims=0>(t) q = Div(p, t)",
        "int64[3] places = {0, 1, 3}, int64 two = {2}, int64 three = {3}",
    )
    m = Extent(1, ("M",))
    assert at("t") == [N, 6, m]
    assert at("a") == [Extent(2, ("N",)), 12, Extent(2, ("M",))]
    assert at("c") == at("a")
    assert at("d") == [None, 4, None]
    assert at("e") == [0, 0, 0]
    assert at("f") == [None, 8, None]
    assert at("p") == Extent(6, ("M", "N"))
    assert at("q") == [Extent(6, ("M",)), Extent(1, ("M", "N")), Extent(6, ("N",))]
    assert str(at("p")) == "6*M*N"


def test_conditions_on_symbols_are_known_where_they_hold_for_every_size():
    at = values(
        "n = Gather(s, first) a = Equal(n, n) b = Equal(n, minus) c = Equal(n, one) d = Greater(n, zero) "
        "e = Less(n, one) f = Where(b, one, n) g = Where(c, one, n) h = Max(n, one) i = Mod(n, one)",
        "int64 first = {0}, int64 minus = {-1}, int64 one = {1}, int64 zero = {0}",
    )
    assert [at(name) for name in "abcdefghi"] == [True, False, None, True, None, N, None, N, 0]


def test_shapes_that_are_known_in_part():
    text = f"""{HEADER} g (float[N,6,4,4] x, float[N,1,1,1] z) => (y) <int64[1] first = {{0}}, int64[1] minus = {{-1}},
      int64[1] two = {{2}}, int64[1] one = {{1}}> {{
      s = Shape(x)
      n = Slice(s, first, one)
      target = Concat<axis=0>(n, two, minus)
      r = Reshape(x, target)
      more = Concat<axis=0>(minus, two, two)
      w = Reshape(x, more)
      wide = Concat<axis=0>(n, two, one, one)
      e = Expand(z, wide)
      y = Flatten(r)
    }}"""
    shapes = symbolic_values(parse_text(text).graph).shapes
    assert shapes["r"] == (N, 2, 48)
    assert shapes["w"] == (Extent(24, ("N",)), 2, 2)
    assert shapes["e"] == (N, 2, 1, 1)
    assert shapes["y"] == (N, 96)


BINARY = ("Add", "Sub", "Mul", "Div", "Max", "Min", "Mod", "Equal", "Greater", "Less")


@st.composite
def computations(draw):
    """A graph that computes with the shape of x, [N, 6, N, 4], and the names of what it computes."""
    model = parse_text(f"{HEADER}g (float[N,6,N,4] x) => (y) {{ y = Relu(x) }}")
    builder = Builder(model.graph)
    small = st.integers(-2, 7)
    computed = [(builder.op("Shape", model.graph.inputs[0]), 4)]
    for _ in range(draw(st.integers(1, 8))):
        kind = draw(st.sampled_from(["binary", "gather", "concat", "where", "constant"]))
        (a, length), (b, other) = draw(st.sampled_from(computed)), draw(st.sampled_from(computed))
        numbers = builder.constant(draw(st.lists(small, min_size=1, max_size=1)))
        if kind == "binary":
            op = draw(st.sampled_from(BINARY))
            result = builder.op(op, a, b if other in (1, length) and draw(st.booleans()) else numbers)
            if op in ("Equal", "Greater", "Less"):
                result = builder.op("Cast", result, to=7)
        elif kind == "gather":
            result, length = builder.op("Gather", a, builder.constant([0])), 1
        elif kind == "concat":
            result, length = builder.op("Concat", a, numbers, axis=0), length + 1
        elif kind == "where":
            result = builder.op("Where", builder.op("Equal", a, numbers), numbers, a)
        else:
            result, length = builder.op("Mul", numbers, numbers), 1
        computed.append((result, length))
    return model, [t.name for t, _ in computed]


@given(computations())
@settings(max_examples=150)
def test_what_is_known_holds_for_every_batch(computation):
    model, names = computation
    found = symbolic_values(model.graph)
    order = [n for n in names if n in found.values]
    for size in (1, 2, 5, 12):
        actual = run_each(model, names, size)
        for name in order:
            if name not in actual:
                continue
            expected = np.ravel(actual[name]).tolist()
            for entry, value in zip(found.values[name].ravel().tolist(), expected, strict=True):
                if isinstance(entry, Extent):
                    assert entry.factor * size ** len(entry.symbols) == value
                elif entry is not None:
                    assert entry == value


def run_each(model: Model, names, size):
    """The value of each name; left out where it, or what it reads, divides by zero or doesn't broadcast."""
    proto = model.to_proto()
    x = np.zeros((size, 6, size, 4), np.float32)
    results = {"x": x, **{t.name: t.values for t in model.graph.tensors().values() if hasattr(t, "values")}}
    for node in proto.graph.node:
        if not all(name in results for name in node.input):
            continue
        try:
            with np.errstate(all="raise"):
                outputs = ReferenceEvaluator(node).run(None, {name: results[name] for name in node.input})
        except (ArithmeticError, ValueError, RuntimeError):
            continue
        results.update(zip(node.output, outputs, strict=True))
    return {name: results[name] for name in names if name in results}


def test_what_depends_on_data_is_not_known():
    model = parse_text(f"{HEADER}g (int64[2] x) => (y) <int64 one = {{1}}> {{ y = Add(x, one) }}")
    assert "y" not in symbolic_values(model.graph).values


@pytest.mark.parametrize("dimension", ["", "N"])
def test_dimensions_without_a_name(dimension):
    model = parse_text(f"{HEADER}g (float[N,6] x) => (y) {{ s = Shape(x) y = Relu(x) }}")
    model.graph.inputs[0].shape[0] = dimension or None
    name = dimension or "x_0"
    assert symbolic_values(model.graph).values["s"].tolist() == [Extent(1, (name,)), 6]
