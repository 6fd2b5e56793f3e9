"""The plots of a report, as SVG in the colours of a light or a dark page."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import matplotlib
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection, PolyCollection
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter

from wootz.runtime.events import TaskKind
from wootz.runtime.reporting.timeline import Ending, Span, Timeline
from wootz.runtime.result import (
    Exploration,
    FrontPoint,
    FullNetworkResult,
    Network,
    RunResult,
    SearchResult,
    TrainedBlockResult,
    TrainedNetworkResult,
    block_text,
)


@dataclass(frozen=True)
class Palette:
    """Colours that colour-blind readers tell apart too (Okabe and Ito's), on a background."""

    background: str
    text: str
    grid: str
    block_trained: str
    default: str
    blocks: str
    full: str


LIGHT = Palette("#ffffff", "#222222", "#dddddd", "#0072b2", "#d55e00", "#009e73", "#666666")
DARK = Palette("#16181c", "#dddddd", "#3a3d42", "#56b4e9", "#e69f00", "#2fbf92", "#aaaaaa")

Plot = Callable[[Palette], Figure]

WIDTH = 6.5
"""Inches, of all plots."""
USUAL_HEIGHT = 4.4
HIGHEST = 12.0
LEGIBLE_ROW = 0.22
"""Inches that a row needs for its name to be read."""
BAR_HEIGHT = 0.8

PROBLEMS: dict[Ending, str] = {"failed": "xxx", "cancelled": "\\\\\\", "lost": "///", "unfinished": "|||"}
"""The hatching of tasks that gave no network."""


def svg(plot: Plot, palette: Palette) -> bytes:
    """The plot as an SVG file; the same plot gives the same bytes."""
    content = io.BytesIO()
    with matplotlib.rc_context({
        "figure.facecolor": palette.background, "axes.facecolor": palette.background, "text.color": palette.text,
        "axes.edgecolor": palette.text, "axes.labelcolor": palette.text, "xtick.color": palette.text,
        "ytick.color": palette.text, "grid.color": palette.grid, "svg.hashsalt": "wootz", "hatch.linewidth": 0.6,
    }):  # fmt: skip
        plot(palette).savefig(content, format="svg", metadata={"Date": None})
    return content.getvalue()


def sizes(result: RunResult, full: FullNetworkResult, palette: Palette) -> Figure:
    """Quality over size: every network before and after fine-tuning."""
    figure, axes = _axes()
    thousands = 1e-3
    for title, exploration, colour in _explorations(result, palette):
        trained = exploration.trained
        area = 28 if len(trained) <= 100 else 10
        x = [n.model_size * thousands for n in trained]
        axes.scatter(x, [n.initial_quality for n in trained], s=area, facecolors="none", edgecolors=colour,
                     linewidths=0.8, label=f"{title}, before fine-tuning")  # fmt: skip
        axes.scatter(x, [n.quality for n in trained], s=area, color=colour, label=f"{title}, after fine-tuning")
        best = exploration.best
        if best is not None:
            axes.scatter([best.model_size * thousands], [best.quality], s=150, facecolors="none", edgecolors=colour,
                         linewidths=1.6, label=f"{title}, best")  # fmt: skip
    axes.axhline(full.reference_quality, color=palette.full, linewidth=1, linestyle="--", label="full network")
    axes.set_xlabel(f"parameters, thousands (full network: {full.model_size * thousands:,.0f})")
    axes.set_ylabel(_validation(result))
    _legend(figure, axes)
    return figure


def front(result: RunResult, full: FullNetworkResult, search: SearchResult, palette: Palette) -> Figure:
    """Quality over size, and over latency: what a search expected of all networks that it met, and what those came to
    that were fine-tuned; beside them uniform and random pruning."""
    figure = Figure(figsize=(WIDTH, 2 * USUAL_HEIGHT), layout="constrained")
    by_size, by_latency = figure.subplots(2, 1)
    files = {point.configuration: point for point in search.front}
    best = None if result.best is None else result.best.configuration

    def draw(axes: Axes, cost: Callable[[Network], float | None], full_cost: float | None) -> None:
        costs = {network: cost(files.get(network.configuration, network)) for network in search.networks}
        known = {network: x for network, x in costs.items() if x is not None}
        for origin, (colour, marker, area, label) in _origins(palette).items():
            expected = [(x, n.predicted) for n, x in known.items() if n.origin == origin and n.predicted is not None]
            if expected:
                axes.plot(*_columns(expected), linestyle="none", marker=marker, markersize=area, markeredgewidth=0.8,
                          markerfacecolor="none", markeredgecolor=colour, label=label)  # fmt: skip
        tuned = {n.configuration: (x, n.quality) for n, x in known.items() if n.quality is not None}
        axes.scatter(*_columns([*tuned.values()]), s=30, color=palette.block_trained, label="fine-tuned")
        if full_cost is not None:
            axes.scatter([full_cost], [full.reference_quality], s=60, marker="*", color=palette.full,
                         label="full network")  # fmt: skip
        axes.plot(
            *_columns(_front_of([*tuned.values()], result.quality.metric.sign)),
            color=palette.block_trained,
            linewidth=1.2,
            label="front",
        )
        axes.scatter(*_columns([at for c, at in tuned.items() if c == best]), s=150, facecolors="none",
                     edgecolors=palette.block_trained, linewidths=1.6, label="best")  # fmt: skip
        axes.axhline(full.reference_quality, color=palette.full, linewidth=0.8, linestyle="--")
        axes.set_ylabel(_validation(result))
        _style(axes)

    draw(by_size, lambda network: network.model_size * 1e-3, full.model_size * 1e-3)
    by_size.set_xlabel(f"parameters, thousands (full network: {full.model_size * 1e-3:,.0f})")
    of_full = search.latency_of_full or (None if result.speed is None else result.speed.full)
    full_ms = None if of_full is None else of_full.median_ms
    draw(by_latency, partial(_latency, full.latency_ms, full_ms), full_ms)
    predicted = any(network.latency_ms is not None for network in search.networks)
    by_latency.set_xlabel(
        f"milliseconds an image: files measured side by side{', others predicted' if predicted else ''}"
    )
    _legend(figure, by_size)
    return figure


def _origins(palette: Palette) -> dict[str, tuple[str, str, int, str]]:
    """How networks of each origin are drawn: colour, marker, its size, and what they are called."""
    return {
        "listed": (palette.full, "o", 3, "listed, expected"),
        "solver": (palette.full, "o", 3, "solver's, expected"),
        "uniform": (palette.default, "^", 6, "uniform pruning, expected"),
        "random": (palette.blocks, "x", 5, "random configurations, expected"),
    }


def _front_of(points: Sequence[tuple[float, float]], sign: int) -> list[tuple[float, float]]:
    """Those (cost, quality) points that no other one beats in both; of `sign` -1 lower qualities are better."""
    return [
        (x, y)
        for x, y in sorted(points, key=lambda point: (point[0], sign * point[1]))
        if all(sign * other < sign * y or (other, cost) == (y, x) for cost, other in points if cost <= x)
    ]


def _validation(result: RunResult) -> str:
    """`validation accuracy`: what is drawn upwards."""
    metric = result.quality.metric
    return f"validation {metric.name.lower() if metric.is_share else metric.name}"


def _columns(points: Sequence[tuple[float, float]]) -> tuple[list[float], list[float]]:
    return [x for x, _ in points], [y for _, y in points]


def _latency(predicted_full: float | None, measured_full: float | None, network: Network) -> float | None:
    """That of the file, if it was measured; else that of the table, as it would be beside the full network's file."""
    if isinstance(network, FrontPoint) and network.latency is not None:
        return network.latency.median_ms
    if network.latency_ms is None or not predicted_full or measured_full is None:
        return None
    return network.latency_ms * measured_full / predicted_full


def curves(result: RunResult, full: FullNetworkResult, palette: Palette) -> Figure:
    """Validation quality over fine-tuning steps: every network thin, the median of them thick."""
    figure, axes = _axes()
    for title, exploration, colour in _explorations(result, palette):
        trained = exploration.trained
        alpha = min(0.35, 20 / (len(trained) + 1))
        axes.add_collection(LineCollection([n.curve for n in trained], colors=colour, linewidths=0.7, alpha=alpha))
        axes.autoscale_view()
        if trained:
            axes.plot(*_median_curve(trained), color=colour, linewidth=2.2, label=f"{title} (median)")
    axes.axhline(full.reference_quality, color=palette.full, linewidth=1, linestyle="--", label="full network")
    axes.set_xlabel("fine-tuning steps")
    axes.set_ylabel(_validation(result))
    _legend(figure, axes)
    return figure


def block_errors(result: RunResult, palette: Palette) -> Figure:
    """Reconstruction error of each tuning block before and after pre-training, on a logarithmic scale unless all 0."""
    blocks = [block for block in result.blocks if isinstance(block, TrainedBlockResult)]
    height = min(HIGHEST, 1.4 + LEGIBLE_ROW * len(blocks))
    figure, axes = _axes(max(2.4, height))
    rows = range(len(blocks))
    before, after = ([getattr(b, name) for b in blocks] for name in ("initial_error", "final_error"))
    axes.hlines(rows, after, before, color=palette.grid, linewidth=1.2, zorder=1)
    axes.scatter(before, rows, s=20, facecolors="none", edgecolors=palette.block_trained, label="before pre-training")
    axes.scatter(after, rows, s=20, color=palette.block_trained, label="after pre-training")
    if any((*before, *after)):
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5), numticks=9))
        axes.xaxis.set_major_formatter(lambda error, _: f"{error:g}")
        axes.xaxis.set_minor_formatter(NullFormatter())
    if height < HIGHEST:
        axes.set_yticks(list(rows), [block_text(b.symbols, result.modules) for b in blocks], fontsize=7)
    else:
        axes.set_ylabel("blocks, in the order of the table")
    axes.invert_yaxis()
    axes.set_xlabel("mean squared difference to the teacher's output")
    _legend(figure, axes)
    return figure


