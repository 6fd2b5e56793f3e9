"""The front of a search as files: a network a point, and a table of all networks that were met."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence

import msgspec

from wootz.passes.ir.files import write_atomically
from wootz.passes.ir.model import Model
from wootz.passes.plan.metrics import METRICS, Metric
from wootz.passes.plan.subspace import format_configuration
from wootz.runtime.delivery.delivered import for_inference, latencies_beside_full, write_network
from wootz.runtime.delivery.explored import Explored
from wootz.runtime.delivery.postprocessing import write_whole
from wootz.runtime.outcome import Failed
from wootz.runtime.plan import RunPlan
from wootz.runtime.result import FrontPoint, FullNetworkResult, Network, SearchResult
from wootz.runtime.run_directory import FRONT_FILE, FRONT_FOLDER, clear_front
from wootz.runtime.strategies.selection import Candidate
from wootz.runtime.tasks.workshop import Workshop
from wootz.runtime.watch import Watch

COLUMNS = (
    "file", "model_size", "flops", "latency_ms", "loss", "looked", "predicted", "quality", "test_quality", "origin",
    "configuration",
)  # fmt: skip


def write_front(
    workshop: Workshop,
    plan: RunPlan,
    teacher: Model,
    explored: Explored,
    search: SearchResult,
    full: FullNetworkResult,
    watch: Watch,
) -> SearchResult:
    """Writes `front/`, a network a point, each verified as the best network is, and `front.csv`, and says of both what
    the result does."""
    job = workshop.job
    clear_front(job.out)
    qualities = {
        index: plan.quality_of(found.outcome)
        for index, found in explored.networks.items()
        if not isinstance(found.outcome, Failed)
    }
    points: list[FrontPoint] = []
    of_full = None
    for place, candidate in enumerate(on_front(plan, qualities, METRICS[search.cost]), start=1):
        index = candidate.index
        model = workshop.trained_network(explored.orders[index], explored.networks[index].key)
        name = f"{FRONT_FOLDER}/{place:02d}.onnx"
        file = write_network(
            job, for_inference(job, model), name, qualities[index], watch.note, workshop.trainer.reference(teacher)
        )
        for text in write_whole(job, file):
            watch.note(text)
        test = job.dataset.test
        points.append(
            FrontPoint(
                index=index,
                configuration=plan.configuration(index),
                model_size=int(candidate.measured[Metric.MODEL_SIZE]),
                flops=int(candidate.measured[Metric.FLOPS]),
                latency_ms=candidate.measured.get(Metric.LATENCY),
                model=name,
                file_bytes=file.bytes,
                quality=qualities[index],
                test_quality=None if test is None else workshop.trainer.quality_of(model, test, teacher),
            )
        )
    if points:
        of_full, *times = latencies_beside_full(job, [job.out / point.model for point in points])
        points = [msgspec.structs.replace(p, latency=time) for p, time in zip(points, times, strict=True)]
    search = msgspec.structs.replace(search, front=tuple(points), latency_of_full=of_full)
    write_atomically(job.out / FRONT_FILE, _table(search, full).encode())
    return search


def on_front(plan: RunPlan, qualities: dict[int, float], cost: Metric) -> Iterator[Candidate]:
    """The networks that none is better than, neither in `cost` nor in quality, the dearest first."""
    sign = -plan.quality.sign
    found = sorted((sign * value, plan.candidates[index].measured[cost], index) for index, value in qualities.items())
    least = float("inf")
    for _, costs, index in found:
        if costs < least:
            least = costs
            yield plan.candidates[index]


def _table(search: SearchResult, full: FullNetworkResult) -> str:
    """Comma-separated values: the full network, the front, then all other networks that were met."""
    on_front = {point.configuration: point for point in search.front}
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    writer.writerow(_row(full.model, full, "full", [None, None, None, full.quality, full.test_quality]))
    others = [network for network in search.networks if network.configuration not in on_front]
    known = {network.configuration: network for network in search.networks}
    for point in search.front:
        met = known[point.configuration]
        values = [met.loss, met.looked, met.predicted, point.quality, point.test_quality]
        writer.writerow(_row(point.model, point, met.origin, values))
    for met in sorted(others, key=lambda network: -network.model_size):
        writer.writerow(_row("", met, met.origin, [met.loss, met.looked, met.predicted, met.quality, None]))
    return text.getvalue()


def _row(file: str, network: Network, origin: str, values: Sequence[float | None]) -> list[str]:
    """The fields of a row; unknown ones are empty."""
    latency = "" if network.latency_ms is None else f"{network.latency_ms:.4g}"
    shown = ["" if value is None else f"{value:.6g}" for value in values]
    known = [file, str(network.model_size), str(network.flops), latency, *shown]
    return [*known, origin, format_configuration(network.configuration)]
