"""The binary form of a model in pieces, the large weights as views of their arrays.

protobuf would copy each weight four times on the way into a file. Here it serialises the model without its large
weights, and their `TensorProto`s are framed around the arrays (protobuf's encoding: a field is its number and wire
type, its length, its content).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx

from wootz.passes.ir.model import Model, constants, proto_without_values

LARGE = 2**14
"""Bytes from which a weight is not given to protobuf."""
LENGTH_DELIMITED = 2
FIELDS = {field.name: field.number for field in onnx.ModelProto.DESCRIPTOR.fields}
GRAPH_FIELDS = {field.name: field.number for field in onnx.GraphProto.DESCRIPTOR.fields}
TENSOR_FIELDS = {field.name: field.number for field in onnx.TensorProto.DESCRIPTOR.fields}

Piece = bytes | memoryview


def encode(model: Model) -> list[Piece]:
    """The pieces of the ONNX file that holds `model`; equal to `model.to_proto()` when parsed."""
    arrays = {name: values for name, values in constants(model.graph).items() if _is_large(values)}
    proto = proto_without_values(model, arrays)
    tensors = {t.name: t for t in proto.graph.initializer}
    frames = [piece for name, array in arrays.items() for piece in _initializer(tensors[name].data_type, name, array)]
    small = [t for t in proto.graph.initializer if t.name not in arrays]
    del proto.graph.initializer[:]
    proto.graph.initializer.extend(small)
    graph = proto.graph.SerializeToString()
    proto.ClearField("graph")
    size = len(graph) + sum(len(frame) for frame in frames)
    return [proto.SerializeToString(), _key(FIELDS["graph"], size), graph, *frames]


def _is_large(values: np.ndarray) -> bool:
    """Whether `values` is worth it, and its memory is what ONNX stores: not so for strings and 4-bit numbers."""
    return values.dtype.kind in "biuf" and values.nbytes >= LARGE


def _initializer(data_type: int, name: str, array: np.ndarray) -> Sequence[Piece]:
    """A field of the graph: the tensor's own fields, then its values."""
    data = np.ascontiguousarray(array).reshape(-1).view(np.uint8).data
    head = onnx.TensorProto(data_type=data_type, name=name, dims=array.shape).SerializeToString()
    values = _key(TENSOR_FIELDS["raw_data"], len(data))
    size = len(head) + len(values) + len(data)
    return _key(GRAPH_FIELDS["initializer"], size) + head + values, data


def _key(number: int, length: int) -> bytes:
    """What stands before the content of a field."""
    return _varint(number << 3 | LENGTH_DELIMITED) + _varint(length)


def _varint(number: int) -> bytes:
    content = bytearray()
    while number > 0x7F:
        content.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*content, number])
