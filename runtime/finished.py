"""Whether there is anything left to do for a run."""

from __future__ import annotations

from importlib import metadata
from pathlib import Path

from wootz.passes.errors import InputError
from wootz.runtime.events import RunEnded, read_events
from wootz.runtime.result import RunResult
from wootz.runtime.run_directory import BEST_FILE, EVENTS_FILE, REPORT_FILE, TEACHER_FILE
from wootz.runtime.session import runtime_version


def finished_result(folder: Path) -> RunResult | None:
    """What the run in `folder` found, if it came to its end under this version of wootz and of ONNX Runtime.

    None where it has to go on, be it because a file is missing or damaged that it once wrote.
    """
    try:
        result = RunResult.load(folder)
        *_, last = read_events(folder / EVENTS_FILE)
    except InputError:
        return None
    files = (REPORT_FILE, TEACHER_FILE, *([] if result.best is None else [BEST_FILE]))
    has_ended = isinstance(last, RunEnded) and last.outcome in ("found", "nothing found")
    is_whole = has_ended and all((folder / name).is_file() for name in files)
    made_by = (result.environment.wootz, result.environment.runtime)
    return result if is_whole and made_by == (metadata.version("wootz"), runtime_version()) else None
