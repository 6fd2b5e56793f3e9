"""A latency table: how long the pieces of a network take on one machine, and what pruned networks take by that.

A piece is a module at a rate, or what is outside of all modules. The additive model says that a network takes what its
pieces take when they run alone. That is too much, by about the same for each network: every run has a start and an end,
and ONNX Runtime fuses and lays out memory across pieces. So whole networks are measured, too, and

    corrected = offset + factor · additive

is fitted to some of them; the error is that on others. docs/latency.md says how far to trust it.

The types are the file: msgspec reads and writes them. `SCHEMA` counts up as that of a result does.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import zip_longest
from math import prod
from pathlib import Path
from typing import Annotated, Literal

import msgspec
import numpy as np
from msgspec import Meta, Struct

from wootz.passes.errors import InputError, WootzError, reading
from wootz.passes.ir.files import write_atomically
from wootz.passes.plan.blocks import Symbol
from wootz.passes.plan.space import Quantity, Space
from wootz.passes.plan.subspace import SKIP, format_rate

SCHEMA = 1
LEAST_FITTED = 3
"""Networks that a correction needs."""
BUSY = 0.2
"""The spread of times, as a part of their median, from which on the machine wasn't quiet."""
UNSTEADY, MANY_OUTLIERS = 0.05, 0.1
"""Outliers are told where more than so many of all runs are, and times spread by more than that part of their median:
some are in every measurement, and where times hardly spread, the least difference is one."""
MANY_NETWORKS = 64
"""Of a table for more networks than these, some are measured to fit and to check its predictions."""
LEAST_MILLISECONDS = 1e-6
"""No network is faster."""

Count = Annotated[int, Meta(ge=0)]
Positive = Annotated[int, Meta(ge=1)]
Milliseconds = Annotated[float, Meta(ge=0, le=1e9)]
FileRate = Annotated[float, Meta(ge=0, le=1)]
Rates = tuple[float, ...]
"""A configuration of one rate a module."""
Use = Literal["outside", "fit", "check"]


class MeasuredOn(Struct, frozen=True, kw_only=True):
    """Where and how: `image_shape` is channels, height and width, of a network of other inputs the shape of the first;
    `batch` images ran at once."""

    runtime: str = ""
    provider: str = ""
    threads: Count = 0
    batch: Positive = 1
    image_shape: tuple[Positive, ...]
    machine: str = ""
    date: str = ""


class Times(Struct, frozen=True, kw_only=True):
    """Milliseconds for one image: the median of `runs` runs and the quartiles below and above it.

    `outliers` are runs more than three interquartile ranges outside of the quartiles. Without a run nothing is known.
    """

    low_ms: Milliseconds = 0.0
    median_ms: Milliseconds = 0.0
    high_ms: Milliseconds = 0.0
    runs: Count = 0
    outliers: Count = 0


class Piece(Struct, frozen=True, kw_only=True):
    """A module at a rate, and its multiply-accumulates of one image; `input_rates` as in `passes.plan.blocks.Symbol`.

    Of one without a run the time is interpolated by `macs` between those of the same rate. At rate 1 it is left out.
    """

    rate: FileRate
    input_rates: tuple[FileRate, ...] = ()
    macs: Count
    times: Times = Times()


class ModuleTimes(Struct, frozen=True, kw_only=True):
    """The pieces of a module, whose `inputs` are the modules that its input loses channels with."""

    module: str
    inputs: tuple[str, ...] = ()
    pieces: tuple[Piece, ...]


class WholeNetwork(Struct, frozen=True, kw_only=True):
    """A whole network. `outside` ones tell what is outside of modules, the correction is made to `fit` those and the
    unpruned one, and `check` tells how far it is off."""

    configuration: tuple[FileRate, ...]
    use: Use
    times: Times = Times()


@dataclass(frozen=True)
class Correction:
    """The milliseconds of a network are `offset_ms` and `factor` times those of its pieces, and `module_ms` for each
    module that isn't left out."""

    offset_ms: float = 0.0
    factor: float = 1.0
    module_ms: float = 0.0

    def __call__(self, additive_ms: float, modules: int) -> float:
        return self.offset_ms + self.factor * additive_ms + self.module_ms * modules


@dataclass(frozen=True)
class ModelError:
    """Of predicted latencies, as parts of the measured ones, over so many networks."""

    median: float
    worst: float
    networks: int


