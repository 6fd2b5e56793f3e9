"""A network and a data set that it learns in a few steps; the result of a run."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from wootz.frontend.caffe.importer import import_caffe
from wootz.frontend.objective import parse_objective
from wootz.passes.plan.metrics import Metric
from wootz.passes.plan.solver import Solver
from wootz.passes.plan.subspace import Subspace
from wootz.passes.plan.transform import InputTransform
from wootz.runtime.data.dataset import Dataset, Split
from wootz.runtime.events import EventLog
from wootz.runtime.executors.shares import shared_machine
from wootz.runtime.executors.this_process import ThisProcess
from wootz.runtime.job import Job
from wootz.runtime.result import (
    BestNetwork,
    BlockSymbol,
    Environment,
    Exploration,
    FailedBlockResult,
    FailedNetworkResult,
    FinishedNetwork,
    Finishing,
    FinishingStep,
    FullNetworkResult,
    ImageInput,
    Images,
    LatencyResult,
    Miss,
    NetworkResult,
    PhaseSeconds,
    QualityResult,
    Reuse,
    RunResult,
    Solvers,
    Speed,
    TrainedBlockResult,
    TrainedNetworkResult,
    TunedResult,
    UntriedNetworkResult,
    objective_result,
)
from wootz.runtime.run import run
from wootz.runtime.session import Device
from wootz.runtime.store import Store
from wootz.runtime.tasks.perform import Site, perform, provide
from wootz.runtime.tasks.workshop import Workshop
from wootz.runtime.watch import Watch

NET = """
layer { name: "data" type: "Input" top: "data" input_param { shape { dim: 1 dim: 2 dim: 4 dim: 4 } } }
layer { name: "conv" type: "Convolution" bottom: "data" top: "conv"
        convolution_param { num_output: 4 kernel_size: 3 weight_filler { type: "msra" } } }
layer { name: "bn" type: "BatchNorm" bottom: "conv" top: "conv" }
layer { name: "relu" type: "ReLU" bottom: "conv" top: "conv" }
layer { name: "fc" type: "InnerProduct" bottom: "conv" top: "fc"
        inner_product_param { num_output: 2 weight_filler { type: "xavier" } } }
