"""Where `wootz run` tells how far it is: what trains for hours doesn't end because nobody reads on."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import IO, Any, cast

from rich.console import Console


def lasting_console() -> Console:
    """A console of standard output."""
    return Console(file=None if sys.stdout is None else cast(IO[str], LastingOutput(sys.stdout)))


class LastingOutput:
    """A stream that is silent from when it can't be written any more: its reader is gone, or its disk is full."""

    def __init__(self, stream: IO[str]):
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        self._or_silence(lambda: self._stream.write(text))
        return len(text)

    def flush(self) -> None:
        self._or_silence(self._stream.flush)

    def _or_silence(self, write: Callable[[], object]) -> None:
        try:
            write()
        except OSError:
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self._stream.fileno())  # so that what the stream still holds is no obstacle at the end
            os.close(nowhere)
