from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wootz.frontend.caffe.prototxt import LARGEST_FILE, Message, Scalar, parse_prototxt, read_prototxt
from wootz.passes.errors import InputError


def plain(message: Message) -> list[tuple[str, object]]:
    return [(f.name, plain(f.value) if isinstance(f.value, Message) else f.value.text) for f in message.fields]


@pytest.mark.parametrize(
    ("text", "fields"),
    [
        ("a: 1 b: -2.5e3", [("a", "1"), ("b", "-2.5e3")]),
        ("a: 'x' \"y\"", [("a", "xy")]),
        (r'a: "tab\tquote\" octal\101 hex\x41"', [("a", 'tab\tquote" octalA hexA')]),
        ("a { b: true } a: { b: false }", [("a", [("b", "true")]), ("a", [("b", "false")])]),
        ("a < b: MAX >", [("a", [("b", "MAX")])]),
        ("a: [1, 2,3] b: []", [("a", "1"), ("a", "2"), ("a", "3")]),
        ("a: 1, b: 2; c { d: 3 };", [("a", "1"), ("b", "2"), ("c", [("d", "3")])]),
        ("# comment { \r\na: 1 # more\n", [("a", "1")]),
        ("\ufeffa: 1.", [("a", "1.")]),
        ("[some.extension] { a: .5 }", [("some.extension", [("a", ".5")])]),
        ("a: 0x1F b: 1f c: inf d: - 3", [("a", "0x1F"), ("b", "1f"), ("c", "inf"), ("d", "-3")]),
        ("", []),
    ],
)
def test_reads_the_text_format(text: str, fields: list[tuple[str, object]]) -> None:
    assert plain(parse_prototxt(text)) == fields


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("layer {\n  name: 'a'\n", "net:1:1: 'layer' is opened here and never closed: '}' is missing"),
        ("a: 1\n}", "net:2:1: expected the name of a field, found '}'"),
        ("a { b: 1 >", "net:1:10: expected the name of a field, found '>'"),
        ("a 1", "net:1:3: expected ':' or '{' after 'a', found '1'"),
        ("\n  a: \n", "net:3:1: expected a value, found the end of the file"),
        ("a: 'open\n", 'net:1:4: the character "\'" has no meaning here'),
        ("a: [1 2]", "net:1:7: expected ',' or ']' in the list, found '2'"),
        ("a: 1 %", "net:1:6: the character '%' has no meaning here"),
        ("a {" * 65, "net:1:195: messages are nested more than 64 deep"),
    ],
)
def test_an_error_has_line_and_column(text: str, message: str) -> None:
    with pytest.raises(InputError) as error:
        parse_prototxt(text, "net")
    assert str(error.value) == message


def test_a_file_that_is_too_large_is_not_read(tmp_path) -> None:
    file = tmp_path / "net.prototxt"
    with file.open("wb") as sparse:
        sparse.truncate(LARGEST_FILE + 1)
    with pytest.raises(InputError, match="16 MB of text"):
        read_prototxt(file)


def test_a_missing_file_is_named(tmp_path) -> None:
    with pytest.raises(InputError, match=r"none\.prototxt: no such file"):
        read_prototxt(tmp_path / "none.prototxt")


def test_text_in_another_encoding_is_read(tmp_path) -> None:
    file = tmp_path / "net.prototxt"
    file.write_bytes("# 层\nname: 'a'".encode("gbk"))
    assert plain(read_prototxt(file)) == [("name", "a")]


names = st.from_regex(r"[a-z_][a-z0-9_]{0,8}", fullmatch=True)
scalars = st.one_of(
    st.text(st.characters(codec="ascii", exclude_categories=["Cc"]), max_size=12).map(lambda t: Scalar("string", t)),
    st.integers(-(2**40), 2**40).map(lambda n: Scalar("number", str(n))),
    names.map(lambda n: Scalar("name", n)),
)
messages = st.recursive(
    st.lists(st.tuples(names, scalars), max_size=4),
    lambda inner: st.lists(st.tuples(names, st.one_of(scalars, inner)), max_size=4),
    max_leaves=20,
)


def write(fields: list) -> str:
    parts = []
    for name, value in fields:
        if isinstance(value, list):
            parts.append(f"{name} {{ {write(value)} }}")
        elif value.kind == "string":
            escaped = value.text.replace("\\", "\\\\").replace('"', '\\"')
            parts.append(f'{name}: "{escaped}"')
        else:
            parts.append(f"{name}: {value.text}")
    return "\n".join(parts)


@given(messages)
def test_what_is_written_is_read_back(fields: list) -> None:
    def simple(value: object) -> object:
        return value.text if isinstance(value, Scalar) else [(n, simple(v)) for n, v in value]  # type: ignore[attr-defined]

    assert plain(parse_prototxt(write(fields))) == [(n, simple(v)) for n, v in fields]


@given(st.text(max_size=200))
def test_any_text_is_read_or_refused(text: str) -> None:
    with contextlib.suppress(InputError):
        assert isinstance(parse_prototxt(text), Message)
