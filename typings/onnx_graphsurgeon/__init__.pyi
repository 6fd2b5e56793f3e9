"""The part of onnx-graphsurgeon 0.6 that the IR uses; the package itself has no type annotations."""

from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx

class Tensor:
    name: str
    inputs: list[Node]
    outputs: list[Node]
    shape: Any
    dtype: Any
    def is_empty(self) -> bool: ...
    def to_constant(self, values: np.ndarray[Any, Any]) -> Constant: ...
    def to_variable(self, dtype: Any = ..., shape: Sequence[int | str] | None = ...) -> Variable: ...
    def copy(self) -> Any: ...

class Variable(Tensor):
    type: str
    def __init__(
        self, name: str, dtype: Any = ..., shape: Sequence[int | str] | None = ..., type: str = ...
    ) -> None: ...
    @staticmethod
    def empty() -> Variable: ...

class Constant(Tensor):
    values: np.ndarray[Any, Any]
    def __init__(self, name: str, values: np.ndarray[Any, Any]) -> None: ...

class Node:
    class AttributeRef:
        name: str
        type: Any

    op: str
    name: str
    domain: str | None
    attrs: dict[str, Any]
    doc_string: str  # ours: see Model.from_proto
    inputs: Any
    outputs: Any
    def __init__(
        self,
        op: str,
        name: str | None = ...,
        attrs: dict[str, Any] | None = ...,
        inputs: Sequence[Tensor] | None = ...,
        outputs: Sequence[Tensor] | None = ...,
        domain: str | None = ...,
    ) -> None: ...

class Graph:
    nodes: list[Node]
    inputs: list[Any]
    outputs: list[Any]
    name: str
    doc_string: str
    opset: int
    ir_version: int | None
    import_domains: Any
    producer_name: str
    producer_version: str
    functions: list[Function]
    def __init__(
        self,
        nodes: Sequence[Node] | None = ...,
        inputs: Sequence[Tensor] | None = ...,
        outputs: Sequence[Tensor] | None = ...,
        name: str | None = ...,
        doc_string: str | None = ...,
        opset: int | None = ...,
        import_domains: Any = ...,
        functions: Sequence[Function] | None = ...,
        ir_version: int | None = ...,
    ) -> None: ...
    def tensors(self) -> OrderedDict[str, Any]: ...
    def copy(self) -> Graph: ...
    def cleanup(self, remove_unused_node_outputs: bool = ..., remove_unused_graph_inputs: bool = ...) -> Graph: ...
    def toposort(self) -> Graph: ...

class Function(Graph):
    def copy(self) -> Function: ...
    domain: str
    attrs: dict[str, Any]
    @property
    def unique_id(self) -> tuple[str, str]: ...
    def __init__(
        self,
        name: str,
        domain: str | None = ...,
        nodes: Sequence[Node] | None = ...,
        inputs: Sequence[Tensor] | None = ...,
        outputs: Sequence[Tensor] | None = ...,
        doc_string: str | None = ...,
        opset: int | None = ...,
        import_domains: Any = ...,
        functions: Sequence[Function] | None = ...,
        attrs: dict[str, Any] | None = ...,
        ir_version: int | None = ...,
    ) -> None: ...

def import_onnx(onnx_model: onnx.ModelProto) -> Graph: ...
def export_onnx(graph: Graph, do_type_check: bool = ...) -> onnx.ModelProto: ...