class LatencyTable(Struct, frozen=True, kw_only=True, dict=True):
    """See the module. `outside_inputs` are the modules that what is outside of modules loses channels with."""

    schema: int = SCHEMA
    measured_on: MeasuredOn
    modules: tuple[ModuleTimes, ...]
    outside_inputs: tuple[str, ...] = ()
    networks: tuple[WholeNetwork, ...]

    def predict(self, configuration: Rates) -> float:
        """Milliseconds that a network takes for one image, corrected. Raises WootzError for what isn't in the table."""
        return sum(self.costs[symbol] for symbol in self._spelled(configuration))

    @cached_property
    def pieces(self) -> Quantity:
        """The milliseconds of each piece of the space, not corrected."""
        inside = {symbol: _milliseconds(piece, module) for symbol, piece, module in self._rows()}
        outside = {}
        for network in self.networks:
            if network.use == "outside":
                *symbols, behind = self.space.spell(network.configuration)
                outside[behind] = network.times.median_ms - sum(inside[symbol] for symbol in symbols)
        return {**inside, **outside}

    @cached_property
    def costs(self) -> Quantity:
        """What each piece adds to a network, in milliseconds: corrected, so that their sum is the prediction."""
        return {symbol: self._corrected(symbol, ms) for symbol, ms in self.pieces.items()}

    def _corrected(self, symbol: Symbol, ms: float) -> float:
        correction = self.correction
        if symbol.module == len(self.modules):
            return correction(ms, 0)
        return 0.0 if symbol.is_skipped else correction.factor * ms + correction.module_ms

    @property
    def full_ms(self) -> float:
        """The milliseconds of the unpruned network."""
        return self.networks[0].times.median_ms

    @cached_property
    def correction(self) -> Correction:
        """Least squares of the relative differences; none where there are too few networks, or nothing in common."""
        fitted = [n for n in self.networks if n.use == "fit" or n is self.networks[0]]
        return fitted_correction(
            [self._additive(n.configuration) for n in fitted],
            [_modules_left(n.configuration) for n in fitted],
            [n.times.median_ms for n in fitted],
        )

    @cached_property
    def error_before(self) -> ModelError | None:
        """Of the additive model without a correction."""
        return self._error(Correction())

    @cached_property
    def error(self) -> ModelError | None:
        """Of the predictions, for networks that the correction wasn't fitted to; None where none was measured."""
        return self._error(self.correction)

    def _error(self, correction: Correction) -> ModelError | None:
        checked = [n for n in self.networks if n.use == "check"]
        if not checked:
            return None
        predicted = [correction(self._additive(n.configuration), _modules_left(n.configuration)) for n in checked]
        measured = np.array([n.times.median_ms for n in checked])
        errors = np.abs(predicted - measured) / measured
        return ModelError(float(np.median(errors)), float(errors.max()), len(checked))

    def _additive(self, configuration: Rates) -> float:
        return sum(self.pieces[symbol] for symbol in self._spelled(configuration))

    @cached_property
    def space(self) -> Space:
        """All networks that the table is for."""
        positions = {module.module: position for position, module in enumerate(self.modules)}
        inputs = enumerate([*(module.inputs for module in self.modules), self.outside_inputs])
        sources = {position: tuple(positions[name] for name in names) for position, names in inputs if names}
        options = (sorted({piece.rate for piece in module.pieces}) for module in self.modules)
        return Space(tuple(positions), tuple(map(tuple, options)), sources)

    def _spelled(self, configuration: Rates) -> tuple[Symbol, ...]:
        """The pieces of a network. Raises WootzError for one that the table lacks."""
        if len(configuration) != len(self.modules):
            raise WootzError(f"{len(configuration)} rates, and a latency table of {len(self.modules)} modules")
        symbols = self.space.spell(configuration)
        for symbol in symbols:
            if symbol not in self.pieces:
                raise WootzError(f"the latency table lacks {self.title(symbol)}")
        return symbols

    def title(self, symbol: Symbol) -> str:
        """`module layer1.0 at rate 0.5`."""
        after = f" behind {', '.join(map(format_rate, symbol.input_rates))}" if symbol.input_rates else ""
        if symbol.module == len(self.modules):
            return f"what is outside of modules{after}"
        return f"module {self.modules[symbol.module].module} at rate {format_rate(symbol.rate)}{after}"

    @property
    def outliers(self) -> tuple[int, int]:
        """How many runs are outliers, of how many."""
        times = [*(n.times for n in self.networks), *(p.times for module in self.modules for p in module.pieces)]
        return sum(t.outliers for t in times), sum(t.runs for t in times)

    @property
    def spread(self) -> float:
        """The interquartile range of a whole network's times, as a part of their median: the median of all networks."""
        return float(np.median([(n.times.high_ms - n.times.low_ms) / n.times.median_ms for n in self.networks]))

    @property
    def warnings(self) -> tuple[str, ...]:
        """What was odd about the times, one line each."""
        outliers, runs = self.outliers
        lines = []
        if outliers > MANY_OUTLIERS * runs and self.spread > UNSTEADY:
            lines.append(
                f"{outliers} of {runs} runs, more than {100 * MANY_OUTLIERS:.0f} %, are outliers (3 interquartile "
                f"ranges off the quartiles): something disturbed them; measure again when the machine is quiet"
            )
        if self.spread > BUSY:
            percent = f"{100 * self.spread:.0f} %"
            lines.append(
                f"half of each network's runs spread over {percent} of their median: the machine is busy; measure "
                f"again when it is quiet, or with one thread"
            )
        return tuple(lines)

    def check_fits(self, other: LatencyTable) -> None:
        """Raises WootzError unless this is a table of the network that `other` is for, and has all of its pieces."""
        names, wanted = ([module.module for module in table.modules] for table in (self, other))
        if names != wanted:
            differing = next((b for a, b in zip_longest(names, wanted) if a != b), None)
            lacks = f"no module {differing}" if differing else f"the further module {names[len(wanted)]}"
            raise WootzError(f"the latency table is of another network: it has {lacks}")
        shapes = (self.measured_on.image_shape, other.measured_on.image_shape)
        if shapes[0] != shapes[1]:
            sizes = " and not ".join("x".join(map(str, shape)) for shape in shapes)
            raise WootzError(f"the latency table is for images of {sizes}")
        needed = {symbol: piece.macs for symbol, piece, _ in other._rows()}
        behind = other.space.pieces(len(other.modules))
        if missing := [symbol for symbol in (*needed, *behind) if symbol not in self.pieces]:
            others = len(missing) - 1
            more = f" and {others} more piece{'s' if others > 1 else ''}" if others else ""
            raise WootzError(f"the latency table lacks {other.title(missing[0])}{more}: it has {self.rate_options}")
        for symbol, piece, _ in self._rows():
            if needed.get(symbol, piece.macs) != piece.macs:
                raise WootzError(
                    f"the latency table is of another network, or other numbers of filters: {other.title(symbol)} has "
                    f"{needed[symbol]:,} multiply-accumulates, in the table {piece.macs:,}"
                )

    @property
    def rates(self) -> tuple[float, ...]:
        """Those that modules are measured at, ascending, without 0 and SKIP."""
        rates = {piece.rate for module in self.modules for piece in module.pieces}
        return tuple(sorted(rates - {0.0, SKIP}))

    @property
    def has_skips(self) -> bool:
        """Whether it is for networks that leave modules out, too."""
        return any(piece.rate == SKIP for module in self.modules for piece in module.pieces)

    @property
    def rate_options(self) -> str:
        """The options of the command line that its networks have, `--rates 0.3,0.5 --skip`."""
        rates = f"--rates {','.join(map(format_rate, self.rates))}" if self.rates else "no rates"
        return f"{rates} --skip" if self.has_skips else rates

    def _rows(self) -> Iterator[tuple[Symbol, Piece, ModuleTimes]]:
        for position, module in enumerate(self.modules):
            for piece in module.pieces:
                yield self.space.piece(position, (piece.rate, *piece.input_rates)), piece, module

    def save(self, file: Path) -> None:
        """Writes all of the file or nothing."""
        write_atomically(file, encode(self))


