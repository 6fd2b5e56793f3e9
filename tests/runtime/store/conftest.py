"""A store, what it told the user, and processes that use it."""

import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import numpy as np
import pytest

from wootz.runtime.outcome import Trained
from wootz.runtime.store import Store

PREAMBLE = """
import sys
import time
from pathlib import Path
import numpy as np
from wootz.runtime.outcome import Failed, Trained
from wootz.runtime.store import Store
store = Store.open(Path(sys.argv[1]))
"""


@pytest.fixture
def notes() -> list[str]:
    return []


@pytest.fixture
def store(tmp_path, notes) -> Store:
    return Store.open(tmp_path / "store", note=notes.append)


@pytest.fixture
def start(store) -> Iterator[Callable[..., subprocess.Popen]]:
    """Starts a process that runs `code` on the same store; the process is over when the test is."""
    with ExitStack() as stack:

        def run(code: str, *arguments: object) -> subprocess.Popen:
            command = [sys.executable, "-c", PREAMBLE + code, str(store.folder), *map(str, arguments)]
            process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
            stack.callback(lambda: (process.kill(), process.communicate()))
            return process

        yield run


def filled(value: float, size: int = 6) -> Trained:
    """An outcome that shows whether it is of one piece."""
    return Trained({"w": np.full(size, value, np.float32)}, {"value": value})
