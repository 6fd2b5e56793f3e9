"""Wootz: a compiler for CNN pruning on ONNX.

The public API is imported on first use, so that `import wootz` costs nothing.
"""

from importlib import import_module, metadata
from typing import Any

_EXPORTS = {
    "Model": "wootz.passes.ir.model",
    "Module": "wootz.passes.ir.model",
    "load": "wootz.passes.ir.files",
    "save": "wootz.passes.ir.files",
    "verify": "wootz.passes.ir.verifier",
    "Pass": "wootz.passes.base",
    "PassResult": "wootz.passes.base",
    "parse_pipeline": "wootz.passes.pipeline",
    "run_pipeline": "wootz.passes.pipeline",
    "PruneInfo": "wootz.passes.multiplex",
    "multiplex": "wootz.passes.multiplex",
    "run": "wootz.tools.api",
    "WootzError": "wootz.passes.errors",
}

__all__ = ["__version__", *_EXPORTS]


def __getattr__(name: str) -> Any:
    if name == "__version__":
        return metadata.version("wootz")
    if name in _EXPORTS:
        return getattr(import_module(_EXPORTS[name]), name)
    raise AttributeError(f"module 'wootz' has no attribute {name!r}")
