"""A digest of Python code that a program hands over: of all that its values depend on, as far as that can be known."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from types import CodeType, FunctionType
from typing import Any

import numpy as np

from wootz.passes.errors import WootzError
from wootz.runtime.digest import array_digest, digest

PLAIN = (bool, int, float, complex, str, bytes, type(None), type(Ellipsis))
"""Values that their `repr` says, and that nobody changes."""


def unwrapped(function: Any) -> Any:
    """What a `functools.partial` is of, and partials of it; anything else itself."""
    while isinstance(function, partial):
        function = function.func
    return function


def code_digest(function: Callable[..., Any]) -> str:
    """Of a function, a class, or a partial of one, the same in any process:

    1. its source; where that isn't known, as on standard input or of a lambda, its byte code, which another version of
       Python has otherwise;
    2. the arguments of a partial: plain values, arrays, tuples, lists and dictionaries of them, code;
    3. plain values that are its defaults, or outside of it and read, and the code of its own module that it reads.

    Raises WootzError for code that isn't known, and for other arguments.
    """
    return _Digesting(getattr(unwrapped(function), "__module__", "")).of(function)


@dataclass(frozen=True)
class _Digesting:
    """Follows code within one module; what is `seen` already isn't followed again."""

    module: str
    seen: set[int] = field(default_factory=set)

    def of(self, value: Any) -> str:
        return digest(*(part.encode() for part in self._parts(value)))

    def _parts(self, value: Any) -> Iterator[str]:
        yield type(value).__name__
        match value:
            case np.ndarray() if value.dtype != object:
                yield array_digest(value)
            case _ if isinstance(value, (*PLAIN, np.generic)):
                yield repr(value)
            case tuple() | list():
                yield from map(self.of, value)
            case dict():
                yield from (self.of(item) for item in value.items())
            case frozenset() | set():
                yield from sorted(map(self.of, value))
            case partial():
                yield from map(self.of, (value.func, value.args, sorted(value.keywords.items())))
            case CodeType():
                yield value.co_code.hex()
                yield from map(self.of, (value.co_names, value.co_varnames, value.co_freevars, value.co_consts))
            case _ if inspect.isclass(value) or inspect.isroutine(value):
                yield from self._parts_of_code(value)
            case _:
                raise WootzError(f"what of {value!r} a metric depends on isn't known: put it into a file, FILE.py:NAME")

    def _parts_of_code(self, value: Any) -> Iterator[str]:
        yield value.__name__
        if id(value) in self.seen:
            return
        self.seen.add(id(value))
        source = _source(value)
        yield source or ""
        members = dict(sorted(vars(value).items())) if inspect.isclass(value) else {value.__name__: value}
        functions = [function for member in members.values() if (function := _function_of(member)) is not None]
        if source is None and not functions:
            raise WootzError(f"the source of {value!r} is not known: put it into a file, FILE.py:NAME")
        for function in functions:
            yield from self._parts_of_function(function, source is not None)
        if inspect.isclass(value):
            bases = (base for base in value.__bases__ if base.__module__ == self.module and base is not object)
            yield from map(self.of, bases)
            plain = {
                name: member for name, member in members.items() if not name.startswith("__") and _is_plain(member)
            }
            yield self.of(plain)

    def _parts_of_function(self, function: FunctionType, has_source: bool) -> Iterator[str]:
        if not has_source:
            yield self.of(function.__code__)
        for value in (*(function.__defaults__ or ()), *(function.__kwdefaults__ or {}).values()):
            yield self.of(value) if _is_plain(value) else type(value).__name__
        read = inspect.getclosurevars(function)
        for name, value in sorted({**read.globals, **read.nonlocals}.items()):
            is_code = inspect.isclass(value) or inspect.isfunction(value)
            if _is_plain(value) or (is_code and value.__module__ == self.module):
                yield from (name, self.of(value))


def _is_plain(value: Any) -> bool:
    return isinstance(value, PLAIN) or (isinstance(value, tuple) and all(map(_is_plain, value)))


def _function_of(member: Any) -> FunctionType | None:
    """That of a function, a method, or a member of a class; None for anything else."""
    if isinstance(member, property):
        member = member.fget
    member = inspect.unwrap(getattr(member, "__func__", member))
    return member if isinstance(member, FunctionType) else None


def _source(value: Any) -> str | None:
    """None where it isn't known, and for a lambda, of which there may be others in its line."""
    with suppress(OSError, TypeError):
        return None if value.__name__ == "<lambda>" else inspect.getsource(value)
    return None
