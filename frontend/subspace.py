"""Reads and writes promising subspaces: lists of rate lists as pickle, .npy, .json or .csv (paper, Figure 3a).

A row is a configuration. It has one rate for each module, or one for each convolution of the network in order of data
flow, those outside of modules and those that can't be pruned (their rate is 0) among them. As the rate of
a module 1, or the text `skip`, leaves it out.
"""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from wootz.frontend.plain_pickle import load_plain
from wootz.passes.arrays import parse_npy
from wootz.passes.errors import InputError, reading
from wootz.passes.ir.files import write_atomically
from wootz.passes.plan.subspace import SKIP, SKIP_TEXT, Configuration, PrunableNetwork, Subspace, single_rate


def read_subspace(path: Path, network: PrunableNetwork) -> tuple[Subspace, tuple[str, ...]]:
    """The subspace in a `.pickle`/`.pkl`, `.npy`, `.json` or `.csv` file, and warnings (one line each).

    `network` is the unpruned network. Equal configurations are reduced to one, with a warning. Raises InputError, with
    the number of the row (from 1), for a row of another length, a rate outside of [0, 1], a rate other than 0 where
    nothing can be pruned, 1 for a module that can't be left out or a convolution, and for unreadable files.
    """
    reader = _RowReader(path, network)
    rows = _read_rows(path)
    if not rows:
        raise InputError("the subspace has no configurations: give at least one row of rates", path)
    first_row: dict[Configuration, int] = {}
    repeated = []
    for number, row in enumerate(rows, start=1):
        first = first_row.setdefault(reader.configuration(number, row), number)
        if first != number:
            repeated.append(f"{number} (as {first})")
    warnings = [f"{path}: left out rows that repeat an earlier one: {_shortened(repeated)}"] if repeated else []
    return Subspace(network.modules, tuple(first_row)), tuple(warnings)


def write_subspace(path: Path, subspace: Subspace) -> None:
    """Writes one rate a module as a `.json` list of lists, one row a line, or as `.csv`.

    Raises InputError for other suffixes, and for configurations with one rate a convolution.
    """
    if path.suffix not in (".json", ".csv"):
        raise InputError("a subspace is written as .json or .csv", path)
    for configuration in subspace.configurations:
        if any(isinstance(rate, tuple) for rate in configuration):
            raise InputError("only configurations with one rate a module can be written", path)
    text = print_subspace(subspace) if path.suffix == ".json" else "\n".join(_printed_rows(subspace, SKIP_TEXT)) + "\n"
    write_atomically(path, text.encode())


def print_subspace(subspace: Subspace) -> str:
    """A list of lists in JSON, one row a line, of configurations with one rate a module."""
    return "[" + ",\n ".join(f"[{row}]" for row in _printed_rows(subspace, f'"{SKIP_TEXT}"')) + "]\n"


def _printed_rows(subspace: Subspace, skip: str) -> list[str]:
    rows = ((skip if rate == SKIP else repr(rate) for rate in rates) for rates in subspace.configurations)
    return [", ".join(row) for row in rows]


