"""What is delivered, beside what was given: the same input and output, the same scores, in ONNX Runtime and OpenCV."""

import json
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest

from wootz.frontend.objective import parse_objective
from wootz.passes.analysis.modules import find_modules
from wootz.passes.errors import WootzError
from wootz.passes.ir.files import load, save
from wootz.passes.ir.model import Module, with_weights
from wootz.passes.ir.text import parse_text
from wootz.passes.ir.verifier import verify
from wootz.passes.plan.metrics import Metric
from wootz.passes.plan.solver import Solver
from wootz.passes.plan.subspace import SKIP, Subspace
from wootz.passes.plan.transform import TRANSFORM_KEY, InputTransform
from wootz.passes.pruning.block_pruner import BlockPruner
from wootz.passes.transforms.add_postprocessing import AddPostprocessing
from wootz.runtime import plan as plan_module
from wootz.runtime.batches import normalize
from wootz.runtime.data.dataset import Dataset, Split
from wootz.runtime.delivery import delivered as delivered_module
from wootz.runtime.delivery.delivered import (
    SCORES_KEY,
    SIZE_KEY,
    for_inference,
    rehearse_delivery,
    with_interface,
    with_opset,
    write_network,
)
from wootz.runtime.delivery.description import image_input
from wootz.runtime.delivery.postprocessing import write_whole
from wootz.runtime.job import Job
from wootz.runtime.plan import plan_run, rehearse
from wootz.runtime.reporting.python_lines import python_lines
from wootz.runtime.result import QualityResult
from wootz.runtime.session import Device, InferenceSession
from wootz.runtime.store import Store
from wootz.runtime.tasks.workshop import Workshop
from wootz.tools.models import open_trainable

SHARED = Path(os.environ.get("WOOTZ_SHARED", "../shared"))
NORMALISED = InputTransform(mean=(125.0, 120.0, 110.0), scale=(0.017,), channel_order="RGB")
RAW = InputTransform(channel_order="RGB")


def job_of(file, transform, folder, **options) -> Job:
    """The job of a run on random images, labelled as the network sees them."""
    network = open_trainable(str(file), size=options.pop("size", None))
    model = replace(network.model, modules=find_modules(network.model)[0])
    channels, height, width = network.model.graph.inputs[0].shape[1:]
    images = np.random.default_rng(0).integers(0, 256, (24, channels, height, width), np.uint8)
    classes = network.model.graph.outputs[0].shape[1]
    solver = Solver(base_lr=0.1, max_iter=1, batch_size=2)
    split = Split(images, np.zeros(len(images), np.int64))
    job = Job(
        title=str(file), network=model, modules_source="", untrained=(), all_untrained=False,
        train_transform=transform, test_transform=transform, image_shape=(channels, height, width), data_title="noise",
        dataset=Dataset(tuple(map(str, range(classes))), split, split, None), subspace=Subspace((), ()),
        objective=parse_objective("max Accuracy", "test"), teacher_solver=solver, solver=solver, pretrain_solver=solver,
        out=folder, device=Device(threads=1), interface=network.interface, **options,
    )  # fmt: skip
    scores, _ = scores_of(job)
    labelled = Split(images, scores.argmax(1))
    return replace(job, dataset=replace(job.dataset, train=labelled, validation=labelled))


def scores_of(job):
    """Those of the network as it is trained, and what it is fed."""
    images = normalize(job.dataset.train.images, job.test_transform)
    return InferenceSession(job.network, job.device).run(images).reshape(len(images), -1), images


def signature(file):
    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    values = (*session.get_inputs(), *session.get_outputs())
    return [(v.name, v.type, v.shape) for v in values]


@pytest.mark.parametrize(
    ("name", "version"),
    [("r_static1", 17), ("r_nhwc", 13), ("r_dynHW", 17), ("r_conv_head", 11), ("r_k1000", 21), ("r_eca", 11)],
)
def test_it_takes_and_gives_what_the_given_network_did(name, version, tmp_path):
    if not SHARED.is_dir():
        pytest.skip("without the shared files")
    given = tmp_path / "given.onnx"
    save(load(SHARED / "cases" / "onnx" / f"{name}.onnx"), given, version)
    job = job_of(given, RAW, tmp_path, size=(8, 8) if name == "r_dynHW" else None)
    job = with_opset(job, version, 0)
    assert (job.opset, job.notes) == (version, ())
    for form in (for_inference, with_interface):
        written = write_network(job, form(job, job.network), "best.onnx", 1.0, pytest.fail)
        assert written.quality == 1
        assert signature(given) == signature(written.file)
        verify(load(written.file))
        assert [m.name for m in load(written.file).modules] == [m.name for m in job.network.modules]
        assert onnx.load(written.file).opset_import[0].version == version


