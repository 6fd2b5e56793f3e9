"""Keeps what was trained, under a key made from everything that it depends on, so that it is never trained twice."""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from wootz.passes.ir.files import write_atomically
from wootz.passes.ir.model import Model
from wootz.runtime.outcome import Failed

_RECORD, _FAILED = "wootz.record", "wootz.failed"


@dataclass(frozen=True)
class Stored:
    """Weights by name, and what was recorded beside them (JSON types)."""

    weights: dict[str, np.ndarray]
    record: dict[str, Any]


@dataclass(frozen=True)
class ResultStore:
    """A folder with one `.npz` file a result, of success or failure; each appears whole or not at all."""

    folder: Path

    def get(self, key: str) -> Stored | Failed | None:
        """What was put; None where nothing was, or where the file is damaged: then it is made again."""
        file = self._file(key)
        if not file.is_file():
            return None
        try:
            with np.load(file, allow_pickle=False) as arrays:
                if _FAILED in arrays.files:
                    return Failed(str(arrays[_FAILED]))
                weights = {name: arrays[name] for name in arrays.files if name != _RECORD}
                return Stored(weights, json.loads(str(arrays[_RECORD])))
        except (ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error, NotImplementedError):
            return None

    def put(self, key: str, outcome: Stored | Failed) -> None:
        if isinstance(outcome, Failed):
            arrays = {_FAILED: np.array(outcome.reason)}
        else:
            arrays = {**outcome.weights, _RECORD: np.array(json.dumps(outcome.record))}
        content = io.BytesIO()
        np.savez(content, allow_pickle=False, **arrays)
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
