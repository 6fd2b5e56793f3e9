"""infer-shapes: annotates every tensor with its shape and type."""

from __future__ import annotations

from dataclasses import dataclass

from wootz.passes.base import Pass, PassResult
from wootz.passes.ir.model import Model, Variable
from wootz.passes.ir.shapes import infer_shapes


@dataclass(frozen=True)
class InferShapes(Pass):
    """Annotates every tensor with its shape and type.

    Annotations that were there are inferred anew, except those of the inputs. Dimensions that depend on symbolic ones
    get names. Refuses a graph whose shapes contradict each other.
    """

    name = "infer-shapes"
    preserves_outputs = True

    def apply(self, model: Model) -> PassResult:
        result = infer_shapes(model)
        before = {name: _annotation(t) for name, t in model.graph.tensors().items() if isinstance(t, Variable)}
        after = {name: _annotation(t) for name, t in result.graph.tensors().items() if isinstance(t, Variable)}
        changed = sum(before[name] != annotation for name, annotation in after.items())
        unknown = sum(shape is None for shape, _ in after.values())
        return PassResult(result, changed > 0, {"annotated": changed, "unknown": unknown})


def _annotation(tensor: Variable) -> tuple[tuple[int | str, ...] | None, object]:
    return None if tensor.shape is None else tuple(tensor.shape), tensor.dtype