@pytest.mark.parametrize("network", ["resnet20_cifar10", "efficientnet_lite0"])
def test_a_real_network_is_simplified_and_opencv_runs_it(network, tmp_path):
    cv2 = pytest.importorskip("cv2")
    given = SHARED / "pretrained" / f"{network}.onnx"
    if not given.is_file():
        pytest.skip("without the shared files")
    job = with_opset(job_of(given, NORMALISED, tmp_path), 17, 0)
    written = write_network(job, for_inference(job, job.network), "best.onnx", 1.0, pytest.fail)
    assert written.quality == 1
    operators = {node.op_type for node in onnx.load(written.file).graph.node}
    assert not operators & {"BatchNormalization", "Shape", "Gather", "Unsqueeze", "Concat", "Constant", "Identity"}
    blob = cv2.dnn.readNetFromONNX(str(written.file))
    wanted, images = scores_of(job)
    blob.setInput(images[:4])
    np.testing.assert_allclose(blob.forward(), wanted[:4], rtol=1e-3, atol=1e-4 * np.abs(wanted).max())
    kept = with_interface(job, job.network)
    assert any(node.op == "BatchNormalization" for node in kept.graph.nodes)


HEADER = '<ir_version: 8, opset_import: ["" : 18]>'
INTEGERS = f"""{HEADER} g (uint8[2,6,6,3] pixels) => (float16[2,4,1,1] y) <float[4,3,1,1] w, float[1] z = {{0.1}}>
    {{ t = Transpose<perm = [0,3,1,2]>(pixels) f = Cast<to = 1>(t) h = Conv(f, w) s = Mul(h, z) p = GlobalAveragePool(s)
       q = Softmax<axis = 1>(p) y = Cast<to = 10>(q) }}"""


def write(text, folder):
    """A network in which weights without values are random."""
    proto = onnx.parser.parse_model(text)
    for info in proto.graph.value_info:
        shape = [extent.dim_value for extent in info.type.tensor_type.shape.dim]
        weight = np.random.default_rng(0).normal(size=shape).astype(np.float32)
        proto.graph.initializer.append(onnx.numpy_helper.from_array(weight, info.name))
    del proto.graph.value_info[:]
    onnx.save(proto, folder / "given.onnx")
    return folder / "given.onnx"


RESIDUAL = f"""{HEADER} g (float[N,3,6,6] x) => (float[N,4] y) <float[4,3,1,1] w, float[6,4,1,1] u, float[4,6,1,1] v,
    float[6,4,1,1] q, float[4,6,1,1] r>
    {{ s = Conv(x, w) a = Conv(s, u) b = Relu(a) c = Conv(b, v) d = Add(c, s) e = Conv(d, q) f = Relu(e) h = Conv(f, r)
       i = Add(h, d) p = GlobalAveragePool(i) y = Flatten(p) }}"""


@pytest.mark.parametrize("skipped", [(0,), (1,), (0, 1)])
def test_modules_that_are_left_out_leave_no_trace(skipped, tmp_path):
    job = with_opset(job_of(write(RESIDUAL, tmp_path), RAW, tmp_path), 18, 0)
    pruner = BlockPruner.of(job.network)
    names = [module.name for module in pruner.modules]
    assert len(names) == 2
    pruned = pruner.materialize(pruner.plan({names[i]: SKIP for i in skipped}))
    best = for_inference(job, pruned)
    assert not any(node.op == "Identity" for node in best.graph.nodes)
    assert [node.op for node in best.graph.nodes].count("Conv") == 1 + 2 * (2 - len(skipped))
    assert [module.name for module in best.modules] == [name for i, name in enumerate(names) if i not in skipped]
    verify(best)
    rehearse_delivery(job, pruned, best)


def write_integers(folder):
    return write(INTEGERS, folder)


