"""The recipes of examples/tasks: their data, their networks, and a short run of each."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import onnxruntime
import pytest

import wootz as library
from wootz.passes.analysis.modules import find_modules
from wootz.passes.ir.files import save
from wootz.passes.ir.model import Model
from wootz.passes.ir.text import parse_text
from wootz.passes.pruning.block_pruner import BlockPruner
from wootz.runtime.batches import normalize
from wootz.runtime.session import InferenceSession, evaluate

pytest.importorskip("sklearn")
from wootz.examples.tasks import detection, segmentation, super_resolution, unlabelled
from wootz.examples.tasks.layers import PIXELS
from wootz.examples.tasks.scenes import TRAIN, scenes
from wootz.examples.tasks.training import adam, trained

FEW = {"train": 48, "validation": 16, "test": 16}
FINE_TUNING = 'base_lr: 0.002 lr_policy: "fixed" momentum: 0.9 max_iter: 6 batch_size: 8 test_interval: 3'
PRE_TRAINING = 'type: "Adam" base_lr: 0.002 lr_policy: "fixed" momentum: 0.9 max_iter: 6 batch_size: 8'

HEADS = """<ir_version: 8, opset_import: ["" : 18]>
heads (float[N,1,6,6] object_logit, float[N,4,6,6] move, float[N,3,6,6] shape_logits) =>
      (float[N,1,6,6] is_object, float[N,4,6,6] place, float[N,3,6,6] shape) {
  is_object = Identity(object_logit) place = Identity(move) shape = Identity(shape_logits)
}"""


def outputs(network: Model, images: np.ndarray) -> dict[str, np.ndarray]:
    return InferenceSession(network).outputs(normalize(images, PIXELS))


@pytest.mark.parametrize("recipe", [segmentation, detection, super_resolution])
def test_data_are_the_same_each_time_and_differ_between_splits(recipe) -> None:
    first, second = recipe.data(**FEW), recipe.data(**FEW)
    for split, arrays in first.items():
        for values, again in zip(arrays, second[split], strict=True):
            np.testing.assert_array_equal(values, again)
    seen = {image.tobytes() for image in first["train"][0]}
    assert not any(image.tobytes() in seen for split in ("val", "test") for image in first[split][0])


def test_masks_and_objects_say_the_same() -> None:
    for scene in scenes(20, 32, TRAIN, most=1):
        ((shape, left, top, right, bottom),) = scene.objects
        down, along = np.nonzero(scene.mask == shape + 1)
        assert set(np.unique(scene.mask)) == {0, int(shape) + 1}
        assert abs(down.min() - top) <= 2
        assert abs(down.max() + 1 - bottom) <= 1
        assert abs(along.min() - left) <= 1
        assert abs(along.max() + 1 - right) <= 1


def test_small_patches_are_the_means_of_large_ones() -> None:
    small, large = super_resolution.data(**FEW)["train"]
    np.testing.assert_allclose(small[5, 0, 3, 2], 255 * large[5, 0, 6:8, 4:6].mean(), atol=0.51)


def test_a_detector_that_says_what_it_is_taught_is_perfect() -> None:
    """Targets and decoding are each other's inverse."""
    _, objects = detection.data(**FEW)["train"]
    taught = {name: target.array for name, target in detection.targets(objects).items()}
    heads = {
        "object_logit": 20 * taught["is_object"] - 10,
        "move": taught["place"],
        "shape_logits": 10 * (taught["shape"][:, None] == np.arange(3)[:, None, None]).astype(np.float32),
    }
    decoded = evaluate(detection.with_detections(parse_text(HEADS)), heads)
    assert decoded["boxes"].shape == (48, 36, 4)
    assert decoded["scores"].shape == (48, 36, 3)
    assert detection.mean_average_precision(decoded, objects) == 1.0
    np.testing.assert_array_equal((decoded["scores"] > 0.5).sum((1, 2)), (objects[:, :, 0] >= 0).sum(1))


def test_the_metric_suppresses_what_the_network_does() -> None:
    random = np.random.default_rng(0)
    heads = {
        "object_logit": random.normal(-1, 2, (40, 1, 6, 6)).astype(np.float32),
        "move": random.normal(0.7, 0.5, (40, 4, 6, 6)).astype(np.float32),
        "shape_logits": random.normal(0, 2, (40, 3, 6, 6)).astype(np.float32),
    }
    network = detection.with_detections(parse_text(HEADS))
    network.graph.outputs.append(network.graph.tensors()["probabilities"])
    found = evaluate(network, heads)
    scores = detection.suppressed(found["boxes"], found["probabilities"])
    assert 0 < (scores > 0).sum() < 0.95 * (found["probabilities"] > detection.LEAST_SCORE).sum()
    np.testing.assert_array_equal(scores, found["scores"])


