"""The ONNX functions of domain `wootz`: what gradients need and the standard has no operator for."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from wootz.passes.ir.model import Function, Graph
from wootz.passes.ir.text import parse_text

DOMAIN = "wootz"
SOURCE = Path(__file__).with_name("gradient_functions.onnxtxt")


@cache
def gradient_functions() -> dict[str, Function]:
    """The functions by name; their meaning is their body. Not to be changed: copy what is put into a graph."""
    library = parse_text(SOURCE.read_text(encoding="utf-8"), str(SOURCE))
    return {function.name: function for function in library.graph.functions}


def import_used_functions(graph: Graph) -> None:
    """Makes `graph.functions` hold exactly those functions of domain `wootz` that its nodes call."""
    called = {node.op for node in graph.nodes if node.domain == DOMAIN}
    others = [f for f in graph.functions if f.domain != DOMAIN]
    graph.functions = others + [f.copy() for name, f in gradient_functions().items() if name in called]
