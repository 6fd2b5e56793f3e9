"""The folder that a run writes into."""

from __future__ import annotations

import shutil
from pathlib import Path

from wootz.passes.errors import WootzError

BEST_FILE = "best.onnx"
TEACHER_FILE = "teacher.onnx"
RESULT_FILE = "result.json"
EVENTS_FILE = "events.jsonl"
REPORT_FILE = "report.html"
FILES = (BEST_FILE, TEACHER_FILE, RESULT_FILE, REPORT_FILE)
STORE_FOLDER = "store"
SNAPSHOT_FOLDER = "snapshots"
PLOT_SUFFIX = ".png"


def check_run_directory(folder: Path, resume: bool, overwrite: bool) -> None:
    """Raises WootzError when `folder` can't be written into as asked."""
    if resume and overwrite:
        raise WootzError("--resume keeps what --overwrite removes: give one of them")
    if folder.exists() and not folder.is_dir():
        raise WootzError(f"{folder} is a file: --out names a folder")
    if not folder.exists() or not any(folder.iterdir()):
        return
    if not _is_a_runs(folder):
        raise WootzError(f"{folder} holds files that are not a run's: choose another --out")
    if not resume and not overwrite:
        raise WootzError(
            f"{folder} already holds a run: --resume continues it (what is finished is reused), --overwrite "
            f"starts anew, --out chooses another folder"
        )


def _is_a_runs(folder: Path) -> bool:
    """Whether a run wrote into `folder`, or nothing but what a run writes is there: it may have been killed early."""
    if (folder / STORE_FOLDER).is_dir() or (folder / RESULT_FILE).is_file():
        return True
    return all(_is_written_by_runs(file.name) for file in folder.iterdir())


def _is_written_by_runs(name: str) -> bool:
    return name in (*FILES, EVENTS_FILE, STORE_FOLDER, SNAPSHOT_FOLDER) or any(
        name.startswith(f".{file}.") for file in FILES
    )


def prepare_run_directory(folder: Path, keep_store: bool) -> None:
    """Makes `folder` a run's. What an earlier run wrote goes; with `keep_store`, what it trained stays."""
    if not keep_store:
        shutil.rmtree(folder / STORE_FOLDER, ignore_errors=True)
        shutil.rmtree(folder / SNAPSHOT_FOLDER, ignore_errors=True)
        (folder / EVENTS_FILE).unlink(missing_ok=True)
    (folder / STORE_FOLDER).mkdir(parents=True, exist_ok=True)
    for name in FILES:
        (folder / name).unlink(missing_ok=True)
        for partial in folder.glob(f".{name}.*"):
            partial.unlink()
    for partial in (folder / STORE_FOLDER).glob(".*"):
        partial.unlink()
    for plot in folder.glob(f"*{PLOT_SUFFIX}"):
        plot.unlink()
