"""Errors that a user can mend: one line that says where, what, why and what to do."""

from __future__ import annotations

from pathlib import Path


class WootzError(Exception):
    """The input, an option or a pass is at fault. The message is one line, shown without a traceback."""


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


class VerificationError(WootzError):
    """A model breaks an invariant of the IR."""
