"""Makes latency tables: which networks are measured for one, on this machine or, exported, on another."""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import date
from functools import partial
from itertools import product, repeat
from math import prod
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from wootz.passes.analysis.static_shapes import static_shapes
from wootz.passes.errors import InputError, WootzError
from wootz.passes.ir.files import save, write_atomically
from wootz.passes.ir.model import Model, tensor_shape
from wootz.passes.plan.blocks import Symbol, TuningBlock
from wootz.passes.plan.space import Space
from wootz.passes.plan.subspace import SKIP
from wootz.passes.pruning.block_pruner import BlockPruner
from wootz.passes.pruning.skipping import Shapes, without_skipped
from wootz.runtime.delivery.delivered import simplified
from wootz.runtime.latency_table import measure as script
from wootz.runtime.latency_table.table import (
    LatencyTable,
    MeasuredOn,
    ModuleTimes,
    Piece,
    Rates,
    Use,
    WholeNetwork,
    read_table,
)
from wootz.runtime.session import CPU, Device, FileSession, available_threads, runtime_version
from wootz.runtime.survey import space_costs, space_of

MOST_PIECES = 36
"""Pieces that are measured of one module: six rates behind six. Of more, those behind the other rates of its inputs are
interpolated."""
MOST_RATES = 4096
"""Pieces of one module in all."""
FITTED_UNIFORM, FITTED_RANDOM, CHECKED = 6, 8, 8
"""Whole networks that are measured: those of one rate in all modules and random ones that the correction is fitted to,
and random ones that tell its error."""
SECONDS = 20.0
"""That measuring takes, without opening the networks; see `measure.LEAST_ROUNDS`."""

Options = Sequence[Sequence[float]]
"""For each module the rates that it may have, 0 first; SKIP leaves it out."""
MeasureModels = Callable[[Iterable[Model], Device, float], list[list[float]]]
"""Milliseconds of each of the models, whose inputs have fixed sizes, one a run, in about so many seconds."""


@dataclass(frozen=True)
class Subject:
    """A network to be measured: the name of its file, how it is made, and where in the table its times belong."""

    name: str
    model: Callable[[], Model]
    row: tuple[str | int, ...]


def options_of(pruner: BlockPruner, rates: Sequence[float], skip: bool = False) -> list[list[float]]:
    """Of each module 0 and those of the rates that make different networks, and SKIP where it can be left out."""
    return [
        [*sorted({0.0, *least.values()}), *([SKIP] if skip and module in pruner.skippable else [])]
        for module, least in pruner.least_rates(rates).items()
    ]


def measure_table(
    pruner: BlockPruner,
    options: Options,
    image_shape: tuple[int, ...],
    device: Device = CPU,
    batch: int = 1,
    seconds: float = SECONDS,
    seed: int = 0,
    measure: MeasureModels | None = None,
) -> LatencyTable:
    """The latency table of all networks that `options` allow, measured on this machine, for images of `image_shape`.

    `seed` chooses the whole networks among them that are measured, too. Raises WootzError for a module whose input
    depends on so many others that it has more than MOST_RATES pieces.
    """
    table, subjects = table_to_measure(pruner, options, image_shape, batch, seed)
    times = (measure or measure_models)((subject.model() for subject in subjects), device, seconds)
    rows: Any = msgspec.to_builtins(table)
    script.fill(rows, [subject.row for subject in subjects], [script.summary(t, batch) for t in times])
    rows["measured_on"].update(
        runtime=runtime_version(),
        provider=_provider(device),
        threads=_threads(device),
        machine=script.machine(),
        date=date.today().isoformat(),
    )
    return msgspec.convert(rows, LatencyTable)


def measure_models(models: Iterable[Model], device: Device, seconds: float) -> list[list[float]]:
    """Milliseconds of each model on zeros, as `measure.take_turns` gives them."""
    return script.take_turns([_run(model, device) for model in models], seconds, clock_of(device))


def clock_of(device: Device) -> Callable[[], float]:
    """What times its runs."""
    return script.clock_for(_provider(device), _threads(device))


def _run(model: Model, device: Device) -> Callable[[], object]:
    session = FileSession(model.to_proto().SerializeToString(), device)
    zeros = {t.name: np.zeros(tuple(map(int, t.shape)), t.dtype or np.float32) for t in model.graph.inputs}
    return partial(session.run_on, zeros)