class _RowReader:
    """Turns rows of a file into configurations of one network."""

    def __init__(self, path: Path, network: PrunableNetwork):
        self.path, self.modules, self.convolutions = path, network.modules, network.convolutions
        self.unskippable = network.unskippable
        self.prunable = {
            module: [i for i, c in enumerate(self.convolutions) if c.module == module and c.is_prunable]
            for module in self.modules
        }

    def configuration(self, number: int, row: Any) -> Configuration:
        rates = self._rates(number, row)
        if len(rates) == len(self.modules):
            return self._of_modules(number, rates)
        if len(rates) == len(self.convolutions):
            return self._of_convolutions(number, rates)
        of_modules, of_convolutions = len(self.modules), len(self.convolutions)
        other = f", or {of_convolutions}, one a convolution" if of_convolutions != of_modules else ""
        raise self._error(
            number, f"{_count(len(rates), 'rate')}; a row has {_count(of_modules, 'rate')}, one a module{other}"
        )

    def _rates(self, number: int, row: Any) -> tuple[float, ...]:
        if isinstance(row, np.ndarray) and row.ndim == 1:
            row = list(row)
        if not isinstance(row, (list, tuple)):
            raise self._error(number, f"expected a list of rates, found {_described(row)}")
        return tuple(self._rate(number, position, value) for position, value in enumerate(row, start=1))

    def _rate(self, number: int, position: int, value: Any) -> float:
        if isinstance(value, str) and value.strip() == SKIP_TEXT:
            return SKIP
        try:
            rate = _number(value)
        except ValueError:
            raise self._error(number, f"expected a number as rate {position}, found {_described(value)}") from None
        if not 0 <= rate <= 1:
            hint = f"; {rate:g} % is {rate / 100:g}" if 2 <= rate < 100 else ""
            raise self._error(
                number, f"rate {position} is {rate:.16g}: a rate is a fraction, from 0 to below 1, or 1 (skip){hint}"
            )
        return rate

    def _of_modules(self, number: int, rates: tuple[float, ...]) -> Configuration:
        for name, rate in zip(self.modules, rates, strict=True):
            if rate == SKIP:
                if name in self.unskippable:
                    raise self._error(number, f"module {name} can't be left out: {self.unskippable[name]}")
            elif rate > 0 and not self.prunable[name]:
                locked = "; ".join(f"{c.name}: {c.locked}" for c in self.convolutions if c.module == name)
                reason = locked or "it has no convolutions"
                raise self._error(number, f"rate {rate:g} for module {name}, where nothing can be pruned ({reason})")
        return rates

    def _of_convolutions(self, number: int, rates: tuple[float, ...]) -> Configuration:
        for convolution, rate in zip(self.convolutions, rates, strict=True):
            if rate == SKIP:
                raise self._error(
                    number, f"rate 1 for {convolution.name}: whole modules are left out, in rows of rates a module"
                )
            if rate > 0 and not convolution.is_prunable:
                reason = convolution.locked or "it lies outside of all modules"
                raise self._error(number, f"rate {rate:g} for {convolution.name}, which can't be pruned: {reason}")
        return tuple(single_rate(tuple(rates[i] for i in self.prunable[name])) for name in self.modules)

    def _error(self, number: int, message: str) -> InputError:
        return InputError(f"row {number}: {message}", self.path)


def _read_rows(path: Path) -> Sequence[Any]:
    readers = {".pickle": load_plain, ".pkl": load_plain, ".npy": _load_npy, ".json": _load_json, ".csv": _load_csv}
    if path.suffix not in readers:
        raise InputError(f"unknown format {path.suffix!r}: a subspace is one of {', '.join(readers)}", path)
    try:
        content = path.read_bytes()
    except OSError as error:
        raise InputError(f"can't be read: {error.strerror}", path) from None
    rows = readers[path.suffix](content, path)
    if isinstance(rows, np.ndarray) and rows.ndim > 0:
        return list(rows)
    if not isinstance(rows, (list, tuple)):
        raise InputError(f"expected a list of configurations, found {_described(rows)}", path)
    return rows


def _load_npy(content: bytes, path: Path) -> Any:
    with reading(path, "a plain NumPy array of numbers"):
        return parse_npy(content)


def _load_json(content: bytes, path: Path) -> Any:
    try:
        with reading(path, "JSON"):
            return json.loads(content)
    except InputError as error:
        if isinstance(decoding := error.__cause__, json.JSONDecodeError):
            raise InputError(f"not JSON: {decoding.msg}", path, decoding.lineno, decoding.colno) from None
        raise


def _load_csv(content: bytes, path: Path) -> Any:
    with reading(path, "CSV"):
        lines = list(csv.reader(io.StringIO(content.decode("utf-8-sig"))))
    return [[_csv_value(cell) for cell in line] for line in lines if any(cell.strip() for cell in line)]


def _csv_value(cell: str) -> float | str:
    try:
        return float(cell)
    except ValueError:
        return cell


def _number(value: Any) -> float:
    """`value` as a float; narrow floats by their shortest decimal form, so that float32's 0.3 is 0.3."""
    is_number = isinstance(value, (int, float, np.integer, np.floating))
    if not is_number or isinstance(value, (bool, np.bool_, np.timedelta64)):  # NumPy counts time spans as integers
        raise ValueError(value)
    try:
        return float(str(value)) if isinstance(value, np.floating) else float(value)
    except OverflowError:
        return math.inf


def _described(value: Any) -> str:
    if isinstance(value, np.ndarray):
        return f"an array of shape {value.shape}"
    if isinstance(value, (list, tuple, dict)):
        return f"a {type(value).__name__} of {_count(len(value), 'element')}"
    shown = repr(value.item() if isinstance(value, np.floating) else value)
    return shown if len(shown) <= 40 else shown[:37] + "..."


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _shortened(items: Sequence[str], most: int = 10) -> str:
    return ", ".join(items[:most]) + (f" and {len(items) - most} more" if len(items) > most else "")
