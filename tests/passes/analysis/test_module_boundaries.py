import re
from dataclasses import replace

import pytest

from wootz.passes.analysis.module_boundaries import block_of, check_modules, gap_notes
from wootz.passes.errors import WootzError
from wootz.passes.ir.model import Module
from wootz.passes.ir.text import parse_text

NETWORK = """<ir_version: 8, opset_import: ["" : 18]>
network (float[1, 1, 2, 2] x) => (float[1, 1, 2, 2] y, float[1, 1, 2, 2] side)
<float[1, 1, 1, 1] w = {1}> {
  [conv1] a = Conv (x, w)
  [relu1] b = Relu (a)
  [conv2] c = Conv (b, w)
  [join2] d = Add (c, b)
  [conv3] e = Conv (d, w)
  [join3] f = Add (e, a)
  [conv4] y = Conv (f, w)
  [tap] side = Relu (e)
}
"""


def check(*modules):
    model = parse_text(NETWORK)
    modules = tuple(Module(*module) for module in modules)
    check_modules(replace(model, modules=modules), modules)


def test_pieces_of_several_inputs_and_outputs():
    check(("one", "d", "f", ("a",), ("e",)))
    check(("one", "x", "d", (), ("a",)), ("two", "d", "y", ("a",), ("e",)))


def test_modules_as_one_block():
    model = parse_text(NETWORK)
    one, two, three = Module("one", "x", "a"), Module("two", "b", "d"), Module("three", "d", "f", ("a",), ("e",))
    check_modules(model, (one, two, three))
    assert block_of(model, (one,)) == one
    assert block_of(model, (one, two)) == Module("one-two", "x", "d", (), ("a",))
    assert block_of(model, (two, three)) == Module("two-three", "b", "f", ("a",), ("e",))
    assert block_of(model, (one, two, three)) == Module("one-three", "x", "f", (), ("e",))


def test_pieces_of_one_input_and_one_output_that_follow_each_other():
    check(("one", "x", "a"))
    check(("two", "b", "d"))
    check(("last", "f", "y"))


@pytest.mark.parametrize(
    ("modules", "reason"),
    [
        ([("m", "b", "f")], "module 'm': Add 'join3' reads 'a' beside 'b'"),
        ([("m", "x", "b")], "module 'm': it has a second output beside 'b': 'a', for Add 'join3'"),
        ([("m", "d", "y")], "module 'm': Add 'join3' reads 'a' beside 'd'"),
        ([("m", "x", "f")], "module 'm': it has a second output beside 'f': 'e', for Relu 'tap'"),
        ([("m", "x", "conv1_bn")], "module 'm': there is no tensor 'conv1_bn' in the graph; a node that was fused"),
        ([("m", "f", "d")], "module 'm': 'd' isn't computed from 'f'"),
        ([("m", "x", "a"), ("n", "x", "a")], "modules 'm' and 'n' overlap: Conv 'conv1' belongs to both; let one end"),
        ([("m", "f", "y"), ("n", "b", "d")], "modules 'm' and 'n' don't follow each other: the first reads what the"),
        ([("m", "d", "f", ("a",), ())], "module 'm': it has a second output beside 'f': 'e', for Relu 'tap'"),
        ([("m", "d", "f", (), ("e",))], "module 'm': Add 'join3' reads 'a' beside 'd'"),
        ([("m", "d", "f", ("a",), ("e", "x"))], "module 'm': 'x' isn't computed from 'd', 'a'"),
    ],
)
def test_faults(modules, reason):
    with pytest.raises(WootzError, match=f"^{re.escape(reason)}"):
        check(*modules)


def test_a_second_output_of_the_network_is_one_of_the_module():
    model = parse_text(NETWORK)
    model.graph.outputs = [*model.graph.outputs, model.graph.tensors()["c"]]
    with pytest.raises(WootzError, match="'c', for an output of the network"):
        check_modules(model, (Module("two", "b", "d"),))


def test_a_network_without_modules():
    with pytest.raises(WootzError, match=r"has no modules: .* in an ONNX model by the pass annotate-modules"):
        check()


def test_convolutions_between_modules_are_told():
    chain = """<ir_version: 8, opset_import: ["" : 18]>
    chain (float[1, 1, 2, 2] x) => (float[1, 1, 2, 2] y) <float[1, 1, 1, 1] w = {1}> {
      [conv1] a = Conv (x, w)
      [conv2] b = Conv (a, w)
      [pool2] c = MaxPool <kernel_shape = [1, 1]> (b)
      [conv3] d = Conv (c, w)
      [pool3] e = MaxPool <kernel_shape = [1, 1]> (d)
      [conv4] y = Conv (e, w)
    }"""
    model = parse_text(chain)
    first, middle, last = Module("first", "x", "a"), Module("middle", "c", "d"), Module("last", "e", "y")
    (note,) = gap_notes(model, (first, last))
    assert note.startswith("convolution 'conv2' and 1 more, between modules 'first' and 'last', is in no module: it ")
    (note,) = gap_notes(model, (first, middle, last))
    assert note.startswith("convolution 'conv2', between modules 'first' and 'middle'"), "a pooling layer is no gap"