def tasks(found: Timeline, palette: Palette) -> Figure:
    """A Gantt chart: what each worker did when, a row a worker; hatched where it came to nothing."""
    figure, axes = _axes(1.5 + min(HIGHEST / 2, 0.35 * found.workers))
    unit, seconds = _time_unit(found.end)
    colours: dict[TaskKind, tuple[str, str]] = {
        "teacher": (palette.full, "full network"),
        "tuned": (palette.full, "full network"),
        "blocks": (palette.blocks, "blocks"),
        "scores": (palette.text, "scores and looks"),
        "look": (palette.text, "scores and looks"),
        "network": (palette.block_trained, "networks"),
        "default network": (palette.default, "default networks"),
    }
    drawn: dict[tuple[TaskKind, Ending], list[Span]] = {}
    for span in found.spans:
        drawn.setdefault((span.task.kind, span.ending), []).append(span)
    for (kind, ending), spans in drawn.items():
        colour, hatch = colours[kind][0], PROBLEMS.get(ending)
        bars = [_bar(span, seconds) for span in spans]
        axes.add_collection(PolyCollection(bars, facecolors="none" if hatch else colour, linewidths=0.4, hatch=hatch,
                                           edgecolors=colour if hatch else palette.background))  # fmt: skip
    for begin in found.attempts[1:]:
        axes.axvline(begin / seconds, color=palette.text, linewidth=0.8, linestyle=":")
    axes.set_xlim(0, found.end / seconds or 1)
    axes.set_ylim(found.workers - 0.5, -0.5)
    axes.yaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    axes.grid(False, axis="y")
    axes.set_xlabel(f"{unit} since the run began" + ("; dotted: it was continued" if len(found.attempts) > 1 else ""))
    axes.set_ylabel("worker")
    shown = dict.fromkeys(entry for kind, entry in colours.items() if _has(drawn, kind))
    kinds = [Patch(color=colour, label=name) for colour, name in shown]
    endings = [Patch(facecolor="none", edgecolor=palette.text, hatch=hatch, label=ending)
               for ending, hatch in PROBLEMS.items() if any(e == ending for _, e in drawn)]  # fmt: skip
    _legend(figure, axes, [*kinds, *endings])
    return figure


