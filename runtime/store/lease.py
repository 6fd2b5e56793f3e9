"""The right to compute what a key stands for, while others wait for it."""

from __future__ import annotations

from pathlib import Path
from types import TracebackType

from wootz.runtime.store.heartbeat import Mark, Watch, read_mark, remove_mark

TRIES = 3
"""A mark may come and go between two looks at it."""


class Lease:
    """Held from when it is given until `release`, or the end of a `with`; it renews itself in between.

    A lease saves work and nothing else: if a process that was stopped for minutes goes on, and its lease has been given
    to another, both compute the same, and both put it, each as a whole.
    """

    def __init__(self, mark: Mark):
        self._mark = mark
        mark.start_beating()

    @property
    def is_held(self) -> bool:
        return self._mark.is_held

    def release(self) -> None:
        self._mark.remove()

    def __enter__(self) -> Lease:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.release()


def take_lease(file: Path, what: str, watch: Watch) -> Lease | None:
    """The lease of `file`; None while someone else holds it who is alive, for all that `watch` has seen so far."""
    for _ in range(TRIES):
        mark = Mark.create(file, what)
        if mark is not None:
            return Lease(mark)
        content = read_mark(file)
        if content is None:
            continue
        if not watch.is_dead(file, content):
            return None
        remove_mark(file, content, watch)
    return None
