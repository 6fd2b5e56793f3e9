"""Makes further files of the best network, each by a pipeline of passes, and measures them beside it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory

import msgspec
import numpy as np

from wootz.passes.base import Pass
from wootz.passes.errors import WootzError
from wootz.passes.ir.files import load
from wootz.passes.ir.model import Model
from wootz.passes.ir.shapes import infer_shapes
from wootz.passes.pipeline import print_pass, run_pipeline
from wootz.passes.plan.metrics import Metric
from wootz.passes.plan.transform import TRANSFORM_KEY, InputTransform
from wootz.passes.training.casts import cancel_casts, drop_idle_casts
from wootz.passes.transforms.eliminate_dead import EliminateDead
from wootz.passes.transforms.image_classifier import as_trainable_network, takes_images
from wootz.passes.transforms.int8 import Int8, with_node_names
from wootz.runtime.batches import ordered_batches
from wootz.runtime.delivery.delivered import (
    Written,
    for_inference,
    in_given_form,
    latencies_beside_full,
    quality_of_file,
    write_file,
)
from wootz.runtime.delivery.description import (
    FinishedFacts,
    finished_facts,
    read_description,
    with_finished,
    write_description,
)
from wootz.runtime.delivery.finish_pipelines import Pipeline
from wootz.runtime.delivery.misses import constraints_of, misses, misses_of_best
from wootz.runtime.delivery.postprocessing import write_whole
from wootz.runtime.delivery.quantization import quantize, signal_to_noise
from wootz.runtime.inputs import feeds
from wootz.runtime.job import Job
from wootz.runtime.quality.measuring import Reference
from wootz.runtime.quality.showing import show
from wootz.runtime.result import (
    FinishedNetwork,
    Finishing,
    FinishingStep,
    LatencyResult,
    RunResult,
    Speed,
)
from wootz.runtime.run_directory import BEST_FILE, DESCRIPTION_FILE, TEACHER_FILE
from wootz.runtime.watch import Watch

CALIBRATION_IMAGES = 128
"""Training images, evenly spread, of whose activations the ranges of int8 are those."""
COMPARED_IMAGES = 8
"""Of these, on which is measured which nodes lose most by quantization: all activations are held at once."""
TRIED_IMAGES = 4
"""On which a pipeline is tried before anything is trained."""
MOST_LOST = 0.01
"""The share of right answers, or of equal ones, on the validation images that int8 may lose, also where the objective
allows more; of other qualities as much, of the full network's outputs' power or of the value itself."""
SCALES_BY_CHANNEL = 13
"""The first opset in which DequantizeLinear has them."""
MOST_ROUNDS = 5
"""int8 leaves 1, 2, 4, 8 and 16 of the nodes that lose most in float32, until the quality suffices."""


def finish(job: Job, result: RunResult, watch: Watch) -> RunResult:
    """Writes a file for each of the job's pipelines beside `best.onnx`, completes `best.json`, and writes
    `result.json`.

    Each begins with `best.onnx` as it lies in the run's folder. What is then timed is timed all together: the further
    files, `best.onnx` and `teacher.onnx`. Raises WootzError for what a pass refuses.
    """
    if result.best is None and job.finish:
        watch.message(f"Not made, since there is no best network: {', '.join(p.file for p in job.finish)}.")
    elif job.finish or result.finishing is not None:
        result = _finished(job, result, watch)
    result.save(job.out)
    return result


def check_finishing(job: Job) -> None:
    """Tries the job's pipelines on the full network, and a few images: what can't be done is told before anything is
    trained. Raises WootzError."""
    if not job.finish:
        return
    network = trainable_form(job, for_inference(job, job.network))
    reference = Reference(job.network, job.test_transform, job.device) if job.quality.compares else None
    few = replace(job.dataset, validation=job.dataset.validation.part(slice(TRIED_IMAGES)))
    tried = replace(job, dataset=few)
    for pipeline in job.finish:
        try:
            with TemporaryDirectory(prefix="wootz-finish-") as folder:
                finisher = Finisher(tried, network, Path(folder), TRIED_IMAGES, reference=reference)
                for pass_ in pipeline.passes:
                    finisher.apply(pass_)
                write_file(tried, finisher.delivered(), Path(folder) / pipeline.file, reference)
        except WootzError as error:
            raise WootzError(f"--finish {pipeline.text}: {error}") from error


def trainable_form(job: Job, delivered: Model) -> Model:
    """What is delivered, as it was trained: images are float32 [N, channels, height, width]."""
    size = job.image_shape[1:] if takes_images(job.network.graph) else ()
    network = infer_shapes(as_trainable_network(delivered.copy(), size=size)[0])
    drop_idle_casts(network.graph)
    return network


def _finished(job: Job, result: RunResult, watch: Watch) -> RunResult:
    assert result.best is not None
    assert result.speed is not None, "a best network was timed when it was written"
    finishing, speed, facts = _finishing(job, result, watch) if job.finish else (None, result.speed, ())
    meets, file = (
        not misses_of_best(result.objective, job.quality.metric, result.best, speed),
        job.out / DESCRIPTION_FILE,
    )
    write_description(with_finished(read_description(file), speed, meets, facts), file)
    return msgspec.structs.replace(result, speed=speed, finishing=finishing, seconds=watch.seconds())


def _finishing(job: Job, result: RunResult, watch: Watch) -> tuple[Finishing, Speed, tuple[FinishedFacts, ...]]:
    network = trainable_form(job, load(job.out / BEST_FILE))
    reference = _reference_in_file(job) if job.quality.compares else None
    with TemporaryDirectory(prefix="wootz-finish-") as folder:
        made = [
            _made(job, result, network, pipeline, Path(folder) / str(number), reference, watch)
            for number, pipeline in enumerate(job.finish)
        ]
        files = [job.out / BEST_FILE, *(w.file for steps in made for w in steps.written)]
        of_full, of_best, *measured = latencies_beside_full(job, files)
        speed = Speed(full=of_full, best=of_best, threads=job.device.numerics_threads)
        left = iter(measured)
        networks = tuple(
            _network(job, result, speed, steps, list(islice(left, len(steps.written))), reference) for steps in made
        )
    facts = tuple(finished_facts(job, n, steps.written[-1].model) for n, steps in zip(networks, made, strict=True))
    return Finishing(networks=networks), speed, facts


@dataclass(frozen=True)
class _Made:
    """What a pipeline made: the files behind each pass, the last of which is the pipeline's own."""

    pipeline: Pipeline
    written: tuple[Written, ...]
    float_nodes: tuple[str, ...]
    notes: tuple[str, ...]
    seconds: float


