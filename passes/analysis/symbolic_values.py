"""What a graph computes from shapes, entry by entry, while some dimensions are symbols.

An entry of a small integer tensor is a number, or a product of symbols (`Extent`), or unknown (None). In a graph with
inputs [N, 3, 8, 8], Shape gives [N, 3, 8, 8]; what Gather takes of that is a number for all axes but the first.

Symbols are dimensions, so they are positive. Nothing is guessed: what holds here, holds for every size.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from wootz.passes.errors import VerificationError
from wootz.passes.ir.evaluate import can_evaluate, evaluate_node
from wootz.passes.ir.model import Constant, Graph, Node, Tensor, Variable
from wootz.passes.ir.shapes import NodeInference, annotate_shapes

LARGEST_VALUE = 1024
"""Tensors with more elements are data."""


@dataclass(frozen=True)
class Extent:
    """`factor` times the product of `symbols`, which are sorted, and of which there is at least one."""

    factor: int
    symbols: tuple[str, ...]

    def __str__(self) -> str:
        return "*".join([*([str(self.factor)] if self.factor != 1 else []), *self.symbols])


Entry = int | float | bool | Extent | None
"""A number, an extent, or None where nothing is known."""

Shape = tuple[Entry, ...]


@dataclass(frozen=True, eq=False)
class SymbolicValues:
    """Shapes by tensor name (None: not even the rank is known), and the small tensors that are known in part.

    `values` has arrays of entries (dtype object) for what is computed from shapes, integers and truth values; weights
    are not among them. `dtypes` has their element types.
    """

    shapes: dict[str, Shape | None]
    values: dict[str, np.ndarray]
    dtypes: dict[str, np.dtype]

    def known(self, name: str) -> np.ndarray | None:
        """The value of a computed tensor of which every entry is a number."""
        value = self.values.get(name)
        if value is None or not _are_numbers(value):
            return None
        return value.astype(self.dtypes[name])


def symbolic_values(graph: Graph) -> SymbolicValues:
    """The values of `graph`, whose nodes are in order. Raises VerificationError for shapes that contradict."""
    return _Propagation(graph).run()


def annotate_symbolic_shapes(graph: Graph) -> None:
    """`annotate_shapes`, and what is known here beyond that, while the graph still reads shapes."""
    annotate_shapes(graph)
    if not any(node.op in ("Shape", "Size") for node in graph.nodes):
        return
    shapes = symbolic_values(graph).shapes
    for name, tensor in graph.tensors().items():
        shape = shapes.get(name)
        if isinstance(tensor, Variable) and shape is not None and tensor.shape is not None:
            known = zip(tensor.shape, shape, strict=True)
            tensor.shape = [d if isinstance(d, int) or e is None else e if _is_number(e) else str(e) for d, e in known]


class _Propagation:
    def __init__(self, graph: Graph):
        self.graph = graph
        self.inference = NodeInference(graph)
        self.given = {t.name for t in graph.inputs}
        self.extents: dict[str, Extent] = {}
        self.found = SymbolicValues({}, {}, {})
        for tensor in [*graph.inputs, *graph.tensors().values()]:
            if tensor.shape is not None and (tensor.name in self.given or isinstance(tensor, Constant)):
                named = (d if d is not None else f"{tensor.name}_{i}" for i, d in enumerate(tensor.shape))
                self.found.shapes[tensor.name] = tuple(map(self._entry, named))

    def run(self) -> SymbolicValues:
        for node in self.graph.nodes:
            value = self._value(node)
            if value is None:
                self._infer(node)
            else:
                self._set_value(node, *value)
        return self.found

    def _set_value(self, node: Node, value: np.ndarray, dtype: np.dtype) -> None:
        name = node.outputs[0].name
        self.found.values[name], self.found.dtypes[name] = value, dtype
        self.found.shapes[name] = value.shape
        if _are_numbers(value):
            self.inference.set_value(name, value.astype(dtype))
        else:
            self.inference.infer(node)
            self.inference.set_shape(name, value.shape, like=name)

    def _infer(self, node: Node) -> None:
        try:
            inferred = self.inference.infer(node)
        except VerificationError:
            if not any(isinstance(a, Graph) for a in node.attrs.values()):
                raise
            inferred = dict.fromkeys(t.name for t in node.outputs)
        for name, dimensions in inferred.items():
            self.found.shapes[name] = None if dimensions is None else tuple(map(self._entry, dimensions))
        rule = SHAPES.get(node.op) if not node.domain else None
        shape = rule(node, self) if rule is not None else None
        if shape is not None:
            name = node.outputs[0].name
            inferred_shape = self.found.shapes.get(name)
            if inferred_shape is not None and len(inferred_shape) == len(shape):
                shape = tuple(
                    a if b is None or _is_number(a) else b for a, b in zip(inferred_shape, shape, strict=True)
                )
            self.found.shapes[name] = shape
            self.inference.set_shape(name, [self._dimension(d, f"{name}_{i}") for i, d in enumerate(shape)], like=name)

    def _entry(self, dimension: int | str) -> Entry:
        if isinstance(dimension, str):
            return self.extents.get(dimension, Extent(1, (dimension,)))
        return int(dimension) if dimension >= 0 else None

    def _dimension(self, entry: Entry, unknown: str) -> int | str:
        if isinstance(entry, Extent):
            self.extents[str(entry)] = entry
            return str(entry)
        return unknown if entry is None else int(entry)

    def shape(self, tensor: Tensor) -> Shape | None:
        return self.found.shapes.get(tensor.name)

    def entries(self, tensor: Tensor) -> np.ndarray | None:
        """The value of a constant or computed tensor, as entries."""
        if tensor.name in self.given:
            return None
        if isinstance(tensor, Constant):
            return _as_entries(tensor.values) if np.prod(tensor.shape) <= LARGEST_VALUE else None
        return self.found.values.get(tensor.name)

    def _value(self, node: Node) -> tuple[np.ndarray, np.dtype] | None:
        if node.op in ("Shape", "Size") and not node.domain:
            shape = self.shape(node.inputs[0])
            if shape is None:
                return None
            if node.op == "Size":
                return _as_entries(product(shape)), np.dtype(np.int64)
            extents = np.empty(len(shape), object)
            extents[:] = shape
            return extents[node.attrs.get("start", 0) : node.attrs.get("end")], np.dtype(np.int64)
        if not can_evaluate(node):
            return None
        read = [t for t in node.inputs if not t.is_empty()]
        if not read or any(not isinstance(t, Constant) and t.name not in self.found.values for t in read):
            return None
        operands = [None if t.is_empty() else self.entries(t) for t in node.inputs]
        if any(o is None and not t.is_empty() for o, t in zip(operands, node.inputs, strict=True)):
            return None
        try:
            with np.errstate(divide="raise"):
                value, dtype = self._computed(node, operands)
        except (ArithmeticError, AttributeError, IndexError, NotImplementedError, RuntimeError, TypeError, ValueError):
            return None  # what the reference implementation can't do
        is_of_weights = dtype.kind == "f" and not any(t.name in self.found.values for t in node.inputs)
        return None if is_of_weights or value.size > LARGEST_VALUE else (value, dtype)

    def _computed(self, node: Node, operands: Sequence[np.ndarray | None]) -> tuple[np.ndarray, np.dtype]:
        if all(o is None or _are_numbers(o) for o in operands):
            return self._evaluate(node, operands)
        first = operands[0]
        assert first is not None
        if node.op in MOVING:
            return self._moved(node, operands), self._dtype(node.inputs[0])
        if node.op == "ReduceProd" and not node.attrs.get("keepdims", 1) and len(operands) == 1:
            return _as_entries(product(first.ravel())), self._dtype(node.inputs[0])
        if node.op in ENTRYWISE:
            return self._entry_by_entry(node, [o for o in operands if o is not None])
        raise NotImplementedError(node.op)

    def _moved(self, node: Node, operands: Sequence[np.ndarray | None]) -> np.ndarray:
        """The entries of the first operand, or of all that Concat has, where the operator moves their numbers to."""
        pool: list[Entry] = []
        numbered: list[np.ndarray | None] = []
        for index, operand in enumerate(operands):
            if operand is None or (index and node.op != "Concat"):
                numbered.append(operand)
                continue
            numbered.append(_as_entries(np.arange(len(pool), len(pool) + operand.size).reshape(operand.shape)))
            pool += operand.ravel().tolist()
        plain = [self._plain(o, t) for o, t in zip(numbered, node.inputs, strict=True)]
        (places,) = evaluate_node(node, plain)
        moved = np.empty(places.shape, object)
        for place in np.ndindex(places.shape):
            moved[place] = pool[int(places[place])]
        return moved

    def _entry_by_entry(self, node: Node, operands: Sequence[np.ndarray]) -> tuple[np.ndarray, np.dtype]:
        """Where all entries are numbers, the operator's result; elsewhere what its rule knows of extents."""
        filled = [_as_entries([e if _is_number(e) else 1 for e in o.flat]).reshape(o.shape) for o in operands]
        value, dtype = self._evaluate(node, filled)
        aligned = np.broadcast_arrays(*operands)
        for place in np.ndindex(value.shape):
            entries: list[Any] = [a[place] for a in aligned]
            if not all(_is_number(e) for e in entries):
                value[place] = ENTRYWISE[node.op](*entries)
        return value, dtype

    def _evaluate(self, node: Node, operands: Sequence[np.ndarray | None]) -> tuple[np.ndarray, np.dtype]:
        plain = [self._plain(o, t) for o, t in zip(operands, node.inputs, strict=True)]
        (value,) = evaluate_node(node, plain)
        return _as_entries(value), np.dtype(value.dtype)

    def _plain(self, entries: np.ndarray | None, tensor: Tensor) -> np.ndarray | None:
        return None if entries is None else entries.astype(self._dtype(tensor))

    def _dtype(self, tensor: Tensor) -> np.dtype:
        return np.dtype(tensor.values.dtype) if isinstance(tensor, Constant) else self.found.dtypes[tensor.name]