@pytest.mark.parametrize("transform", [RAW, NORMALISED, InputTransform(mean=(99.0,), channel_order="BGR")])
def test_integers_in_rows_fixed_to_two_images(transform, tmp_path):
    """A normalisation of pixels becomes a part of what takes integers; 24 images are fed two by two."""
    given = write_integers(tmp_path)
    job = with_opset(job_of(given, transform, tmp_path), 18, 0)
    written = write_network(job, for_inference(job, job.network), "best.onnx", 1.0, pytest.fail)
    assert signature(given) == signature(written.file)
    assert written.quality == 1
    metadata = load(written.file).metadata
    assert InputTransform.from_json(metadata[TRANSFORM_KEY]).mean == (0.0,)
    assert metadata[SCORES_KEY] == "probabilities"
    assert json.loads(metadata[SIZE_KEY]) == [6, 6]
    session = onnxruntime.InferenceSession(str(written.file), providers=["CPUExecutionProvider"])
    pixels = np.ascontiguousarray(job.dataset.train.images[:2].transpose(0, 2, 3, 1))
    (scores,) = session.run(None, {"pixels": pixels})
    wanted, _ = scores_of(job)
    np.testing.assert_allclose(scores.reshape(2, 4), wanted[:2], atol=2e-3)


def test_what_is_delivered_says_what_it_is(tmp_path):
    job = with_opset(job_of(write_integers(tmp_path), RAW, tmp_path), 18, 0)
    written = write_network(job, for_inference(job, job.network), "best.onnx", 1.0, pytest.fail)
    proto = onnx.load(written.file)
    assert (proto.producer_name, bool(proto.producer_version)) == ("wootz", True)
    assert proto.doc_string == (
        "Input pixels [2, 6, 6, 3]: images of 6x6 (squash) in RGB, pixels from 0 to 255. "
        "Output y: probabilities of 4 classes."
    )


def test_numbers_that_are_no_pixels_are_said(tmp_path):
    job = job_of(write_integers(tmp_path), replace(RAW, units="as given"), tmp_path)
    said = for_inference(job, job.network)
    assert (
        "numbers as the arrays of the training have them, which are no pixels from 0 to 255" in said.header.doc_string
    )
    image = image_input(job, said)
    assert image.units == "as given"
    quality = QualityResult.of(Metric.OUTPUT_ERROR)
    first, _, last = python_lines(image, (), Path("best.onnx"), quality)
    assert first.endswith(", numbers as the arrays have them")
    assert last.startswith("outputs = network.run(None, ")
    assert last.endswith(")})"), "all outputs, in a list"
    pixels = job_of(write_integers(tmp_path), RAW, tmp_path)
    image = image_input(pixels, for_inference(pixels, pixels.network))
    first, _, last = python_lines(image, (), Path("x"), QualityResult.of(Metric.ACCURACY))
    assert first.endswith("0 to 255")
    assert last.startswith("scores = network.run(None, ")
    assert last.endswith(")})[0]")


def test_a_file_that_is_not_what_was_trained_is_refused_and_removed(tmp_path):
    job = with_opset(job_of(write_integers(tmp_path), RAW, tmp_path), 18, 0)
    other = with_weights(job.network, {"w": -job.network.graph.tensors()["w"].values})
    with pytest.raises(WootzError, match=r"the file has [\d.]+ % right, the network that was trained 100.0 % right"):
        write_network(job, for_inference(job, other), "best.onnx", 1.0, pytest.fail)
    assert not (tmp_path / "best.onnx").exists()


def test_an_interface_that_gives_other_scores_is_told_before_anything_is_trained(tmp_path, monkeypatch):
    job = job_of(write_integers(tmp_path), RAW, tmp_path)
    form = delivered_module.for_inference

    def negated(job, model):
        result = form(job, model)
        return with_weights(result, {"w": -result.graph.tensors()["w"].values})

    monkeypatch.setattr(delivered_module, "for_inference", negated)
    with pytest.raises(WootzError, match="gives other outputs with the input that it came with"):
        with_opset(job, 18, 0)


