"""Who wrote a file: a process of a machine, and whether it is known to have ended."""

from __future__ import annotations

import hashlib
import os
import platform
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

ENDED_STATES = ("Z", "X")
"""Of `/proc/PID/stat`: a zombie has ended, though its parent hasn't asked yet."""


@dataclass(frozen=True)
class Process:
    """A process. `machine` and `started` are empty and 0 where the system doesn't tell them.

    `machine` is the same for those processes alone that see each other's numbers: the boot, and the namespace of the
    container. `started` tells two processes apart that got the same number.
    """

    machine: str
    pid: int
    started: int

    @classmethod
    def current(cls) -> Process:
        pid = os.getpid()
        found = _state_and_start(pid)
        return cls(_machine(), pid, found[1]) if found else cls("", pid, 0)

    @property
    def is_seen(self) -> bool:
        """Whether it is one of those whose numbers this process sees."""
        return self.machine != "" and self.machine == _machine()

    def has_ended(self) -> bool:
        """True where that is certain; a process of another machine may be alive for all that is known here."""
        if not self.is_seen:
            return False
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return True
        except OSError:  # another user's
            pass
        found = _state_and_start(self.pid)
        return found is not None and (found[0] in ENDED_STATES or found[1] != self.started)


def _state_and_start(pid: int) -> tuple[str, int] | None:
    """Linux: the state, and the clock ticks from boot to start; the name before them may hold anything."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return fields[0], int(fields[19])
    except (OSError, IndexError, ValueError):
        return None


@lru_cache(maxsize=1)
def _machine() -> str:
    """Empty where processes can't be told from those of other machines."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text()
        namespace = os.readlink("/proc/self/ns/pid")
    except OSError:
        return ""
    return hashlib.sha256(f"{boot} {namespace} {platform.node()}".encode()).hexdigest()[:16]
