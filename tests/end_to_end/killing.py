"""`wootz` in a process that ends itself at a chosen moment, writes checkpoints all the time, and whose clock jumps.

    killing.py FOLDER MOMENT ARGUMENTS-OF-WOOTZ...

MOMENT is `{"task": …, "what": …, "count": …, "signal": …, "group": …, "delay": …}` in JSON: the count-th time that
`what` is about to happen while a task of the kind `task` is under way ("": none), or seconds after that. With
`"checkpoints": "rare"` they are as rare as always. `steps.txt` in FOLDER gets a line for each training that is begun,
with its kind and the first step that it makes.
"""

from __future__ import annotations

import fnmatch
import json
import os
import random
import signal
import sys
import threading
import time
from pathlib import Path

OPERATIONS = ("open", "os.rename", "os.remove", "os.mkdir", "os.listdir", "os.scandir", "os.utime")
WRITES = {
    "entry": "*/entries/*.entry",
    "checkpoint": "*/checkpoints/*.entry",
    **{name: f"*/{name}" for name in ("run.json", "job.pickle", "best.onnx", "teacher.onnx", "result.json")},
    "report.html": "*/report.html",
}
DAY = 24 * 3600


class Killer:
    def __init__(self, folder: Path, moment: dict):
        self.folder, self.moment, self.left = folder, moment, moment.get("count", 0)
        self.task, self.begun = "", False

    def happens(self, what: str, task: str) -> bool:
        """Whether this is the moment."""
        if self.left and what == self.moment["what"] and task == self.moment.get("task", task):
            self.left -= 1
            return self.left == 0
        return False

    def strike(self) -> None:
        number = signal.Signals[self.moment.get("signal", "SIGKILL")]
        if self.moment.get("group"):
            os.killpg(0, number)
        else:
            os.kill(os.getpid(), number)

    def on_operation(self, event: str, arguments: tuple) -> None:
        if event not in OPERATIONS or not str(arguments[0]).startswith(str(self.folder)):
            return
        if self.happens("operation", self.task):
            self.strike()
        if event in ("os.rename", "os.remove"):
            self.on_change(str(arguments[1] if event == "os.rename" else arguments[0]), event == "os.remove")

    def on_change(self, file: str, is_removal: bool) -> None:
        for name, pattern in WRITES.items():
            if fnmatch.fnmatch(file, pattern) and self.happens(f"{'removal of ' * is_removal}{name}", self.task):
                self.strike()

    def install(self) -> None:
        write, real_time, jumps = os.write, time.time, random.Random(0)
        time.time = lambda: real_time() + jumps.choice((-DAY, 0, DAY))
        sys.addaudithook(self.on_operation)

        def watched_write(descriptor: int, line: bytes) -> int:
            if not line.startswith(b'{"event":'):
                return write(descriptor, line)
            event = json.loads(line)
            task = event.get("task", {}).get("kind", "")
            if self.happens(event["event"], task):
                if "delay" in self.moment:
                    threading.Timer(self.moment["delay"], self.strike).start()
                else:
                    write(descriptor, line[: len(line) // 2])
                    self.strike()
            if event["event"] == "task started":
                self.task, self.begun = task, False
            if event["event"] == "task ended":
                self.task = ""
            return write(descriptor, line)

        os.write = watched_write

    def watch_trainings(self) -> None:
        from wootz.runtime import training
        from wootz.runtime.tasks import trainer, training_run

        if self.moment.get("checkpoints") != "rare":
            training_run.SECONDS_BETWEEN_CHECKPOINTS, training_run.LEAST_SHARE_OF_TRAINING = 0.0, 0
        rehearse, advance = trainer.Trainer.rehearse, training.HostSteps.advance

        def watched_rehearsal(own, *arguments):
            if self.happens("rehearsal", self.task):
                self.strike()
            return rehearse(own, *arguments)

        def watched_advance(own, first, stop):
            if self.task and not self.begun:
                self.begun = True
                with (self.folder / "steps.txt").open("a") as file:
                    file.write(f"{self.task}: {first}\n")
            if self.happens("step", self.task):
                self.strike()
            return advance(own, first, stop)

        trainer.Trainer.rehearse, training.HostSteps.advance = watched_rehearsal, watched_advance


def main() -> None:
    from wootz.tools.cli import run_command, wootz

    killer = Killer(Path(sys.argv[1]), json.loads(sys.argv[2]))
    killer.watch_trainings()
    killer.install()
    run_command(wootz, sys.argv[3:])


if __name__ == "__main__":
    main()