@pytest.mark.parametrize("name", ["for_inference", "with_interface"])
def test_a_form_that_is_not_valid_is_told_before_anything_is_trained(name, tmp_path, monkeypatch):
    job = job_of(write_integers(tmp_path), RAW, tmp_path)
    form = getattr(delivered_module, name)
    lost = (Module("lost", "pixels", "nowhere"),)
    monkeypatch.setattr(delivered_module, name, lambda *arguments: replace(form(*arguments), modules=lost))
    with pytest.raises(WootzError, match="module 'lost': its exit 'nowhere' is no tensor of the graph"):
        with_opset(job, 18, 0)


def test_so_is_a_pruned_network_that_cannot_be_delivered(tmp_path, monkeypatch):
    """As it is written: with the interface of the given network, in its opset."""
    text = f"""{HEADER} g (float[N,3,6,6] x) => (float[N,4,1,1] y) <float[8,3,3,3] v, float[4,8,1,1] w>
        {{ [a] h = Conv(x, v) r = Relu(h) p = GlobalAveragePool(r) [b] y = Conv(p, w) }}"""
    job = with_opset(job_of(write(text, tmp_path), RAW, tmp_path), 18, 0)
    modules = tuple(module.name for module in job.network.modules)
    job = replace(job, subspace=Subspace(modules, ((0.5, 0.0),)))
    form = plan_module.for_inference
    made = []

    def damaged(job, model):
        made.append(form(job, model))
        return replace(made[-1], modules=(Module("lost", "x", "nowhere"),)) if len(made) == 1 else made[-1]

    monkeypatch.setattr(plan_module, "for_inference", damaged)
    workshop = Workshop(job, Store.open(tmp_path / "store"))
    plan = plan_run(workshop)
    with pytest.raises(WootzError, match=r"^configuration .0.5, 0.: module 'lost': its exit 'nowhere' is no tensor"):
        rehearse(workshop, plan)
    rehearse(workshop, plan)
    (pruned,) = made[1:]
    assert pruned.graph.tensors()["v"].shape[0] == 4
    assert [m.exit for m in pruned.modules][-1] == "y"


def test_an_opset_that_lacks_something_is_told(tmp_path):
    """GridSample came with opset 16."""
    text = f"""{HEADER} g (float[N,1,2,2] x) => (float[N,1] y) <float[1,2,2,2] grid = {{0,0,0,0,0,0,0,0}}>
        {{ s = Shape<start = 0, end = 1>(x) o = Constant<value = int64[3] {{2,2,2}}>() t = Concat<axis = 0>(s, o)
           e = Expand(grid, t) g = GridSample(x, e) p = GlobalAveragePool(g) y = Flatten(p) }}"""
    onnx.save(onnx.parser.parse_model(text), tmp_path / "given.onnx")
    job = job_of(tmp_path / "given.onnx", RAW, tmp_path)
    with pytest.raises(WootzError, match=r"^--opset 11: .*GridSample"):
        with_opset(job, 18, 11)
    told = with_opset(job, 11, 0)
    assert told.opset == 18
    assert "best.onnx gets opset 18, not the network's 11: " in told.notes[-1]


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize(("version", "is_open"), [(11, True), (13, False), (17, True)])
def test_an_export_of_pytorch_comes_back_and_opencv_runs_it(version, is_open, tmp_path):
    """BatchNormalization, a view whose shape is computed, and a Softmax at the end."""
    torch, cv2 = pytest.importorskip("torch"), pytest.importorskip("cv2")

    class Network(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.first = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3, padding=1, bias=False), torch.nn.BatchNorm2d(8))
            self.second = torch.nn.Sequential(torch.nn.Conv2d(8, 8, 3, padding=1), torch.nn.BatchNorm2d(8))
            self.fc = torch.nn.Linear(8 * 4 * 4, 7)

        def forward(self, x):
            x = torch.relu(self.first(x))
            x = torch.nn.functional.adaptive_avg_pool2d(torch.relu(self.second(x) + x), 4)
            return torch.softmax(self.fc(x.view(x.size(0), -1)), 1)

    torch.manual_seed(0)
    network = Network().train()
    with torch.no_grad():
        network(torch.randn(64, 3, 16, 16))
    given = tmp_path / "given.onnx"
    image = torch.randn(1, 3, 16, 16)
    torch.onnx.export(
        network.eval(), image, given, opset_version=version, dynamo=False, do_constant_folding=False,
        input_names=["image"], output_names=["scores"], training=torch.onnx.TrainingMode.PRESERVE,
        dynamic_axes={"image": {0: "batch"}, "scores": {0: "batch"}} if is_open else None,
    )  # fmt: skip
    assert "BatchNormalization" in {node.op_type for node in onnx.load(given).graph.node}
    job = with_opset(job_of(given, NORMALISED, tmp_path), version, 0)
    written = write_network(job, for_inference(job, job.network), "best.onnx", 1.0, pytest.fail)
    assert (written.opset, written.quality) == (version, 1)
    assert signature(given) == signature(written.file)
    operators = [node.op_type for node in onnx.load(written.file).graph.node]
    assert operators == ["Conv", "Relu", "Conv", "Add", "Relu", "AveragePool", "Reshape", "Gemm", "Softmax"]
    wanted, images = scores_of(job)
    blob = cv2.dnn.readNetFromONNX(str(written.file))
    blob.setInput(images[:1])
    np.testing.assert_allclose(blob.forward(), wanted[:1], rtol=1e-3)


