"""What Wootz keeps in a model's metadata, as JSON: read by type, since a file may hold anything."""

from __future__ import annotations

import json
import types
from collections.abc import Mapping
from dataclasses import MISSING, fields, is_dataclass
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from wootz.passes.errors import WootzError


def read_metadata(metadata: Mapping[str, str], key: str, kind: Any, absent: str = "") -> Any:
    """The value of an entry, that of `absent` where there is none. Raises WootzError if it is no `kind`.

    A kind is a dataclass, `tuple[X, ...]` or `tuple[X, Y]` (in JSON a list), `dict[str, X]`, a Literal, a union, or one
    of str, int, float, bool and the type of None.
    """
    try:
        return typed(json.loads(metadata.get(key, absent)), kind)
    except (ValueError, RecursionError) as error:
        reason = str(error) or "nested too deeply"
        raise WootzError(f"the metadata entry {key!r} is not what belongs there: {reason}") from error


def typed(value: Any, kind: Any, place: str = "") -> Any:
    """`value`, read from JSON, as a `kind` (see `read_metadata`).

    Raises ValueError with the place where it is something else.
    """
    origin, arguments = get_origin(kind), get_args(kind)
    if origin in (Union, types.UnionType):
        return _first_that_fits(value, arguments, place)
    if is_dataclass(kind) and isinstance(value, dict):
        return _dataclass(value, kind, place)
    if origin is tuple and isinstance(value, list):
        kinds = arguments[:1] * len(value) if arguments[-1] is ... else arguments
        if len(kinds) == len(value):
            return tuple(typed(v, k, f"{place}[{i}]") for i, (v, k) in enumerate(zip(value, kinds, strict=True)))
    if origin is dict and isinstance(value, dict):
        return {name: typed(item, arguments[1], f"{place}[{name!r}]") for name, item in value.items()}
    if origin is Literal and value in arguments:
        return value
    if kind is float and type(value) is int:
        return float(value)
    if type(value) is kind:
        return value
    raise ValueError(f"{f'at {place} ' if place else ''}there is {json.dumps(value)[:50]}")


def _first_that_fits(value: Any, kinds: tuple[Any, ...], place: str) -> Any:
    for kind in kinds[:-1]:
        try:
            return typed(value, kind, place)
        except ValueError:
            continue
    return typed(value, kinds[-1], place)


def _dataclass(value: dict[str, Any], kind: Any, place: str) -> Any:
    hints = get_type_hints(kind)
    if unknown := value.keys() - hints.keys():
        raise ValueError(f"{f'at {place} ' if place else ''}there is a field {min(unknown)!r}")
    missing = [f.name for f in fields(kind) if f.default is MISSING and f.name not in value]
    if missing:
        raise ValueError(f"{f'at {place} ' if place else ''}the field {missing[0]!r} is missing")
    return kind(**{name: typed(item, hints[name], f"{place}.{name}") for name, item in value.items()})
