"""What `wootz run` says of its folder when it ends early."""

import errno
from pathlib import Path

import pytest

from wootz.passes.errors import WootzError
from wootz.tools import carry_out


def test_a_full_disk_is_told_with_the_folder():
    said = r"runs/mine: No space left on device: .* the same command continues"
    with pytest.raises(WootzError, match=said), carry_out._writing_into(Path("runs/mine")):
        raise OSError(errno.ENOSPC, "No space left on device")
    with pytest.raises(ConnectionResetError), carry_out._writing_into(Path("runs/mine")):
        raise ConnectionResetError(errno.ECONNRESET, "Connection reset by peer")
    with pytest.raises(FileNotFoundError, match=r"other\.txt"), carry_out._writing_into(Path("runs/mine")):
        raise FileNotFoundError(errno.ENOENT, "No such file", "other.txt")
