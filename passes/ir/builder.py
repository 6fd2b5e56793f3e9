"""Appends nodes to a graph with fresh names; shared by the frontend and every pass that makes nodes."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np

from wootz.passes.ir.model import Constant, Graph, Node, Tensor, Variable


class Builder:
    """Appends to `graph`. Names are made from `prefix` and a hint, and never clash with names already there."""

    def __init__(self, graph: Graph, prefix: str = ""):
        self.graph = graph
        self.prefix = prefix
        self._names = set(graph.tensors()) | {t.name for t in [*graph.inputs, *graph.outputs]}
        self._names.update(n.name for n in graph.nodes)
        self._next_number: dict[str, int] = {}

    def fresh(self, hint: str) -> str:
        """`prefix + hint`, with a number behind where that is taken."""
        wanted = self.prefix + hint
        first = self._next_number.get(wanted, 1)
        candidates = itertools.chain([(0, wanted)], ((i, f"{wanted}_{i}") for i in itertools.count(first)))
        number, name = next((i, c) for i, c in candidates if c not in self._names)
        self._names.add(name)
        self._next_number[wanted] = number + 1
        return name

    def constant(self, values: Any, hint: str = "const", dtype: Any = None) -> Constant:
        """A constant tensor. Floats are float32 and integers int64 unless `values` is an array or `dtype` given."""
        if dtype is None and not isinstance(values, np.ndarray | np.generic):
            dtype = np.float32 if np.asarray(values).dtype.kind == "f" else np.int64
        return Constant(self.fresh(hint), np.asarray(values, dtype=dtype))

    def variable(self, hint: str, dtype: Any = None, shape: Sequence[int | str] | None = None) -> Variable:
        """A new tensor that nothing computes yet."""
        return Variable(self.fresh(hint), dtype=dtype, shape=shape)

    def op(self, op_type: str, *inputs: Tensor | None, hint: str = "", domain: str = "", **attributes: Any) -> Variable:
        """Appends a node with one output and gives the output. None stands for an omitted operand."""
        return self.ops(op_type, *inputs, count=1, hint=hint, domain=domain, **attributes)[0]

    def ops(
        self,
        op_type: str,
        *inputs: Tensor | None,
        count: int,
        hint: str = "",
        domain: str = "",
        **attributes: Any,
    ) -> list[Variable]:
        """Appends a node with `count` outputs and gives the outputs. Attributes that are None are left out."""
        name = self.fresh(hint or op_type.lower())
        outputs = [Variable(name if i == 0 else self.fresh(f"{hint or op_type.lower()}_{i}")) for i in range(count)]
        self.graph.nodes.append(
            Node(
                op=op_type,
                name=name,
                domain=domain or None,
                attrs={k: v for k, v in attributes.items() if v is not None},
                inputs=[Variable.empty() if t is None else t for t in inputs],
                outputs=outputs,
            )
        )
        return outputs
