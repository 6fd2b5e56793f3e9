"""Runs and searches of one network on one data set, each in a folder, and with a store of its own."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from courses import Course, course_of_run
from processor_time import ProcessorTime, run

from wootz.passes.plan.sampling import Sampling
from wootz.runtime.result import FullNetworkResult, RunResult
from wootz.runtime.run_directory import RESULT_FILE

RATES = "0.3,0.5,0.7"
"""Those of the paper (section 7.1)."""


def objective(drop: float) -> str:
    return f"min ModelSize constraint Accuracy >= full - {drop:g}"


@dataclass(frozen=True)
class Explorer:
    """`further` are options of `wootz run` and `wootz search`; a run may be given another's store.

    What is finished isn't run again, and what was interrupted goes on.
    """

    model: str | Path
    data: str | Path
    threads: int
    further: tuple[str, ...] = ()

    def explore(
        self, command: Literal["run", "search"], folder: Path, objective: str, seed: int, *arguments: object
    ) -> None:
        if is_finished(folder):
            return
        if "--store" not in arguments:
            arguments += ("--store", store_of(folder))
        given = ("--data", self.data, "--objective", objective, "--seed", seed, "--threads", self.threads)
        run(_wootz(command, self.model, *given, "--out", folder, *arguments, *self.further), processor_file(folder))

    def enumerate(
        self, folder: Path, count: int, objective: str, seed: int, *arguments: object, sampling: Sampling = "spread"
    ) -> None:
        """`count` random configurations, which lie beside `folder`."""
        subspace = self.subspace(folder, count, seed, sampling)
        self.explore("run", folder, objective, seed, "--subspace", subspace, *arguments)

    def subspace(self, folder: Path, count: int, seed: int, sampling: Sampling = "spread") -> Path:
        """The file beside `folder` with so many random configurations."""
        file = folder.with_name(f"subspace-{count}.json")
        if not file.exists():
            file.parent.mkdir(parents=True, exist_ok=True)
            sampled = ("--rates", RATES, "--count", count, "--seed", seed, "--sampling", sampling)
            subprocess.run(_wootz("subspace", "sample", self.model, *sampled, "-o", file), stdout=sys.stderr)
        return file


def is_finished(folder: Path) -> bool:
    return (folder / RESULT_FILE).exists()


def store_of(folder: Path) -> Path:
    return folder.with_name(f"{folder.name}-store")


def full_network(folder: Path) -> FullNetworkResult:
    """That of a finished run. Exits with a message where its training has failed."""
    full = RunResult.load(folder).full
    if not isinstance(full, FullNetworkResult):
        sys.exit(f"{folder}: the full network could not be trained: {full.reason}")
    return full


def course_in(folder: Path, is_default: bool, by_processor: bool) -> Course | None:
    """None for a run that isn't finished."""
    processor = ProcessorTime.load(processor_file(folder)) if by_processor else None
    return course_of_run(folder, is_default, processor)


def processor_file(folder: Path) -> Path:
    return folder.with_name(f"{folder.name}-processor.jsonl")


def _wootz(*arguments: object) -> list[str]:
    return list(map(str, (Path(sys.executable).parent / "wootz", *arguments)))