def _threads(device: Device) -> int:
    return device.threads or available_threads()


def _provider(device: Device) -> str:
    first = device.providers()[0]
    return first if isinstance(first, str) else first[0]


def export(
    folder: Path,
    pruner: BlockPruner,
    options: Options,
    image_shape: tuple[int, ...],
    batch: int = 1,
    seed: int = 0,
) -> int:
    """Writes what `measure_table` measures into a new folder, with the script that measures it on another machine.

    Gives the number of networks. Raises InputError where there is something in the folder already.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InputError("there is something already: give a new folder", folder)
    table, subjects = table_to_measure(pruner, options, image_shape, batch, seed)
    folder.mkdir(parents=True, exist_ok=True)
    listed = []
    for subject in subjects:
        model = subject.model()
        save(model, folder / subject.name)
        listed.append({"file": subject.name, "shape": _input_shape(model), "row": subject.row})
    content = msgspec.json.encode({"table": table, "networks": listed})
    write_atomically(folder / script.LIST, msgspec.json.format(content, indent=1) + b"\n")
    shutil.copyfile(script.__file__, folder / Path(script.__file__).name)
    return len(subjects)


def read_fitting_table(file: Path, pruner: BlockPruner, options: Options, image_shape: tuple[int, ...]) -> LatencyTable:
    """The table in a file. Raises InputError for one of another network, or that lacks pieces which `options` allow."""
    table = read_table(file)
    wanted, _ = table_to_measure(pruner, options, image_shape)
    try:
        table.check_fits(wanted)
    except WootzError as error:
        raise InputError(str(error), file) from error
    return table


def table_to_measure(
    pruner: BlockPruner, options: Options, image_shape: tuple[int, ...], batch: int = 1, seed: int = 0
) -> tuple[LatencyTable, tuple[Subject, ...]]:
    """A table without any times, and what is to be measured for it."""
    space = space_of(pruner, options)
    table = LatencyTable(
        measured_on=MeasuredOn(batch=batch, image_shape=image_shape),
        modules=_modules(pruner, space),
        outside_inputs=_source_names(space, len(space.modules)),
        networks=tuple(WholeNetwork(configuration=c, use=use) for c, use in _networks(space, seed).items()),
    )
    return table, (*_pieces_to_measure(pruner, table), *_networks_to_measure(pruner, table))


def _modules(pruner: BlockPruner, space: Space) -> tuple[ModuleTimes, ...]:
    """Of each module all pieces, with what they cost."""
    for position, name in enumerate(space.modules):
        others = space.participants(position)[1:]
        if prod(len(space.options[module]) for module in (position, *others)) > MOST_RATES:
            raise WootzError(
                f"module {name} gets inputs from {len(others)} others, and has more than {MOST_RATES:,} pieces with "
                f"these rates: give fewer rates"
            )
    costs = space_costs(pruner, space)

    def pieces(position: int) -> Iterator[Piece]:
        for rate, *before in product(*(space.options[module] for module in space.participants(position))):
            symbol = space.piece(position, (rate, *before))
            yield Piece(rate=rate, input_rates=tuple(before), macs=costs[symbol].macs)

    return tuple(
        ModuleTimes(module=name, inputs=_source_names(space, position), pieces=tuple(pieces(position)))
        for position, name in enumerate(space.modules)
    )


def _source_names(space: Space, position: int) -> tuple[str, ...]:
    return tuple(space.modules[source] for source in space.sources.get(position, ()))


def _networks(space: Space, seed: int) -> dict[Rates, Use]:
    """The networks that are measured as a whole, the unpruned one first."""
    networks: dict[Rates, Use] = {tuple(0.0 for _ in space.options): "outside"}
    outside = space.participants(len(space.modules))
    for rates in product(*(space.options[module] for module in outside)):
        of_module = dict(zip(outside, rates, strict=True))
        networks.setdefault(tuple(of_module.get(i, 0.0) for i in range(len(space.options))), "outside")
    pruned = [[rate for rate in rates if rate != SKIP] for rates in space.options]
    longest = max(map(len, pruned))
    for place in sorted({round(p) for p in np.linspace(1, longest - 1, min(FITTED_UNIFORM, longest - 1))}):
        networks.setdefault(tuple(rates[min(place, len(rates) - 1)] for rates in pruned), "fit")
    drawn = random.Random(seed)
    check: Use = "check"
    fit: Use = "fit"
    uses = [*repeat(check, CHECKED), *repeat(fit, FITTED_RANDOM)]
    for _ in range(10 * len(uses)):
        if uses and (configuration := _drawn(space, drawn)) not in networks:
            networks[configuration] = uses.pop()
    return networks


def _drawn(space: Space, drawn: random.Random) -> Rates:
    """Random options about one that is random, too: networks of sizes spread over all that there are."""
    about = drawn.uniform(-0.5, 0.5)
    places = (min(max(drawn.random() + about, 0.0), 0.999) for _ in space.options)
    return tuple(rates[int(place * len(rates))] for rates, place in zip(space.options, places, strict=True))


def _pieces_to_measure(pruner: BlockPruner, table: LatencyTable) -> Iterator[Subject]:
    batch, image_shape = table.measured_on.batch, table.measured_on.image_shape
    full = _with_input(pruner.model, (batch, *image_shape))
    shapes = static_shapes(full).shapes
    for position, module in enumerate(table.modules):
        measured = _measured_rates(module)
        for number, piece in enumerate(module.pieces):
            if piece.rate != SKIP and piece.input_rates in measured:
                symbol = table.space.piece(position, (piece.rate, *piece.input_rates))
                rates = "-".join(f"{rate:g}" for rate in (piece.rate, *piece.input_rates))
                yield Subject(
                    f"{position + 1}-{rates}.onnx",
                    partial(_piece, pruner, symbol, (batch, *image_shape), None if piece.input_rates else shapes),
                    ("modules", position, "pieces", number),
                )


def _measured_rates(module: ModuleTimes) -> set[tuple[float, ...]]:
    """The rates of a module's inputs behind which it is measured: all, or evenly spread ones within the bound."""
    rates = sorted({piece.rate for piece in module.pieces} - {SKIP})
    of_inputs = sorted({piece.input_rates for piece in module.pieces}, key=lambda r: (sum(r), r))
    most = max(2, MOST_PIECES // len(rates))
    if len(of_inputs) <= most:
        return set(of_inputs)
    return {of_inputs[round(place)] for place in np.linspace(0, len(of_inputs) - 1, most)}


def _networks_to_measure(pruner: BlockPruner, table: LatencyTable) -> Iterator[Subject]:
    shape = (table.measured_on.batch, *table.measured_on.image_shape)
    for number, network in enumerate(table.networks):
        model = partial(network_to_measure, pruner, network.configuration, shape)
        yield Subject(f"network-{number}.onnx", model, ("networks", number))


def _piece(pruner: BlockPruner, symbol: Symbol, image: tuple[int, ...], shapes: Shapes | None) -> Model:
    """A piece as it is in a delivered network, with inputs of these `shapes`; by None they are inferred."""
    block = TuningBlock((symbol,))
    if shapes is None:
        before = _with_input(pruner.materialize(pruner.plan(pruner.rates_of(block))), image)
        shapes = static_shapes(before).shapes
    piece = simplified(pruner.student(block).model).copy()
    for tensor in piece.graph.inputs:
        shape = shapes.get(tensor.name)
        if shape is None:
            raise WootzError(f"nothing is known of the shape of {tensor.name}, and so no latency")
        tensor.shape = list(shape)
    return piece


def network_to_measure(pruner: BlockPruner, configuration: Rates, image: tuple[int, ...]) -> Model:
    """A pruned network as it is delivered, for images of a fixed size."""
    rates = {module.name: rate for module, rate in zip(pruner.modules, configuration, strict=True)}
    return _with_input(simplified(without_skipped(pruner.materialize(pruner.plan(rates)))), image)


def _input_shape(model: Model) -> tuple[int, ...]:
    """That of the first input, where it is fixed."""
    return tuple(int(extent) for extent in tensor_shape(model.graph.inputs[0]) or ())


def _with_input(model: Model, shape: Sequence[int]) -> Model:
    """The same model with a first input of that shape, and the same batch in others."""
    result = model.copy()
    first, *others = result.graph.inputs
    first.shape = list(shape)
    for other in others:
        other.shape = [shape[0], *(other.shape or ())[1:]]
    return result
