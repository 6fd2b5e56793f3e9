"""Standard output that goes away while something is told there."""

import os
from pathlib import Path

import pytest
from rich.console import Console

from wootz.tools.lasting_output import LastingOutput


@pytest.mark.parametrize("gone", ["reader", "room"])
def test_what_nobody_can_read_is_no_error(gone):
    if gone == "reader":
        reading, writing = os.pipe()
        os.close(reading)
    else:
        if not Path("/dev/full").exists():
            pytest.skip("this system has no disk that is always full")
        writing = os.open("/dev/full", os.O_WRONLY)
    with os.fdopen(writing, "w") as stream:
        console = Console(file=LastingOutput(stream))
        for line in ("told to nobody", "word " * 4_000, "the end"):
            console.print(line, highlight=False)


def test_what_somebody_reads_is_there(tmp_path):
    with (tmp_path / "told").open("w") as stream:
        Console(file=LastingOutput(stream), width=80).print("told")
    assert (tmp_path / "told").read_text() == "told\n"
