"""The report of a run: an HTML page, and its plots as SVG files beside it."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Iterator
from functools import partial
from importlib import resources
from itertools import chain, groupby
from pathlib import Path

import jinja2

from wootz.passes.ir.files import write_atomically
from wootz.passes.plan.metrics import Metric
from wootz.passes.plan.subspace import format_configuration, format_rate
from wootz.passes.plan.transform import Resize
from wootz.runtime.events import read_events
from wootz.runtime.quality.showing import show, show_amount, show_of_full
from wootz.runtime.reporting import plots
from wootz.runtime.reporting.comparison import before_and_after
from wootz.runtime.reporting.further_files import remarks, rows
from wootz.runtime.reporting.python_lines import python_lines
from wootz.runtime.reporting.timeline import Timeline, timeline
from wootz.runtime.result import (
    FullNetworkResult,
    ImageInput,
    InfeasibleNetworkResult,
    NetworkResult,
    RunResult,
    SolverFields,
    TrainedBlockResult,
    UntriedNetworkResult,
    block_text,
)
from wootz.runtime.run_directory import BEST_FILE, EVENTS_FILE, REPORT_FILE, PlotName, plot_file
from wootz.runtime.store.amounts import show_seconds, untorn

SHOWN_ROWS = 20
"""Of a table; the others are folded."""
SHOWN_NOTES = 6
RESIZED: dict[Resize, str] = {
    "squash": "squashed: each side gets its length",
    "crop": "cropped: the shorter side becomes {}, the middle is kept",
    "pad": "fitted in, the rest is grey (114)",
}


def write_report(folder: Path) -> Path:
    """Writes `report.html` and the plots from `result.json` in `folder`, and gives the page's path.

    When each worker did what is shown where the run's events are there, too.
    """
    result = RunResult.load(folder)
    events = folder / EVENTS_FILE
    times = timeline(read_events(events)) if events.is_file() else Timeline()
    images: dict[PlotName, tuple[str, str]] = {}
    for name, plot in _plots(result, times).items():
        light = plots.svg(plot, plots.LIGHT)
        write_atomically(folder / plot_file(name), light)
        images[name] = (_data(light), _data(plots.svg(plot, plots.DARK)))
    page = folder / REPORT_FILE
    write_atomically(page, _page(result, times, images).encode())
    return page


def _plots(result: RunResult, times: Timeline) -> dict[PlotName, plots.Plot]:
    found: dict[PlotName, plots.Plot] = {}
    if times.spans:
        found["tasks"] = partial(plots.tasks, times)
    if isinstance(result.full, FullNetworkResult) and result.networks_evaluated:
        found["sizes"] = partial(plots.sizes, result, result.full)
        if result.search is not None and result.search.front:
            found["front"] = partial(plots.front, result, result.full, result.search)
        found["curves"] = partial(plots.curves, result, result.full)
    if any(isinstance(block, TrainedBlockResult) for block in result.blocks):
        found["blocks"] = partial(plots.block_errors, result)
    return found


def _data(image: bytes) -> str:
    return f"data:image/svg+xml;base64,{base64.b64encode(image).decode()}"


MEANS = {
    Metric.AGREEMENT.name: "how often they choose the class that the full network chooses",
    Metric.OUTPUT_ERROR.name: "the mean squared difference from the full network's outputs over these' mean square",
}
"""What is not said by the name of a quality."""


def _page(result: RunResult, times: Timeline, images: dict[PlotName, tuple[str, str]]) -> str:
    template = resources.files("wootz.runtime.reporting").joinpath("report.html.jinja").read_text(encoding="utf-8")
    environment = jinja2.Environment(
        autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined
    )
    full, metric = result.full, result.quality.metric
    environment.filters |= {
        "quality": partial(show, metric),
        "quality_of_full": partial(show_of_full, metric),
        "amount": partial(show_amount, metric),
        "count": lambda value: f"{value:,}",
        "millions": lambda value: f"{value / 1e6:,.2f}",
        "duration": show_seconds,
        "milliseconds": lambda x: f"{x.median_ms:.3g} ms ({x.low_ms:.3g} to {x.high_ms:.3g})",
        "configuration": format_configuration,
        "rate": format_rate,
        "field": lambda value: ", ".join(map(str, value)) if isinstance(value, tuple) else value,
        "block": lambda block: block_text(block.symbols, result.modules),
        "block_numbers": _block_numbers,
        "untried": lambda networks: _number_of(networks, UntriedNetworkResult),
        "infeasible": lambda networks: _number_of(networks, InfeasibleNetworkResult),
    }
    explorations = [(result.kind, result.block_trained, result.seconds.pretraining)]
    if result.baseline is not None:
        explorations.append(("default", result.baseline, 0.0))
    measured = any(network.latency_ms is not None for network in (full, *result.networks))
    solvers = _solvers(result)
    further = [] if result.finishing is None else [*rows(result, result.finishing)]
    said = [] if result.finishing is None else [*remarks(result, result.finishing)]
    name = metric.name.lower() if metric.is_share else metric.name
    page = environment.from_string(template).render(
        result=result, quality=name, means=MEANS, further_files=further, remarks=said, images=images,
        explorations=explorations,
        times=times, latency=measured,
        comparison=tuple(before_and_after(result, full)) if isinstance(full, FullNetworkResult) else (),
        lines=_lines(result),
        setup=tuple(_setup(result)), solvers=solvers, solver_fields=tuple(dict.fromkeys(chain(*solvers.values()))),
        scores=_scores(result), score_rates=sorted({s.rate for s in result.search.scores} if result.search else ()),
        shown_rows=SHOWN_ROWS, shown_notes=SHOWN_NOTES, light=plots.LIGHT, dark=plots.DARK,
    )  # fmt: skip
    return untorn(page)


def _setup(result: RunResult) -> Iterator[tuple[str, str]]:
    """What the run was made of, each with its name."""
    images = result.images
    if images is not None:
        test = f", {images.test:,} for the test" if images.test else ""
        yield "images", f"{images.train:,} for training, {images.validation:,} for validation{test}"
    if result.input is not None:
        yield from _preprocessing(result.input)
    for given in result.inputs if result.input is None or len(result.inputs) > 1 else ():
        yield f"input {given.name}", f"{given.type} [{', '.join(map(str, given.shape))}], {given.takes}"
    if result.input_source:
        yield "where that is from", result.input_source
    if result.learned_from:
        yield "networks learn from", result.learned_from
    yield f"modules ({result.modules_source})", ", ".join(result.modules)
    yield "seed", str(result.seed)
    yield "precision", f"{result.environment.precision}, {result.environment.target}"


def _lines(result: RunResult) -> tuple[str, ...]:
    if result.best is None or (result.input is None and not result.inputs):
        return ()
    return python_lines(result.input, result.inputs, Path(BEST_FILE), result.quality)


def _preprocessing(image: ImageInput) -> Iterator[tuple[str, str]]:
    """How a photograph becomes the network's input."""
    yield "input", f"{image.name}, {image.type} [{', '.join(map(str, image.shape))}], {image.layout}"
    yield "size", f"{image.height} × {image.width}"
    yield (
        "photographs of other sizes",
        RESIZED[image.resize].format(image.resize_to or "as long as needed")
        + (f"; a square of {image.crop_size} is cut out of the middle" if image.crop_size else ""),
    )
    yield "channels", image.channel_order
    mean, scale = (", ".join(f"{x:.6g}" for x in values) for values in (image.mean, image.scale))
    given = "from 0 to 255" if image.units == "0-255" else "are numbers as in the arrays"
    numbers = f"(pixel - mean) * scale, pixels {given}; mean {mean}; scale {scale}"
    yield "pixels", numbers if image.is_normalised else given


def _scores(result: RunResult) -> dict[str, dict[float, float]]:
    """Of a search, the divergence of each module at each of its rates."""
    found: dict[str, dict[float, float]] = {}
    for score in () if result.search is None else result.search.scores:
        found.setdefault(score.module, {})[score.rate] = score.divergence
    return found


def _solvers(result: RunResult) -> dict[str, SolverFields]:
    if result.solvers is None:
        return {}
    found = {"fine-tuning": result.solvers.fine_tuning, "pre-training": result.solvers.pretraining}
    return found if result.solvers.teacher is None else {"full network": result.solvers.teacher, **found}


def _number_of(networks: Iterable[NetworkResult], state: type[NetworkResult]) -> int:
    return sum(isinstance(network, state) for network in networks)


def _block_numbers(blocks: Iterable[int | None]) -> str:
    """The composite vector: the blocks that a network is assembled from, a dash for a module of the teacher's."""
    numbers = (["–"] * len(list(modules)) if block is None else [str(block + 1)] for block, modules in groupby(blocks))
    return " ".join(chain.from_iterable(numbers))
