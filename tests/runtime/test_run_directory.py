"""What a run may write into, what it clears, and what it leaves."""

import pytest

from wootz.passes.errors import WootzError
from wootz.runtime.run_directory import check_run_directory, prepare_run_directory


def folder_with(root, names):
    for name in names:
        file = root / name
        if name.endswith("/"):
            file.mkdir(parents=True)
        else:
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text("content")
    return root


@pytest.mark.parametrize(
    "names",
    [
        ["teacher.onnx"],
        [".teacher.onnx.123"],
        ["teacher.onnx", "snapshots/full_iter_10.npz"],
        ["store/"],
        ["result.json", "report.html", "notes.txt"],
        ["store/abc.npz", "notes.txt"],
        ["events.jsonl"],
    ],
)
def test_a_run_that_was_killed_at_any_time_is_known_as_one(tmp_path, names):
    folder = folder_with(tmp_path, names)
    with pytest.raises(WootzError, match="already holds a run: --resume"):
        check_run_directory(folder, resume=False, overwrite=False)
    check_run_directory(folder, resume=True, overwrite=False)
    check_run_directory(folder, resume=False, overwrite=True)


@pytest.mark.parametrize("names", [["thesis.txt"], ["teacher.onnx", "thesis.txt"], [".hidden"], ["plot.png"]])
def test_other_files_are_not_touched(tmp_path, names):
    folder = folder_with(tmp_path, names)
    for resume, overwrite in ((False, False), (True, False), (False, True)):
        with pytest.raises(WootzError, match="files that are not a run's"):
            check_run_directory(folder, resume, overwrite)


def test_a_new_or_an_empty_folder_will_do(tmp_path):
    check_run_directory(tmp_path, False, False)
    check_run_directory(tmp_path / "new" / "er", False, False)
    prepare_run_directory(tmp_path / "new" / "er", keep_store=False)
    with pytest.raises(WootzError, match="already holds a run"):
        check_run_directory(tmp_path / "new" / "er", False, False)


@pytest.mark.parametrize("keep", [False, True])
def test_what_was_trained_is_kept_or_not_and_results_never(tmp_path, keep):
    trained = ["store/abc.npz", "snapshots/full_iter_10.npz", "events.jsonl"]
    written = [
        "best.onnx",
        "teacher.onnx",
        "result.json",
        "report.html",
        "sizes.png",
        ".best.onnx.12",
        "store/.a.npz.7",
    ]
    folder_with(tmp_path, [*trained, *written, "notes.txt"])
    prepare_run_directory(tmp_path, keep_store=keep)
    assert (tmp_path / "store").is_dir()
    assert [(tmp_path / name).exists() for name in trained] == [keep] * 3
    assert not [name for name in written if (tmp_path / name).exists()]
    assert (tmp_path / "notes.txt").exists()


def test_a_run_is_either_continued_or_replaced(tmp_path):
    with pytest.raises(WootzError, match="give one of them"):
        check_run_directory(folder_with(tmp_path, ["store/"]), resume=True, overwrite=True)
