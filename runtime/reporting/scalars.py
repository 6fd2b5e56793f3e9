"""The scalars of a run for TensorBoard: the one place that knows tensorboardX."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import Literal

from wootz.passes.errors import WootzError
from wootz.runtime.events import Event, Progress, TaskId, TaskKind, events_of
from wootz.runtime.result import Curve, FullNetworkResult, RunResult
from wootz.runtime.run_directory import RESULT_FILE

Measure = Literal["quality", "loss"]
Scalars = dict[TaskId, dict[Measure, dict[int, float]]]
"""Of each task, by step."""

FOLDERS: dict[TaskKind, str] = {
    "teacher": "teacher",
    "tuned": "tuned",
    "blocks": "blocks",
    "network": "network",
    "default network": "default",
}


def write_scalars(run: Path, folder: Path) -> int:
    """Writes quality and loss of each network, and the loss of each group of blocks, into subfolders of `folder`.

    Takes them from the run's events, and from its result where there is one already; says how many tasks these are.
    What it wrote there before is replaced. Raises WootzError without tensorboardX, or where no run has begun.
    """
    try:
        from tensorboardX import SummaryWriter
    except ImportError as missing:
        raise WootzError("tensorboardX is missing: install wootz[tensorboard]") from missing
    scalars = _of_events(events_of(run))
    if (run / RESULT_FILE).is_file():
        for task, curve in _curves(RunResult.load(run)):
            scalars[task]["quality"] = dict(curve)
    for task, measures in scalars.items():
        name = FOLDERS[task.kind] if task.kind in ("teacher", "tuned") else f"{FOLDERS[task.kind]}-{task.index}"
        for before in (folder / name).glob("events.out.tfevents.*"):
            before.unlink()
        with SummaryWriter(str(folder / name), write_to_disk=True) as writer:
            for measure, values in measures.items():
                for step, value in sorted(values.items()):
                    writer.add_scalar(measure, value, step)
    return len(scalars)


def _of_events(events: Iterable[Event]) -> Scalars:
    found: Scalars = defaultdict(lambda: {"quality": {}, "loss": {}})
    for event in events:
        if isinstance(event, Progress):
            measured: dict[Measure, float | None] = {"quality": event.quality, "loss": event.loss}
            for measure, value in measured.items():
                if value is not None:
                    found[event.task][measure][event.step] = value
    return found


def _curves(result: RunResult) -> Iterable[tuple[TaskId, Curve]]:
    if isinstance(result.full, FullNetworkResult) and result.full.curve:
        yield TaskId("teacher"), result.full.curve
    if isinstance(result.full, FullNetworkResult) and result.full.tuned is not None:
        yield TaskId("tuned"), result.full.tuned.curve
    for network in result.block_trained.trained:
        yield TaskId("network", network.index), network.curve
    if result.baseline is not None:
        for network in result.baseline.trained:
            yield TaskId("default network", network.index), network.curve
