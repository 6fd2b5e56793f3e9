"""What it saves that networks which are looked at together share what they begin with alike.

    python benchmarks/looks_together.py runs/SEARCH

SEARCH is the folder of a finished `wootz search`. The networks that it looked at, pruned with the full network's
weights, are measured on the validation split alone and ten at once, in turns; and so are the statistics of their
BatchNormalizations. Seconds are the processor's. The tens are of all networks in order, which a search divides into
some rounds first.
"""

from __future__ import annotations

import pickle
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from wootz.passes.ir.model import Model
from wootz.runtime.job import Job
from wootz.runtime.quality.measuring import measured_each
from wootz.runtime.recalibration import measured_statistics
from wootz.runtime.result import RunResult
from wootz.runtime.run_directory import JOB_FILE
from wootz.runtime.session import MergedSession
from wootz.runtime.store import Store
from wootz.runtime.strategies.search import NETWORKS_A_LOOK
from wootz.runtime.tasks.workshop import Workshop


def measures(job: Job) -> dict[str, Callable[[Sequence[Model]], object]]:
    def validation(models: Sequence[Model]) -> object:
        predict, split = MergedSession(models, job.device).outputs, job.dataset.validation
        return measured_each(job.quality, predict, len(models), split, job.test_transform)

    def statistics(models: Sequence[Model]) -> object:
        return measured_statistics(models, job.dataset.train, job.test_transform, job.device, job.target)

    return {"validation": validation, "statistics": statistics}


def seconds(measure: Callable[[Sequence[Model]], object], models: Sequence[Model]) -> float:
    begin = time.process_time()
    measure(models)
    return time.process_time() - begin


def main(run: Path) -> None:
    search = RunResult.load(run).search
    assert search is not None, f"{run} is no search"
    configurations = sorted(network.configuration for network in search.networks)
    job: Job = pickle.loads((run / JOB_FILE).read_bytes())
    with tempfile.TemporaryDirectory() as folder:
        workshop = Workshop(job, Store.open(Path(folder)))
        models = [workshop.pruned(workshop.architecture, c) for c in configurations]
        tens = [models[i : i + NETWORKS_A_LOOK] for i in range(0, len(models), NETWORKS_A_LOOK)]
        for name, measure in measures(job).items():
            both = [(sum(seconds(measure, [one]) for one in ten), seconds(measure, ten)) for ten in tens]
            alone, together = map(sum, zip(*both, strict=True))
            print(f"{name}: {len(models)} networks, alone {alone:.1f} s, ten at once {together / alone:.2f} of it")
            print(f"    of each ten {', '.join(f'{b / a:.2f}' for a, b in both)}")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
