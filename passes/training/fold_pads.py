"""Pads of convolutions' operands, as exporters of TensorFlow's networks write them, as the convolutions' own."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np

from wootz.passes.ir.model import Constant, Graph, Node, Tensor, is_fixed
from wootz.passes.ir.rewrite import disconnect, erase_nodes, redirect_readers


def fold_pads(graph: Graph, kept: Collection[str]) -> None:
    """Takes out each Pad of zeros in space that nothing but convolutions read, and adds it to their pads.

    What it computes must be no output of the graph and none of the tensors `kept`, by name.
    """
    folded = []
    for node in reversed(graph.nodes):  # so that one behind another goes first
        pads = _pads_in_space(node, graph)
        if pads is None:
            continue
        result, readers = node.outputs[0], node.outputs[0].outputs
        is_seen = result.name in kept or any(result is t for t in graph.outputs)
        if is_seen or not readers or not all(_takes_pads(reader, result) for reader in readers):
            continue
        for reader in readers:
            own = reader.attrs.get("pads") or [0] * len(pads)
            summed = [int(a + b) for a, b in zip(own, pads, strict=True)]
            reader.attrs = {**reader.attrs, "auto_pad": "NOTSET", "pads": summed}
        redirect_readers(result, node.inputs[0])
        disconnect(node)
        folded.append(node)
    erase_nodes(graph, folded)


def _pads_in_space(node: Node, graph: Graph) -> list[int] | None:
    """Zeros before each spatial axis, then those behind each; None for another node, or another kind of padding."""
    if node.op != "Pad" or node.domain or node.attrs.get("mode", "constant") != "constant":
        return None
    x, amounts, value, axes = [*node.inputs, None, None][:4]
    padded, filled = _numbers(amounts, graph), _numbers(value, graph, absent=(0.0,))
    if x.shape is None or padded is None or filled is None or np.any(filled):
        return None
    rank = len(x.shape)
    named = _numbers(axes, graph, absent=range(rank))
    if named is None:
        return None
    pads = np.zeros((2, rank), np.int64)
    pads[:, named % rank] = np.reshape(padded, [2, -1])
    return None if (pads < 0).any() or pads[:, :2].any() else pads[:, 2:].flatten().tolist()


def _numbers(tensor: Tensor | None, graph: Graph, absent: Sequence[float] = ()) -> np.ndarray | None:
    """Those of a constant, or what stands where there is none; None of what changes."""
    if tensor is None or tensor.is_empty():
        return np.array(absent)
    return tensor.values if isinstance(tensor, Constant) and is_fixed(tensor, graph) else None


def _takes_pads(reader: Node, x: Tensor) -> bool:
    """Whether it is a convolution of x, and of nothing else, that says its pads."""
    if reader.op != "Conv" or reader.domain or reader.attrs.get("auto_pad", "NOTSET") not in ("NOTSET", "VALID"):
        return False
    return reader.inputs[0] is x and not any(x is t for t in reader.inputs[1:])
