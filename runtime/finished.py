"""Whether there is anything left to do for a run."""

from __future__ import annotations

from importlib import metadata
from pathlib import Path

from wootz.passes.errors import InputError
from wootz.runtime.events import RunEnded, read_events
from wootz.runtime.result import RunResult
from wootz.runtime.run_directory import EVENTS_FILE, REPORT_FILE, digests_of_networks, read_run_mark
from wootz.runtime.session import runtime_version


def finished_result(folder: Path) -> RunResult | None:
    """What the run in `folder` found, if it came to its end under this version of wootz and of ONNX Runtime.

    None where it has to go on, be it because a file is missing or damaged that it once wrote.
    """
    try:
        result = RunResult.load(folder)
        *_, last = read_events(folder / EVENTS_FILE)
        mark = read_run_mark(folder)
    except InputError:
        return None
    has_ended = isinstance(last, RunEnded) and last.outcome in ("found", "nothing found")
    has_files = (folder / REPORT_FILE).is_file() and mark is not None and mark.delivered == digests_of_networks(folder)
    is_whole = has_ended and has_files
    made_by = (result.environment.wootz, result.environment.runtime)
    return result if is_whole and made_by == (metadata.version("wootz"), runtime_version()) else None
