"""Pipelines: their text, and running them.

A pipeline is passes with options, `prune-blocks{rates=0.3,0.5 criterion=l2},fold-batchnorm`. Options are parsed by the
types of the pass's fields: numbers, `true` and `false`, text (in double quotes where it has blanks or braces), one of
several words, lists `a,b`, lists of lists `a/b,c`, tables `key:value,key:value`. Some pipelines have names, which stand
for them in others.
"""

from __future__ import annotations

import dataclasses
import difflib
import json
import re
import time
import types
import typing
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import Enum
from pathlib import Path
from typing import Any, Literal, Union

from wootz.passes.base import Pass, PassResult
from wootz.passes.errors import PassError, VerificationError, WootzError
from wootz.passes.ir.model import Model
from wootz.passes.ir.text import print_text
from wootz.passes.ir.verifier import verify
from wootz.passes.registry import PIPELINES, PassClasses, pass_class

# Text


def parse_pipeline(text: str, loaded: PassClasses | None = None) -> tuple[Pass, ...]:
    """The passes of `a,b{x=1}`. `loaded` are passes beside the registered ones.

    Where there is the name of a pipeline, `training{attach-loss.loss=mse}`, there are its passes.
    Raises WootzError for an unknown pass or option, naming the closest one, and for a value of the wrong type.
    """
    return tuple(pass_ for part in _split_passes(text) for pass_ in _parse_part(part, loaded))


def _parse_part(text: str, loaded: PassClasses | None) -> tuple[Pass, ...]:
    """A pass, or the passes of a pipeline that has a name."""
    name, options = _name_and_options(text)
    if name not in PIPELINES or (loaded and name in loaded):
        return (parse_pass(text, loaded),)
    passes = parse_pipeline(PIPELINES[name])
    of_passes: dict[str, list[tuple[str, str]]] = {pass_.name: [] for pass_ in passes}
    for key, value in options:
        pass_name, _, option = key.rpartition(".")
        if pass_name not in of_passes:
            raise WootzError(
                f"pipeline {name}: {key!r} is no option of a pass in it, PASS.OPTION (passes: {', '.join(of_passes)})"
            )
        of_passes[pass_name].append((option, value))
    return tuple(replace(pass_, **_values(type(pass_), of_passes[pass_.name])) for pass_ in passes)


def parse_pass(text: str, loaded: PassClasses | None = None) -> Pass:
    """The pass of `name` or `name{option=value option=value}`."""
    name, options = _name_and_options(text)
    cls = pass_class(name, loaded)
    return cls(**_values(cls, options))


def _name_and_options(text: str) -> tuple[str, list[tuple[str, str]]]:
    match = re.fullmatch(r"\s*([\w-]+)\s*(?:\{(.*)\})?\s*", text, re.DOTALL)
    if match is None:
        raise WootzError(f"{text.strip()!r} is no pass: NAME or NAME{{option=value …}}")
    return match[1], _split_options(match[2] or "", match[1])


def _values(cls: type[Pass], options: Sequence[tuple[str, str]]) -> dict[str, Any]:
    """The fields of a pass that options set."""
    types_of = typing.get_type_hints(cls)
    known = {f.name.replace("_", "-"): f for f in cls.options()}
    values: dict[str, Any] = {}
    for key, value in options:
        option = key.replace("_", "-")
        if option not in known:
            close = difflib.get_close_matches(option, known, n=1)
            hint = f"did you mean {close[0]!r}?" if close else f"it has {', '.join(known) or 'none'}"
            raise WootzError(f"pass {cls.name} has no option {key!r}: {hint}")
        attribute = known[option].name
        if attribute in values:
            raise WootzError(f"pass {cls.name}: option {option} is given twice")
        try:
            values[attribute] = parse_value(value, types_of[attribute])
        except ValueError as error:
            raise WootzError(f"pass {cls.name}, option {option}: {error}") from error
    return values


