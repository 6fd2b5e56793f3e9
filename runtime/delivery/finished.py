"""Whether there is anything left to do for a run."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import metadata
from pathlib import Path

from wootz.passes.errors import InputError
from wootz.runtime.delivery.description import read_description
from wootz.runtime.delivery.finish_pipelines import Pipeline
from wootz.runtime.events import RunEnded, read_events
from wootz.runtime.result import RunResult
from wootz.runtime.run_directory import (
    CHOSEN_FILES,
    DESCRIPTION_FILE,
    EVENTS_FILE,
    NETWORK_FILES,
    REPORT_FILE,
    digests_of_files,
    read_run_mark,
    whole_file,
)
from wootz.runtime.session import runtime_version


def finished_result(folder: Path) -> RunResult | None:
    """What the run in `folder` found, if it came to its end under this version of wootz and of ONNX Runtime.

    None where it has to go on, be it because a file is missing or damaged that it once wrote. Whether it has been
    finished with other pipelines than are now asked for, the result says.
    """
    try:
        result = RunResult.load(folder)
        *_, last = read_events(folder / EVENTS_FILE)
        mark = read_run_mark(folder)
        if result.best is not None:
            read_description(folder / DESCRIPTION_FILE)
    except InputError:
        return None
    has_ended = isinstance(last, RunEnded) and last.outcome in ("found", "nothing found")
    if mark is None:
        return None
    points = [] if result.search is None else [point.model for point in result.search.front]
    of_front = [name for point in points for name in (point, whole_file(point))]
    asked = {*NETWORK_FILES, *of_front, *mark.further}
    delivered = {name: known for name, known in mark.delivered.items() if name in asked}
    further = [name for name in mark.further if name in delivered]
    files = (*NETWORK_FILES, *of_front, *further)
    has_files = (folder / REPORT_FILE).is_file() and delivered == digests_of_files(folder, files)
    is_whole = has_ended and has_files
    made_by = (result.environment.wootz, result.environment.runtime)
    return result if is_whole and made_by == (metadata.version("wootz"), runtime_version()) else None


def has_chosen_files(folder: Path) -> bool:
    """Whether what the run in `folder` chose is as it was when it last began: objective, solvers and so on."""
    mark = read_run_mark(folder)
    return mark is not None and mark.chosen == digests_of_files(folder, CHOSEN_FILES)


def is_finished_as(result: RunResult, pipelines: Sequence[Pipeline]) -> bool:
    """Whether the best network, if there is one, has the further files that are asked for."""
    made = () if result.finishing is None else result.finishing.networks
    return result.best is None or [n.pipeline for n in made] == [pipeline.text for pipeline in pipelines]
