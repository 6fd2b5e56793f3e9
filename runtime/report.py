"""The report of a run: an HTML page, and its plots as PNG files beside it."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from importlib import resources
from itertools import chain, groupby
from pathlib import Path

import jinja2
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from wootz.passes.ir.files import write_atomically
from wootz.passes.plan.subspace import format_configuration
from wootz.runtime.result import (
    Exploration,
    FullNetworkResult,
    RunResult,
    TrainedBlockResult,
    TrainedNetworkResult,
    block_text,
)
from wootz.runtime.run_directory import PLOT_SUFFIX, REPORT_FILE

BLOCK_TRAINED, DEFAULT, FULL = "#0072B2", "#D55E00", "#444444"
"""Colours that colour-blind readers tell apart too (Okabe and Ito)."""


def write_report(folder: Path) -> Path:
    """Writes `report.html` and the plots from `result.json` in `folder`, and gives the page's path."""
    result = RunResult.load(folder)
    plots: dict[str, Figure] = {}
    if isinstance(result.full, FullNetworkResult):
        plots = {"sizes": _sizes(result, result.full), "curves": _curves(result, result.full)}
    blocks = [block for block in result.blocks if isinstance(block, TrainedBlockResult)]
    if blocks:
        plots["blocks"] = _block_errors(blocks, result.modules)
    images = {}
    for name, figure in plots.items():
        content = io.BytesIO()
        figure.savefig(content, format="png", dpi=144)
        write_atomically(folder / f"{name}{PLOT_SUFFIX}", content.getvalue())
        images[name] = base64.b64encode(content.getvalue()).decode()
    page = folder / REPORT_FILE
    write_atomically(page, _page(result, images).encode())
    return page


def _page(result: RunResult, images: dict[str, str]) -> str:
    template = resources.files("wootz.runtime").joinpath("report.html.jinja").read_text(encoding="utf-8")
    environment = jinja2.Environment(
        autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined
    )
    environment.filters["percent"] = lambda value: "–" if value is None else f"{100 * value:.2f} %"
    environment.filters["count"] = lambda value: f"{value:,}"
    environment.filters["configuration"] = format_configuration
    environment.filters["block"] = lambda block: block_text(block.symbols, result.modules)
    environment.filters["composite"] = lambda blocks: _composite(blocks, result)
    explorations = [("block-trained", result.block_trained, result.seconds.pretraining)]
    if result.baseline is not None:
        explorations.append(("default (baseline)", result.baseline, 0.0))
    return environment.from_string(template).render(result=result, images=images, explorations=explorations)


def _composite(blocks: Sequence[int | None], result: RunResult) -> str:
    """The composite vector: the blocks that a network is assembled from, a dash for the teacher's weights."""
    texts = (
        ["-"] * len(list(modules)) if block is None else [block_text(result.blocks[block].symbols, result.modules)]
        for block, modules in groupby(blocks)
    )
    return " | ".join(chain.from_iterable(texts))


def _explorations(result: RunResult) -> list[tuple[str, Exploration, str]]:
    found = [("block-trained", result.block_trained, BLOCK_TRAINED)]
    if result.baseline is not None:
        found.append(("default", result.baseline, DEFAULT))
    return found


def _axes(width: float = 7.0, height: float = 4.2) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(width, height), layout="constrained")
    axes = figure.add_subplot()
    axes.grid(True, color="#dddddd", linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes


def _sizes(result: RunResult, full: FullNetworkResult) -> Figure:
    """Accuracy over size: every network before and after fine-tuning."""
    figure, axes = _axes()
    thousands = 1e-3
    for title, exploration, colour in _explorations(result):
        sizes = [n.model_size * thousands for n in exploration.trained]
        axes.scatter(sizes, [n.initial_accuracy for n in exploration.trained], s=28, facecolors="none",
                     edgecolors=colour, label=f"{title}, before fine-tuning")  # fmt: skip
        axes.scatter(sizes, [n.accuracy for n in exploration.trained], s=28, color=colour,
                     label=f"{title}, after fine-tuning")  # fmt: skip
        best = exploration.best
        if best is not None:
            axes.scatter([best.model_size * thousands], [best.accuracy], s=150, facecolors="none", edgecolors=colour,
                         linewidths=1.6, label=f"{title}, best")  # fmt: skip
    axes.axhline(full.accuracy, color=FULL, linewidth=1, linestyle="--", label="full network")
    axes.set_xlabel(f"parameters, thousands (full network: {full.model_size * thousands:,.0f})")
    axes.set_ylabel("validation accuracy")
    axes.legend(fontsize=8, frameon=False, loc="center left", bbox_to_anchor=(1.0, 0.5))
    return figure


def _curves(result: RunResult, full: FullNetworkResult) -> Figure:
    """Validation accuracy over fine-tuning steps: every network thin, the median of them thick."""
    figure, axes = _axes()
    for title, exploration, colour in _explorations(result):
        for network in exploration.trained:
            axes.plot(*zip(*network.curve, strict=True), color=colour, linewidth=0.7, alpha=0.35)
        if exploration.trained:
            axes.plot(*_median_curve(exploration.trained), color=colour, linewidth=2.2, label=f"{title} (median)")
    axes.axhline(full.accuracy, color=FULL, linewidth=1, linestyle="--", label="full network, trained")
    axes.set_xlabel("fine-tuning steps")
    axes.set_ylabel("validation accuracy")
    axes.legend(fontsize=8, frameon=False, loc="lower right")
    return figure


def _median_curve(networks: Sequence[TrainedNetworkResult]) -> tuple[list[int], list[float]]:
    """The median over the networks at each step that all of them measured."""
    common = set.intersection(*({step for step, _ in n.curve} for n in networks))
    steps = sorted(common)
    curves = [dict(n.curve) for n in networks]
    return steps, [sorted(c[step] for c in curves)[len(curves) // 2] for step in steps]


def _block_errors(blocks: Sequence[TrainedBlockResult], modules: Sequence[str]) -> Figure:
    """Reconstruction error of each tuning block before and after pre-training, on a logarithmic scale."""
    figure, axes = _axes(height=max(2.0, 0.26 * len(blocks) + 1.0))
    rows = range(len(blocks))
    before, after = ([getattr(b, name) for b in blocks] for name in ("initial_error", "final_error"))
    axes.hlines(rows, after, before, color="#bbbbbb", linewidth=1.2)
    axes.scatter(before, rows, s=24, facecolors="none", edgecolors=BLOCK_TRAINED, label="before")
    axes.scatter(after, rows, s=24, color=BLOCK_TRAINED, label="after pre-training")
    axes.set_xscale("log")
    axes.set_yticks(list(rows), [block_text(b.symbols, modules) for b in blocks], fontsize=7)
    axes.invert_yaxis()
    axes.set_xlabel("mean squared difference to the teacher's output")
    axes.legend(fontsize=8, frameon=False)
    return figure