DECIDING = f"""{HEADER} g (uint8[N,6,6,3] pixels) => (int64[N] best, float[N,4] y)
    <float[4,3,1,1] w, int64[1] one = {{-1}}>
    {{ t = Transpose<perm = [0,3,1,2]>(pixels) f = Cast<to = 1>(t) h = Conv(f, w) p = GlobalAveragePool(h)
       y = Flatten(p) a = ArgMax<axis = 1>(y) best = Reshape(a, one) }}"""


def test_the_postprocessing_of_the_given_network_is_in_a_file_of_its_own(tmp_path):
    model = parse_text(DECIDING)
    random = np.random.default_rng(0)
    model.graph.tensors()["w"].to_constant(random.standard_normal((4, 3, 1, 1)).astype(np.float32))
    save(model, tmp_path / "given.onnx")
    opened = open_trainable(str(tmp_path / "given.onnx"))
    assert any("(ArgMax, Reshape) is left out, and its outputs are y" in note for note in opened.notes)
    job = job_of(tmp_path / "given.onnx", RAW, tmp_path)
    written = write_network(job, for_inference(job, job.network), "best.onnx", 1.0, pytest.fail)
    assert [name for name, *_ in signature(written.file)] == ["pixels", "y"]
    assert write_whole(replace(job, whole=opened.whole), written) == ()
    files = ("given.onnx", "best-whole.onnx")
    ends = [[(name, kind) for name, kind, _ in signature(tmp_path / file)] for file in files]
    assert ends[0] == ends[1]
    pixels = random.integers(0, 256, (5, 6, 6, 3), np.uint8)
    sessions = [onnxruntime.InferenceSession(str(tmp_path / name)) for name in files]
    given, whole = (session.run(None, {"pixels": pixels}) for session in sessions)
    np.testing.assert_array_equal(whole[0], given[0])
    np.testing.assert_allclose(whole[1], given[1], rtol=1e-5)
    said = onnx.load(tmp_path / "best-whole.onnx").doc_string
    assert said.endswith("Output best [?]. Output y: logits of 4 classes.")


def test_a_file_with_another_postprocessing_is_not_left_behind(tmp_path, monkeypatch):
    """Planted: what is put behind the network is not what the given one has there."""
    model = parse_text(DECIDING)
    model.graph.tensors()["w"].to_constant(np.random.default_rng(0).standard_normal((4, 3, 1, 1)).astype(np.float32))
    save(model, tmp_path / "given.onnx")
    opened = open_trainable(str(tmp_path / "given.onnx"))
    job = replace(job_of(tmp_path / "given.onnx", RAW, tmp_path), whole=opened.whole)
    written = write_network(job, for_inference(job, job.network), "best.onnx", 1.0, pytest.fail)
    apply = AddPostprocessing.apply

    def damaged(self, network):
        result = apply(self, network)
        for node in result.model.graph.nodes:
            if node.op == "ArgMax" and network is written.model:
                node.op = "ArgMin"
        return result

    monkeypatch.setattr(AddPostprocessing, "apply", damaged)
    (note,) = write_whole(job, written)
    assert note.startswith("best-whole.onnx is not written, best.onnx has no postprocessing: best differs by ")
    assert not (tmp_path / "best-whole.onnx").exists()
