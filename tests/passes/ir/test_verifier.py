"""One test for each thing that the verifier catches: the message names the node and both shapes."""

from __future__ import annotations

import numpy as np
import pytest

from wootz.passes.errors import VerificationError
from wootz.passes.ir.model import Model, Module, Node, Variable
from wootz.passes.ir.text import parse_text
from wootz.passes.ir.verifier import verify

BROKEN = {
    "channels of a convolution": (
        "(float[1,3,4,4] x) => (float[1,2,4,4] y) <float[2,2,1,1] w = {1,2,3,4}> { [c] y = Conv(x, w) }",
        "Conv node 'c': the input has 3 channels and the weight is for 2: input [1,3,4,4], weight [2,2,1,1], group 1",
    ),
    "channels of a transposed convolution": (
        "(float[1,3,1,1] x) => (float[1,2,1,1] y) <float[2,2,1,1] w = {1,2,3,4}> { [c] y = ConvTranspose(x, w) }",
        "ConvTranspose node 'c': the input has 3 channels and the weight is for 2: input [1,3,1,1], weight [2,2,1,1]",
    ),
    "group divisibility": (
        "(float[1,2,1,1] x) => (float[1,3,1,1] y) <float[3,1,1,1] w = {1,2,3}> { [c] y = Conv<group = 2>(x, w) }",
        "Conv node 'c': channels can't be divided into 2 groups: input [1,2,1,1], weight [3,1,1,1]",
    ),
    "ranks of a convolution": (
        "(float[1,2,1] x) => (float[1,1,1,1] y) <float[1,2,1,1] w = {1,2}> { [c] y = Conv(x, w) }",
        "Conv node 'c': ranks don't agree: input [1,2,1], weight [1,2,1,1]",
    ),
    "length of a bias": (
        "(float[1,1,1,1] x) => (float[1,2,1,1] y) <float[2,1,1,1] w = {1,2}, float[3] b = {1,2,3}> "
        "{ [c] y = Conv(x, w, b) }",
        "Conv node 'c': 'b' has shape [3] where [2] belongs: input [1,1,1,1], weight [2,1,1,1]",
    ),
    "kernel shape": (
        "(float[1,1,3,3] x) => (float[1,1,1,1] y) <float[1,1,3,3] w = {1,2,3,4,5,6,7,8,9}> "
        "{ [c] y = Conv<kernel_shape = [2,2]>(x, w) }",
        "Conv node 'c': kernel_shape [2,2] is not the weight's: input [1,1,3,3], weight [1,1,3,3]",
    ),
    "lengths of normalization parameters": (
        "(float[1,2,1,1] x) => (float[1,2,1,1] y) <float[2] s = {1,2}, float[3] m = {1,2,3}> "
        "{ [bn] y = BatchNormalization(x, s, s, m, s) }",
        "BatchNormalization node 'bn': 'm' has shape [3] where [2] belongs: input [1,2,1,1]",
    ),
    "inner extents of a Gemm": (
        "(float[1,3] x) => (float[1,2] y) <float[2,2] w = {1,2,3,4}> { [g] y = Gemm(x, w) }",
        "Gemm node 'g': inner extents 3 and 2 differ: [1,3] times [2,2]",
    ),
    "inner extents of a MatMul": (
        "(float[1,3] x) => (float[1,2] y) <float[2,2] w = {1,2,3,4}> { [m] y = MatMul(x, w) }",
        "MatMul node 'm': inner extents differ: [1,3] times [2,2]",
    ),
    "operands of an addition": (
        "(float[1,2,4,4] x, float[1,3,4,4] z) => (float[1,3,4,4] y) { [a] y = Add(x, z) }",
        "Add node 'a': operands can't be broadcast together: [1,2,4,4] and [1,3,4,4]",
    ),
    "operands of a concatenation": (
        "(float[1,2,4] x, float[1,2,5] z) => (float[1,4,4] y) { [c] y = Concat<axis = 1>(x, z) }",
        "Concat node 'c': operands differ beside axis 1: [1,2,4] and [1,2,5]",
    ),
    "a slope": (
        "(float[1,2,4,4] x) => (float[1,2,4,4] y) <float[3,1,1] s = {1,2,3}> { [p] y = PRelu(x, s) }",
        "PRelu node 'p': the slope [3,1,1] can't be broadcast to the input [1,2,4,4]",
    ),
    "sizes of a split": (
        "(float[1,4] x) => (float[1,2] y, float[1,3] z) <int64[2] s = {2,3}> { [s] y, z = Split<axis = 1>(x, s) }",
        "Split node 's': sizes [2, 3] don't divide axis 1 of [1,4] into 2 results",
    ),
    "size of a reshape": (
        "(float[1,4] x) => (float[3,2] y) <int64[2] s = {3,2}> { [r] y = Reshape(x, s) }",
        "Reshape node 'r': [1,4] has 4 elements and can't be reshaped to [3,2]",
    ),
    "an operand from nowhere": (
        "(float[1] x) => (float[1] y) { [a] y = Add(x, z) }",
        "Add node 'a': reads 'z', which nothing computes",
    ),
    "attribute type": (
        "(float[1,2] x) => (float[2,1] y) { [t] y = Transpose<perm = 1.0>(x) }",
        "Transpose node 't': has an attribute 'perm' of another type than INTS: 1.0",
    ),
    "a matrix as a shape": (
        "(float[4] x) => (float[2,2] y) <int64[1,2] s = {2,2}> { [r] y = Reshape(x, s) }",
        "Reshape node 'r': 's' has shape [1,2], and a vector belongs there",
    ),
    "a huge range": (
        "(float x) => (int64[N] y) <int64 a = {0}, int64 b = {4294967296}, int64 c = {1}> { [r] y = Range(a, b, c) }",
        "Range node 'r': counts from 0 to 4.29497e+09 by 1; Wootz reads ranges of up to 16,777,216",
    ),
    "order": (
        "(float[1] x) => (float[1] y) { [r] y = Relu(z) [t] z = Tanh(y) }",
        "Relu node 'r': reads 'z' before it is computed",
    ),
    "single assignment": (
        "(float[1] x) => (float[1] y) { [r] y = Relu(x) [t] y = Tanh(x) }",
        "Tanh node 't': computes 'y', which Relu node 'r' computes already",
    ),
    "an input that is computed": (
        "(float[1] x) => (float[1] y) { [r] x = Relu(y) [t] y = Tanh(x) }",
        "Relu node 'r': computes 'x', which is an input",
    ),
    "an output that is not computed": (
        "(float[1] x) => (float[1] y) { [r] z = Relu(x) }",
        "output 'y': nothing computes it",
    ),
    "an unknown operator": (
        "(float[1] x) => (float[1] y) { [r] y = Rectify(x) }",
        "Rectify node 'r': opset 18 has no such operator",
    ),
    "number of operands": (
        "(float[1] x) => (float[1] y) { [r] y = Relu(x, x) }",
        "Relu node 'r': has 2 operands; 1 belong there",
    ),
    "a missing attribute": (
        "(float[1] x) => (float[1] y) { [c] y = Concat(x) }",
        "Concat node 'c': lacks the attribute 'axis'",
    ),
    "an unknown attribute": (
        "(float[1] x) => (float[1] y) { [r] y = Relu<slope = 0.1>(x) }",
        "Relu node 'r': has an attribute 'slope', which the operator doesn't know",
    ),
    "an annotation": (
        "(float[1,2] x) => (float[1,2] y) <float[1,3] a> { [r] a = Relu(x) [t] y = Tanh(a) }",
        "Relu node 'r': 'a' is annotated [1,3] and computed [1,2]",
    ),
    "types": (
        "(float[1] x, int64[1] z) => (float[1] y) { [a] y = Add(x, z) }",
        "Add node 'a': 'x' is float32 and 'z' is int64; they have to be of one type",
    ),
}