"""


@pytest.fixture
def prototxt():
    return NET


@pytest.fixture
def network(tmp_path, prototxt):
    (tmp_path / "net.prototxt").write_text(prototxt)
    return import_caffe(Path(tmp_path / "net.prototxt")).model


@pytest.fixture
def split():
    """Two classes that differ in brightness."""
    generator = np.random.default_rng(0)
    labels = np.arange(64) % 2
    images = generator.integers(0, 100, (64, 2, 4, 4)) + 100 * labels[:, None, None, None]
    return Split((images / 100 - 1).astype(np.float32), labels.astype(np.int64))


def _networks(count: int, modules: int, assembled: bool) -> tuple[NetworkResult, ...]:
    """From the largest down: all but the last quarter are tried, every seventh fails, every fifth ends early."""
    found: list[NetworkResult] = []
    for i in range(count):
        known = {
            "index": i,
            "configuration": tuple((0.3, 0.5, (0.7, 0.3))[(i // 3**m) % 3] for m in range(modules)),
            "model_size": 1_000_000 - 900_000 * i // count,
            "flops": 2_000_000 - 1_500_000 * i // count,
            "latency_ms": 3.0 - 2 * i / count,
        }
        sources = {"blocks": tuple(3 * m + (i // 3**m) % 3 if assembled else None for m in range(modules))}
        accuracy = (0.8 if assembled else 0.7) + 0.2 / (1 + i)
        ended, steps = ("bound met", 60) if i % 5 == 4 else ("all steps", 100)
        if 4 * i >= 3 * count and count > 3:
            found.append(UntriedNetworkResult(**known))
        elif i % 7 == 6:
            found.append(
                FailedNetworkResult(**known, **sources, reason="the training diverged at step 7: lower base_lr")
            )
        else:
            found.append(
                TrainedNetworkResult(**known, **sources, quality=accuracy, initial_quality=accuracy / 2,
                                     curve=((0, accuracy / 2), (50, accuracy * 0.9), (steps, accuracy)), steps=steps,
                                     kept=steps, steps_saved=100 - steps, ended=ended,
                                     seconds=1.5 + i / count, reused=i % 4 == 1)
            )  # fmt: skip
    return tuple(found)


def _exploration(networks: tuple[NetworkResult, ...], file: str | None) -> Exploration:
    trained = [n for n in networks if isinstance(n, TrainedNetworkResult)]
    n = trained[-1]
    best = BestNetwork(
        index=n.index, configuration=n.configuration, model=file, model_size=n.model_size, flops=n.flops,
        latency_ms=n.latency_ms, file_bytes=None if file is None else 1_850_000, quality=n.quality,
        test_quality=n.quality - 0.01,
    )  # fmt: skip
    evaluated = sum(isinstance(n, TrainedNetworkResult | FailedNetworkResult) for n in networks)
    return Exploration(best=best, networks=networks, networks_evaluated=evaluated, seconds=2.0 * evaluated)


def make_result(count: int = 5, modules: int = 2, **changes: Any) -> RunResult:
    """A result as runs have it, of a digits network with `count` configurations."""
    names = tuple(f"res{i + 2}a" for i in range(modules))
    variants = [BlockSymbol(module=name, rate=rate) for name in names for rate in (0.3, 0.5, (0.7, 0.3))]
    blocks = tuple(
        FailedBlockResult(symbols=(symbol,), networks=2, reason="the training diverged at step 3: lower base_lr")
        if i % 11 == 10
        else TrainedBlockResult(symbols=(symbol,), networks=3, initial_error=0.5, final_error=0.5 / (i + 2), steps=100,
                                reused=i % 4 == 1)
        for i, symbol in enumerate(variants)
    )  # fmt: skip
    objective = parse_objective("min ModelSize constraint Accuracy >= full - 0.1", "test")
    block_trained = _exploration(_networks(count, modules, True), "best.onnx")
    baseline = _exploration(_networks(count, modules, False), None)
    fields: dict[str, Any] = {
        "quality": QualityResult.of(Metric.ACCURACY),
        "best": block_trained.best,
        "full": FullNetworkResult(
            configuration=(0.0,) * modules, model_size=1_200_000, flops=2_500_000, latency_ms=3.5, model="teacher.onnx",
            file_bytes=4_810_000,
            quality=0.9, test_quality=0.88, origin="trained from scratch", curve=((0, 0.1), (100, 0.9)), steps=100,
            seconds=3.0, reference="tuned",
            tuned=TunedResult(
                quality=0.91, test_quality=0.885, curve=((0, 0.9), (100, 0.91)), steps=100, seconds=3.0
            ),
        ),
        "networks_evaluated": block_trained.networks_evaluated,
        "networks_feasible": count,
        "networks_total": count,
        "baseline": baseline,
        "seconds": PhaseSeconds(plan=1.0, teacher=3.0, pretraining=12.3, exploration=30.0, baseline=40.0, delivery=0.7,
                                total=87.0),
        "reuse": Reuse(
            blocks=sum(b.reused for b in blocks),
            networks=sum(n.reused for n in block_trained.evaluated),
            baseline_networks=sum(n.reused for n in baseline.evaluated),
            seconds_saved=840.0,
        ),
        "seed": 0,
        "network": "net <1>",
        "data": "digits",
        "objective": objective_result(objective, {Metric.ACCURACY: 0.9}),
        "classes": ("a", "b"),
        "speed": Speed(
            full=LatencyResult(low_ms=3.4, median_ms=3.5, high_ms=3.7),
            best=LatencyResult(low_ms=1.7, median_ms=1.8, high_ms=2.0),
            threads=2,
        ),
        "input": ImageInput(
            name="data", type="float32", shape=("N", 1, 8, 8), layout="NCHW", height=8, width=8, channel_order="grey",
            mean=(128.0,), scale=(0.0078125,), resize="squash", resize_to=0, crop_size=0,
        ),
        "input_source": "said by <the network's file>",
        "learned_from": "mse of <maps>",
        "solvers": Solvers(
            teacher={"type": "SGD", "base_lr": 0.05, "lr_policy": "fixed", "max_iter": 100, "batch_size": 32},
            fine_tuning={"type": "SGD", "base_lr": 0.01, "lr_policy": "multistep", "max_iter": 100, "batch_size": 32,
                         "stepvalue": (50, 75), "gamma": 0.1},
            pretraining={"type": "Adam", "base_lr": 0.002, "lr_policy": "cosine", "max_iter": 50, "batch_size": 32},
        ),
        "images": Images(train=1000, validation=250, test=540),
        "modules": names,
        "modules_source": "marks in the prototxt",
        "networks": block_trained.networks,
        "blocks": blocks,
        "groups": (tuple(range(len(blocks))),),
        "environment": Environment(
            wootz="0.1.0", python="3.11.2", platform="Linux", runtime="onnxruntime 1.19.2", executor="this process",
            workers=1, device="cpu", precision="float32", target="onnx",
            command="wootz run 'net <1>' --seed 0",
        ),
    }  # fmt: skip
    return RunResult(**{**fields, **changes})


@pytest.fixture(scope="session")
def run_result():
    """Makes results: `run_result(count=20, notes=("…",))`."""
    return make_result


@pytest.fixture
def finishing() -> Finishing:
    """What two pipelines made: one meets the objective, the other misses two bounds."""
    names = ("best.embed-normalization.int8.onnx", "best.float16.onnx")
    latencies = [LatencyResult(low_ms=ms - 0.1, median_ms=ms, high_ms=ms + 0.1) for ms in (3.5, 1.8, 1.7, 0.9)]
    step = FinishingStep(
        pass_="embed-normalization", bytes=1_850_100, quality=0.85, test_quality=0.84, latency=latencies[2]
    )
    int8 = FinishingStep(pass_="int8", bytes=470_000, quality=0.845, test_quality=0.83, latency=latencies[3])
    half = FinishingStep(pass_="to-float16", bytes=930_000, quality=0.7, test_quality=0.69, latency=latencies[0])
    misses = (Miss(constraint="Accuracy >= 0.8", by=0.1), Miss(constraint="Latency < 2", by=1.5))
    networks = (
        FinishedNetwork(
            pipeline="embed-normalization,int8", model=names[0], bytes=int8.bytes, opset=18, quality=int8.quality,
            test_quality=int8.test_quality, latency=int8.latency, misses=(), steps=(step, int8),
            float_nodes=("conv1",), notes=("1 of 5 layers stay in float32, for 84.50 % instead of 80.00 %",),
        ),
        FinishedNetwork(
            pipeline="to-float16", model=names[1], bytes=half.bytes, opset=18, quality=half.quality,
            test_quality=half.test_quality, latency=half.latency, misses=misses, steps=(half,),
        ),
    )  # fmt: skip
    return Finishing(networks=networks)


MODULES = "".join(
    f"""
