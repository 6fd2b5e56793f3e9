"""Keeps what was trained, under a key made from everything that it depends on, so that it is never trained twice."""

from __future__ import annotations

import hashlib
import io
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from wootz.passes.ir.files import write_atomically
from wootz.passes.ir.model import Model

_RECORD = "wootz.record"


@dataclass(frozen=True)
class Stored:
    """Weights by name, and what was recorded beside them (JSON types)."""

    weights: dict[str, np.ndarray]
    record: dict[str, Any]


@dataclass(frozen=True)
class ResultStore:
    """A folder with one `.npz` file a result; each appears whole or not at all."""

    folder: Path

    def get(self, key: str) -> Stored | None:
        file = self._file(key)
        if not file.is_file():
            return None
        with np.load(file, allow_pickle=False) as arrays:
            weights = {name: arrays[name] for name in arrays.files if name != _RECORD}
            return Stored(weights, json.loads(str(arrays[_RECORD])))

    def put(self, key: str, stored: Stored) -> None:
        content = io.BytesIO()
        record = np.array(json.dumps(stored.record))
        np.savez(content, allow_pickle=False, **stored.weights, **{_RECORD: record})
        write_atomically(self._file(key), content.getvalue())

    def _file(self, key: str) -> Path:
        return self.folder / f"{key}.npz"


def digest(*parts: Any) -> str:
    """A key: the same for equal parts, also in another process. Parts are models, arrays, or have a stable `repr`."""
    sha = hashlib.sha256()
    for part in parts:
        if isinstance(part, Model):
            sha.update(part.to_proto().SerializeToString(deterministic=True))
        elif isinstance(part, np.ndarray):
            sha.update(f"{part.dtype}{part.shape}".encode())
            sha.update(np.ascontiguousarray(part).data)
        else:
            sha.update(repr(part).encode())
        sha.update(b"\0")
    return sha.hexdigest()[:32]
