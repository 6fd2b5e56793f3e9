"""to-float32: brings a network of float16 or float64 into float32."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx

from wootz.passes.base import Pass, PassResult
from wootz.passes.ir.model import Constant, Graph, Model, Node, Variable
from wootz.passes.ir.shapes import annotate_shapes

OTHER_FLOATS = (np.dtype(np.float16), np.dtype(np.float64))


@dataclass(frozen=True)
class ToFloat32(Pass):
    """Brings a network of float16 or float64 into float32: constants, inputs, outputs, and what lies between.

    Casts to float16 and float64 become Casts to float32, as do random numbers of these types. Networks of float16 are
    trained that way, with `mixed-precision` where they are to compute in float16.

    Refuses a network of other floats with subgraphs (If, Loop, Scan).
    """

    name = "to-float32"

    def apply(self, model: Model) -> PassResult:
        result = model.copy()
        found = widen(result.graph, self)
        if found:
            annotate_shapes(result.graph)
        return PassResult(result, bool(found), {"types": len(found)})


def widen(graph: Graph, asking: Pass) -> tuple[str, ...]:
    """Does so in place; gives the types that there were. Raises PassError of the pass that asks."""
    tensors = list(graph.tensors().values())
    found = {np.dtype(t.dtype).name for t in tensors if t.dtype is not None and _is_other(t.dtype)}
    if not found:
        return ()
    for tensor in tensors:
        if isinstance(tensor, Constant) and _is_other(tensor.dtype):
            with np.errstate(over="ignore"):
                tensor.values = tensor.values.astype(np.float32)
        elif isinstance(tensor, Variable) and tensor.dtype is not None and _is_other(tensor.dtype):
            tensor.dtype = np.dtype(np.float32)
    for node in graph.nodes:
        _widen_attributes(node, asking)
    return tuple(sorted(found))


def _is_other(dtype: object) -> bool:
    try:
        return np.dtype(dtype) in OTHER_FLOATS  # type: ignore[call-overload]
    except TypeError:  # a type that NumPy doesn't have, by ONNX's number
        return False


def _widen_attributes(node: Node, asking: Pass) -> None:
    others = {onnx.TensorProto.FLOAT16, onnx.TensorProto.DOUBLE}
    for name, value in node.attrs.items():
        if isinstance(value, Graph):
            raise asking.refuse(
                f"{node.op} holds a graph of its own, and the network is not in float32: export it in float32",
                node.name,
            )
        if name in ("to", "dtype") and node.attrs[name] in (*others, *OTHER_FLOATS, np.float16, np.float64):
            node.attrs[name] = int(onnx.TensorProto.FLOAT)
        elif isinstance(value, Constant) and _is_other(value.dtype):
            node.attrs[name] = Constant(value.name, value.values.astype(np.float32))
