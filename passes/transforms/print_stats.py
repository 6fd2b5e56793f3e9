"""print-stats: reports what a network costs, layer by layer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from wootz.passes.analysis.cost import LayerCost, layer_costs
from wootz.passes.base import Pass, PassResult
from wootz.passes.ir.model import Model


@dataclass(frozen=True)
class PrintStats(Pass):
    """Reports what a network costs, layer by layer.

    Parameters (running statistics not counted) and multiply-accumulates for one image; FLOPs are twice these. Where
    shapes that MACs depend on are not known, the table has `?`.
    """

    name = "print-stats"
    preserves_outputs = True

    def apply(self, model: Model) -> PassResult:
        costs = layer_costs(model)
        parameters, macs = sum(c.parameters for c in costs), sum(c.macs for c in costs)
        statistics = {"parameters": parameters, "MACs": macs, "FLOPs": 2 * macs}
        unknown = [c.name for c in costs if not c.is_known]
        notes = (f"the MACs of {_names(unknown)} are not known, as shapes aren't: the total is without them",)
        report = _table(costs, parameters, macs)
        return PassResult(model, modified=False, statistics=statistics, report=report, notes=notes if unknown else ())


def _names(layers: Sequence[str]) -> str:
    """The first three names, and how many more there are."""
    more = f" and {len(layers) - 3} more" if len(layers) > 3 else ""
    return ", ".join(map(repr, layers[:3])) + more


def _table(costs: tuple[LayerCost, ...], parameters: int, macs: int) -> str:
    rows = [
        ("layer", "operator", "output", "parameters", "MACs"),
        *(
            (
                c.name,
                c.operator,
                "x".join(map(str, c.output)),
                f"{c.parameters:,}",
                f"{c.macs:,}" if c.is_known else "?",
            )
            for c in costs
        ),
        ("total", "", "", f"{parameters:,}", f"{macs:,}"),
    ]
    widths = [max(len(row[i]) for row in rows) for i in range(5)]
    aligned = (
        [
            cell.ljust(width) if i < 3 else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        for row in rows
    )
    return "".join("  ".join(cells).rstrip() + "\n" for cells in aligned)
