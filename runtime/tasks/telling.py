"""How far a training is, as a worker tells it to the process that drives."""

from __future__ import annotations

import msgspec
from msgspec import Struct

from wootz.runtime.executors.control import Control
from wootz.runtime.progress import Progress


class Step(Struct, frozen=True):
    """What a worker tells: the steps done, and the loss or the quality after them."""

    worker: int
    step: int
    loss: float | None = None
    quality: float | None = None


class Telling(Progress):
    """Tells `control` of a training."""

    def __init__(self, control: Control):
        self._control = control
        self._display = 0

    def begin(self, title: str, total: int, display: int = 0) -> None:
        self._display = display

    def advance(self, done: int, loss: float) -> None:
        is_shown = bool(self._display) and done % self._display == 0
        self._tell(Step(self._control.place.worker, done, loss=loss), is_shown)

    def tested(self, done: int, quality: float) -> None:
        self._tell(Step(self._control.place.worker, done, quality=quality), True)

    def _tell(self, step: Step, important: bool) -> None:
        self._control.tell(msgspec.json.encode(step).decode(), important)


def read_step(text: str) -> Step | None:
    """What `Telling` told; None for half of it, as a file is read that is being written."""
    try:
        return msgspec.json.decode(text, type=Step)
    except msgspec.DecodeError:
        return None