def _made(
    job: Job,
    result: RunResult,
    network: Model,
    pipeline: Pipeline,
    folder: Path,
    reference: Reference | None,
    watch: Watch,
) -> _Made:
    watch.message(f"{pipeline.file} is made of {BEST_FILE} ({pipeline.text}).")
    begin = time.perf_counter()
    finisher = Finisher(job, network, folder, CALIBRATION_IMAGES, _suffices(job, result), reference)
    written: list[Written] = []
    notes: list[str] = []
    for position, pass_ in enumerate(pipeline.passes, start=1):
        notes += finisher.apply(pass_)
        is_last = position == len(pipeline.passes)
        file = job.out / pipeline.file if is_last else folder / f"{position}.{pipeline.file}"
        written.append(write_file(job, finisher.delivered(), file, reference))
    notes += [*opset_note(job, written[-1], pipeline.passes[-1]), *write_whole(job, written[-1])]
    seconds = time.perf_counter() - begin
    return _Made(pipeline, tuple(written), finisher.float_nodes, tuple(notes), seconds)


def opset_note(job: Job, written: Written, last: Pass) -> Iterator[str]:
    """Where a file is not in the job's opset, that it isn't and why, in words for who asked for the pass."""
    if written.opset_reason:
        is_too_old = isinstance(last, Int8) and job.opset < SCALES_BY_CHANNEL
        why = "whose scales can't be by channel" if is_too_old else "which can't express it"
        yield f"its opset is {written.opset} instead of {job.opset}, {why}"


def _suffices(job: Job, result: RunResult) -> Callable[[float], bool]:
    """Whether a quality is one that int8 may end with: bounds that the best network misses itself don't count."""
    assert result.best is not None
    metric, best = job.quality.metric, result.best.quality
    scale = max(1.0, abs(best)) if not metric.is_share else 1.0
    least = metric.sign * best - MOST_LOST * scale
    bounds = [c for c in constraints_of(result.objective, metric) if c.metric == metric and c.holds({metric: best}, {})]

    def suffices(quality: float) -> bool:
        return metric.sign * quality >= least and all(bound.holds({metric: quality}, {}) for bound in bounds)

    return suffices


