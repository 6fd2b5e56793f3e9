"""The paper's Figures 6 and 7, from what `table2.py` has left of a network.

    python benchmarks/paper/figures.py runs/paper/table2/NAME docs/NAME

writes docs/NAME-curves-light.svg and -dark.svg: the accuracy of the most pruned network while it is fine-tuned, from
pre-trained blocks and from the remaining weights (Figure 6), and docs/NAME-sizes-light.svg and -dark.svg: what all
networks of all seeds come to, over their sizes (Figure 7).
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

sys.path.append(str(Path(__file__).parents[1]))

from explorer import full_network
from table2 import Both, finished, trained_both_ways

from wootz.runtime.reporting.plots import DARK, LIGHT, Palette, svg
from wootz.runtime.result import FullNetworkResult, TrainedNetworkResult

SIZE = 6.5, 4.0
"""Inches."""
LABELS = "from pre-trained blocks", "from the remaining weights"


def curves(networks: Sequence[Both], full: FullNetworkResult, palette: Palette) -> Figure:
    most_pruned = min(networks, key=lambda both: both.default.model_size)
    figure, axes = _axes(full, palette)
    for network, colour, label in zip(_pair(most_pruned), _colours(palette), LABELS, strict=True):
        axes.plot(*zip(*network.curve, strict=True), color=colour, marker="o", markersize=4, label=label)
    share = most_pruned.default.model_size / full.model_size
    axes.set_xlabel(f"steps of fine-tuning, {100 * share:.0f} % of the parameters")
    _legend(figure, axes)
    return figure


def sizes(networks: Sequence[Both], full: FullNetworkResult, palette: Palette) -> Figure:
    figure, axes = _axes(full, palette)
    for way, (colour, label) in enumerate(zip(_colours(palette), LABELS, strict=True)):
        trained = [_pair(both)[way] for both in networks]
        axes.scatter(
            [n.model_size / full.model_size for n in trained], [n.quality for n in trained], s=28, color=colour
        )
        axes.plot([], [], "o", color=colour, label=label)
    axes.xaxis.set_major_formatter(PercentFormatter(1, 0))
    axes.set_xlabel("parameters left")
    _legend(figure, axes)
    return figure


def _pair(both: Both) -> tuple[TrainedNetworkResult, TrainedNetworkResult]:
    return both.block_trained, both.default


def _colours(palette: Palette) -> tuple[str, str]:
    return palette.block_trained, palette.default


def _axes(full: FullNetworkResult, palette: Palette) -> tuple[Figure, Axes]:
    figure = Figure(figsize=SIZE, layout="constrained")
    axes = figure.add_subplot()
    axes.grid(True, axis="y", linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)
    axes.axhline(full.quality, color=palette.full, linestyle="--", linewidth=1, label="full network")
    axes.yaxis.set_major_formatter(PercentFormatter(1, 0))
    axes.set_ylabel("validation accuracy")
    return figure, axes


def _legend(figure: Figure, axes: Axes) -> None:
    figure.legend(*axes.get_legend_handles_labels(), loc="outside upper left", ncols=3, frameon=False)


def main(folder: Path, target: str) -> None:
    networks, runs = trained_both_ways(folder), finished(folder)
    if not networks:
        sys.exit(f"{folder}: no run in it is finished: table2.py makes them")
    full = full_network(runs[0])
    for name, plot in (("curves", curves), ("sizes", sizes)):
        for page, palette in (("light", LIGHT), ("dark", DARK)):
            Path(f"{target}-{name}-{page}.svg").write_bytes(svg(partial(plot, networks, full), palette))


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    main(Path(sys.argv[1]), sys.argv[2])
