"""Measures the networks beside this file and writes their latency table: python measure.py -o table.json

It needs numpy and onnxruntime (1.16 or newer) alone: `wootz latency MODEL --export FOLDER` copies it into a folder for
another machine, beside the networks and their list. Wootz itself measures by its functions, too.
"""

from __future__ import annotations

import argparse
import datetime
import json
import platform
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

CPU = "CPUExecutionProvider"
WARM_UP = 3
"""Runs of each network before the first round."""
LEAST_ROUNDS, MOST_ROUNDS = 20, 200
FENCE = 3
"""Times more than so many interquartile ranges outside of the quartiles are outliers."""
FINEST_TICK = 1e-6
"""Seconds: a clock of processor time that ticks more rarely (on Windows) isn't used."""
Clock = Callable[[], float]
LIST = "networks.json"
TYPES = {
    "tensor(float)": np.float32,
    "tensor(float16)": np.float16,
    "tensor(double)": np.float64,
    "tensor(bool)": np.bool_,
    **{f"tensor({kind}{bits})": np.dtype(f"{kind}{bits}").type for kind in ("int", "uint") for bits in (8, 16, 32, 64)},
}


def clock_for(provider: str, threads: int) -> Clock:
    """What times a run: with one thread the processor's time, in which those of other programs don't count."""
    is_fine = time.get_clock_info("thread_time").resolution <= FINEST_TICK
    return time.thread_time if provider == CPU and threads == 1 and is_fine else time.perf_counter


def take_turns(
    runs: Sequence[Callable[[], object]], seconds: float, clock: Clock, now: Clock = time.perf_counter
) -> list[list[float]]:
    """Milliseconds of each run by `clock`, one a round, in rounds that take about so many seconds in all by `now`.

    Runs take turns, so that what slows the machine down for a while slows down all of them. Each that counts is the
    second of two: weights are then as near to the processor as where one network runs again and again.
    """
    for run in runs:
        for _ in range(WARM_UP):
            run()
    rounds: list[list[float]] = []
    end = now() + seconds
    while len(rounds) < LEAST_ROUNDS or (len(rounds) < MOST_ROUNDS and now() < end):
        rounds.append([_second_of_two(run, clock) for run in runs])
    columns: list[list[float]] = np.array(rounds).T.tolist()
    return columns


def _second_of_two(run: Callable[[], object], clock: Clock) -> float:
    run()
    begin = clock()
    run()
    return 1000 * (clock() - begin)


def summary(times: Sequence[float], images: int) -> dict[str, float]:
    """The median and the quartiles, in milliseconds for one image, of `times` that are for so many images at once."""
    low, median, high = (float(value) / images for value in np.percentile(times, (25, 50, 75)))
    margin = FENCE * (high - low)
    outliers = sum(not low - margin <= ms / images <= high + margin for ms in times)
    return {"low_ms": low, "median_ms": median, "high_ms": high, "runs": len(times), "outliers": outliers}


def fill(table: Any, places: Sequence[Sequence[str | int]], found: Sequence[dict[str, float]]) -> None:
    """Puts what was found of each network into its row of the table, to which names and positions lead."""
    for number, place in enumerate(places):
        row = table
        for step in place:
            row = row[step]
        row["times"] = found[number]


def machine() -> str:
    """The name of this computer, its system and its processor."""
    return " ".join(filter(None, (platform.node(), platform.system(), platform.processor() or platform.machine())))


def main() -> None:
    asked = _asked()
    folder = Path(__file__).resolve().parent
    table, networks = _listed(folder / LIST)
    if not asked.out.parent.is_dir():
        raise SystemExit(f"{asked.out}: there is no such folder")
    runs = [_opened(folder / str(network["file"]), network["shape"], asked) for network in networks]
    batch, clock = table["measured_on"]["batch"], clock_for(asked.provider, asked.threads)
    found = [summary(times, batch) for times in take_turns(runs, asked.seconds, clock)]
    fill(table, [network["row"] for network in networks], found)
    table["measured_on"].update(
        runtime=f"onnxruntime {_runtime().__version__}",
        provider=asked.provider,
        threads=asked.threads,
        machine=machine(),
        date=datetime.date.today().isoformat(),
    )
    try:
        asked.out.write_text(json.dumps(table, indent=1) + "\n")
    except OSError as error:
        raise SystemExit(f"{asked.out}: can't be written: {error.strerror}") from None


def _asked() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Measures the networks beside this file.")
    parser.add_argument("-o", "--out", type=Path, default="table.json", help="the file to write (default: table.json)")
    parser.add_argument("--threads", type=int, default=1, help="default: 1")
    parser.add_argument("--provider", default=CPU, help="as ONNX Runtime calls it (default: the CPU)")
    parser.add_argument("--seconds", type=float, default=20, help="that measuring takes, but 20 rounds at least")
    asked = parser.parse_args()
    if asked.threads < 1:
        parser.error("--threads: 1 or more")
    if not asked.seconds >= 0:
        parser.error("--seconds: 0 or more")
    return asked


def _listed(file: Path) -> tuple[Any, Any]:
    """The table to be filled in, and the networks, whose rows are in it."""
    try:
        listed = json.loads(file.read_text())
        table, networks = listed["table"], listed["networks"]
        fill(table, [network["row"] for network in networks], [{} for _ in networks])
        if not networks or table["measured_on"]["batch"] < 1 or not all({"file", "shape"} <= {*n} for n in networks):
            raise ValueError("networks, their files and shapes, or the batch are missing")
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise SystemExit(f"{file}: missing or damaged ({_reason(error)}): export the folder again") from None
    return table, networks


def _opened(file: Path, shape: Any, asked: argparse.Namespace) -> Callable[[], object]:
    """A network's run on zeros, after the first one."""
    runtime = _runtime()
    options = runtime.SessionOptions()
    options.intra_op_num_threads = asked.threads
    options.log_severity_level = 3
    options.add_session_config_entry("session.force_spinning_stop", "1")  # else threads disturb the next network's turn
    if asked.provider not in runtime.get_available_providers():
        raise SystemExit(f"no {asked.provider} here, but {', '.join(runtime.get_available_providers())}")
    if not file.is_file():
        raise SystemExit(f"{file}: missing: export the folder again")
    try:
        session = runtime.InferenceSession(str(file), options, providers=[asked.provider])
        first, *others = session.get_inputs()
        zeros = {t.name: np.zeros(t.shape, TYPES[t.type]) for t in others}
        run = partial(session.run, None, {first.name: np.zeros(shape, TYPES[first.type]), **zeros})
        run()
    except Exception as error:  # ONNX Runtime has no type for all of its errors
        raise SystemExit(f"{file}: damaged, or can't be run here ({_reason(error)})") from None
    if asked.provider not in session.get_providers():
        raise SystemExit(f"{asked.provider} can't be started here")
    return run


def _runtime() -> Any:
    import onnxruntime

    return onnxruntime


def _reason(error: Exception) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())


if __name__ == "__main__":
    main()
