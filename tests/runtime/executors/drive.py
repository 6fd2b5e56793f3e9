"""A program that has tasks performed, to be interrupted: `drive.py FOLDER OPTIONS TOY...`, options as JSON.

A toy is NAME or NAME:NUMBER. Prints how each task ended; the processes that were started leave notes in FOLDER.
"""

import json
import signal
import sys
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
from toys import Toy, play

from wootz.runtime.executors.team import gathered


def end(*_: object) -> None:
    raise SystemExit(143)


def main(folder: Path, options: dict, toys: list[Toy]) -> None:
    with gathered(**options) as team:
        if team is None:
            return
        signal.signal(signal.SIGTERM, end)
        with team.engine(partial(play, folder), folder / "logs") as engine:
            left, under_way = list(toys), 0
            while left or under_way:
                while left and under_way < engine.workers:
                    engine.start(left.pop(0))
                    under_way += 1
                for ended in engine.wait():
                    under_way -= 1
                    print(ended.task, "|", ended.worker, "|", ended.how, flush=True)


def toy(text: str) -> Toy:
    name, _, number = text.partition(":")
    return Toy(name, int(number or 0))


if __name__ == "__main__":
    try:
        main(Path(sys.argv[1]), json.loads(sys.argv[2]), [toy(text) for text in sys.argv[3:]])
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(130)
