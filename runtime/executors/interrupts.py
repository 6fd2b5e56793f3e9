"""Ctrl-C and SIGTERM in a process that performs tasks itself: what is under way may end in order."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM)


@contextmanager
def postponed(grace: float) -> Iterator[Callable[[], bool]]:
    """What Ctrl-C and SIGTERM do is done at the end, `grace` seconds after the first of them, or at a second one.

    Gives whether one has come. In other threads than the main one, and where there are no timers, nothing is postponed.
    """
    if threading.current_thread() is not threading.main_thread() or not hasattr(signal, "setitimer"):
        yield lambda: False
        return
    handlers = {number: handler for number in SIGNALS if callable(handler := signal.getsignal(number))}
    came: list[signal.Signals] = []

    def act(number: int, frame: FrameType | None) -> None:
        handlers[came[0]](came[0], frame)

    def note(number: int, frame: FrameType | None) -> None:
        came.append(signal.Signals(number))
        if len(came) > 1:
            act(number, frame)
        signal.setitimer(signal.ITIMER_REAL, grace)

    alarm = signal.signal(signal.SIGALRM, act)
    for number in handlers:
        signal.signal(number, note)
    try:
        yield lambda: bool(came)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        for number, handler in handlers.items():
            signal.signal(number, handler)
        signal.signal(signal.SIGALRM, alarm)
    if came:
        act(came[0], None)
