"""Damaged files for the readers of everything but models: some of those that `make fuzz` makes, and files that once
showed a fault."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

import driver

HOSTILE = Path(os.environ.get("WOOTZ_SHARED", Path(__file__).parents[3] / "shared")) / "cases" / "hostile"
READER_OF_FIRST_LETTER = {"P": "pickle", "N": "npy", "J": "json", "C": "csv", "Z": "npz", "M": "lmdb", "Q": "plan"}
"""Some of the files say by their first letter what the rest is."""
INPUTS, SLOW_INPUTS = 60, 10
"""For each reader; a database is read by a process of its own."""


@pytest.fixture(scope="module")
def readers() -> dict[str, driver.Reader]:
    pytest.importorskip("lmdb")
    pytest.importorskip("h5py")
    return {name: reader for name, reader in driver.readers().items() if not name.startswith("onnx")}


def test_damaged_files_are_read_or_refused_in_one_line(readers) -> None:
    for name, reader in readers.items():
        outcomes = []
        for number in range(SLOW_INPUTS if name == "lmdb" else INPUTS):
            outcome = driver.outcome_of(reader, reader.input(20, number))
            assert outcome in ("accepted", "refused"), f"{name}: --seed 20 --only {number}: {outcome}"
            outcomes.append(outcome)
        assert "refused" in outcomes


def hostile_files() -> list[Path]:
    files = sorted(HOSTILE.iterdir()) if HOSTILE.is_dir() else []
    return [file for file in files if not file.suffix.startswith(".onnx")]


@pytest.mark.skipif(not hostile_files(), reason="needs the damaged files in WOOTZ_SHARED")
def test_files_that_showed_a_fault(readers) -> None:
    for file in hostile_files():
        kind = file.name.partition("-")[0]
        if file.is_dir():
            name, content = "lmdb", (file / "train_lmdb" / "data.mdb").read_bytes()
        elif kind in readers:
            name, content = kind, file.read_bytes()
        elif file.suffix == ".pickle":
            name, content = "pickle", file.read_bytes()
        else:
            letter, content = file.read_bytes()[:1].decode(), file.read_bytes()[1:]
            name = READER_OF_FIRST_LETTER.get(letter, "modules")
        outcome = driver.outcome_of(readers[name], content)
        assert outcome in ("accepted", "refused"), f"{file.name} as {name}: {outcome}"