def fitted_correction(additive: Sequence[float], modules: Sequence[int], measured: Sequence[float]) -> Correction:
    """The correction with the least sum of squares of relative differences to `measured`.

    What a module costs by itself can be told from the rest only where networks have different numbers of `modules`.
    """
    weights = 1 / np.asarray(measured, np.float64)
    columns = [np.ones_like(weights), np.asarray(additive, np.float64)]
    if len(set(modules)) > 1:
        columns.append(np.asarray(modules, np.float64))
    if len(set(additive)) < max(LEAST_FITTED, len(columns)):
        return Correction()
    solution, *_ = np.linalg.lstsq((np.stack(columns) * weights).T, np.ones_like(weights), rcond=None)
    correction = Correction(*map(float, solution))
    return correction if correction.factor > 0 else Correction()


def _modules_left(configuration: Rates) -> int:
    return sum(rate != SKIP for rate in configuration)


def _milliseconds(piece: Piece, module: ModuleTimes) -> float:
    """The milliseconds of a piece; of one that wasn't measured, by its multiply-accumulates between its neighbours."""
    if piece.times.runs or piece.rate == SKIP:
        return piece.times.median_ms
    known = sorted((p.macs, p.times.median_ms) for p in module.pieces if p.rate == piece.rate and p.times.runs)
    macs, times = zip(*known, strict=True)
    return float(np.interp(piece.macs, macs, times))


