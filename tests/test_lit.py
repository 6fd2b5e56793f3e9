"""Runs the textual tests of `tests/lit` with lit."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

LIT = Path(__file__).parent / "lit"


@pytest.mark.parametrize("file", sorted(f.name for f in LIT.glob("*.onnxtxt")))
def test_textual(file: str, tmp_path: Path) -> None:
    run = subprocess.run(
        [sys.executable, "-c", "from lit.main import main; main()", "-v", str(LIT / file)],
        capture_output=True,
        text=True,
        env={**os.environ, "WOOTZ_LIT_OUTPUT": str(tmp_path)},
    )
    assert run.returncode == 0, run.stdout + run.stderr
