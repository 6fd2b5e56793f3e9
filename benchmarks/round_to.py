"""Which multiples of filters are fast: latencies of networks whose layers keep multiples of 1, 4, 8 or 16.

    python benchmarks/round_to.py NETWORK.onnx... [--rates 0.3,0.5,0.7] [--multiples 1,4,8,16] [--threads 1] [--json]

All modules of a network are pruned at a rate, and all its versions take turns with the full network. `speed` is how
many times as fast a version is as the full network, `parameters` the share that it keeps. `--json` prints as its last
line `{"NETWORK": {"RATE": {"MULTIPLE": {"speed": …, "parameters": …}}}}`.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from wootz.passes.blocks.costs import network_cost
from wootz.passes.ir.model import Model
from wootz.passes.pruning.block_pruner import BlockPruner
from wootz.passes.pruning.rounding import Rounding
from wootz.runtime.inputs import zeros
from wootz.runtime.latency import latencies
from wootz.runtime.session import Device
from wootz.tools.models import open_trainable, prunable_network


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("networks", nargs="+", type=Path)
    parser.add_argument("--rates", default="0.3,0.5,0.7")
    parser.add_argument("--multiples", default="1,4,8,16")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    rates = [float(rate) for rate in options.rates.split(",")]
    multiples = [int(multiple) for multiple in options.multiples.split(",")]
    found = {}
    for file in options.networks:
        found[file.stem] = _speeds(open_trainable(str(file)).model, rates, multiples, options.threads)
        for rate, versions in found[file.stem].items():
            cells = ", ".join(f"{m}: {v['speed']:.2f} × ({100 * v['parameters']:.0f} %)" for m, v in versions.items())
            print(f"{file.stem}, rate {rate}: {cells}", flush=True)
    if options.json:
        print(json.dumps(found))


def _speeds(
    full: Model, rates: list[float], multiples: list[int], threads: int
) -> dict[float, dict[int, dict[str, float]]]:
    pruner = BlockPruner.of(full)
    network = prunable_network(pruner)
    versions = {}
    for rate in rates:
        of_modules = {module: rate for module in network.modules if network.prunable(module)}
        for multiple in multiples:
            rounded = pruner.rounding_to(Rounding(multiple))
            versions[rate, multiple] = rounded.materialize(rounded.plan(of_modules))
    of_full, *measured = latencies((full, *versions.values()), zeros(full), Device(threads=threads))
    parameters = network_cost(full).parameters
    found: dict[float, dict[int, dict[str, float]]] = {}
    for ((rate, multiple), model), latency in zip(versions.items(), measured, strict=True):
        found.setdefault(rate, {})[multiple] = {
            "speed": round(of_full.median_ms / latency.median_ms, 3),
            "parameters": round(network_cost(model).parameters / parameters, 3),
        }
    return found


if __name__ == "__main__":
    main()