class _Head(Struct):
    schema: int | None = None


def encode(table: LatencyTable) -> bytes:
    """The file's content: JSON, indented by one."""
    return msgspec.json.format(msgspec.json.encode(table), indent=1) + b"\n"


def read_table(file: Path) -> LatencyTable:
    """Raises InputError, with the file's name, for one that can't be read, is damaged, of another schema, or has
    pieces and networks of which nothing is known."""
    with reading(file, "a latency table"):
        content = file.read_bytes()
        schema = msgspec.json.decode(content, type=_Head).schema
        if schema != SCHEMA:
            found = "no schema number" if schema is None else f"schema {schema}"
            raise InputError(f"not a latency table that this version of wootz reads: {found}, not {SCHEMA}", file)
        table = msgspec.json.decode(content, type=LatencyTable)
        _check(table, file)
        return table


def _check(table: LatencyTable, file: Path) -> None:
    """Raises InputError for parts that don't fit each other."""
    names = [module.module for module in table.modules]
    if len(set(names)) != len(names):
        raise InputError("two modules have one name", file)
    inputs = {name for module in table.modules for name in module.inputs} | set(table.outside_inputs)
    if unknown := inputs - set(names):
        raise InputError(f"there is no module {min(unknown)}, which others get inputs from", file)
    if not table.networks or table.networks[0].use != "outside" or any(table.networks[0].configuration):
        raise InputError("the first of the networks is not the unpruned one", file)
    if len({network.configuration for network in table.networks}) != len(table.networks):
        raise InputError("two of the whole networks are the same", file)
    for network in table.networks:
        if len(network.configuration) != len(names):
            raise InputError(f"a network of {len(network.configuration)} modules, of {len(names)}", file)
        if not network.times.runs:
            raise InputError("a whole network was not measured: run measure.py of the exported folder", file)
        _check_times(network.times, "a whole network", file)
    _check_uses(table, file)
    for module in table.modules:
        if len({(piece.rate, piece.input_rates) for piece in module.pieces}) != len(module.pieces):
            raise InputError(f"two pieces of {module.module} are the same", file)
        measured = {piece.rate for piece in module.pieces if piece.times.runs}
        for piece in module.pieces:
            if len(piece.input_rates) != len(module.inputs):
                raise InputError(f"{module.module} has {len(module.inputs)} inputs, and a piece another number", file)
            if piece.rate != SKIP and piece.rate not in measured:
                raise InputError(f"{module.module} was not measured at rate {format_rate(piece.rate)}", file)
            if piece.rate != SKIP and piece.times.runs:
                _check_times(piece.times, f"{module.module} at rate {format_rate(piece.rate)}", file)
            elif piece.times != Times():
                raise InputError(f"{module.module} has times at rate {format_rate(piece.rate)} without a run", file)
    try:
        for network in table.networks:
            table.predict(network.configuration)
    except WootzError as error:
        raise InputError(str(error), file) from error


def _check_times(times: Times, what: str, file: Path) -> None:
    """Raises InputError for what no measurement gives."""
    if times.median_ms < LEAST_MILLISECONDS:
        raise InputError(f"{what} takes {times.median_ms:g} ms: nothing does", file)
    if not times.low_ms <= times.median_ms <= times.high_ms:
        quartiles = f"{times.low_ms:g} to {times.high_ms:g} ms"
        raise InputError(
            f"the median of {what}, {times.median_ms:g} ms, is outside of its quartiles, {quartiles}", file
        )
    if times.outliers > times.runs:
        raise InputError(f"{what} has {times.outliers} outliers of {times.runs} runs", file)


def _check_uses(table: LatencyTable, file: Path) -> None:
    """Raises InputError where networks that tell how far predictions are off were taken out."""
    if prod(map(len, table.space.options)) <= MANY_NETWORKS:
        return
    uses = [network.use for network in table.networks]
    if "check" not in uses or uses.count("fit") < LEAST_FITTED - 1:
        raise InputError("it lacks the whole networks that predictions are fitted to, or checked by", file)
