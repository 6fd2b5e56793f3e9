"""Errors that a user can mend: one line that says where, what, why and what to do."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from errno import EDQUOT, EFBIG, ENOSPC
from pathlib import Path

LONGEST_MESSAGE = 1000
"""Characters of a message; of longer ones the middle is left out."""
NO_SPACE = (ENOSPC, EDQUOT, EFBIG)
"""What the system says when a disk, or what a user may have of it, is full."""


class WootzError(Exception):
    """The input, an option or a pass is at fault. The message is one line, shown without a traceback."""

    def __init__(self, message: str):
        super().__init__(one_line(message))


class InputError(WootzError):
    """A fault in a file, at `file:line:column` where these are known (both count from 1)."""

    def __init__(self, message: str, file: str | Path, line: int | None = None, column: int | None = None):
        position = "".join(f":{n}" for n in (line, column) if n is not None)
        super().__init__(f"{file}{position}: {message}")
        self.file, self.line, self.column = file, line, column


class PassError(WootzError):
    """A pass refuses a model: names the pass, where known the node or tensor, and the reason."""

    def __init__(self, pass_name: str, reason: str, where: str | None = None):
        super().__init__(f"{pass_name}: {f'{where}: ' if where else ''}{reason}")
        self.pass_name, self.reason, self.where = pass_name, reason, where


class StorageError(WootzError):
    """A folder that a run works with can't be read or written: no fault of what is computed, whose next piece would
    fare no better."""

    @classmethod
    def of(cls, file: object, reason: str) -> StorageError:
        """The error of a file in a run's folder that can't be written, with what to do."""
        return cls(f"{file}: {reason}: what was trained is kept; once that is mended, the same command continues")


class VerificationError(WootzError):
    """A model breaks an invariant of the IR."""


def one_line(text: str) -> str:
    """`text` as one line of bounded length, whatever the names in it: what can't be printed is escaped."""
    return _shortened("".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in _shortened(text)))


def _shortened(text: str) -> str:
    half = LONGEST_MESSAGE // 2
    return text if len(text) <= LONGEST_MESSAGE else f"{text[:half]} … {text[-half:]}"


@contextmanager
def reading(file: str | Path, kind: str) -> Iterator[None]:
    """The boundary of a reader: whatever a damaged file makes it raise becomes an InputError that names the file.

    `kind` says what the file should be: "a caffemodel". A WootzError from inside says more, and passes.
    """
    try:
        yield
    except WootzError:
        raise
    except MemoryError as error:
        raise InputError(f"too large for the memory, or damaged: not {kind} that can be read", file) from error
    except OSError as error:
        if error.filename is not None:
            raise InputError(f"can't be read: {error.strerror}", file) from error
        raise InputError(f"not {kind}, or damaged ({_first_line(error)})", file) from error
    except Exception as error:
        raise InputError(f"not {kind}, or damaged ({_first_line(error)})", file) from error


def _first_line(error: Exception) -> str:
    return f"{type(error).__name__}: {next(iter(str(error).splitlines()), '')}".removesuffix(": ")
