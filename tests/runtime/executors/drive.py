"""A program that has toys performed, as users start theirs: `drive.py FOLDER OPTIONS NAME:NUMBER...`.

OPTIONS are those of `gathered`, as JSON; "silence_limit" is the engine's, and with "retry" failures are tried again.
How the toys ended is left in FOLDER/ended.pickle. Those called until-cancelled are cancelled when they have begun.
"""

import json
import pickle
import signal
import sys
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
from toys import Toy, play

from wootz.passes.errors import WootzError
from wootz.runtime.executors.engine import Ended, Engine
from wootz.runtime.executors.retrying import Retrying
from wootz.runtime.executors.team import gathered

ENDED = "ended.pickle"


def end(*_: object) -> None:
    raise SystemExit(143)


def main(folder: Path, options: dict, toys: list[Toy]) -> None:
    silence_limit, retry = options.pop("silence_limit", 600), options.pop("retry", False)
    with gathered(**options) as team:
        if team is None:
            return
        signal.signal(signal.SIGTERM, end)
        with team.engine(partial(play, folder), folder / "logs", silence_limit) as engine:
            ended = performed(Retrying(engine, lambda _: None) if retry else engine, folder, toys)
    (folder / ENDED).write_bytes(pickle.dumps(ended))


def performed(engine: Engine, folder: Path, toys: list[Toy]) -> list[Ended]:
    """All toys, as many at once as there are workers."""
    left, ended, under_way = list(toys), [], set()
    while left or under_way:
        while left and len(under_way) < engine.workers:
            engine.start(left[0])
            under_way.add(left.pop(0))
        to_cancel = {toy for toy in under_way if toy.name == "until-cancelled"}
        for toy in to_cancel:
            if (folder / f"began-{toy.number}").exists():
                engine.cancel(toy)
        told = engine.wait(0.1 if to_cancel else None)
        ended += told
        under_way -= {e.task for e in told}
    return ended


def toy(text: str) -> Toy:
    name, _, number = text.partition(":")
    return Toy(name, int(number or 0))


if __name__ == "__main__":
    try:
        main(Path(sys.argv[1]), json.loads(sys.argv[2]), [toy(text) for text in sys.argv[3:]])
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(130)
    except WootzError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(1)
