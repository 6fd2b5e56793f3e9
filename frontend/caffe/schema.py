"""Turns a message of the text format into a frozen dataclass that names its fields, their types and defaults.

A field's type is `int`, `float`, `bool`, `str`, an `Enum`, another such dataclass, `X | None` where the absence means
something, `tuple[X, …]` where the field is repeated, or `NoEffect` for a field that can't change the result.
A field that the dataclass does not have is an error: it could change the result in a way nobody here knows.
"""

from __future__ import annotations

import dataclasses
import difflib
import math
import types
from collections.abc import Callable, Collection
from enum import Enum
from functools import cache
from keyword import iskeyword
from typing import Annotated, Any, TypeVar, Union, cast, get_args, get_origin, get_type_hints

from wootz.frontend.caffe.prototxt import Field, Message, Scalar
from wootz.passes.errors import InputError

LARGEST_INTEGER = 2**31 - 1
LONGEST_SLIP = 2
"""Letters that a misspelt word has more or less."""

T = TypeVar("T")


class NoEffect:
    """The type of a field that is known and has no influence on what the network computes."""


Unsigned = Annotated[int, "not negative"]
"""The type of a field that can't be negative."""


def decode(message: Message, schema: type[T], where: str) -> T:
    """`message` as an instance of `schema`. `where` names the message in errors.

    Raises InputError with line and column for a field that is unknown, repeated, missing or of the wrong type.
    """
    kind: Any = schema
    hints = field_types(kind)
    values: dict[str, Any] = {}
    repeated: dict[str, list[Any]] = {}
    for field in message.fields:
        if field.name not in hints:
            raise unknown_field(field, message, hints, where)
        hint = hints[field.name]
        element = _element_type(hint)
        if element is NoEffect:
            continue
        value = _value(field, element, message, where)
        if get_origin(hint) is tuple:
            repeated.setdefault(field.name, []).append(value)
        elif values.get(field.name, value) != value:
            raise message.source.error(f"{where}.{field.name} is given twice, with different values", field.offset)
        else:
            values[field.name] = value
    values.update({name: tuple(items) for name, items in repeated.items()})
    values = {f"{name}_" if iskeyword(name) else name: value for name, value in values.items()}
    for required in required_fields(kind):
        if required not in values:
            raise message.error(f"{where}: the field {required!r} is missing")
    return schema(**values)


def unknown_field(field: Field, message: Message, known: Collection[str], where: str) -> InputError:
    """The error for a field that nobody here understands, with the closest name that is."""
    meant = misspelt(field.name, known)
    hint = f"did you mean {meant!r}?" if meant else "remove it if it can't change the result"
    return message.source.error(f"{where} has a field {field.name!r} that is not understood: {hint}", field.offset)


def misspelt(word: str, known: Collection[str]) -> str | None:
    """The word that `word` may be a slip of; not one that merely shares letters with it."""
    lowered = {k.lower(): k for k in known if abs(len(k) - len(word)) <= LONGEST_SLIP}
    close = difflib.get_close_matches(word.lower(), lowered, n=1, cutoff=0.65)
    return lowered[close[0]] if close else None


@cache
def field_types(schema: Any) -> dict[str, Any]:
    """Field name -> type annotation, resolved. A name that is a word of Python has an underscore behind it there."""
    return {name.removesuffix("_"): hint for name, hint in get_type_hints(schema, include_extras=True).items()}


@cache
def required_fields(schema: Any) -> tuple[str, ...]:
    return tuple(
        f.name
        for f in dataclasses.fields(schema)
        if f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING
    )


def _element_type(hint: Any) -> Any:
    """`X` of `X | None` and of `tuple[X, …]`."""
    if get_origin(hint) in (Union, types.UnionType, tuple):
        return next(a for a in get_args(hint) if a is not type(None))
    return hint


def _value(field: Field, kind: Any, message: Message, where: str) -> Any:
    if isinstance(field.value, Message):
        if not dataclasses.is_dataclass(kind):
            raise message.source.error(f"{where}.{field.name} takes a value, not a message", field.offset)
        return decode(field.value, cast(type, kind), f"{where}.{field.name}")
    try:
        return _scalar(field.value, kind)
    except ValueError as expected:
        found = repr(field.value.text)
        raise message.source.error(f"{where}.{field.name} takes {expected}, not {found}", field.offset) from None


def _scalar(scalar: Scalar, kind: Any) -> Any:
    """`scalar` as a `kind`. Raises ValueError that says what is expected."""
    if dataclasses.is_dataclass(kind):
        raise ValueError("a message in braces")
    if isinstance(kind, type) and issubclass(kind, Enum):
        return _enumerator(scalar, kind)
    readers: dict[Any, Callable[[Scalar], Any]] = {
        bool: _boolean,
        int: _integer,
        Unsigned: _unsigned,
        float: _floating,
        str: lambda scalar: scalar.text,
    }
    return readers[kind](scalar)


def _enumerator(scalar: Scalar, kind: type[Enum]) -> Enum:
    for name, member in kind.__members__.items():
        if scalar.text in (name, str(member.value)):
            return member
    raise ValueError(f"one of {', '.join(m.name for m in kind)}")


def _boolean(scalar: Scalar) -> bool:
    if scalar.text in ("true", "True", "t", "1"):
        return True
    if scalar.text in ("false", "False", "f", "0"):
        return False
    raise ValueError("true or false")


def _integer(scalar: Scalar) -> int:
    digits = scalar.text.lstrip("-")
    octal = len(digits) > 1 and digits.isdigit() and digits.startswith("0")
    try:
        value = int(scalar.text, 8 if octal else 0)
    except ValueError:
        raise ValueError("an integer") from None
    if not -LARGEST_INTEGER - 1 <= value <= LARGEST_INTEGER:
        raise ValueError(f"an integer of at most {LARGEST_INTEGER}")
    return value


def _unsigned(scalar: Scalar) -> int:
    value = _integer(scalar)
    if value < 0:
        raise ValueError("an integer that is not negative")
    return value


def _floating(scalar: Scalar) -> float:
    try:
        value = float(scalar.text.rstrip("fF") if scalar.kind == "number" else scalar.text)
    except ValueError:
        raise ValueError("a number") from None
    if math.isnan(value):
        raise ValueError("a number")
    return value
