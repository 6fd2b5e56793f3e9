"""The further files of the best network as rows, for the page and the terminal."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass

from wootz.passes.plan.metrics import METRICS
from wootz.runtime.delivery.misses import misses_of_best
from wootz.runtime.quality.showing import show_amount
from wootz.runtime.result import Finishing, LatencyResult, Miss, RunResult
from wootz.runtime.run_directory import BEST_FILE


@dataclass(frozen=True)
class Row:
    """A file, or the network behind an earlier pass of its pipeline, whose `name` is indented then.

    `verdict` says whether a file meets the objective.
    """

    name: str
    bytes: int | None
    latency: LatencyResult
    quality: float
    test_quality: float | None
    verdict: str = ""


def rows(result: RunResult, finishing: Finishing) -> Iterator[Row]:
    """`best.onnx`, and behind it what was made of it."""
    best, speed = result.best, result.speed
    assert best is not None, "further files are those of a network"
    assert speed is not None, "and were timed beside it"
    verdict = _verdict(misses_of_best(result.objective, result.quality.metric, best, speed))
    yield Row(BEST_FILE, best.file_bytes, speed.best, best.quality, best.test_quality, verdict)
    for network in finishing.networks:
        for step in network.steps[:-1]:
            yield Row(f"  {step.pass_}", step.bytes, step.latency, step.quality, step.test_quality)
        verdict = _verdict(network.misses)
        yield Row(network.model, network.bytes, network.latency, network.quality, network.test_quality, verdict)


def _verdict(misses: Collection[Miss]) -> str:
    return "missed" if misses else "met"


def remarks(result: RunResult, finishing: Finishing) -> Iterator[str]:
    """What there is to say of the files: the bounds that they miss, and what int8 left in float32."""
    assert result.best is not None
    assert result.speed is not None
    for miss in misses_of_best(result.objective, result.quality.metric, result.best, result.speed):
        yield f"{BEST_FILE} misses {miss.constraint} by {_amount(result, miss)}"
    for network in finishing.networks:
        for miss in network.misses:
            yield f"{network.model} misses {miss.constraint} by {_amount(result, miss)}"
        for note in network.notes:
            yield f"{network.model}: {note}"


def _amount(result: RunResult, miss: Miss) -> str:
    return show_amount(METRICS.get(miss.constraint.split()[0], result.quality.metric), miss.by)
