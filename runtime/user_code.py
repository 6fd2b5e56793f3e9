"""Python code of the user: `FILE.py:NAME`. What goes wrong in it is told in one line, with the line of the file."""

from __future__ import annotations

import importlib.util
import inspect
import re
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from wootz.passes.errors import InputError, WootzError
from wootz.runtime.digest import digest

CODE = re.compile(r"(?P<file>.+\.py):(?P<name>[A-Za-z_]\w*)")


def file_of(text: str | Path) -> str:
    """The file of `FILE.py:NAME`; any other text is one itself."""
    match = CODE.fullmatch(str(text))
    return str(text) if match is None else match["file"]


@dataclass(frozen=True)
class UserCode:
    """The object `name` of a Python file, and the digest of the file's content."""

    file: str
    name: str
    source: str

    @staticmethod
    def of(text: str) -> UserCode | None:
        """What `FILE.py:NAME` means; None for any other text. Raises InputError for a file that can't be read."""
        match = CODE.fullmatch(text)
        if match is None:
            return None
        file = Path(match["file"]).absolute()
        try:
            content = file.read_bytes()
        except OSError as error:
            raise InputError(f"can't be read: {error.strerror}", file) from error
        return UserCode(str(file), match["name"], digest(content))

    def load(self) -> Any:
        """The object, by a run of the file. Raises InputError where that raises, or has no such object, and where the
        file is no longer what it was."""
        found = UserCode.of(f"{self.file}:{self.name}")
        if found != self:
            raise InputError("it is no longer what it was when the run began", self.file)
        spec = importlib.util.spec_from_file_location(f"wootz_user_{self.source[:16]}", self.file)
        if spec is None or spec.loader is None:
            raise InputError("no Python file", self.file)
        module = importlib.util.module_from_spec(spec)
        with told_in_a_line(self.file, 1):
            spec.loader.exec_module(module)
        if not hasattr(module, self.name):
            raise InputError(f"there is no {self.name} in it", self.file)
        return getattr(module, self.name)


@contextmanager
def told_in_a_line(file: str, line: int) -> Iterator[None]:
    """Whatever the user's code raises becomes an InputError with the last line of `file` that was under way, or `line`
    where it was none. A WootzError passes."""
    try:
        yield
    except WootzError:
        raise
    except SyntaxError as error:
        raise InputError(f"{type(error).__name__}: {error.msg}", error.filename or file, error.lineno) from error
    except Exception as error:
        lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == file]
        said = next(iter(str(error).splitlines()), "")
        raise InputError(f"{type(error).__name__}: {said}".removesuffix(": "), file, (lines or [line])[-1]) from error


def place_of(function: Callable[..., Any]) -> tuple[str, int]:
    """The file and line at which a function, or a class by its first method, begins."""
    code = getattr(function, "__code__", None)
    if code is None:
        methods = vars(function).values() if inspect.isclass(function) else ()
        code = next((value.__code__ for value in methods if inspect.isfunction(value)), None)
    return (code.co_filename, code.co_firstlineno) if code is not None else (f"<{function!r}>", 1)
