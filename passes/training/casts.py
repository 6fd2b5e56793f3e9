"""Casts to a wider type and back, which change nothing."""

from __future__ import annotations

import numpy as np

from wootz.passes.ir.half_precision import HALF, SINGLE
from wootz.passes.ir.model import Graph, Node, Tensor, producer
from wootz.passes.ir.rewrite import compute_as, disconnect, erase_nodes, redirect_readers
from wootz.passes.training.expression import np_to_onnx_type


def behind_widening(tensor: Tensor) -> Tensor:
    """The float16 tensor that `tensor` was cast from to float32, or `tensor` itself."""
    cast = producer(tensor)
    return cast.inputs[0] if cast is not None and _casts(cast, HALF, SINGLE) else tensor


def cancel_casts(graph: Graph) -> int:
    """Lets what reads a float16 tensor that was float32 and float16 before read the first one; gives their number."""
    outputs = {id(t) for t in graph.outputs}
    cancelled = 0
    for node in graph.nodes:
        if not _casts(node, SINGLE, HALF) or id(node.outputs[0]) in outputs:
            continue
        source = behind_widening(node.inputs[0])
        if source is node.inputs[0]:
            continue
        redirect_readers(node.outputs[0], source)
        cancelled += 1
    return cancelled


def drop_idle_casts(graph: Graph) -> int:
    """Takes out the Casts of float32 to float32, but for one of an input to an output; gives their number."""
    outputs = {id(t) for t in graph.outputs}
    idle = []
    for node in [n for n in graph.nodes if _casts(n, SINGLE, SINGLE)]:
        (source,), (result,) = node.inputs, node.outputs
        if id(result) not in outputs:
            redirect_readers(result, source)
        elif producer(source) is not None and id(source) not in outputs:
            disconnect(node)
            compute_as(source, result)
        else:
            continue
        idle.append(node)
    erase_nodes(graph, idle)
    return len(idle)


def _casts(node: Node, source: np.dtype, result: np.dtype) -> bool:
    return (
        node.op == "Cast"
        and node.inputs[0].dtype is not None
        and np.dtype(node.inputs[0].dtype) == source
        and node.attrs["to"] == np_to_onnx_type(result)
    )
