"""The user's own metric: a function of a network's outputs, or a class that sums up over batches."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import Any

import numpy as np

from wootz.passes.errors import InputError, WootzError
from wootz.passes.plan.metrics import METRICS, Metric
from wootz.runtime.data.dataset import Targets
from wootz.runtime.digest import digest
from wootz.runtime.quality.quality import Outputs, Quality, Tally
from wootz.runtime.user_code import UserCode, place_of, told_in_a_line

GIVEN = ("outputs", "targets", "full")
"""What a metric may ask for, by the names of its parameters; of two that are called otherwise the first ones."""


@dataclass(frozen=True)
class OwnMetric:
    """A function `(outputs, targets)` -> number, or a class with `add(outputs, targets)` and `value()`.

    It gets arrays, examples along the first axis: of a network with several outputs a dictionary of these, by name, and
    of targets that are one. A
    parameter `full` gets those of the full network. The attribute `higher_is_better`, True where there is none, says in
    which direction it is better.
    """

    function: Callable[..., Any] = field(repr=False)
    code: UserCode | None = None

    def __reduce__(self) -> tuple[Any, ...]:
        if self.code is not None:
            return _read_again, (self.code,)
        return _gone, (self.name,)

    @cached_property
    def name(self) -> str:
        return str(getattr(self.function, "__name__", "metric")) if self.code is None else self.code.name

    @cached_property
    def place(self) -> tuple[str, int]:
        file, line = place_of(self.function)
        return (file, line) if self.code is None else (self.code.file, line)

    @property
    def is_class(self) -> bool:
        return inspect.isclass(self.function)

    @cached_property
    def asks_for(self) -> tuple[str, ...]:
        """Which of GIVEN it gets, in the order of its parameters. Raises InputError for other parameters."""
        function: Any = getattr(self.function, "add", None) if self.is_class else self.function
        if not callable(function) or (self.is_class and not hasattr(self.function, "value")):
            raise InputError(f"{self.name} is no function, nor a class with add and value", *self.place)
        names = [name for name in inspect.signature(function).parameters if name != "self"]
        if set(names) <= set(GIVEN) and "outputs" in names:
            return tuple(names)
        if len(names) in (1, 2):
            return GIVEN[: len(names)]
        raise InputError(
            f"{self.name} takes {', '.join(names) or 'nothing'}: a metric takes outputs, and perhaps targets and full",
            *self.place,
        )

    @property
    def text(self) -> str:
        """All that its values depend on: its source."""
        source = self.code.source if self.code is not None else _source_of(self.function)
        return f"{self.name} of {source}"

    def metric(self) -> Metric:
        """Raises InputError for a name that is taken."""
        if self.name in METRICS:
            raise InputError(f"there is a metric {self.name} already: call it otherwise", *self.place)
        return Metric(
            self.name,
            higher_is_better=bool(getattr(self.function, "higher_is_better", True)),
            needs_training=True,
            needs_labels="targets" in self.asks_for,
        )

    def number(self, value: Any) -> float:
        """What it gave as a number. Raises InputError for anything else."""
        is_number = isinstance(value, int | float | np.number) or (isinstance(value, np.ndarray) and value.ndim == 0)
        if not is_number or isinstance(value, complex | np.complexfloating):
            raise InputError(f"{self.name} gave {type(value).__name__}, which is no number", *self.place)
        if not math.isfinite(value):
            raise InputError(f"{self.name} gave {float(value)}", *self.place)
        return float(value)


def own_quality(function: Callable[..., Any], code: UserCode | None = None) -> Quality:
    """The quality that a function or class of the user measures. Raises InputError where it is none."""
    own = OwnMetric(function, code)
    return Quality(own.metric(), partial(_begin, own), own.text, compares="full" in own.asks_for)


def read_quality(text: str) -> Quality:
    """The quality that `FILE.py:NAME` measures. Raises WootzError for what is none."""
    code = UserCode.of(text)
    if code is None:
        raise WootzError(f"--metric {text}: give FILE.py:NAME, the name of a function in a Python file")
    return own_quality(code.load(), code)


def _read_again(code: UserCode) -> OwnMetric:
    return OwnMetric(code.load(), code)


def _gone(name: str) -> OwnMetric:
    raise WootzError(f"the metric {name} is a function of another process: put it into a file, FILE.py:{name}")


def _source_of(function: Callable[..., Any]) -> str:
    try:
        return digest(inspect.getsource(function).encode())
    except (OSError, TypeError) as error:
        raise WootzError(f"the source of {function!r} is not known: put it into a file, FILE.py:NAME") from error


def _begin(own: OwnMetric) -> Tally:
    return _Checked(own, tuple(_Class(own) if own.is_class else _Function(own) for _ in range(2)))


@dataclass
class _Checked:
    """The same sums twice, which have to come to the same: beside the network's, a metric's time is short."""

    own: OwnMetric
    tallies: tuple[Tally, ...]

    def add(self, outputs: Outputs, full: Outputs, targets: Targets | None) -> None:
        for tally in self.tallies:
            tally.add(outputs, full, targets)

    @property
    def value(self) -> float:
        values = [tally.value for tally in self.tallies]
        if len(set(values)) > 1:
            said = f"{self.own.name} changes from call to call: {' and '.join(map(str, values))} of the same outputs"
            raise InputError(said, *self.own.place)
        return values[0]


@dataclass
class _Function:
    """Keeps all outputs until the function is called with them."""

    own: OwnMetric
    kept: dict[str, list[Any]] = field(default_factory=dict)

    def add(self, outputs: Outputs, full: Outputs, targets: Targets | None) -> None:
        given = {"outputs": outputs, "full": full, "targets": targets}
        for name in self.own.asks_for:
            self.kept.setdefault(name, []).append(given[name])

    @property
    def value(self) -> float:
        own = self.own
        with told_in_a_line(*own.place):
            found = own.function(*(_given(name, self.kept[name]) for name in own.asks_for))
        return own.number(found)


def _given(name: str, parts: list[Any]) -> Any:
    """Batches put together, in new arrays: what a function does to them is nobody else's concern. A single output comes
    as an array."""
    if isinstance(parts[0], Mapping):
        whole = {key: np.concatenate([part[key] for part in parts]) for key in parts[0]}
        return next(iter(whole.values())) if len(whole) == 1 and name != "targets" else whole
    return np.concatenate(parts)


@dataclass
class _Class:
    """Hands batches on to an instance of the class."""

    own: OwnMetric

    def __post_init__(self) -> None:
        with told_in_a_line(*self.own.place):
            self._instance = self.own.function()

    def add(self, outputs: Outputs, full: Outputs, targets: Targets | None) -> None:
        given: dict[str, list[Any]] = {"outputs": [outputs], "full": [full], "targets": [targets]}
        with told_in_a_line(*self.own.place):
            self._instance.add(*(_given(name, given[name]) for name in self.own.asks_for))

    @property
    def value(self) -> float:
        with told_in_a_line(*self.own.place):
            value = self._instance.value
            found = value() if callable(value) else value
        return self.own.number(found)
