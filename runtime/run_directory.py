"""The folder that a run writes into."""

from __future__ import annotations

import shutil
from pathlib import Path

from wootz.passes.errors import WootzError

BEST_FILE = "best.onnx"
TEACHER_FILE = "teacher.onnx"
RESULT_FILE = "result.json"
REPORT_FILE = "report.html"
STORE_FOLDER = "store"
SNAPSHOT_FOLDER = "snapshots"
PLOT_SUFFIX = ".png"


def check_run_directory(folder: Path, resume: bool, overwrite: bool) -> None:
    """Raises WootzError when `folder` can't be written into as asked."""
    if folder.exists() and not folder.is_dir():
        raise WootzError(f"{folder} is a file: --out names a folder")
    if not folder.exists() or not any(folder.iterdir()):
        return
    if not (folder / STORE_FOLDER).is_dir() and not (folder / RESULT_FILE).is_file():
        raise WootzError(f"{folder} holds files that are not a run's: choose another --out")
    if not resume and not overwrite:
        raise WootzError(
            f"{folder} already holds a run: --resume continues it (what is finished is reused), --overwrite "
            f"starts anew, --out chooses another folder"
        )


def clear_results(folder: Path, keep_store: bool) -> None:
    """Removes what an earlier run wrote; with `keep_store`, what it trained stays."""
    if not keep_store:
        shutil.rmtree(folder / STORE_FOLDER, ignore_errors=True)
        shutil.rmtree(folder / SNAPSHOT_FOLDER, ignore_errors=True)
    for name in (BEST_FILE, TEACHER_FILE, RESULT_FILE, REPORT_FILE):
        (folder / name).unlink(missing_ok=True)
    for plot in folder.glob(f"*{PLOT_SUFFIX}"):
        plot.unlink()
