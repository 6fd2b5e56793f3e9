"""Models, binary and textual: read, folded, pruned and encoded again, as wootz-opt does."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import onnx
import onnx.parser
from driver import BYTE_MUTATIONS, TEXT_MUTATIONS, Reader
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import DecodeError, Message

from wootz.passes.errors import InputError, WootzError
from wootz.passes.ir.files import load
from wootz.passes.ir.stream import encode
from wootz.passes.pipeline import parse_pipeline, run_pipeline

CONVOLUTIONS = """<ir_version: 8, opset_import: ["" : 18], metadata_props: ["wootz.input": "{\\"scale\\": [0.5]}",
 "wootz.modules": "[{\\"name\\": \\"a\\", \\"entry\\": \\"s\\", \\"exit\\": \\"t\\"}]"]>
g (float[N,2,4,4] x, float scale) => (float[N,2] y)
<float[2,2,1,1] w0 = {1,2,3,4}, float[4,2,3,3] w1 = {%s}, float[2,4,1,1] w2 = {1,2,3,4,5,6,7,8}, float[2] bias = {1,2},
 float[4] ones = {1,1,1,1}, float[4] zeros = {0,0,0,0}, int64[2] shape = {0,-1}, float[32,2] fc = {%s}>
{
  [c0] s = Conv(x, w0)
  [c1] a = Conv<pads = [1,1,1,1]>(s, w1)
  [bn] b = BatchNormalization<epsilon = 1e-5>(a, ones, zeros, zeros, ones)
  [relu] r = Relu(b)
  [c2] c = Conv<kernel_shape = [1,1]>(r, w2, bias)
  [add] t = Add(s, c)
  [scaled] u = Mul(t, scale)
  [flat] f = Reshape(u, shape)
  [fc] y = MatMul(f, fc)
}""" % (",".join("1" * 72), ",".join("1" * 64))  # noqa: UP031
SHAPES = """<ir_version: 8, opset_import: ["" : 18]>
g (float[N,4,H,W] x, bool flag) => (float[N,4,C,D] y)
<float[4,1,3,3] w = {%s}, int64[1] two = {2}, float[4] r = {1,1,2,2}, float[2,4,1,1] v = {1,2,3,4,5,6,7,8}>
{
  c = Conv<group = 4, strides = [2,2], auto_pad = "SAME_UPPER">(x, w)
  size = Shape<start = 2>(x)
  half = Div(size, two)
  target = Concat<axis = 0>(two, two, half)
  k = Conv(c, v)
  e = Expand(k, target)
  p, q = Split<axis = 1, num_outputs = 2>(c)
  j = Concat<axis = 1>(p, q)
  z = If(flag) <then_branch = one () => (float[N,4,C,D] i) { i = Relu(j) },
                else_branch = other () => (float[N,4,C,D] o) { o = Identity(j) }>
  m = MaxPool<kernel_shape = [2,2]>(z)
  n = Constant<value_ints = [1,2,3]>()
  y = Resize(m, , r)
}""" % ",".join("1" * 36)  # noqa: UP031
FUNCTIONS = """<ir_version: 9, opset_import: ["" : 21, "local" : 1], producer_name: "fuzz", doc_string: "text">
g (float[N,3] x, string s) => (float[N,2] y, string t)
<float[3,2] w = {1,2,3,4,5,6}, bfloat16[2] h = {1,2}, int4[4] q = {1,2,3,4}, string[2] names = {"a", "b"}>
{ m = MatMul(x, w)  y = local.twice<factor = 2>(m)  t = Identity(s) }
<domain: "local", opset_import: ["" : 21]>
twice <factor> (x) => (y) { f = Constant<value_float: float = @factor>() y = Mul(x, f) }"""
TEXTS = (CONVOLUTIONS, SHAPES, FUNCTIONS)

EXTREMES: dict[int, tuple[Any, ...]] = {
    FieldDescriptor.CPPTYPE_INT64: (-1, 0, 1, 2, 3, 7, 2**31, 2**32, 2**63 - 1, -(2**63)),
    FieldDescriptor.CPPTYPE_INT32: (-1, 0, 1, 2, 7, 9, 16, 22, 99, 2**31 - 1, -(2**31)),
    FieldDescriptor.CPPTYPE_UINT64: (0, 1, 2**32, 2**64 - 1),
    FieldDescriptor.CPPTYPE_FLOAT: (0.0, -1.0, 1e-38, 1e38, float("inf"), float("nan")),
    FieldDescriptor.CPPTYPE_DOUBLE: (0.0, 1e308, float("nan")),
}
STRINGS = ("", "x", "y", "w1", "a\nb\u2028", "x" * 5000, "ai.onnx", "../../etc/passwd", "Conv", "Loop", "{", "[1e999]")


def read(file: Path) -> None:
    """What wootz-opt does with a model: it names the file in whatever goes wrong with it."""
    model = load(file)
    try:
        encode(run_pipeline(model, parse_pipeline("fold-constants,prune-filters{rate=0.5,allow-unchanged=true}")).model)
    except WootzError as error:
        raise InputError(str(error), file) from error


def change_structure(chance: random.Random, content: bytes) -> bytes:
    """Fields of the model lost, repeated, moved, or with another value: what remains is a protobuf."""
    model = onnx.ModelProto()
    try:
        model.ParseFromString(content)
    except DecodeError:
        return content
    for _ in range(chance.choice((1, 1, 2, 3))):
        message = chance.choice(list(_messages(model)))
        fields = [f for f in type(message).DESCRIPTOR.fields if not f.is_repeated or len(_of(message, f))]
        if fields:
            _change_field(chance, message, chance.choice(fields))
    return model.SerializeToString()


def _of(message: Message, field: FieldDescriptor) -> Any:
    return getattr(message, field.name)


def _messages(message: Message) -> Iterator[Message]:
    yield message
    for field, value in message.ListFields():
        if field.cpp_type == field.CPPTYPE_MESSAGE:
            for part in value if field.is_repeated else [value]:
                yield from _messages(part)


def _change_field(chance: random.Random, message: Message, field: FieldDescriptor) -> None:
    is_message = field.cpp_type == field.CPPTYPE_MESSAGE
    if field.is_repeated:
        items = list(_of(message, field))
        at = chance.randrange(len(items))
        choice = chance.randrange(4)
        if choice == 0:
            del items[at]
        elif choice == 1:
            items.insert(chance.randint(0, len(items)), items[at])
        elif choice == 2:
            items.append(items.pop(at))
        elif not is_message:
            items[at] = _value(chance, field, items[at])
        kept = [type(i).FromString(i.SerializeToString()) if is_message else i for i in items]
        message.ClearField(field.name)
        _of(message, field).extend(kept)
    elif is_message or chance.random() < 0.3:
        message.ClearField(field.name)
    else:
        setattr(message, field.name, _value(chance, field, _of(message, field)))


def _value(chance: random.Random, field: FieldDescriptor, old: Any) -> Any:
    if field.cpp_type == field.CPPTYPE_STRING:
        text = chance.choice(STRINGS)
        return text.encode() if isinstance(old, bytes) else text
    if field.cpp_type == field.CPPTYPE_ENUM:
        return chance.choice([v.number for v in field.enum_type.values])
    return chance.choice(EXTREMES[field.cpp_type])


READERS = (
    Reader(
        "onnx",
        read,
        "model.onnx",
        [onnx.parser.parse_model(text).SerializeToString() for text in TEXTS],
        (*(change_structure,) * 9, *BYTE_MUTATIONS),
    ),
    Reader("onnxtxt", read, "model.onnxtxt", [text.encode() for text in TEXTS], TEXT_MUTATIONS),
)