def product(entries: Iterable[Entry]) -> Entry:
    """The product, where it is known."""
    result: Entry = 1
    for entry in entries:
        result = _multiply(result, entry)
    return result


def _as_entries(values: Any) -> np.ndarray:
    """An array of entries: numbers are Python's."""
    entries = np.empty(np.shape(values), object)
    entries[...] = np.asarray(values, object) if isinstance(values, list) else np.asarray(values).astype(object)
    return entries


def _is_number(entry: Entry) -> bool:
    return entry is not None and not isinstance(entry, Extent)


def _are_numbers(entries: np.ndarray) -> bool:
    return all(_is_number(entry) for entry in entries.flat)


# Rules for entries of which one at least is an extent or unknown


def _scaled(factor: float, symbols: tuple[str, ...]) -> Entry:
    """`factor` times the symbols; None where that isn't a whole multiple of at least one."""
    if not symbols:
        return factor
    return Extent(int(factor), symbols) if factor >= 1 and float(factor).is_integer() else None


def _parts(entry: Entry) -> tuple[float, tuple[str, ...]]:
    """The factor and the symbols of a number or an extent."""
    if isinstance(entry, Extent):
        return entry.factor, entry.symbols
    assert entry is not None
    return entry, ()


def _multiply(a: Entry, b: Entry) -> Entry:
    if a is None or b is None:
        return None
    (factor, symbols), (other, others) = _parts(a), _parts(b)
    if not factor * other:
        return 0
    return _scaled(factor * other, tuple(sorted(symbols + others)))


