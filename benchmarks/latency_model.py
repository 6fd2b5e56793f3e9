"""How far latency tables are off: pieces measured alone, beside differences of whole networks.

    python benchmarks/latency_model.py NETWORK.onnx... [--rates 0.25,0.5,0.75] [--skip] [--threads 1] [--json]

Pieces, whole networks, and networks with one module changed take turns. Errors are those of predictions for random
networks that nothing was fitted to, as parts of what was measured: median (worst). `turn` is what one round takes, in
runs of the unpruned network. `--json` prints as its last line `{"NETWORK": {"alone": {…}, "differences": {…}, …}}`.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from wootz.passes.ir.model import Model
from wootz.passes.pruning.block_pruner import BlockPruner
from wootz.passes.pruning.rounding import Rounding
from wootz.runtime.defaults import FAST_MULTIPLE
from wootz.runtime.latency_table.measuring import measure_models, measure_table, network_to_measure, options_of
from wootz.runtime.latency_table.table import LatencyTable, ModelError, Rates, fitted_correction
from wootz.runtime.session import Device
from wootz.tools.models import open_trainable


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("networks", nargs="+", type=Path)
    parser.add_argument("--rates", default="0.25,0.5,0.75")
    parser.add_argument("--skip", action="store_true")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=30.0)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    rates = [float(rate) for rate in options.rates.split(",")]
    found = {}
    for file in options.networks:
        found[file.stem] = _measured(file, rates, options.skip, Device(threads=options.threads), options.seconds)
        for key, value in found[file.stem].items():
            print(f"{file.stem}, {key}: {value}", flush=True)
    if options.json:
        print(json.dumps(found))


def _measured(file: Path, rates: list[float], skip: bool, device: Device, seconds: float) -> dict[str, Any]:
    pruner = BlockPruner.of(open_trainable(str(file)).model, rounding=Rounding(FAST_MULTIPLE, tuple(rates)))
    _, *extents = pruner.model.graph.inputs[0].shape
    shape = (int(extents[0]), int(extents[1]), int(extents[2]))
    options = options_of(pruner, rates, skip)
    changed = [
        tuple(rate if i == position else 0.0 for i in range(len(options)))
        for position, of_module in enumerate(options)
        for rate in of_module[1:]
    ]
    further: list[list[float]] = []

    def measure(models: Iterable[Model], device: Device, seconds: float) -> list[list[float]]:
        subjects = [*models, *(network_to_measure(pruner, c, (1, *shape)) for c in changed)]
        times = measure_models(subjects, device, seconds)
        further.extend(times[-len(changed) :])
        return times[: -len(changed)]

    table = measure_table(pruner, options, shape, device, seconds=seconds, measure=measure)
    singles = {c: float(np.median(times)) for c, times in zip(changed, further, strict=True)}
    pieces = [piece.times.median_ms for module in table.modules for piece in module.pieces]
    return {
        "unpruned": {k: round(v, 4) for k, v in msgspec.to_builtins(table.networks[0].times).items()},
        "rounds": len(further[0]),
        "spread": round(table.spread, 3),
        "alone": {"before": _shown(table.error_before), "after": _shown(table.error)},
        "differences": _by_differences(table, singles),
        "correction": asdict(table.correction),
        "turn": {
            "pieces": round(sum(pieces) / table.full_ms, 1),
            "whole networks": round(sum(n.times.median_ms for n in table.networks) / table.full_ms, 1),
            "differences": round(sum(singles.values()) / table.full_ms, 1),
        },
    }


def _by_differences(table: LatencyTable, singles: dict[Rates, float]) -> dict[str, str]:
    """The errors where each piece counts as what a whole network takes more or less with it."""

    def additive(configuration: Rates) -> float:
        ones = (
            tuple(r if i == j else 0.0 for j in range(len(configuration))) for i, r in enumerate(configuration) if r
        )
        return table.full_ms + sum(singles[one] - table.full_ms for one in ones)

    fitted = [n for n in table.networks if n.use == "fit" or n is table.networks[0]]
    checked = [n for n in table.networks if n.use == "check"]
    correction = fitted_correction(
        [additive(n.configuration) for n in fitted], [0] * len(fitted), [n.times.median_ms for n in fitted]
    )
    errors = {}
    for name, predict in (("before", lambda ms: ms), ("after", lambda ms: correction(ms, 0))):
        off = [abs(predict(additive(n.configuration)) / n.times.median_ms - 1) for n in checked]
        errors[name] = _shown(ModelError(float(np.median(off)), max(off), len(off)))
    return errors


def _shown(error: ModelError | None) -> str:
    return "unknown" if error is None else f"{100 * error.median:.1f} % ({100 * error.worst:.1f} %)"


if __name__ == "__main__":
    main()
