"""Programs that drive engines, MPI, and Dask clusters of this machine."""

import importlib.util
import json
import os
import pickle
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from shutil import which
from typing import Self

import pytest

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))
from processes import LONG, wait_until  # noqa: E402


@dataclass
class Driver:
    """`drive.py` at work in `folder`."""

    folder: Path
    process: subprocess.Popen

    def finish(self) -> tuple[int, str]:
        """Its exit status, and what it wrote to standard error."""
        _, said = self.process.communicate(timeout=LONG)
        return self.process.returncode, said

    def ended(self) -> list:
        """How the toys ended, from a program that did well."""
        assert self.finish() == (0, "")
        return pickle.loads((self.folder / "ended.pickle").read_bytes())

    def log(self, worker: int) -> str:
        return (self.folder / "logs" / f"worker-{worker}.log").read_text()


@pytest.fixture
def drive(tmp_path) -> Iterator[Callable[..., Driver]]:
    """Starts `drive.py`."""
    started = []

    def start(*toys: str, before: tuple[str, ...] = (), **options: object) -> Driver:
        command = [*before, sys.executable, HERE / "drive.py", tmp_path, json.dumps(options), *toys]
        process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, start_new_session=True)
        started.append(process)
        return Driver(tmp_path, process)

    yield start
    for process in started:
        process.kill()
        process.wait()


@pytest.fixture(scope="session")
def mpiexec() -> Callable[[int], tuple[str, ...]]:
    """The beginning of a command line that starts so many processes."""
    pytest.importorskip("mpi4py")
    program = which("mpiexec", path=str(Path(sys.executable).parent)) or which("mpiexec")
    if program is None:
        pytest.skip("no mpiexec: the extra 'mpi' brings one")
    return lambda count: (program, "-n", str(count))


@dataclass
class DaskCluster:
    """A scheduler and workers of one thread, in processes."""

    folder: Path
    scheduler: subprocess.Popen | None = None

    @property
    def address(self) -> str:
        return json.loads((self.folder / "scheduler.json").read_text())["address"].replace("tcp:", "dask:")

    @contextmanager
    def worker(self, path: Path = HERE) -> Iterator[subprocess.Popen]:
        """One more, which finds modules in `path` too, once it is registered."""
        environment = {**os.environ, "PYTHONPATH": f"{path}{os.pathsep}{HERE}"}
        with self._running("worker", "--nthreads", "1", "--no-nanny", environment=environment) as process:
            wait_until(lambda: "Registered to" in self._said("worker", process.pid))
            yield process

    @contextmanager
    def running(self) -> Iterator[Self]:
        with self._running("scheduler", "--host", "127.0.0.1", "--port", "0") as self.scheduler:
            wait_until((self.folder / "scheduler.json").exists)
            yield self

    def _said(self, role: str, number: int) -> str:
        return "".join(file.read_text() for file in self.folder.glob(f"{role}-{number}.log"))

    @contextmanager
    def _running(
        self, role: str, *options: str, environment: dict[str, str] | None = None
    ) -> Iterator[subprocess.Popen]:
        command = [sys.executable, "-m", "dask", role, "--no-dashboard", "--scheduler-file"]
        log = self.folder / f"{role}.log"
        with log.open("w") as output:
            process = subprocess.Popen(
                [*command, self.folder / "scheduler.json", *options],
                stdout=output,
                stderr=subprocess.STDOUT,
                env=environment,
                cwd=self.folder,
            )
        log.rename(self.folder / f"{role}-{process.pid}.log")
        try:
            yield process
        finally:
            process.kill()
            process.wait()


@pytest.fixture
def dask_cluster(tmp_path_factory) -> Iterator[DaskCluster]:
    """A scheduler without workers."""
    if importlib.util.find_spec("distributed") is None:
        pytest.skip("no distributed: the extra 'dask' brings it")
    with DaskCluster(tmp_path_factory.mktemp("dask")).running() as cluster:
        yield cluster