def _divide(a: Entry, b: Entry) -> Entry:
    """The quotient where it is exact."""
    if a is None or b is None:
        return None
    (factor, symbols), (other, others) = _parts(a), _parts(b)
    left = list(symbols)
    for symbol in others:
        if symbol not in left:
            return None
        left.remove(symbol)
    return None if not other or factor % other else _scaled(factor // other, tuple(left))


def _add(a: Entry, b: Entry) -> Entry:
    if a is None or b is None:
        return None
    (factor, symbols), (other, others) = _parts(a), _parts(b)
    if not factor or not other:
        return b if not factor else a
    if symbols != others:
        return None
    return _scaled(factor + other, symbols) if factor + other else 0


def _subtract(a: Entry, b: Entry) -> Entry:
    if a is None or b is None:
        return None
    (factor, symbols), (other, others) = _parts(a), _parts(b)
    if symbols == others:
        return _scaled(factor - other, symbols) if factor != other else 0
    return None if other else a


def _alike(a: Entry, b: Entry) -> bool:
    return isinstance(a, Extent) and isinstance(b, Extent) and a.symbols == b.symbols


def _equal(a: Entry, b: Entry) -> Entry:
    if a is None or b is None:
        return None
    if a == b:
        return True
    if _alike(a, b) or _is_below_extents(a) or _is_below_extents(b):
        return False
    return None


def _greater(a: Entry, b: Entry) -> Entry:
    if isinstance(a, Extent) and _is_below_extents(b):
        return True
    if isinstance(b, Extent) and _is_below_extents(a):
        return False
    return False if a is not None and a == b else None


def _is_below_extents(entry: Entry) -> bool:
    return _is_number(entry) and not isinstance(entry, Extent) and entry is not None and entry < 1


def _larger(a: Entry, b: Entry) -> Entry:
    if a is not None and a == b:
        return a
    for extent, other in ((a, b), (b, a)):
        if isinstance(extent, Extent) and _is_number(other) and _parts(other)[0] <= extent.factor:
            return extent
    return None


def _chosen(condition: Entry, a: Entry, b: Entry) -> Entry:
    if condition is None:
        return a if a == b else None
    return a if condition else b


def _remainder(a: Entry, b: Entry) -> Entry:
    return None if _divide(a, b) is None else 0


MOVING = frozenset(
    {"Concat", "Expand", "Flatten", "Gather", "Reshape", "Slice", "Squeeze", "Tile"} | {"Transpose", "Unsqueeze"}
)
"""Operators that move entries, of their first operand or of all that Concat has."""

ENTRYWISE: dict[str, Callable[..., Entry]] = {
    "Add": _add,
    "Cast": lambda a: a,
    "Ceil": lambda a: a,
    "Div": _divide,
    "Equal": _equal,
    "Floor": lambda a: a,
    "Greater": _greater,
    "Identity": lambda a: a,
    "Less": lambda a, b: _greater(b, a),
    "Max": _larger,
    "Mod": _remainder,
    "Mul": _multiply,
    "Not": lambda a: None,
    "Sub": _subtract,
    "Where": _chosen,
}


# Shapes that follow from operands that are known in part


def _reshaped(node: Node, known: _Propagation) -> Shape | None:
    """The target; one entry that is -1, or unknown, is what is left of the operand's elements."""
    target, shape = known.entries(node.inputs[1]), known.shape(node.inputs[0])
    if target is None:
        return None
    sizes = list(target)
    if not node.attrs.get("allowzero", 0):
        if shape is None and 0 in sizes:
            return None
        sizes = [
            shape[i] if size == 0 and shape is not None and i < len(shape) else size for i, size in enumerate(sizes)
        ]
    inferred = [i for i, size in enumerate(sizes) if size == -1] or [i for i, size in enumerate(sizes) if size is None]
    if len(inferred) == 1:
        others = product(size for i, size in enumerate(sizes) if i != inferred[0])
        sizes[inferred[0]] = None if shape is None else _divide(product(shape), others)
    return tuple(None if size == -1 else size for size in sizes)


def _flattened(node: Node, known: _Propagation) -> Shape | None:
    shape = known.shape(node.inputs[0])
    if shape is None:
        return None
    axis = node.attrs.get("axis", 1)
    axis += len(shape) if axis < 0 else 0
    return product(shape[:axis]), product(shape[axis:])


def _expanded(node: Node, known: _Propagation) -> Shape | None:
    target, shape = known.entries(node.inputs[1]), known.shape(node.inputs[0])
    if target is None or shape is None:
        return None
    rank = max(len(target), len(shape))
    pairs = zip((*[1] * (rank - len(shape)), *shape), [*[1] * (rank - target.size), *target], strict=True)
    return tuple(b if a == 1 else a if b == 1 or a == b else None for a, b in pairs)


def _filled(node: Node, known: _Propagation) -> Shape | None:
    size = known.entries(node.inputs[0])
    return None if size is None else tuple(size)


def _tiled(node: Node, known: _Propagation) -> Shape | None:
    shape, repeats = known.shape(node.inputs[0]), known.entries(node.inputs[1])
    if shape is None or repeats is None:
        return None
    return tuple(_multiply(d, r) for d, r in zip(shape, repeats, strict=True))


def _resized(node: Node, known: _Propagation) -> Shape | None:
    """The sizes; with scales, an axis of scale 1 stays."""
    shape = known.shape(node.inputs[0])
    if shape is None or "axes" in node.attrs or node.attrs.get("keep_aspect_ratio_policy", "stretch") != "stretch":
        return None
    sizes = known.entries(node.inputs[3]) if len(node.inputs) > 3 and not node.inputs[3].is_empty() else None
    if sizes is not None:
        return tuple(sizes)
    scales = known.entries(node.inputs[2]) if len(node.inputs) > 2 and not node.inputs[2].is_empty() else None
    if scales is None or len(scales) != len(shape):
        return None
    return tuple(_resized_axis(d, float(s)) if _is_number(s) else None for d, s in zip(shape, scales, strict=True))


def _resized_axis(extent: Entry, scale: float) -> Entry:
    if scale == 1:
        return extent
    return math.floor(extent * scale) if _is_number(extent) and not isinstance(extent, Extent | None) else None


SHAPES: dict[str, Callable[[Node, _Propagation], Shape | None]] = {
    "ConstantOfShape": _filled,
    "Expand": _expanded,
    "Flatten": _flattened,
    "Reshape": _reshaped,
    "Resize": _resized,
    "Tile": _tiled,
}
"""The operators of which more is known than ONNX's inference finds out."""
