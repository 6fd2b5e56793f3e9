"""Reads protobuf's text format without a schema: forks of Caffe add fields, and every one of them is to be read.

The grammar is protobuf's (Text Format Language Specification): `name: value`, `name { … }`, `name < … >`,
`name: [a, b]`, `,` or `;` between fields, `#` comments, adjacent strings joined. What a field means is decided by
`schema.decode`.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal, NamedTuple

from wootz.passes.errors import InputError

LARGEST_FILE = 16 * 2**20
"""Bytes. The largest networks known take 2 MB; a text file of weights is not read."""
DEEPEST_NESTING = 64

_TOKEN = re.compile(
    r"""(?P<space>(?:[\s\ufeff]|\#[^\n]*)+)
    |(?P<name>[A-Za-z_][\w./-]*)
    |(?P<number>(?:0[xX][0-9a-fA-F]+|(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)[fF]?)
    |(?P<string>"(?:[^"\\\n]|\\.)*"|'(?:[^'\\\n]|\\.)*')
    |(?P<mark>[{}<>\[\]:,;+-])""",
    re.VERBOSE,
)
_ESCAPE = re.compile(r"\\([0-7]{1,3}|x[0-9a-fA-F]{1,2}|.)")
_ESCAPED = {"n": "\n", "t": "\t", "r": "\r", "a": "\a", "b": "\b", "f": "\f", "v": "\v"}


@dataclass(frozen=True)
class Source:
    """The text that a message was read from."""

    file: str
    text: str

    @cached_property
    def _line_starts(self) -> list[int]:
        return [0, *(m.end() for m in re.finditer("\n", self.text))]

    def position(self, offset: int) -> tuple[int, int]:
        """Line and column of a character, both counted from 1."""
        line = bisect_right(self._line_starts, offset)
        return line, offset - self._line_starts[line - 1] + 1

    def error(self, message: str, offset: int) -> InputError:
        return InputError(message, self.file, *self.position(offset))


class Scalar(NamedTuple):
    """One value as it is written; strings are without quotes and escapes."""

    kind: Literal["name", "number", "string"]
    text: str


class Field(NamedTuple):
    name: str
    value: Scalar | Message
    offset: int


@dataclass(frozen=True)
class Message:
    """The fields between two braces, in their order; the whole file is one too."""

    fields: tuple[Field, ...]
    source: Source
    offset: int = 0

    def all(self, name: str) -> Iterator[Field]:
        return (f for f in self.fields if f.name == name)

    def messages(self, name: str) -> Iterator[Message]:
        """The values of the fields called `name`, which have to be messages."""
        for field in self.all(name):
            if isinstance(field.value, Scalar):
                raise self.source.error(f"{name} takes a message in braces, not {field.value.text!r}", field.offset)
            yield field.value

    def error(self, message: str, field: str | None = None) -> InputError:
        """An error at this message, or at its first field of that name."""
        offset = next((f.offset for f in self.fields if f.name == field), self.offset)
        return self.source.error(message, offset)


def read_prototxt(path: Path) -> Message:
    """The message in a text file. Raises InputError with line and column."""
    if not path.is_file():
        raise InputError("no such file", path)
    if path.stat().st_size > LARGEST_FILE:
        raise InputError(
            f"{path.stat().st_size / 2**20:.0f} MB of text; networks of up to {LARGEST_FILE >> 20} MB are read "
            f"(weights belong into a .caffemodel)",
            path,
        )
    content = path.read_bytes()
    check_download(content, path)
    return parse_prototxt(content.decode(errors="replace"), str(path))


def check_download(content: bytes, path: Path) -> None:
    """Raises InputError for what is stored, or downloaded, in the place of a file."""
    start = content[:200].lstrip(b"\xef\xbb\xbf \r\n\t").lower()
    if start.startswith(b"version https://git-lfs"):
        raise InputError("a Git LFS pointer, not the file itself: `git lfs pull` fetches it", path)
    if start.startswith((b"<!doctype html", b"<html", b"<?xml")):
        raise InputError("a web page, not the file itself: download the raw file", path)


def parse_prototxt(text: str, file: str = "<text>") -> Message:
    """The message that `text` holds. Raises InputError with line and column."""
    return _Parser(Source(file, text)).message()


class _Parser:
    def __init__(self, source: Source):
        self.source = source
        self.kind, self.token, self.offset = "space", "", 0
        self._next_offset = 0
        self._advance()

    def message(self) -> Message:
        """The whole text. An explicit stack holds the open messages: nesting costs no recursion."""
        fields: list[Field] = []
        open_messages: list[tuple[str, int, list[Field], str]] = []
        while self.kind != "end":
            if open_messages and self.token == open_messages[-1][3] and self.kind == "mark":
                name, offset, outer, _ = open_messages.pop()
                outer.append(Field(name, Message(tuple(fields), self.source, offset), offset))
                fields = outer
                self._advance()
                self._skip_separator()
                continue
            name, offset = self._field_name(), self._name_offset
            has_colon = self._take(":")
            if self.kind == "mark" and self.token in "{<":
                closing = "}" if self.token == "{" else ">"
                open_messages.append((name, offset, fields, closing))
                if len(open_messages) > DEEPEST_NESTING:
                    raise self._error(f"messages are nested more than {DEEPEST_NESTING} deep")
                fields = []
                self._advance()
                continue
            if not has_colon:
                raise self._error(f"expected ':' or '{{' after {name!r}, found {self._found()}")
            fields.extend(Field(name, value, offset) for value in self._values())
            self._skip_separator()
        if open_messages:
            name, offset, _, closing = open_messages[-1]
            raise self.source.error(f"{name!r} is opened here and never closed: {closing!r} is missing", offset)
        return Message(tuple(fields), self.source)

    def _field_name(self) -> str:
        self._name_offset = self.offset
        if self._take("["):
            name = self.token
            self._advance()
            if not self._take("]"):
                raise self._error(f"expected ']' after the extension's name, found {self._found()}")
            return name
        if self.kind != "name":
            raise self._error(f"expected the name of a field, found {self._found()}")
        name = self.token
        self._advance()
        return name

    def _values(self) -> Iterator[Scalar]:
        if not self._take("["):
            yield self._scalar()
            return
        while not self._take("]"):
            yield self._scalar()
            if not self._take(",") and self.token != "]":
                raise self._error(f"expected ',' or ']' in the list, found {self._found()}")

    def _scalar(self) -> Scalar:
        if self.kind == "string":
            parts = []
            while self.kind == "string":
                parts.append(_ESCAPE.sub(_unescape, self.token[1:-1]))
                self._advance()
            return Scalar("string", "".join(parts))
        sign = "-" if self._take("-") else ""
        if self.kind not in ("name", "number"):
            raise self._error(f"expected a value, found {self._found()}")
        scalar = Scalar("number" if sign or self.kind == "number" else "name", sign + self.token)
        self._advance()
        return scalar

    def _skip_separator(self) -> None:
        if self.kind == "mark" and self.token in ",;":
            self._advance()

    def _take(self, mark: str) -> bool:
        if self.kind != "mark" or self.token != mark:
            return False
        self._advance()
        return True

    def _advance(self) -> None:
        text = self.source.text
        self.kind = "space"
        while self.kind == "space":
            self.offset = self._next_offset
            if self.offset == len(text):
                self.kind, self.token = "end", ""
                return
            match = _TOKEN.match(text, self.offset)
            if match is None:
                raise self._error(f"the character {text[self.offset]!r} has no meaning here")
            self.kind, self.token = str(match.lastgroup), match.group()
            self._next_offset = match.end()

    def _found(self) -> str:
        return "the end of the file" if self.kind == "end" else repr(self.token)

    def _error(self, message: str) -> InputError:
        return self.source.error(message, self.offset)


def _unescape(match: re.Match[str]) -> str:
    code = match.group(1)
    if code[0] in "01234567":
        return chr(int(code, 8))
    if code[0] == "x" and len(code) > 1:
        return chr(int(code[1:], 16))
    return _ESCAPED.get(code, code)
