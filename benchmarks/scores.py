"""Scoring all blocks of a network in place, beside what its arithmetic takes, and beside running each variant whole.

    python benchmarks/scores.py NETWORK... [--size 160] [--images 300] [--rates 0.1,…] [--threads 1] [--json]

Each module is pruned at each rate, in the full network. For each batch, the full network, all scores, and some variants
whole take turns. `passes` is what the scores take in passes of the full network, by multiply-accumulates, and `whole`
the same of the full network and all variants. `ratio` is the time of the scores over `passes` times that of the full
network; `times as fast` is how much longer all variants would take whole, by those that were run. `--size` sets height
and width of the images. Planning and opening sessions, which happens once, is told apart: `seconds before`. `--json`
prints all of it as its last line.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from wootz.passes.analysis.cost import macs
from wootz.passes.ir.model import Model
from wootz.passes.pruning.block_pruner import BlockPruner
from wootz.passes.pruning.rounding import Rounding
from wootz.runtime.batches import Batch
from wootz.runtime.evaluation import EVALUATION_BATCH
from wootz.runtime.session import Device, InferenceSession, TensorSession, on_device
from wootz.runtime.variants.plan import VariantPlan
from wootz.runtime.variants.scoring import Scoring
from wootz.tools.models import open_trainable

MULTIPLE = 8
"""Layers keep multiples of so many filters: others are slow, whatever computes them."""

WARM_UP = 2
"""Batches before the first one that counts: sessions take their memory in the first two."""
MOST_WHOLE = 15
"""About so many variants are run whole."""

Variants = Mapping[tuple[str, float], Model]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("networks", nargs="+", type=Path)
    parser.add_argument("--size", type=int, default=0)
    parser.add_argument("--images", type=int, default=300)
    parser.add_argument("--rates", default="0.1,0.2,0.3,0.4,0.5,0.6,0.7")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    rates = [float(rate) for rate in options.rates.split(",")]
    found = {}
    for file in options.networks:
        full = resized(open_trainable(str(file)).model, options.size)
        found[file.stem] = measured(full, variants_of(full, rates), options.images, Device(threads=options.threads))
        print(
            f"{file.stem}: {', '.join(f'{name} {value:.4g}' for name, value in found[file.stem].items())}", flush=True
        )
    if options.json:
        print(json.dumps(found))


def resized(model: Model, size: int) -> Model:
    """The network for images of another height and width; what was annotated of their size is gone."""
    if not size:
        return model
    model = model.copy()
    for tensor in model.graph.tensors().values():
        if tensor.inputs:
            tensor.shape = None
    image = model.graph.inputs[0]
    image.shape = [*image.shape[:2], size, size]
    return model


def variants_of(full: Model, rates: list[float]) -> Variants:
    pruner = BlockPruner.of(full, rounding=Rounding(MULTIPLE))
    prunable = [table.module for table in pruner.convolutions if table.prunable]
    return {(m, rate): pruner.materialize(pruner.plan({m: rate})) for m in prunable for rate in rates}


def measured(full: Model, variants: Variants, images: int, device: Device) -> dict[str, float]:
    begin = time.perf_counter()
    plan = VariantPlan.of(full, variants)
    scoring = Scoring(plan, device)
    before = time.perf_counter() - begin
    work = {key: macs(variant) for key, variant in variants.items()}
    sample = list(variants)[:: max(1, len(variants) // MOST_WHOLE)]
    network = InferenceSession(full, device)
    whole = [TensorSession(variants[key], device) for key in sample]  # they keep no memory for results
    seconds = dict.fromkeys(("full", "scores", "whole"), 0.0)
    random = np.random.default_rng(0)
    image = full.graph.inputs[0]
    for first in range(-WARM_UP * EVALUATION_BATCH, images, EVALUATION_BATCH):
        count = min(EVALUATION_BATCH, images - max(0, first))
        data = random.standard_normal((count, *image.shape[1:])).astype(np.float32)
        for what, run in (
            ("full", partial(network.run, data)),
            ("scores", partial(scoring.add, Batch(data, np.zeros(count, np.int64)))),
            ("whole", partial(run_all, whole, {image.name: on_device(data, device)})),
        ):
            begin = time.perf_counter()
            run()
            seconds[what] += (time.perf_counter() - begin) * (first >= 0)
    of_all = seconds["full"] + seconds["whole"] * sum(work.values()) / sum(work[key] for key in sample)
    return {
        "variants": len(variants),
        "passes": plan.passes,
        "whole": 1 + sum(work.values()) / macs(full),
        "ms an image of the full network": 1000 * seconds["full"] / images,
        "ratio": seconds["scores"] / (plan.passes * seconds["full"]),
        "times as fast": of_all / seconds["scores"],
        "seconds before": before,
    }


def run_all(sessions: Sequence[TensorSession], feeds: Mapping[str, Any]) -> None:
    for session in sessions:
        session.run(feeds)


if __name__ == "__main__":
    main()
