"""Where a store is, how large it may become, and the mark that says which format it has."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import platformdirs

from wootz.passes.errors import NO_SPACE, StorageError, WootzError
from wootz.runtime.store.amounts import parse_bytes
from wootz.runtime.store.durable import TEMPORARY, file_system_time, write_durably

STORE_VARIABLE = "WOOTZ_STORE"
LIMIT_VARIABLE = "WOOTZ_STORE_LIMIT"
DEFAULT_LIMIT = 20 * 10**9
FORMAT = 1
FORMAT_FILE = "format"
ANOTHER_STORE = f"choose another store (--store, {STORE_VARIABLE})"


def default_folder() -> Path:
    """`$WOOTZ_STORE`; without it `wootz/store` among the user's caches (`$XDG_CACHE_HOME`, `~/.cache`)."""
    named = os.environ.get(STORE_VARIABLE)
    return Path(named).expanduser() if named else platformdirs.user_cache_path("wootz", appauthor=False) / "store"


def default_limit() -> int:
    """`$WOOTZ_STORE_LIMIT` in bytes, 20 GB without it. Raises WootzError."""
    text = os.environ.get(LIMIT_VARIABLE)
    try:
        return parse_bytes(text) if text else DEFAULT_LIMIT
    except ValueError as error:
        raise WootzError(f"{LIMIT_VARIABLE}: {error}") from error


def create_store(folder: Path) -> None:
    """Makes `folder` a store that can be written, unless it is one. Raises WootzError."""
    with writing(folder):
        if folder.exists() and not folder.is_dir():
            raise WootzError(f"{folder} is a file: a store is a folder (--store, {STORE_VARIABLE})")
        folder.mkdir(parents=True, exist_ok=True)
        if check_format(folder):
            file_system_time(folder)  # can it be written?
            return
        is_foreign = any(not TEMPORARY.fullmatch(file.name) for file in folder.iterdir())
        if is_foreign and not check_format(folder):
            raise WootzError(f"{folder} holds files that are not a store's: choose another --store, or an empty folder")
        write_durably(folder / FORMAT_FILE, [f"wootz store {FORMAT}\n".encode()])


def check_format(folder: Path) -> bool:
    """Whether `folder` is a store, of a format that is read here. Raises WootzError for another format."""
    mark = folder / FORMAT_FILE
    try:
        text = mark.read_bytes()[:100].decode(errors="replace")
    except FileNotFoundError:
        return False
    except OSError as error:
        raise WootzError(f"{mark}: can't be read ({error.strerror}): choose another --store") from error
    found = re.fullmatch(r"wootz store (\d+)\n", text)
    if found is None:
        raise WootzError(f"{mark}: not the mark of a store: choose another --store")
    if int(found[1]) > FORMAT:
        raise WootzError(
            f"{folder}: a store of format {found[1]}, and this version of Wootz reads format {FORMAT}: "
            f"use a newer Wootz, or another --store"
        )
    return True


@contextmanager
def writing(file: Path, instead: str = ANOTHER_STORE) -> Iterator[None]:
    """Turns what the system says when `file` can't be written into a line that names it and says what to do."""
    try:
        yield
    except OSError as error:
        room = "make room there, or " if error.errno in NO_SPACE else ""
        raise StorageError(f"{file}: can't be written ({error.strerror or error}): {room}{instead}") from error
