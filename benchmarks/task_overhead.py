"""What a task costs beside its work, on each kind of engine: seconds for a task that does nothing, all at work at once.

Run `python benchmarks/task_overhead.py`; engines whose packages aren't installed are left out.
"""

from __future__ import annotations

import argparse
import importlib.util
import subprocess
import sys
import tempfile
from pathlib import Path
from shutil import which

from wootz.runtime.executors.control import Control
from wootz.runtime.executors.team import gathered

MEASURE = "--measure"


def nothing(number: int, control: Control) -> int:
    """The task."""
    return number


def measure(tasks: int, workers: int = 0, executor: str = "") -> float | None:
    """Seconds a task, once every worker has had one; None on a rank that served."""
    with gathered(workers, executor) as team:
        if team is None:
            return None
        with tempfile.TemporaryDirectory() as folder, team.engine(nothing, Path(folder)) as engine:
            left = list(range(-engine.workers, tasks))
            under_way, began = 0, engine.now()
            while left or under_way:
                while left and under_way < engine.workers:
                    if left[0] == 0:
                        began = engine.now()
                    engine.start(left.pop(0))
                    under_way += 1
                under_way -= len(engine.wait())
            return (engine.now() - began) / tasks


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tasks", type=int, default=300)
    parser.add_argument(MEASURE, action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        seconds = measure(options.tasks)
        if seconds is not None:
            print(seconds)
        return
    report("this process", measure(options.tasks))
    report("2 processes", measure(options.tasks, workers=2))
    mpiexec = which("mpiexec", path=str(Path(sys.executable).parent)) or which("mpiexec")
    if mpiexec is not None and importlib.util.find_spec("mpi4py") is not None:
        command = [mpiexec, "-n", "2", sys.executable, __file__, MEASURE, "--tasks", str(options.tasks)]
        report("2 ranks of MPI", float(subprocess.run(command, check=True, capture_output=True).stdout))
    if importlib.util.find_spec("distributed") is not None:
        from distributed import LocalCluster

        with LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address="127.0.0.1:0") as cluster:
            address = cluster.scheduler_address.replace("tcp:", "dask:")
            report("2 workers of Dask", measure(options.tasks, executor=address))


def report(engine: str, seconds: float | None) -> None:
    print(f"{engine:20} {seconds:.4f} s a task", flush=True)


if __name__ == "__main__":
    main()