layer {{ name: "{m}1" type: "Convolution" bottom: "{entry}" top: "{m}1" module: "{m}"
        convolution_param {{ num_output: 4 kernel_size: 1 weight_filler {{ type: "msra" }} }} }}
layer {{ name: "{m}r" type: "ReLU" bottom: "{m}1" top: "{m}1" module: "{m}" }}
layer {{ name: "{m}2" type: "Convolution" bottom: "{m}1" top: "{m}2" module: "{m}"
        convolution_param {{ num_output: 4 kernel_size: 1 weight_filler {{ type: "msra" }} }} }}
layer {{ name: "{m}" type: "Eltwise" bottom: "{entry}" bottom: "{m}2" top: "{m}" module: "{m}" }}
"""
    for entry, m in (("conv", "a"), ("a", "b"))
)
TRANSFORM = InputTransform(channel_order="RGB")
STEPS = Solver(base_lr=0.05, momentum=0.9, max_iter=20, batch_size=16)
CONFIGURATIONS = ((0.5, 0.0), (0.5, 0.5), (0.75, 0.5), (0.75, 0.0))


@pytest.fixture
def job(tmp_path, prototxt, split) -> Job:
    """Two residual modules. Validation images have the right labels, a quarter of the test images too."""
    head, classifier = prototxt.split('layer { name: "fc"')
    (tmp_path / "net.prototxt").write_text(head + MODULES + 'layer { name: "fc"' + classifier.replace('"conv"', '"b"'))
    test = Split(split.images, np.where(np.arange(64) < 16, split.labels, 1 - split.labels))
    imported = import_caffe(tmp_path / "net.prototxt")
    return Job(
        title="net",
        network=imported.model,
        modules_source="table",
        untrained=imported.initialised,
        all_untrained=True,
        train_transform=TRANSFORM,
        test_transform=TRANSFORM,
        image_shape=(2, 4, 4),
        data_title="two brightnesses",
        dataset=Dataset(("dark", "bright"), split, split, test),
        subspace=Subspace(tuple(m.name for m in imported.model.modules), CONFIGURATIONS),
        objective=parse_objective("max Accuracy", "test"),
        teacher_solver=replace(STEPS, random_seed=1),
        solver=replace(STEPS, random_seed=2),
        pretrain_solver=replace(STEPS, random_seed=3),
        out=tmp_path / "out",
        device=Device(threads=1),
    )


@pytest.fixture
def finished() -> Callable[..., RunResult]:
    """Gives the result of a job in this process, with a store of its own if none is given."""
    return _finished


def _finished(job: Job, store_folder: Path | None = None) -> RunResult:
    job.out.mkdir(parents=True, exist_ok=True)
    store = Store.open(store_folder or job.out / "store")
    site = Site.of(job, store)
    workshop = Workshop(job, store)
    provide(site, workshop)
    with EventLog(job.out / "events.jsonl") as log:
        watch = Watch(log, job)
        place, logs = shared_machine(1, 1)[0], job.out / "logs"
        with ThisProcess(place, partial(perform, site), logs, listener=watch.told) as engine:
            watch.begin("this process", engine.workers)
            return run(workshop, engine, "this process", watch)
