from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

import pytest

from wootz.frontend.caffe.prototxt import parse_prototxt
from wootz.frontend.caffe.schema import NoEffect, Unsigned, decode
from wootz.passes.errors import InputError


class Method(Enum):
    MAX = 0
    AVE = 1


@dataclass(frozen=True)
class Inner:
    value: float = 0.0


@dataclass(frozen=True)
class Outer:
    size: Unsigned
    offset: int = 0
    sizes: tuple[Unsigned, ...] = ()
    flag: bool = False
    method: Method = Method.MAX
    name: str = ""
    inner: Inner | None = None
    engine: NoEffect | None = None


def read(text: str) -> Outer:
    return decode(parse_prototxt(text, "net"), Outer, "outer")


def test_fields_get_their_types_and_defaults() -> None:
    text = "size: 3 offset: -010 sizes: 1 sizes: [0x10, 3] flag: true method: 1 inner { value: 1e-3 } engine: CUDNN"
    assert read(text) == Outer(3, -8, (1, 16, 3), True, Method.AVE, "", Inner(0.001))
    assert read("size: 3") == Outer(3)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "net:1:1: outer: the field 'size' is missing"),
        ("size: 3\n  sise: 4", "net:2:3: outer has a field 'sise' that is not understood: did you mean 'size'?"),
        (
            "size: 3 quux: 1",
            "net:1:9: outer has a field 'quux' that is not understood: remove it if it can't change the result",
        ),
        ("size: 3 size: 4", "net:1:9: outer.size is given twice, with different values"),
        ("size: -3", "net:1:1: outer.size takes an integer that is not negative, not '-3'"),
        ("size: 1.5", "net:1:1: outer.size takes an integer, not '1.5'"),
        ("size: 99999999999", "net:1:1: outer.size takes an integer of at most 2147483647, not '99999999999'"),
        ("size: 1 flag: yes", "net:1:9: outer.flag takes true or false, not 'yes'"),
        ("size: 1 method: MIN", "net:1:9: outer.method takes one of MAX, AVE, not 'MIN'"),
        ("size: 1 inner: 2", "net:1:9: outer.inner takes a message in braces, not '2'"),
        ("size { }", "net:1:1: outer.size takes a value, not a message"),
        ("size: 1 inner { value: nan }", "net:1:17: outer.inner.value takes a number, not 'nan'"),
    ],
)
def test_what_does_not_fit_is_named_with_its_place(text: str, message: str) -> None:
    with pytest.raises(InputError) as error:
        read(text)
    assert str(error.value) == message


def test_a_value_that_is_repeated_is_harmless() -> None:
    assert read("size: 3 size: 3").size == 3
