"""Entries of a store, and archives of them."""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from driver import BYTE_MUTATIONS, TEXT_MUTATIONS, Reader

from wootz.passes.errors import InputError
from wootz.runtime.outcome import Failed, Trained
from wootz.runtime.store import Store
from wootz.runtime.store.archive import export_entries, import_entries
from wootz.runtime.store.entry import MAGIC

KEYS = ("ab" * 16, "cd" * 32)
OUTCOMES = (
    Trained({"conv1.weight": np.zeros((2, 3), np.float32), "steps": np.array(5)}, {"curve": [[0, 0.5]]}),
    Failed("the training diverged"),
)


def _entry(file: Path) -> None:
    """Reads `file` as the entry of the first key; what is set aside is refused."""
    store = Store.open(file.parent / "store")
    entry = store.layout.entry(KEYS[0])
    entry.parent.mkdir(parents=True, exist_ok=True)
    entry.write_bytes(file.read_bytes())
    if store.get(KEYS[0]) is None:
        raise InputError("damaged", file)


def _header(file: Path) -> None:
    """Reads an entry whose header is `file`, with the checksum that belongs to it."""
    line = file.read_bytes().replace(b"\n", b" ") + b"\n"
    digest = hashlib.sha256(line).hexdigest().encode()
    file.write_bytes(MAGIC + digest + b"\n" + line + ENTRIES[0].split(b"\n", 3)[3])
    _entry(file)


def _archive(file: Path) -> None:
    import_entries(Store.open(file.parent / "store", limit=10**7), file)


def _contents() -> Iterator[bytes]:
    with tempfile.TemporaryDirectory() as folder:
        store = Store.open(Path(folder))
        for outcome in OUTCOMES:
            store.put(KEYS[0], outcome, what="block 3", seconds=1.5)
            yield store.layout.entry(KEYS[0]).read_bytes()


def _archives(suffix: str) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        store = Store.open(Path(folder) / "store")
        for key, outcome in zip(KEYS, OUTCOMES, strict=True):
            store.put(key, outcome, what="", seconds=0.0)
        export_entries(store, Path(folder, f"a{suffix}"), KEYS)
        return Path(folder, f"a{suffix}").read_bytes()


ENTRIES = list(_contents())
HEADERS = [json.dumps(json.loads(ENTRIES[0].split(b"\n")[2]), indent=1).encode()]
"""The arrays that `_header` puts behind them are those of the first entry."""

READERS = (
    Reader("entry", _entry, "entry", ENTRIES, BYTE_MUTATIONS),
    Reader("entry-header", _header, "entry", HEADERS, TEXT_MUTATIONS),
    Reader("entries.tar", _archive, "a.tar", [_archives(".tar")], BYTE_MUTATIONS),
    Reader("entries.tar.gz", _archive, "a.tar.gz", [_archives(".tar.gz")], BYTE_MUTATIONS),
)
