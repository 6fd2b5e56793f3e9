"""Formulations of the gradient functions for a target, one module a target."""

from __future__ import annotations

from collections.abc import Callable

from wootz.passes.ir.builder import Builder
from wootz.passes.ir.model import Node, Tensor

Lowering = Callable[[Node, Builder], list[Tensor] | None]
"""Appends nodes that compute what the call does and gives its results.

None: the body of the function is as good, and a standard operator stays as it is.
"""
