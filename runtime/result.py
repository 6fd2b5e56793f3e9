"""What a run found, as it stands in `result.json`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from wootz.passes.errors import InputError
from wootz.passes.ir.files import write_atomically
from wootz.passes.plan.objective import Measurements, Metric
from wootz.runtime.run_directory import RESULT_FILE


@dataclass(frozen=True, kw_only=True)
class _Network:
    """One network of the subspace. Sizes are in parameters.

    `blocks` is the composite vector as text, a dash for modules that start from the teacher's remaining weights;
    empty for default networks.
    """

    index: int
    configuration: str
    parameters: int
    flops: int
    blocks: tuple[str, ...] = ()
    latency_ms: float | None = None
    process: int = 0


@dataclass(frozen=True, kw_only=True)
class TrainedNetworkResult(_Network):
    """Accuracies are on the validation split, seconds those of training."""

    initial_accuracy: float
    accuracy: float
    curve: tuple[tuple[int, float], ...]
    seconds: float

    @property
    def measured(self) -> Measurements:
        return measurements(self.parameters, self.flops, self.accuracy, self.latency_ms)


@dataclass(frozen=True, kw_only=True)
class FailedNetworkResult(_Network):
    """A network without a usable training, and the reason: it can't be chosen, whatever the objective."""

    failed: str

    @property
    def measured(self) -> None:
        return None


NetworkResult = TrainedNetworkResult | FailedNetworkResult


@dataclass(frozen=True)
class FullNetworkResult:
    """The unpruned network. `origin` says where its weights come from; `seconds` were spent on training it here."""

    origin: str
    parameters: int
    flops: int
    accuracy: float
    curve: tuple[tuple[int, float], ...]
    seconds: float
    latency_ms: float | None = None
    test_accuracy: float | None = None

    @property
    def measured(self) -> Measurements:
        return measurements(self.parameters, self.flops, self.accuracy, self.latency_ms)


@dataclass(frozen=True)
class FailedFullNetworkResult:
    """An unpruned network that could not be trained, and the reason: nothing was tried with it."""

    origin: str
    parameters: int
    flops: int
    failed: str


@dataclass(frozen=True)
class TrainedBlockResult:
    """A tuning block. Errors are mean squared differences to the teacher's output, before and after."""

    block: str
    networks: int
    initial_error: float
    final_error: float
    steps: int
    reused: bool


@dataclass(frozen=True)
class FailedBlockResult:
    """A tuning block without a usable training: its modules start from the teacher's remaining weights."""

    block: str
    networks: int
    failed: str
    reused: bool


BlockResult = TrainedBlockResult | FailedBlockResult


@dataclass(frozen=True)
class ExplorationResult:
    """The networks tried, in order, and the one chosen (its `index`), None when none meets the constraints.

    `seconds` is the time from the first network to the last, evaluation included.
    """

    networks: tuple[NetworkResult, ...] = ()
    best: int | None = None
    seconds: float = 0.0
    best_test_accuracy: float | None = None

    @property
    def trained(self) -> tuple[TrainedNetworkResult, ...]:
        return tuple(n for n in self.networks if isinstance(n, TrainedNetworkResult))

    @property
    def failed(self) -> tuple[FailedNetworkResult, ...]:
        return tuple(n for n in self.networks if isinstance(n, FailedNetworkResult))

    def network(self, index: int) -> TrainedNetworkResult:
        return next(n for n in self.trained if n.index == index)


@dataclass(frozen=True)
class RunResult:
    """Everything that the report shows."""

    model: str
    data: str
    objective: str
    classes: tuple[str, ...]
    modules: tuple[str, ...]
    modules_source: str
    subspace_size: int
    feasible: int
    processes: int
    environment: str
    full: FullNetworkResult | FailedFullNetworkResult
    blocks: tuple[BlockResult, ...]
    teacher_passes: int
    pretraining_seconds: float
    block_trained: ExplorationResult
    default: ExplorationResult | None
    seconds: float
    notes: tuple[str, ...] = ()

    def save(self, folder: Path) -> None:
        text = json.dumps(asdict(self), indent=1, allow_nan=False)
        write_atomically(folder / RESULT_FILE, f"{text}\n".encode())

    @staticmethod
    def load(folder: Path) -> RunResult:
        """Reads `result.json` of a run directory. Raises InputError when it is missing or not ours."""
        file = folder / RESULT_FILE
        if not file.is_file():
            raise InputError("no result.json in this folder: it is not the directory of a finished run", folder)
        try:
            return _run_result(json.loads(file.read_text(encoding="utf-8")))
        except (ValueError, RecursionError, KeyError, TypeError, AttributeError) as error:
            reason = f"{error} is missing" if isinstance(error, KeyError) else error
            raise InputError(f"not the result of a run ({reason})", file) from error


def measurements(parameters: int, flops: int, accuracy: float | None, latency_ms: float | None) -> Measurements:
    values = {
        Metric.MODEL_SIZE: parameters,
        Metric.FLOPS: flops,
        Metric.ACCURACY: accuracy,
        Metric.LATENCY: latency_ms,
    }
    return {metric: float(value) for metric, value in values.items() if value is not None}


def _run_result(table: Mapping[str, Any]) -> RunResult:
    default = table["default"]
    return _record(
        RunResult,
        table,
        full=_outcome(FullNetworkResult, FailedFullNetworkResult, table["full"]),
        blocks=tuple(_outcome(TrainedBlockResult, FailedBlockResult, row) for row in table["blocks"]),
        block_trained=_exploration(table["block_trained"]),
        default=None if default is None else _exploration(default),
    )


def _exploration(table: Mapping[str, Any]) -> ExplorationResult:
    networks = tuple(_outcome(TrainedNetworkResult, FailedNetworkResult, row) for row in table["networks"])
    return _record(ExplorationResult, table, networks=networks)


def _outcome(trained: type[Any], failed: type[Any], table: Mapping[str, Any]) -> Any:
    """A record of success or of failure: the latter alone says why."""
    return _record(failed if "failed" in table else trained, table)


def _record(kind: type[Any], table: Mapping[str, Any], **converted: Any) -> Any:
    """An instance of `kind`, with JSON's lists as tuples."""
    known = {f.name for f in fields(kind)}
    values = {name: _frozen(value) for name, value in table.items() if name in known and name not in converted}
    return kind(**values, **converted)


def _frozen(value: Any) -> Any:
    return tuple(_frozen(v) for v in value) if isinstance(value, list) else value