def model(body: str) -> Model:
    return parse_text(f'<ir_version: 8, opset_import: ["" : 18]> g {body}')


@pytest.mark.parametrize("what", BROKEN)
def test_a_broken_model_is_refused(what: str) -> None:
    body, message = BROKEN[what]
    with pytest.raises(VerificationError) as refusal:
        verify(model(body))
    assert message in str(refusal.value)
    assert "\n" not in str(refusal.value)


CHAIN = "(float[1] x) => (float[1] y) { [a] z = Relu(x) [b] y = Tanh(z) }"


def test_a_valid_model_passes() -> None:
    verify(model(CHAIN))


@pytest.mark.parametrize(
    ("modules", "message"),
    [
        ((Module("m", "x", "q"),), "module 'm': its exit 'q' is no tensor of the graph"),
        ((Module("m", "q", "y"),), "module 'm': its entry 'q' is no tensor of the graph"),
        ((Module("m", "y", "z"),), "module 'm': its exit 'z' isn't computed from its entry 'y'"),
        ((Module("m", "x", "z"), Module("m", "z", "y")), "two modules are named 'm'"),
    ],
)
def test_a_wrong_module_table_is_refused(modules: tuple[Module, ...], message: str) -> None:
    plain = model(CHAIN)
    with pytest.raises(VerificationError, match="module") as refusal:
        verify(Model(plain.graph, modules))
    assert message in str(refusal.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"dtype": None}, "input 'x': its element type isn't stated"),
        ({"shape": None}, "input 'x': its shape isn't stated: write one into the file"),
        ({"type": "optional_type"}, "input 'x': it is of a type that the IR can't hold: optional_type"),
    ],
)
def test_an_input_of_no_known_type_is_refused(change: dict, message: str) -> None:
    plain = model(CHAIN)
    vars(plain.graph.inputs[0]).update(change)
    with pytest.raises(VerificationError, match=message):
        verify(plain)


def test_a_tensor_that_is_annotated_as_a_sequence_is_refused() -> None:
    plain = model(CHAIN)
    vars(plain.graph.tensors()["z"]).update(type="sequence_type", dtype=np.float32)
    with pytest.raises(VerificationError, match="Relu node 'a': 'z' is annotated as sequence_type and computed as a"):
        verify(plain)


def test_two_tensors_of_one_name_are_refused() -> None:
    graph = model(CHAIN).graph
    graph.nodes.append(Node("Relu", "c", {}, [Variable("x")], [Variable("w")]))
    with pytest.raises(VerificationError, match="two tensors are named 'x'"):
        verify(Model(graph))


def test_operators_of_other_domains_are_left_alone() -> None:
    text = (
        '<ir_version: 8, opset_import: ["" : 18, "acme" : 1]> g (float[1] x) => (float[1] y) { y = acme.Do<a = 1>(x) }'
    )
    verify(parse_text(text))
