"""Files that outlast a power failure: what is in them, and their names."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def naming(file: Path, temporary: Path) -> Iterator[None]:
    """Has OSErrors name `file`, where they name the `temporary` one that is to become it, or none."""
    try:
        yield
    except OSError as error:
        if error.errno is None or error.filename not in (None, temporary, str(temporary)):
            raise
        raise OSError(error.errno, error.strerror, str(file)) from error


def sync_file(file: Path) -> None:
    """Makes the content of `file` durable."""
    with file.open("rb+") as content:
        os.fsync(content.fileno())


def sync_folder(folder: Path) -> None:
    """Makes the names in `folder` durable, where the system can."""
    if os.name == "posix":
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