def print_pass(pass_: Pass) -> str:
    """The text of a pass: its name, and its options where they aren't the defaults."""
    options = [
        f"{f.name.replace('_', '-')}={print_value(value)}"
        for f in pass_.options()
        if (value := getattr(pass_, f.name)) != _default(f)
    ]
    return f"{pass_.name}{{{' '.join(options)}}}" if options else pass_.name


def print_pipeline(passes: Sequence[Pass]) -> str:
    """The text that `parse_pipeline` reads back."""
    return ",".join(print_pass(p) for p in passes)


def parse_value(text: str, expected: Any, inside: bool = False) -> Any:
    """A value of the type `expected`; a list `inside` a list or table is written with `/`.

    Raises ValueError that says what is expected.
    """
    origin, arguments = typing.get_origin(expected), typing.get_args(expected)
    if origin in (Union, types.UnionType):
        return _parse_union(text, [a for a in arguments if a is not type(None)], inside)
    if origin is Literal:
        if text not in arguments:
            raise ValueError(f"{text!r} is none of {', '.join(map(str, arguments))}")
        return text
    if origin is tuple:
        separator = "/" if inside else ","
        return tuple(parse_value(part, arguments[0], inside=True) for part in text.split(separator)) if text else ()
    if origin is not None and issubclass(origin, Mapping):
        pairs = (part.rpartition(":") for part in text.split(",") if part)
        return {parse_value(k, arguments[0]): parse_value(v, arguments[1], inside=True) for k, _, v in pairs}
    return _parse_scalar(text, expected)


