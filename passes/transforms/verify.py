"""verify: checks the invariants of the IR."""

from __future__ import annotations

from dataclasses import dataclass

from wootz.passes.base import Pass, PassResult
from wootz.passes.ir import verifier
from wootz.passes.ir.model import Model


@dataclass(frozen=True)
class Verify(Pass):
    """Checks the invariants of the IR.

    Names, order, signatures of operators, shapes along every edge, annotations and the module table (see
    `wootz.passes.ir.verifier`). Refuses a model that breaks one, naming the node and both shapes.
    """

    name = "verify"
    preserves_outputs = True

    def apply(self, model: Model) -> PassResult:
        verifier.verify(model)
        return PassResult(model, modified=False, statistics={"nodes": len(model.graph.nodes)})
