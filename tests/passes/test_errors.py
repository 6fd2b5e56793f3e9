"""Errors are one line, and what a reader meets in a damaged file becomes one."""

from __future__ import annotations

import pytest

from wootz.passes.errors import LONGEST_MESSAGE, InputError, PassError, WootzError, one_line, reading


def test_a_message_is_one_line_of_bounded_length_whatever_the_names_in_it() -> None:
    assert len(one_line("\x00" * 10**6)) <= LONGEST_MESSAGE + 3
    name = "a\nb\x00\u2028\ud800é" + "x" * 10**6
    for error in (WootzError(name), InputError(name, "net\n.onnx", 1, 2), PassError("verify", name, name)):
        message = str(error)
        assert message.isprintable()
        assert len(message) <= 2 * LONGEST_MESSAGE
    assert str(InputError("wrong", "net.onnx", 1, 2)) == "net.onnx:1:2: wrong"
    assert one_line("a\nb é") == "a\\nb é"


@pytest.mark.parametrize(
    ("raised", "said"),
    [
        (ValueError("bad\nsecond line"), "f.h5: not weights, or damaged (ValueError: bad)"),
        (RecursionError(), "f.h5: not weights, or damaged (RecursionError)"),
        (OSError("unable to open"), "f.h5: not weights, or damaged (OSError: unable to open)"),
        (PermissionError(13, "Permission denied", "f.h5"), "f.h5: can't be read: Permission denied"),
        (MemoryError(), "f.h5: too large for the memory, or damaged: not weights that can be read"),
        (WootzError("layer 'a': says more"), "layer 'a': says more"),
    ],
)
def test_the_boundary_of_a_reader_names_the_file(raised: Exception, said: str) -> None:
    with pytest.raises(WootzError) as error, reading("f.h5", "weights"):
        raise raised
    assert str(error.value) == said
    assert not isinstance(raised, WootzError) or error.value is raised


def test_an_interrupt_passes_the_boundary() -> None:
    with pytest.raises(KeyboardInterrupt), reading("f.h5", "weights"):
        raise KeyboardInterrupt
