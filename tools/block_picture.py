"""Draws which networks use which tuning blocks."""

from __future__ import annotations

import colorsys
import io
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt

from wootz.passes.errors import WootzError
from wootz.passes.ir.files import write_atomically
from wootz.passes.plan.blocks import BlockPlan, TuningBlock
from wootz.passes.plan.subspace import Subspace

MOST_NETWORKS_LABELLED = 40
GOLDEN_RATIO = 0.618034
"""A step around the circle of hues that keeps neighbours far apart, however many there are."""


def check_picture_path(path: Path) -> None:
    """Raises WootzError for a file that is no picture, before any work is done for it."""
    if path.suffix not in (".svg", ".png"):
        raise WootzError(f"{path}: a picture is written as .svg or .png")


def draw_blocks(path: Path, subspace: Subspace, plan: BlockPlan, names: Mapping[TuningBlock, str]) -> None:
    """Writes networks (rows) × modules (columns) coloured by block; what is in no block stays white."""
    from matplotlib.figure import Figure  # here: it takes a second to import

    count, width = len(plan.composites), len(subspace.modules)
    labelled = count <= MOST_NETWORKS_LABELLED
    figure = Figure(figsize=(2 + 0.45 * width, 1.5 + (0.25 * count if labelled else 10)), layout="constrained")
    axes = figure.subplots()
    axes.imshow(_cells(plan, count, width), extent=(0, width, count, 0), aspect="auto", interpolation="nearest")
    axes.set(xlabel="module", ylabel="network", title=f"{len(plan.blocks)} tuning blocks; white: in no block")
    axes.set_xticks([m + 0.5 for m in range(width)], subspace.modules, rotation=90, fontsize=7)
    if labelled:
        axes.set_yticks([n + 0.5 for n in range(count)], [str(n + 1) for n in range(count)], fontsize=7)
        axes.hlines(range(1, count), 0, width, color="white", linewidth=2)
        for row, composite in enumerate(plan.composites):
            for block in composite:
                if block is not None:
                    middle = block.modules[0] + len(block.modules) / 2
                    axes.text(middle, row + 0.5, names[block], ha="center", va="center", fontsize=6)
    content = io.BytesIO()
    figure.savefig(content, dpi=150, format=path.suffix[1:])
    write_atomically(path, content.getvalue())


def _cells(plan: BlockPlan, count: int, width: int) -> npt.NDArray[np.float64]:
    """Red, green and blue of each cell: float[networks, modules, 3]."""
    cells = np.ones((count, width, 3))
    colours = {block: _colour(i) for i, block in enumerate(plan.blocks)}
    for row, composite in enumerate(plan.composites):
        for block in composite:
            if block is not None:
                cells[row, list(block.modules)] = colours[block]
    return cells


def _colour(number: int) -> tuple[float, float, float]:
    return colorsys.hls_to_rgb(number * GOLDEN_RATIO % 1, 0.7 + 0.1 * (number % 3 - 1), 0.6)
