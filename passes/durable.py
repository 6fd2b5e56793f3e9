"""Files that outlast a power failure: what is in them, and their names."""

from __future__ import annotations

import os
from pathlib import Path


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