def test_training_goes_towards_all_targets() -> None:
    images, objects = detection.data(**FEW)["train"]
    network = detection.head_network(width=4)
    solver = adam(120, batch_size=8)

    def errors(network: Model) -> list[float]:
        found, wanted = outputs(network, images), detection.targets(objects)
        found["is_object"] = 1 / (1 + np.exp(-found["is_object"]))
        return [float(np.mean((found[name] - wanted[name].array) ** 2)) for name in ("is_object", "place")]

    before, after = errors(network), errors(trained(network, images, detection.targets(objects), solver))
    assert all(a < b for a, b in zip(after, before, strict=True))


def _own(recipe: ModuleType, metric: Callable[..., float], direction: str = "max") -> dict[str, Any]:
    objective = f"{direction} {metric.__name__} constraint ModelSize < full"
    return {"data": recipe.data(**FEW), "metric": metric, "objective": objective}


RUNS: dict[str, tuple[ModuleType, Callable[[], dict[str, Any]]]] = {
    "segmentation": (segmentation, lambda: _own(segmentation, segmentation.mean_iou)),
    "detection": (detection, lambda: _own(detection, detection.mean_average_precision)),
    "detection by its outputs": (
        detection,
        lambda: {
            "data": detection.arrays(scenes(48, detection.SIZE, TRAIN))[0],
            "objective": "min OutputError constraint ModelSize < full",
        },
    ),
    "super-resolution": (super_resolution, lambda: _own(super_resolution, super_resolution.psnr)),
    "unlabelled": (
        unlabelled,
        lambda: {
            "data": {name: images[:48] for name, images in unlabelled.images().items()},
            "objective": "max Agreement constraint ModelSize < full",
        },
    ),
}


@pytest.mark.parametrize("name", RUNS)
def test_a_short_run(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the run promises of best.onnx is what plain ONNX Runtime finds."""
    monkeypatch.chdir(tmp_path)
    recipe, given = RUNS[name]
    save(_tiny(recipe), "net.onnx")
    Path("solver.prototxt").write_text(FINE_TUNING)
    Path("pretrain.prototxt").write_text(PRE_TRAINING)
    arguments = given()
    modules = len(BlockPruner.of(replace(_tiny(recipe), modules=find_modules(_tiny(recipe))[0])).modules)
    Path("subspace.json").write_text(json.dumps([[0.5] * modules, [0.7] * modules]))
    files = {"subspace": "subspace.json", "solver": "solver.prototxt", "pretrain_solver": "pretrain.prototxt"}
    more = {"finish": ["int8", "float16"], "output_weights": {"boxes": 2}} if recipe is detection else {}
    found = library.run("net.onnx", **arguments, **files, threads=1, out="out", show=False, **more)
    assert found.result.best is not None
    assert found.result.best.model_size < found.result.full.model_size
    data = arguments["data"]
    if recipe is detection:
        assert any("boxes 2, probabilities 1" in note for note in found.result.notes)
        assert found.result.best.whole == "best-whole.onnx"
        assert "best-whole.onnx" in (found.folder / "report.html").read_text()
        for file in ("best", "best.int8", "best.float16"):
            images = detection.data(**FEW)["val"][0]
            whole, part = (plain_outputs(found.folder / f"{file}{end}.onnx", images) for end in ("-whole", ""))
            np.testing.assert_array_equal(whole["boxes"], part["boxes"])
            expected = detection.suppressed(part["boxes"], part["probabilities"])
            np.testing.assert_allclose(whole["scores"], expected, atol=1e-6, err_msg=file)
    if isinstance(data, dict) and "metric" in arguments:
        images, targets = data["val"]
        seen = plain_outputs(found.best, images)
        seen = seen if len(seen) > 1 else next(iter(seen.values()))
        assert arguments["metric"](seen, targets) == pytest.approx(found.result.best.quality, rel=1e-3, abs=1e-6)
    if name == "unlabelled":
        best, full = (
            plain_outputs(found.folder / file, data["val"])["scores"].argmax(1)
            for file in ("best.onnx", "teacher.onnx")
        )
        assert (best == full).mean() == pytest.approx(found.result.best.quality)


def _tiny(recipe: ModuleType) -> Model:
    if recipe is detection:
        return detection.with_detections(detection.head_network(width=8))
    network: Model = recipe.network(width=8)
    return network


def plain_outputs(file: Path, images: np.ndarray) -> dict[str, np.ndarray]:
    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, {"image": normalize(images, PIXELS)}), strict=True))