class Finisher:
    """Applies passes to a network of float32 images [N, channels, height, width], `model`, as it is trained.

    Without `suffices` nothing is measured, and int8 quantises all that it can.
    """

    def __init__(
        self,
        job: Job,
        model: Model,
        folder: Path,
        images: int,
        suffices: Callable[[float], bool] | None = None,
        reference: Reference | None = None,
    ):
        self.model = model
        self.float_nodes: tuple[str, ...] = ()
        self._job = job
        self._folder = folder
        self._images = images
        self._reference = reference
        self._suffices = suffices

    def apply(self, pass_: Pass) -> tuple[str, ...]:
        """Gives the notes of the pass, and of what was left out of it."""
        before, domains = _interface(self.model), _domains(self.model)
        if isinstance(pass_, Int8):
            notes = self._quantize(pass_)
        else:
            step = run_pipeline(self.model, [pass_]).steps[0]
            self.model, notes = step.result.model, step.result.notes
        if _interface(self.model) != before:
            raise WootzError(f"{pass_.name} changes what the network takes or gives, which stay as they were given")
        if foreign := _domains(self.model) - domains:
            raise WootzError(f"{pass_.name} makes operators of {min(foreign)}, which only some programs can run")
        return notes

    def delivered(self, model: Model | None = None) -> Model:
        """The network with the interface of the one that was given."""
        result = in_given_form(self._job, model or self.model)
        if cancel_casts(result.graph):
            result = EliminateDead().apply(result).model
        return result

    def _quantize(self, pass_: Int8) -> tuple[str, ...]:
        """Leaves in float32 as many of the nodes that lose most as it takes; gives a note on them."""
        feeds, network = self._sample(), with_node_names(self.model)
        whole = replace(pass_, sample=feeds, quantizer=quantize)
        self.model = run_pipeline(network, [whole]).model
        if self._suffices is None or self._suffices(first := self._quality(self.model)):
            return ()
        few = {name: values[:COMPARED_IMAGES] for name, values in feeds.items()}
        ratios = signal_to_noise(network, self.model, few)
        ranked = sorted(set(ratios) - set(pass_.keep), key=lambda name: (ratios[name], name))
        most, kept, metric = first, 0, self._job.quality.metric
        for count in (2**n for n in range(MOST_ROUNDS) if 2**n < len(ranked)):
            tried = run_pipeline(network, [replace(whole, keep=(*pass_.keep, *ranked[:count]))]).model
            quality = self._quality(tried)
            if metric.sign * quality > metric.sign * most:
                most, kept, self.model = quality, count, tried
            if self._suffices(quality):
                break
        self.float_nodes = tuple(ranked[:kept])
        gained = f"{show(metric, most)} instead of {show(metric, first)}"
        return (f"{kept} of {len(ranked)} layers stay in float32, for {gained}",)

    def _sample(self) -> dict[str, np.ndarray]:
        """Training images as the network takes them, from all over the split."""
        train = self._job.dataset.train
        images = min(len(train), self._images)
        chosen = train.part(np.arange(images) * len(train) // images)
        transform = InputTransform.from_json(self.model.metadata[TRANSFORM_KEY])
        (batch,) = ordered_batches(chosen, transform, images)
        return dict(feeds(batch.data, self.model.graph.inputs[0].name))

    def _quality(self, model: Model) -> float:
        return write_file(self._job, self.delivered(model), self._folder / "tried.onnx", self._reference).quality


def _interface(model: Model) -> list[tuple[str, str, list[int | None]]]:
    """Names, types and extents, those that are open without their names."""
    return [
        (t.name, str(np.dtype(t.dtype)), [n if isinstance(n, int) else None for n in t.shape])
        for t in (*model.graph.inputs, *model.graph.outputs)
    ]


def _domains(model: Model) -> set[str]:
    return {node.domain or "" for node in model.graph.nodes}


def _network(
    job: Job,
    result: RunResult,
    speed: Speed,
    made: _Made,
    latencies: Sequence[LatencyResult],
    reference: Reference | None,
) -> FinishedNetwork:
    assert result.best is not None
    steps = tuple(
        FinishingStep(
            pass_=print_pass(pass_),
            bytes=written.bytes,
            quality=written.quality,
            test_quality=_test_quality(job, written, reference),
            latency=latency,
        )
        for pass_, written, latency in zip(made.pipeline.passes, made.written, latencies, strict=True)
    )
    last = steps[-1]
    measured = {
        Metric.MODEL_SIZE: result.best.model_size,
        Metric.FLOPS: result.best.flops,
        job.quality.metric: last.quality,
        Metric.LATENCY: last.latency.median_ms,
    }
    return FinishedNetwork(
        pipeline=made.pipeline.text,
        model=made.pipeline.file,
        bytes=last.bytes,
        opset=made.written[-1].opset,
        quality=last.quality,
        test_quality=last.test_quality,
        latency=last.latency,
        misses=tuple(misses(result.objective, job.quality.metric, measured, speed)),
        steps=steps,
        float_nodes=made.float_nodes,
        notes=made.notes,
        seconds=made.seconds,
    )


def _test_quality(job: Job, written: Written, reference: Reference | None) -> float | None:
    test, described = job.dataset.test, written.model.metadata
    return None if test is None else quality_of_file(job, written.file, written.opset, described, test, reference)


def _reference_in_file(job: Job) -> Reference:
    """The full network, as the run has written it."""
    teacher = load(job.out / TEACHER_FILE)
    transform = InputTransform.from_json(teacher.metadata[TRANSFORM_KEY])
    return Reference(trainable_form(job, teacher), transform, job.device)
