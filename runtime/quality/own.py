"""The user's own metric: a function of a network's outputs, or a class that sums up over batches."""

from __future__ import annotations

import inspect
import math
import pickle
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import Any

import numpy as np

from wootz.passes.errors import InputError, WootzError
from wootz.passes.plan.metrics import METRICS, Metric
from wootz.runtime.code_digest import code_digest, unwrapped
from wootz.runtime.data.dataset import Targets
from wootz.runtime.quality.quality import Outputs, Quality, Tally
from wootz.runtime.user_code import UserCode, place_of, told_in_a_line

GIVEN = ("outputs", "targets", "full")
"""What a metric may ask for, by the names of its parameters; of two that are called otherwise the first ones."""


@dataclass(frozen=True)
class OwnMetric:
    """A function `(outputs, targets)` -> number, or a class with `add(outputs, targets)` and `value()`.

    It gets arrays, examples along the first axis: of a network with several outputs a dictionary of these, by name, and
    of targets that are one. A parameter `full` gets those of the full network; others that have defaults keep them. The
    attribute `higher_is_better`, True where there is none, says in which direction it is better. A
    `functools.partial` of either is one, too.
    """

    function: Callable[..., Any] = field(repr=False)
    code: UserCode | None = None

    def __reduce__(self) -> tuple[Any, ...]:
        if self.code is not None:
            return _read_again, (self.code,)
        return _gone, (self.name,)

    @cached_property
    def name(self) -> str:
        """As an objective may call it: what has no such name, as a lambda, is called `metric`."""
        name = str(getattr(self.whole, "__name__", "")) if self.code is None else self.code.name
        return name if name.isidentifier() else "metric"

    @cached_property
    def whole(self) -> Any:
        """The function or class, of a partial that which it is of."""
        return unwrapped(self.function)

    @cached_property
    def place(self) -> tuple[str, int]:
        file, line = place_of(self.whole)
        return (file, line) if self.code is None else (self.code.file, line)

    @property
    def is_class(self) -> bool:
        return inspect.isclass(self.whole)

    @property
    def asks_for(self) -> tuple[str, ...]:
        """Which of GIVEN it gets. Raises InputError for other parameters."""
        return tuple(self._by_name)

    @cached_property
    def _by_name(self) -> Mapping[str, bool]:
        """Which of GIVEN it gets, in the order of its parameters, and whether by their names."""
        taken, is_behind = dict[str, bool](), False
        for parameter in self._parameters():
            if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
                continue
            if parameter.default is not parameter.empty and parameter.name not in GIVEN:
                is_behind = True
            else:
                taken[parameter.name] = is_behind or parameter.kind is parameter.KEYWORD_ONLY
        if set(taken) <= set(GIVEN) and "outputs" in taken:
            return taken
        if len(taken) in (1, 2) and not any(taken.values()):
            return dict.fromkeys(GIVEN[: len(taken)], False)
        raise InputError(
            f"{self.name} takes {', '.join(taken) or 'nothing'}: a metric takes outputs, and perhaps targets and full",
            *self.place,
        )

    def _parameters(self) -> list[inspect.Parameter]:
        """Those of the function, or of a class's `add` but for the instance, whatever it is called."""
        if not callable(self.function) or (self.is_class and not _sums_up(self.whole)):
            hint = f": give the class {type(self.function).__name__} itself" if _sums_up(self.function) else ""
            raise InputError(f"{self.name} is no function, nor a class with add and value{hint}", *self.place)
        is_method = self.is_class and inspect.isfunction(inspect.getattr_static(self.whole, "add"))
        try:
            found = [*inspect.signature(self.whole.add if self.is_class else self.function).parameters.values()]
        except ValueError as error:
            raise InputError(
                f"it isn't known what {self.name} takes: write a function around it", *self.place
            ) from error
        return found[1:] if is_method else found

    def call(self, function: Callable[..., Any], given: Mapping[str, list[Any]]) -> Any:
        """The function, or an instance's `add`, with batches put together."""
        whole = {name: _given(name, given[name]) for name in self.asks_for}
        named = {name: values for name, values in whole.items() if self._by_name[name]}
        return function(*(values for name, values in whole.items() if name not in named), **named)

    @property
    def text(self) -> str:
        """All that its values depend on: its source."""
        source = self.code.source if self.code is not None else code_digest(self.function)
        return f"{self.name} of {source}"

    def metric(self) -> Metric:
        """Raises InputError for a name that is taken."""
        if self.name in METRICS:
            raise InputError(f"there is a metric {self.name} already: call it otherwise", *self.place)
        return Metric(
            self.name,
            higher_is_better=bool(
                getattr(self.function, "higher_is_better", getattr(self.whole, "higher_is_better", True))
            ),
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


def check_sent(quality: Quality) -> None:
    """Raises WootzError for the quality of a function that other processes can't get."""
    pickle.loads(pickle.dumps(quality))


def _read_again(code: UserCode) -> OwnMetric:
    return OwnMetric(code.load(), code)


def _gone(name: str) -> OwnMetric:
    raise WootzError(
        f"the metric {name} is code of one process: for several, put it into a file, metric='FILE.py:{name}' (--metric)"
    )


def _sums_up(value: Any) -> bool:
    return callable(getattr(value, "add", None)) and hasattr(value, "value")


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
            found = own.call(own.function, self.kept)
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
            self.own.call(self._instance.add, given)

    @property
    def value(self) -> float:
        with told_in_a_line(*self.own.place):
            value = self._instance.value
            found = value() if callable(value) else value
        return self.own.number(found)
