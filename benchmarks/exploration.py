"""Where the seconds of a whole run go: steps, evaluation, building, hashing, and so on.

    python benchmarks/exploration.py net.onnx --data photographs/ [options of `wootz run`] [--json]

The run is done in this process, with a store of its own. Each second counts for the innermost of the functions below
that is under way in the main thread; batches are prepared by another one, so that `batches` is what is waited for them.
With --cpu and one thread (--threads 1) they are CPU seconds, which other work on the machine changes less.
The last line with --json: seconds by kind, and `kernels`, the share of steps and evaluation.
"""

from __future__ import annotations

import argparse
import functools
import json
import queue
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any

from machine import machine

from wootz.passes.pruning.block_pruner import BlockPruner
from wootz.passes.registry import pass_class, pass_names
from wootz.runtime import session
from wootz.runtime.digest import array_digest, digest
from wootz.runtime.store import Store
from wootz.runtime.tasks.program import compiler_digest
from wootz.runtime.tasks.recipe import Digests
from wootz.tools.cli import wootz as command

KERNELS = ("steps", "evaluation")
REST = "rest"


@dataclass
class Clock:
    """Seconds and calls by kind, in the thread that made it: of nested kinds the innermost one has the time."""

    seconds: dict[str, float] = field(default_factory=dict)
    calls: dict[str, int] = field(default_factory=dict)
    _under_way: list[str] = field(default_factory=lambda: [REST])
    now: Callable[[], float] = time.perf_counter
    _since: float = 0.0
    _thread: int = field(default_factory=threading.get_ident)

    def start(self) -> None:
        self._since = self.now()

    def turn(self) -> None:
        """Gives the seconds since the last turn to what is under way."""
        now = self.now()
        kind = self._under_way[-1]
        self.seconds[kind] = self.seconds.get(kind, 0.0) + now - self._since
        self._since = now

    def counting(self, kind: str, function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def counted(*arguments: Any, **named: Any) -> Any:
            if threading.get_ident() != self._thread:
                return function(*arguments, **named)
            self.turn()
            self._under_way.append(kind)
            self.calls[kind] = self.calls.get(kind, 0) + 1
            try:
                return function(*arguments, **named)
            finally:
                self.turn()
                self._under_way.pop()

        return counted


def methods() -> Iterator[tuple[str, type, str]]:
    """What counts as what: methods by their names."""
    yield "steps", session.TrainingSession, "run"
    for evaluator in (session.InferenceSession, session.WeightedSession):
        yield from (("evaluation", evaluator, name) for name in ("run", "outputs"))
    yield "evaluation", session.TensorSession, "run"
    moving = ("put", "put_whole", "read_slot", "write_slot", "weights", "device_weights")
    yield from (("moving weights and batches", session.TrainingSession, name) for name in moving)
    yield "moving weights and batches", session.WeightedSession, "set_weights"
    yield "waiting for batches", queue.Queue, "get"
    yield "checking pruned networks", session.ExactSession, "run"
    yield from (("building graphs", pass_class(name), "apply") for name in pass_names())
    yield from (("building graphs", BlockPruner, name) for name in ("of", "plan", "materialize", "student"))
    yield "hashing", Digests, "program"
    yield from (("store", Store, name) for name in ("get", "get_record", "put", "put_checkpoint", "get_checkpoint"))


def functions() -> Iterator[tuple[str, Callable[..., Any]]]:
    yield "opening sessions", session._open
    yield from (("hashing", function) for function in (digest, array_digest, compiler_digest))


def count_all(clock: Clock) -> None:
    """Puts the clock around all that counts, wherever it was imported."""
    for kind, owner, name in methods():
        own = vars(owner)[name]
        counted = clock.counting(kind, own.__func__ if isinstance(own, classmethod) else own)
        setattr(owner, name, classmethod(counted) if isinstance(own, classmethod) else counted)
    modules = [module for name, module in sys.modules.items() if name.startswith("wootz.")]
    for kind, function in functions():
        counted = clock.counting(kind, function)
        for module in modules:
            for name in [name for name, value in vars(module).items() if value is function]:
                setattr(module, name, counted)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--cpu", action="store_true", help="CPU seconds of the main thread: on a busy machine")
    options, of_run = parser.parse_known_args()
    import_module("wootz.tools.commands.run")  # all that a run needs is there before it is replaced
    clock = Clock(now=time.thread_time if options.cpu else time.perf_counter)
    count_all(clock)
    clock.start()
    with tempfile.TemporaryDirectory() as folder:
        command.main(["run", *of_run, "--store", f"{folder}/store", "--out", f"{folder}/run"], standalone_mode=False)
    clock.turn()
    whole = sum(clock.seconds.values())
    print(f"\n{machine()}: {whole:.1f} s\n\n| what | seconds | of all | calls |\n| --- | --- | --- | --- |")
    for kind, seconds in sorted(clock.seconds.items(), key=lambda item: -item[1]):
        print(f"| {kind} | {seconds:.2f} | {100 * seconds / whole:.1f} % | {clock.calls.get(kind, '')} |")
    kernels = sum(clock.seconds.get(kind, 0.0) for kind in KERNELS) / whole
    if options.json:
        print(json.dumps({**{kind: round(s, 3) for kind, s in clock.seconds.items()}, "kernels": round(kernels, 4)}))


if __name__ == "__main__":
    main()
