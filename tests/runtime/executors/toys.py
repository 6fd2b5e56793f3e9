"""Tasks for workers of all kinds: what they do is in their name."""

import errno
import os
import signal
import sys
import time
import warnings
from dataclasses import dataclass
from pathlib import Path

from wootz.passes.errors import StorageError, WootzError
from wootz.runtime.executors.control import Control, Stopped


@dataclass(frozen=True)
class Toy:
    """`name` chooses what is done; `number` tells tasks of one name apart."""

    name: str
    number: int = 0

    def __str__(self) -> str:
        return f"{self.name} {self.number}"


def play(folder: Path, toy: Toy, control: Control) -> object:
    """Performs a toy. `folder` is where toys leave notes."""
    match toy.name:
        case "square":
            return toy.number**2
        case "sleep":
            time.sleep(toy.number / 1000)
            return toy.number
        case "slow":
            (folder / f"began-{toy.number}").touch()
            time.sleep(3)
            return None
        case "place":
            return control.place, os.getpid()
        case "full disk":
            raise StorageError(f"/data/{toy.number}: can't be written")
        case "full folder":
            raise OSError(errno.ENOSPC, "No space left on device", "/run/snapshot")
        case "write":
            sys.stdout.write("written by Python\n")
            os.write(2, b"written by native code\n")
            warnings.warn("a warning", stacklevel=1)
            return None
        case "fail":
            raise ZeroDivisionError("on purpose")
        case "refuse":
            raise WootzError("the data is at fault")
        case "unpicklable":
            return lambda: None
        case "die":
            os.kill(os.getpid(), signal.SIGKILL)
        case "die-once":
            note = folder / f"died-{toy.number}"
            if not note.exists():
                note.touch()
                os.kill(os.getpid(), signal.SIGKILL)
            return control.place.worker
        case "fail-once":
            note = folder / f"failed-{toy.number}"
            if not note.exists():
                note.write_text(str(control.place.worker))
                raise ZeroDivisionError("on purpose")
            return int(note.read_text()), control.place.worker
        case "until-stopped" | "until-cancelled":
            (folder / f"began-{toy.number}").touch()
            while not control.should_stop():
                time.sleep(0.01)
            raise Stopped
        case "never-ending":
            (folder / f"began-{toy.number}").touch()
            while True:
                time.sleep(1)
    raise AssertionError(toy.name)