def print_value(value: Any, inside: bool = False) -> str:
    """The text that `parse_value` reads back."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, Enum):
        return str(value.value)
    if isinstance(value, tuple):
        return ("/" if inside else ",").join(print_value(v, inside=True) for v in value)
    if isinstance(value, Mapping):
        return ",".join(f"{k}:{print_value(v, inside=True)}" for k, v in value.items())
    if isinstance(value, float):
        return repr(value)
    text = str(value)
    return json.dumps(text) if not text or re.search(r"[\s{}\",=]", text) else text


def _parse_union(text: str, members: Sequence[Any], inside: bool) -> Any:
    failures = []
    for member in members:
        try:
            return parse_value(text, member, inside)
        except ValueError as error:
            failures.append(str(error))
    raise ValueError(failures[0])


def _parse_scalar(text: str, expected: Any) -> Any:
    if expected is bool:
        if text not in ("true", "false"):
            raise ValueError(f"{text!r} is neither true nor false")
        return text == "true"
    if isinstance(expected, type) and issubclass(expected, Enum):
        choices = {str(member.value): member for member in expected}
        if text not in choices:
            raise ValueError(f"{text!r} is none of {', '.join(choices)}")
        return choices[text]
    if expected in (int, float):
        try:
            return expected(text)
        except ValueError:
            raise ValueError(f"{text!r} is not {'a whole number' if expected is int else 'a number'}") from None
    if expected in (str, Path):
        return expected(text)
    raise TypeError(f"options can't have the type {expected}")


def _default(f: dataclasses.Field[Any]) -> Any:
    return f.default_factory() if f.default_factory is not dataclasses.MISSING else f.default


def _split_passes(text: str) -> list[str]:
    """The parts between commas outside of braces and quotes; none of a blank text."""
    parts, depth, quoted, escaped, start = [], 0, False, False, 0
    for i, c in enumerate(text):
        if escaped or (quoted and c == "\\"):
            escaped = not escaped
        elif c == '"':
            quoted = not quoted
        elif not quoted:
            depth += {"{": 1, "}": -1}.get(c, 0)
            if c == "," and depth == 0:
                parts.append(text[start:i])
                start = i + 1
    if depth or quoted:
        fault = "the braces don't match" if depth else "a quotation mark isn't closed"
        raise WootzError(f"pipeline {text!r}: {fault}")
    parts.append(text[start:])
    if text.strip() and not all(part.strip() for part in parts):
        raise WootzError(f"pipeline {text!r}: there is no pass before or behind a comma")
    return parts if text.strip() else []


_OPTION = re.compile(r"""[\s,]*([\w.-]+)\s*=\s*("(?:[^"\\]|\\.)*"|(?:[^\s,"]|,(?!\s*[\w.-]+\s*=|\s))*)[\s,]*""")


def _split_options(text: str, name: str) -> list[tuple[str, str]]:
    """The pairs of `a=1 b=x,y c="with blanks"`; a comma between options will do as well."""
    pairs, position = [], 0
    while text[position:].strip():
        match = _OPTION.match(text, position)
        if match is None:
            raise WootzError(f"pass {name}: {text[position:].strip()!r} is no option (option=value)")
        pairs.append((match[1], _unquoted(match[2])))
        position = match.end()
    return pairs


def _unquoted(text: str) -> str:
    if not text.startswith('"'):
        return text
    try:
        return str(json.loads(text))
    except ValueError as error:
        raise WootzError(f"{text} is no quoted text: {error}") from error


# Running


@dataclass(frozen=True)
class Step:
    """What one pass did; `seconds` is its time, without the verification after it."""

    pass_: Pass
    result: PassResult
    seconds: float


@dataclass(frozen=True)
class PipelineResult:
    """The model at the end, and the steps that led there."""

    model: Model
    steps: tuple[Step, ...] = ()


@dataclass(frozen=True)
class Observers:
    """What is called around each pass; an error that an observer raises stops the pipeline."""

    before: Sequence[Callable[[Pass, Model], None]] = field(default=())
    after: Sequence[Callable[[Step, Model], None]] = field(default=())


def ir_printer(
    write: Callable[[str], object],
    before: Collection[str] = (),
    after: Collection[str] | None = (),
    text: Callable[[Model], str] = print_text,
) -> Observers:
    """Writes the model, as `text` prints it, around the passes that are named; `after` None: behind each."""

    def write_before(pass_: Pass, model: Model) -> None:
        if pass_.name in before:
            write(f"# ----- IR before {pass_.name} -----\n{text(model)}")

    def write_after(step: Step, model: Model) -> None:
        if after is None or step.pass_.name in after:
            write(f"# ----- IR after {step.pass_.name} -----\n{text(step.result.model)}")

    return Observers(before=[write_before], after=[write_after])


def run_pipeline(
    model: Model, passes: Sequence[Pass], verify_each: bool = True, observers: Observers | None = None
) -> PipelineResult:
    """Runs `passes` in order; with `verify_each`, the model is verified before the first and after each.

    `observers.before` get the pass and the model that goes in, `observers.after` the step and the same model.
    Raises VerificationError or PassError, which name the pass and those that had run before it.
    """
    observers = observers or Observers()
    if verify_each:
        _verify(model, "before the first pass")
    steps: list[Step] = []
    for pass_ in passes:
        for before in observers.before:
            before(pass_, model)
        step = _run_pass(pass_, model, steps)
        if verify_each:
            _verify(step.result.model, f"after {print_pass(pass_)}{_history(steps)}")
        for after in observers.after:
            after(step, model)
        steps.append(step)
        model = step.result.model
    return PipelineResult(model, tuple(steps))


def _run_pass(pass_: Pass, model: Model, steps: Sequence[Step]) -> Step:
    start = time.perf_counter()
    try:
        result = pass_.apply(model)
    except PassError as error:
        raise PassError(error.pass_name, f"{error.reason}{_history(steps)}", error.where) from error
    except WootzError as error:
        raise PassError(pass_.name, f"{error}{_history(steps)}") from error
    except Exception as error:
        error.add_note(f"in pass {print_pass(pass_)}{_history(steps)}")
        raise
    return Step(pass_, result, time.perf_counter() - start)


def _verify(model: Model, when: str) -> None:
    try:
        verify(model)
    except VerificationError as error:
        raise VerificationError(f"{error} ({when})") from error


def _history(steps: Sequence[Step]) -> str:
    return f" (after {', '.join(step.pass_.name for step in steps)})" if steps else ""
