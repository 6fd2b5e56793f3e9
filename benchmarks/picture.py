"""Draws what a finished run found, for a page with a light or a dark background: accuracy over size.

python benchmarks/picture.py RUN [SEARCH] docs/flowers    writes docs/flowers-light.svg and docs/flowers-dark.svg

SEARCH is a search of the same network with the same data, whose networks stand beside those of the run.
"""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from wootz.runtime.reporting.plots import DARK, LIGHT, Palette, svg
from wootz.runtime.result import Exploration, FullNetworkResult, RunResult

SIZE = 8.0, 4.2
"""Inches."""
SHIFT = 0.005
"""By which networks of one configuration stand beside each other."""


def picture(result: RunResult, search: RunResult | None, full: FullNetworkResult, palette: Palette) -> Figure:
    """A network is a line up from its accuracy before fine-tuning to a dot, that after it."""
    figure = Figure(figsize=SIZE, layout="constrained")
    axes = figure.add_subplot()
    axes.grid(True, axis="y", linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_axisbelow(True)
    if result.baseline is not None:
        _networks(axes, result.baseline, full.model_size, palette.default, "from the remaining weights", shift=-SHIFT)
    _networks(
        axes, result.block_trained, full.model_size, palette.block_trained, "from pre-trained blocks", shift=SHIFT
    )
    if search is not None:
        _networks(axes, search.block_trained, full.model_size, palette.blocks, "found by a search", shift=0.0)
    accuracy = full.reference_quality
    axes.scatter([1], [accuracy], s=90, marker="s", color=palette.full, zorder=3)
    axes.annotate(
        f"full network\n{100 * accuracy:.1f} %",
        (1, accuracy),
        (0, -14),
        textcoords="offset points",
        va="top",
        ha="center",
        fontsize=11,
    )
    for constraint in result.objective.constraints:
        if constraint.bound is not None:
            axes.axhline(constraint.bound, color=palette.full, linewidth=1, linestyle="--")
    best = result.best if search is None else search.best
    if best is not None:
        share = best.model_size / full.model_size
        x, colour = (share + SHIFT, palette.block_trained) if search is None else (share, palette.blocks)
        axes.scatter([x], [best.quality], s=260, facecolors="none", edgecolors=colour, linewidths=2)
        axes.annotate(
            f"chosen: {100 * share:.0f} % of the size, {100 * best.quality:.1f} %",
            (share, best.quality),
            (0, 16),
            textcoords="offset points",
            ha="left",
            fontsize=12,
            fontweight="bold",
        )
    axes.set_xlim(0, 1.06)
    axes.set_ylim(0, 1.1)
    axes.set_yticks([0, 0.2, 0.4, 0.6, 0.8, 1])
    axes.xaxis.set_major_formatter(PercentFormatter(1, 0))
    axes.yaxis.set_major_formatter(PercentFormatter(1, 0))
    axes.tick_params(labelsize=11)
    axes.set_xlabel("parameters left", fontsize=12)
    axes.set_ylabel("validation accuracy", fontsize=12)
    figure.legend(
        *axes.get_legend_handles_labels(),
        loc="outside lower left",
        ncols=3,
        fontsize=11,
        frameon=False,
        title="before ○ and after ● fine-tuning",
        title_fontsize=11,
        alignment="left",
    )
    return figure


def _networks(axes: Axes, found: Exploration, full_size: int, colour: str, label: str, shift: float) -> None:
    trained = found.trained
    x = [network.model_size / full_size + shift for network in trained]
    before, after = [n.initial_quality for n in trained], [n.quality for n in trained]
    axes.vlines(x, before, after, color=colour, linewidth=1.2, alpha=0.6)
    axes.scatter(x, before, s=36, facecolors="none", edgecolors=colour, linewidths=1.2)
    axes.scatter(x, after, s=44, color=colour, label=label)


def main(target: str, folder: Path, searched: Path | None = None) -> None:
    result, search = RunResult.load(folder), None if searched is None else RunResult.load(searched)
    if not isinstance(result.full, FullNetworkResult):
        sys.exit(f"{folder}: the full network could not be trained")
    for name, palette in (("light", LIGHT), ("dark", DARK)):
        Path(f"{target}-{name}.svg").write_bytes(svg(partial(picture, result, search, result.full), palette))


if __name__ == "__main__":
    if len(sys.argv) not in (3, 4):
        sys.exit(__doc__)
    main(sys.argv[-1], *map(Path, sys.argv[1:-1]))
