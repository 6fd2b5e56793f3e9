"""Reads pruning objectives (paper, Figure 3b, and extensions).

    objective  = ("min" | "max") metric constraint*
    constraint = "constraint" metric ("<" | "<=" | ">" | ">=") bound
    metric     = "ModelSize" | "FLOPs" | "Latency" | "Accuracy" | "Agreement" | "OutputError", or one that is added
    bound      = ["-"] number | relative [("+" | "-") number]
    relative   = "full" | number "*" "full" | "full" "*" number
    number     = digits, as in 0.8, 1e6 or 80%

`full` is the unpruned network's value of the same metric: 1 for Agreement, 0 for OutputError. Of the metrics that need
training an objective names one. White space and line ends separate words and mean nothing
else; `#` begins a comment.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NoReturn, cast

from wootz.passes.errors import InputError, reading
from wootz.passes.plan.metrics import METRICS, Metric
from wootz.passes.plan.objective import Constraint, Objective

_TOKEN = re.compile(
    r"(?P<skipped>\s+|\#.*)"
    r"|(?P<number>(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?%?)"
    r"|(?P<word>[A-Za-z_]\w*)"
    r"|(?P<operator><=|>=|<|>|\*|\+|-)"
    r"|(?P<other>\S)"
)
_COMPARISONS = ("<", "<=", ">", ">=")


def read_objective(path: Path, metrics: Mapping[str, Metric] = METRICS) -> Objective:
    """The objective in a text file, about `metrics` by their names. Raises InputError, at line and column, for anything
    that isn't one."""
    with reading(path, "a text in UTF-8"):
        text = path.read_text(encoding="utf-8-sig")
    return parse_objective(text, str(path), metrics)


def parse_objective(text: str, file: str = "<objective>", metrics: Mapping[str, Metric] = METRICS) -> Objective:
    """The objective written in `text`; `file` names its origin in errors. Raises InputError, at line and column."""
    return _Parser(text, file, metrics).objective()


@dataclass(frozen=True)
class _Token:
    kind: str
    text: str
    line: int
    column: int


class _Parser:
    def __init__(self, text: str, file: str, metrics: Mapping[str, Metric]):
        self.file = file
        self.metrics = metrics
        self.quality: Metric | None = None
        self.tokens = list(_tokens(text))
        self.position = 0

    @property
    def token(self) -> _Token:
        return self.tokens[self.position]

    def objective(self) -> Objective:
        if self.token.text not in ("min", "max"):
            self._fail("'min' or 'max'", hint=self._closest(("min", "max")))
        direction = cast(Literal["min", "max"], self._take())
        metric = self._metric()
        constraints = []
        while self.token.kind != "end":
            constraints.append(self._constraint())
        return Objective(direction, metric, tuple(constraints))

    def _constraint(self) -> Constraint:
        if self.token.text in ("min", "max"):
            self._fail("'constraint' or the end", hint="; an objective has a single metric to optimise")
        if self.token.text != "constraint":
            self._fail("'constraint' or the end", hint=self._closest(("constraint",)))
        self._take()
        metric = self._metric()
        if self.token.text not in _COMPARISONS:
            self._fail("one of < <= > >=")
        comparison = cast(Literal["<", ">", "<=", ">="], self._take())
        scale, offset = self._bound(metric)
        return Constraint(metric, comparison, offset=offset, scale=scale)

    def _metric(self) -> Metric:
        if self.token.text not in self.metrics:
            self._fail(f"a metric ({', '.join(self.metrics)})", hint=self._closest(tuple(self.metrics)))
        metric = self.metrics[self.token.text]
        if metric.needs_training:
            self.quality = self.quality or metric
            if metric != self.quality:
                self._fail_at(self.token, f"{self.quality} and {metric} both need training: an objective names one")
        self._take()
        return metric

    def _bound(self, metric: Metric) -> tuple[float, float]:
        """Scale and offset of `scale * full + offset`."""
        if self.token.text == "-" and metric.least < 0:
            self._take()
            start = self.token
            number = self._number()
            self._check_offset(start, metric)
            return 0.0, -number
        if self.token.kind == "number":
            start = self.token
            number = self._number()
            if self.token.text != "*":
                self._check_offset(start, metric)
                self._check_share(start, number, metric)
                return 0.0, number
            self._take()
            self._full()
            return number, self._offset(metric)
        self._full()
        if self.token.text != "*":
            return 1.0, self._offset(metric)
        self._take()
        return self._number(), self._offset(metric)

    def _offset(self, metric: Metric) -> float:
        if self.token.text not in ("+", "-"):
            return 0.0
        sign = -1 if self._take() == "-" else 1
        start = self.token
        number = self._number()
        self._check_offset(start, metric)
        if metric.is_share and number >= 1:
            points = f"{100 * number:g} points of {metric.name.lower()}"
            self._fail_at(start, f"{start.text} is {points}: one point is 0.01 or 1%")
        return sign * number

    def _full(self) -> None:
        if self.token.text != "full":
            self._fail("a number or 'full' (the unpruned network's value)", hint=self._closest(("full",)))
        self._take()

    def _number(self) -> float:
        if self.token.kind != "number":
            self._fail("a number")
        text = self._take()
        return float(text[:-1]) / 100 if text.endswith("%") else float(text)

    def _check_offset(self, token: _Token, metric: Metric) -> None:
        if token.text.endswith("%") and not metric.is_share:
            number = float(token.text[:-1]) / 100
            self._fail_at(token, f"{token.text} of what? A part of the unpruned network's is {number:g} * full")

    def _check_share(self, token: _Token, number: float, metric: Metric) -> None:
        if metric.is_share and number > 1:
            self._fail_at(token, f"{metric} lies between 0 and 1, {token.text} doesn't; 80 % is 0.8 or 80%")

    def _take(self) -> str:
        text = self.token.text
        self.position += 1
        return text

    def _closest(self, words: tuple[str, ...]) -> str:
        """`; did you mean 'Accuracy'?` when the current token looks like one of `words`, whatever its case."""
        lowered = {word.lower(): word for word in words}
        close = difflib.get_close_matches(self.token.text.lower(), lowered, n=1)
        return f"; did you mean {lowered[close[0]]!r}?" if close else ""

    def _fail(self, expected: str, hint: str = "") -> NoReturn:
        found = "the end" if self.token.kind == "end" else repr(self.token.text)
        self._fail_at(self.token, f"expected {expected}, found {found}{hint}")

    def _fail_at(self, token: _Token, message: str) -> NoReturn:
        raise InputError(message, self.file, token.line, token.column)


def _tokens(text: str) -> Iterator[_Token]:
    line, column = 1, 1
    for number, content in enumerate(text.splitlines(), start=1):
        for match in _TOKEN.finditer(content):
            if match.lastgroup != "skipped":
                yield _Token(str(match.lastgroup), match.group(), number, match.start() + 1)
        line, column = number, len(content) + 1
    yield _Token("end", "", line, column)