def _bar(span: Span, unit: float) -> list[tuple[float, float]]:
    """The corners of a task's bar, in the row of its worker."""
    left, right = span.begin / unit, span.end / unit
    top, bottom = span.worker - BAR_HEIGHT / 2, span.worker + BAR_HEIGHT / 2
    return [(left, top), (right, top), (right, bottom), (left, bottom)]


def _has(drawn: dict[tuple[TaskKind, Ending], list[Span]], kind: TaskKind) -> bool:
    return any(k == kind for k, _ in drawn)


def _time_unit(seconds: float) -> tuple[str, float]:
    for unit, length in (("hours", 3600.0), ("minutes", 60.0)):
        if seconds >= 3 * length:
            return unit, length
    return "seconds", 1.0


def _explorations(result: RunResult, palette: Palette) -> list[tuple[str, Exploration, str]]:
    colour = palette.block_trained if result.kind == "block-trained" else palette.default
    found: list[tuple[str, Exploration, str]] = [(result.kind, result.block_trained, colour)]
    if result.baseline is not None:
        found.append(("default", result.baseline, palette.default))
    return found


def _axes(height: float = USUAL_HEIGHT) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(WIDTH, height), layout="constrained")
    axes = figure.add_subplot()
    _style(axes)
    return figure, axes


def _style(axes: Axes) -> None:
    axes.grid(True, linewidth=0.6)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


def _legend(figure: Figure, axes: Axes, handles: Sequence[Patch] | None = None) -> None:
    """Above the plot, where it hides nothing."""
    entries = axes.get_legend_handles_labels()[0] if handles is None else handles
    if entries:
        figure.legend(handles=entries, fontsize=8, frameon=False, loc="outside upper left", ncols=min(3, len(entries)))


def _median_curve(networks: Sequence[TrainedNetworkResult]) -> tuple[list[int], list[float]]:
    """The median over the networks that measured a step, at each step that half of them did: some end early."""
    known: dict[int, list[float]] = {}
    for network in networks:
        for step, quality in network.curve:
            known.setdefault(step, []).append(quality)
    steps = sorted(step for step, values in known.items() if 2 * len(values) >= len(networks))
    return steps, [sorted(known[step])[len(known[step]) // 2] for step in steps]
