"""Pipelines that a run finishes with: what they are called, what they refuse, what int8 leaves in float32."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import onnx
import pytest

from wootz.frontend.objective import parse_objective
from wootz.passes.errors import WootzError
from wootz.passes.ir.files import load
from wootz.passes.ir.model import Model, producer
from wootz.passes.plan.metrics import Metric
from wootz.passes.plan.solver import Solver
from wootz.passes.plan.subspace import Subspace
from wootz.passes.plan.transform import TRANSFORM_KEY, InputTransform
from wootz.passes.transforms.embed_normalization import EmbedNormalization
from wootz.passes.transforms.int8 import Int8
from wootz.passes.transforms.set_interface import SetInterface
from wootz.passes.transforms.to_float16 import ToFloat16
from wootz.runtime.batches import normalize
from wootz.runtime.data.dataset import Dataset, Split
from wootz.runtime.delivery import quantization
from wootz.runtime.delivery.delivered import with_interface, write_file
from wootz.runtime.delivery.finish import Finisher, check_finishing, finish, opset_note, trainable_form
from wootz.runtime.delivery.finish_pipelines import read_pipelines
from wootz.runtime.delivery.misses import misses
from wootz.runtime.job import Job
from wootz.runtime.result import LatencyResult, Speed, objective_result
from wootz.runtime.session import Device, FileSession

PIXELS = InputTransform(mean=(128.0,), scale=(1 / 64,), channel_order="RGB")
NETWORK = """<ir_version: 8, opset_import: ["": 18]>
g (float[N,1,6,6] image) => (float[N,2] y) {
    [spread] a = Conv(image, w1) [choose] b = Conv(a, w2) c = GlobalAveragePool(b) d = Flatten(c)
    [scores] y = Gemm(d, w3, b3) }"""
SENSITIVE = {
    "w1": np.array([1000, 1]).reshape(2, 1, 1, 1),
    "w2": np.array([[0, 1], [0, -1]]).reshape(2, 2, 1, 1),
    "w3": np.eye(2),
    "b3": np.zeros(2),
}
"""The first channel is a thousand times the second, which alone tells bright images from dark ones."""


def job_of(folder, weights=SENSITIVE, **options) -> Job:
    """That of a network of two classes, and images which are brighter or darker than the mean."""
    proto = onnx.parser.parse_model(NETWORK)
    for name, values in weights.items():
        proto.graph.initializer.append(onnx.numpy_helper.from_array(np.asarray(values, np.float32), name))
    labels = np.arange(80) % 2
    noise = np.random.default_rng(0).integers(-40, 41, (80, 1, 6, 6))
    images = (128 + 25 * (1 - 2 * labels[:, None, None, None]) + noise).astype(np.uint8)
    split, solver = Split(images, labels.astype(np.int64)), Solver(base_lr=0.1, max_iter=1, batch_size=2)
    return Job(
        title="net", network=Model.from_proto(proto), modules_source="", untrained=(), all_untrained=False,
        train_transform=PIXELS, test_transform=PIXELS, image_shape=(1, 6, 6), data_title="noise",
        dataset=Dataset(("bright", "dark"), split, split, None), subspace=Subspace((), ()),
        objective=parse_objective("max Accuracy", "test"), teacher_solver=solver, solver=solver, pretrain_solver=solver,
        out=folder, device=Device(threads=1), **options,
    )  # fmt: skip


def finisher_of(job, suffices=None) -> Finisher:
    return Finisher(job, trainable_form(job, with_interface(job, job.network)), job.out, 64, suffices)


def accuracy_of(job, finisher) -> float:
    return write_file(job, finisher.delivered(), job.out / "net.onnx").quality


def test_int8_leaves_in_float32_what_loses_too_much(tmp_path):
    job = job_of(tmp_path)
    plain, careful = finisher_of(job), finisher_of(job, lambda accuracy: accuracy >= 0.99)
    assert accuracy_of(job, plain) == 1
    assert plain.apply(Int8()) == ()
    assert accuracy_of(job, plain) < 0.6, "all in integers it can't tell them apart"
    (note,) = careful.apply(Int8())
    assert note.startswith("2 of 3 layers stay in float32, for 100.00 % instead of 5")
    assert set(careful.float_nodes) == {"spread", "choose"}
    assert accuracy_of(job, careful) == 1
    written = load(tmp_path / "net.onnx").graph
    sources = {n.name: producer(n.inputs[1]) for n in written.nodes if n.name in ("spread", "choose", "scores")}
    assert [name for name, source in sources.items() if source is not None] == ["scores"]


def test_where_nothing_suffices_the_most_accurate_is_kept(tmp_path):
    job = job_of(tmp_path)
    finisher = finisher_of(job, lambda accuracy: False)
    finisher.apply(Int8())
    assert accuracy_of(job, finisher) == 1
    robust = finisher_of(job_of(tmp_path, {**SENSITIVE, "w1": np.ones((2, 1, 1, 1))}), lambda accuracy: accuracy > 0.9)
    assert (robust.apply(Int8()), robust.float_nodes) == ((), ())


@pytest.mark.parametrize("passes", [[EmbedNormalization(), ToFloat16()], [EmbedNormalization(), Int8()]])
@pytest.mark.parametrize(
    "interface",
    [
        SetInterface(layout="NHWC", input_type="uint8", batch="4", output_rank=4),
        SetInterface(input_type="float16", output_type="float16"),
        SetInterface(size=("height", "width")),
    ],
)
def test_the_files_take_what_the_given_network_took(passes, interface, tmp_path):
    weights = {**SENSITIVE, "w1": np.ones((2, 1, 1, 1))}
    job = job_of(tmp_path, weights, interface=interface)
    finisher = finisher_of(job)
    for pass_ in passes:
        finisher.apply(pass_)
    written = write_file(job, finisher.delivered(), tmp_path / "net.onnx")
    assert written.quality == 1
    proto = onnx.load(written.file)
    expected = SetInterface.apply(interface, job.network).model.to_proto().graph
    assert (list(proto.graph.input), list(proto.graph.output)) == (list(expected.input), list(expected.output))
    transform = InputTransform.from_json({p.key: p.value for p in proto.metadata_props}[TRANSFORM_KEY])
    assert transform == replace(PIXELS, mean=(0.0,), scale=(1.0,))
    casts = [n for n in proto.graph.node if n.op_type == "Cast"]
    assert len(casts) <= {"uint8": 3, "float16": 2, "float32": 2}[interface.input_type]
    pixels = job.dataset.train.images[:4].astype(interface.input_type)
    image = pixels.transpose(0, 2, 3, 1) if interface.layout == "NHWC" else pixels
    scores = FileSession(str(written.file)).run(image).reshape(4, 2)
    bright = normalize(job.dataset.train.images[:4], PIXELS).mean((1, 2, 3))
    np.testing.assert_allclose(scores, np.stack([bright, -bright], 1), atol=0.03)


@pytest.mark.parametrize(("opset", "written"), [(11, 18), (13, 13), (21, 21)])
def test_int8_needs_scales_by_channel(opset, written, tmp_path):
    job = job_of(tmp_path, {**SENSITIVE, "w1": np.ones((2, 1, 1, 1))}, opset=opset)
    finisher = finisher_of(job)
    finisher.apply(Int8())
    found = write_file(job, finisher.delivered(), tmp_path / "net.onnx")
    assert (found.quality, found.opset, load(found.file).source_opset) == (1, written, written)
    notes = [] if opset == written else ["its opset is 18 instead of 11, whose scales can't be by channel"]
    assert list(opset_note(job, found, Int8())) == notes


def test_files_are_named_after_the_last_pass_and_then_after_all():
    texts = ["int8", "float16", "embed-normalization,int8", "int8{calibration=percentile}", "eliminate-dead,float16"]
    pipelines = read_pipelines(texts)
    assert [p.file for p in pipelines] == [
        "best.int8.onnx",
        "best.float16.onnx",
        "best.embed-normalization.int8.onnx",
        "best.int8-2.onnx",
        "best.eliminate-dead.float16.onnx",
    ]
    assert [p.text for p in pipelines] == [*texts[:1], "to-float16", *texts[2:4], "eliminate-dead,to-float16"]


@pytest.mark.parametrize(
    ("texts", "reason"),
    [
        (["int9"], "no pass named 'int9': did you mean 'int8'?"),
        ([""], "--finish '': there is no pass in it"),
        (["int8,"], "pipeline 'int8,': there is no pass before or behind a comma"),
        ([" ,int8"], "pipeline ' ,int8': there is no pass before or behind a comma"),
        (["prune-filters"], "--finish prune-filters: prune-filters changes what the network computes"),
        (["set-interface{batch=1}"], "set-interface changes what the network computes"),
        (["int8,to-float16"], "--finish int8,to-float16: int8 has to be the last pass"),
        (["to-float16{half-io=true}"], "the network keeps the types of its input and output: leave half-io out"),
        (["int8{data=a.npz}"], "int8 looks at the run's training images: leave data out"),
        (["int8", "int8"], "--finish int8: it is given twice"),
    ],
)
def test_pipelines_that_can_not_be_are_refused(texts, reason):
    with pytest.raises(WootzError) as error:
        read_pipelines(texts)
    assert reason in str(error.value)


def test_without_the_quantiser_int8_is_refused(monkeypatch):
    def fail(name):
        raise ImportError("No module named 'sympy'")

    monkeypatch.setattr(quantization.importlib, "import_module", fail)
    with pytest.raises(WootzError, match=r"quantiser can't be imported \(No module named 'sympy'\): install what it"):
        read_pipelines(["int8"])


def test_what_a_network_does_not_allow_is_told_before_training(tmp_path):
    job = job_of(tmp_path, finish=read_pipelines(["int8{keep=third}"]))
    with pytest.raises(
        WootzError, match=r"^--finish int8\{keep=third\}: int8: keep names 'third', and there is no such"
    ):
        check_finishing(job)
    check_finishing(replace(job, finish=read_pipelines(["int8", "embed-normalization,float16"])))
    assert not list(tmp_path.iterdir())


def test_without_a_best_network_the_files_are_said_not_to_be_made(tmp_path, run_result):
    job, told = job_of(tmp_path, finish=read_pipelines(["int8", "float16"])), []
    finish(job, run_result(best=None, speed=None), SimpleNamespace(message=told.append))
    assert told == ["Not made, since there is no best network: best.int8.onnx, best.float16.onnx."]
    assert [file.name for file in tmp_path.iterdir()] == ["result.json"]


def test_the_objective_is_asked_with_the_latency_beside_the_full_network():
    full = {Metric.MODEL_SIZE: 100.0, Metric.ACCURACY: 0.9, Metric.LATENCY: 7.0}
    text = "min ModelSize constraint Accuracy >= full - 0.01 constraint Latency < 0.5 * full constraint ModelSize < 90"
    objective = objective_result(parse_objective(text, "test"), full)
    latency = LatencyResult(low_ms=1, median_ms=2, high_ms=3)
    speed = Speed(full=latency, best=latency, threads=1)
    met = {Metric.MODEL_SIZE: 50, Metric.ACCURACY: 0.89, Metric.LATENCY: 0.9}
    assert list(misses(objective, Metric.ACCURACY, met, speed)) == []
    missed = list(misses(objective, Metric.ACCURACY, {**met, Metric.ACCURACY: 0.87, Metric.LATENCY: 1.25}, speed))
    assert [m.constraint for m in missed] == ["Accuracy >= 0.89", "Latency < 1"]
    np.testing.assert_allclose([m.by for m in missed], [0.02, 0.25])
