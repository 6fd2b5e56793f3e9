"""Some damaged files for every reader, and what the driver calls a fault; `make fuzz` reads many more."""

from __future__ import annotations

import importlib.util
import sys
import time
from pathlib import Path
from types import ModuleType

import pytest

from wootz.passes.errors import InputError, WootzError

FOLDER = Path(__file__).parent


@pytest.fixture(scope="module")
def driver() -> ModuleType:
    spec = importlib.util.spec_from_file_location("driver", FOLDER / "driver.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["driver"] = module
    sys.path.insert(0, str(FOLDER))
    spec.loader.exec_module(module)
    return module


def test_what_the_driver_calls_a_fault(driver: ModuleType) -> None:
    def read(file: Path) -> None:
        content = file.read_text()
        if content == "named":
            raise InputError("wrong", file)
        if content == "unnamed":
            raise WootzError("wrong")
        if content == "raises":
            raise KeyError(content)

    reader = driver.Reader("toy", read, "toy.txt", [b""], [])
    expected = {
        "fine": "accepted",
        "named": "refused",
        "unnamed": "the message doesn't name the file: wrong",
        "raises": "KeyError in test_fuzz.py:",
    }
    for content, outcome in expected.items():
        assert driver.outcome_of(reader, content.encode()).startswith(outcome)


def test_the_same_number_gives_the_same_input(driver: ModuleType) -> None:
    for reader in driver.readers().values():
        inputs = [[reader.input(seed, number) for number in range(10)] for seed in (0, 0, 1)]
        assert inputs[0] == inputs[1] != inputs[2]


def test_the_seeds_are_read(driver: ModuleType, tmp_path: Path) -> None:
    """Damage to what is refused already would show nothing."""
    for name, reader in driver.readers().items():
        for number, seed in enumerate(reader.seeds):
            folder = tmp_path / f"{name} {number}"
            folder.mkdir()
            (folder / reader.file_name).write_bytes(seed)
            reader.read(folder / reader.file_name)


READERS = ("onnx", "onnxtxt")
SECONDS = 8
"""For one reader: as many inputs as there is time for, at least one child's."""


@pytest.mark.parametrize("reader", READERS)
def test_damaged_files_are_refused_in_one_line(reader: str, driver: ModuleType) -> None:
    report = driver.fuzz(reader, 0, range(500), time.monotonic() + SECONDS)
    assert report.faults == {}
    assert report.counts["refused"] > 0
