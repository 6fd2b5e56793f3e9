"""Fixtures: the oracle of pruning, and networks as PyTorch exports them."""

from __future__ import annotations

import gzip
import importlib.util
import zlib
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from wootz.passes.ir.elided import ElidedArray
from wootz.passes.ir.model import Model, constant_behind
from wootz.passes.ir.text import parse_text

MODELS = Path(__file__).parents[1] / "fixtures" / "models"
POOL = np.random.default_rng(0).standard_normal(1048573, np.float32)
"""Weights are cut from these numbers; their count is prime, so that no two filters repeat."""


@pytest.fixture(scope="session")
def oracles() -> ModuleType:
    """The module `oracles.py` beside this file."""
    spec = importlib.util.spec_from_file_location("oracles", Path(__file__).with_name("oracles.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def exported() -> Callable[[str], Model]:
    """Reads a graph of `tests/fixtures/models` and fills in weights by a seeded rule."""
    return exported_model


def exported_model(name: str) -> Model:
    text = gzip.decompress((MODELS / f"{name}.onnxtxt.gz").read_bytes()).decode()
    model = parse_text(text, name)
    for node in model.graph.nodes:
        for operand, tensor in enumerate(node.inputs):
            constant = constant_behind(tensor)
            if node.op != "Identity" and constant is not None and isinstance(constant.values, ElidedArray):
                constant.values = _weights(constant.name, constant.values.shape, node.op, operand)
    return model


def _weights(name: str, shape: tuple[int, ...], op: str, operand: int) -> np.ndarray:
    """Seeded by the tensor's name; scaled so that activations neither vanish nor explode."""
    start = zlib.crc32(name.encode()) % len(POOL)
    size = int(np.prod(shape))
    noise = np.take(POOL, np.arange(start, start + size), mode="wrap").reshape(shape)
    if op == "BatchNormalization":
        return (1 + 0.2 * np.tanh(noise) if operand in (1, 4) else 0.1 * noise).astype(np.float32)
    if len(shape) < 2 or op not in ("Conv", "ConvTranspose", "Gemm", "MatMul"):
        return (0.1 * noise).astype(np.float32)
    fan_in = size / shape[0]
    return (noise * np.sqrt(2 / fan_in)).astype(np.float32)
