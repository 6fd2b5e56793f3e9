"""What `wootz run` does for its other processes, and says of its folder, when it ends early."""

import errno
from pathlib import Path
from types import SimpleNamespace

import pytest

from wootz.passes.errors import WootzError
from wootz.tools.commands import run


@pytest.mark.parametrize(
    ("error", "status", "said"),
    [(KeyboardInterrupt(), 130, "interrupted"), (ValueError("broken"), 1, "error: process 1: broken")],
)
def test_what_ends_one_process_ends_the_others(monkeypatch, capsys, error, status, said):
    """The others wait for it in an exchange; after Ctrl-C they would wait forever."""
    ended = []
    monkeypatch.setattr(run, "abort", ended.append)
    with pytest.raises(type(error)), run._ending_all(SimpleNamespace(rank=1, size=2)):
        raise error
    assert ended == [status]
    assert capsys.readouterr().err.strip() == said
    with pytest.raises(type(error)), run._ending_all(SimpleNamespace(rank=0, size=1)):
        raise error
    assert ended == [status]


def test_an_interrupt_while_the_job_is_prepared_ends_the_others_too(monkeypatch):
    ended = []
    monkeypatch.setattr(run, "abort", ended.append)

    def prepare():
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run._on_all_processes(SimpleNamespace(rank=0, size=2), prepare)
    assert ended == [130]


def test_a_full_disk_is_told_with_the_folder():
    said = r"runs/mine: No space left on device: .* --resume"
    with pytest.raises(WootzError, match=said), run._writing_into(Path("runs/mine")):
        raise OSError(errno.ENOSPC, "No space left on device")
    with pytest.raises(FileNotFoundError, match=r"other\.txt"), run._writing_into(Path("runs/mine")):
        raise FileNotFoundError(errno.ENOENT, "No such file", "other.txt")
