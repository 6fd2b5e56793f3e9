"""Detection: a one-stage detector of discs, squares and triangles, with NonMaxSuppression in the file.

    python examples/tasks/detection.py detection.onnx        # trains the full network
    wootz run detection.onnx --data examples/tasks/detection.py:data \\
        --metric examples/tasks/detection.py:mean_average_precision \\
        --objective "min ModelSize constraint mean_average_precision >= full - 0.05"

`--data examples/tasks/detection.py:images --objective "min ModelSize constraint OutputError <= 0.05"` needs no objects.
Networks are trained and judged in front of NonMaxSuppression; `best-whole.onnx` has all of it.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping

import numpy as np

from wootz.examples.tasks.layers import Layers
from wootz.examples.tasks.scenes import SHAPES, TEST, TRAIN, VALIDATION, Scene, scenes
from wootz.examples.tasks.training import Target, adam, trained
from wootz.passes.ir.builder import Builder
from wootz.passes.ir.files import save
from wootz.passes.ir.model import Model, Tensor, Variable
from wootz.passes.ir.verifier import verify

SIZE, STRIDE = 48, 8
CELLS = SIZE // STRIDE
MOST, NOTHING = 3, -1
TYPICAL = 14.0
"""The width that a box has where the network says nothing of it, in pixels."""
LEAST_SCORE, MOST_OVERLAP = 0.05, 0.45


def data(train: int = 2000, validation: int = 200, test: int = 200) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Images [n, 3, 48, 48] of each split, and their objects [n, 3, 5]: class, left, top, right, bottom; a row of -1
    is none."""
    counts = {"train": (train, TRAIN), "val": (validation, VALIDATION), "test": (test, TEST)}
    return {name: arrays(scenes(count, SIZE, split, MOST)) for name, (count, split) in counts.items()}


def images() -> dict[str, np.ndarray]:
    """The images alone."""
    return {name: pixels for name, (pixels, _) in data().items()}


def arrays(found: list[Scene]) -> tuple[np.ndarray, np.ndarray]:
    """Images and objects of scenes."""
    objects = np.full((len(found), MOST, 5), NOTHING, np.float32)
    for row, scene in zip(objects, found, strict=True):
        row[: len(scene.objects)] = scene.objects
    return np.stack([scene.image for scene in found]), objects


def mean_average_precision(outputs: Mapping[str, np.ndarray], targets: np.ndarray) -> float:
    """The mean over the classes of the area below precision over recall (Everingham et al. 2010, from 2010 on).

    A detection is right if it overlaps by half (intersection over union) with an object of its class, the one with
    which it overlaps most, that no surer detection has found. `outputs` are `boxes` [n, boxes, 4] and, of the whole
    network, `scores` [n, boxes, classes], 0 for what is no detection; or `probabilities` [n, classes, boxes], where
    they come from in front of NonMaxSuppression, which then is done here. `targets` are objects as `data` gives them.
    Classes without objects count for nothing.
    """
    boxes = outputs["boxes"]
    all_scores = outputs["scores"] if "scores" in outputs else suppressed(boxes, outputs["probabilities"])
    precisions = []
    for shape in range(len(SHAPES)):
        objects = [image[image[:, 0] == shape, 1:] for image in targets]
        if any(map(len, objects)):
            precisions.append(_average_precision(boxes, all_scores[:, :, shape], objects))
    return float(np.mean(precisions))


def suppressed(boxes: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    """What NonMaxSuppression leaves, [n, boxes, classes]: of each class the surest box, and in turn each next one that
    doesn't overlap too much with those before; 0 for all others."""
    kept = np.zeros((*boxes.shape[:2], probabilities.shape[1]), np.float32)
    for image, shape in np.ndindex(probabilities.shape[:2]):
        chances = probabilities[image, shape]
        likely = np.flatnonzero(chances > LEAST_SCORE)
        chosen: list[int] = []
        for place in likely[np.argsort(-chances[likely], kind="stable")]:
            if not (_overlaps(boxes[image, place], boxes[image, chosen]) > MOST_OVERLAP).any():
                chosen.append(place)
        kept[image, chosen, shape] = chances[chosen]
    return kept


def _average_precision(boxes: np.ndarray, scores: np.ndarray, objects: list[np.ndarray]) -> float:
    images, places = np.nonzero(scores > 0)
    order = np.argsort(-scores[images, places], kind="stable")
    found = [np.zeros(len(of_image), bool) for of_image in objects]
    right = np.zeros(len(order), bool)
    for i, (image, place) in enumerate(zip(images[order], places[order], strict=True)):
        overlaps = _overlaps(boxes[image, place], objects[image])
        if len(overlaps) and overlaps.max() >= 0.5 and not found[image][overlaps.argmax()]:
            right[i] = found[image][overlaps.argmax()] = True
    precision = right.cumsum() / np.arange(1, len(right) + 1)
    best_from_here = np.maximum.accumulate(precision[::-1])[::-1]
    return float(best_from_here[right].sum() / sum(map(len, objects)))


def _overlaps(box: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Intersection over union of a box with each of others [n, 4]."""
    extents = np.minimum(box[2:], others[:, 2:]) - np.maximum(box[:2], others[:, :2])
    shared = extents.clip(0).prod(axis=1)
    areas = (others[:, 2:] - others[:, :2]).prod(axis=1) + (box[2:] - box[:2]).prod()
    return np.asarray(shared / (areas - shared))


def head_network(width: int = 16) -> Model:
    """Residual blocks down to a grid of 6 x 6 cells, and three convolutions of 1 x 1 that say of each cell whether the
    middle of an object lies in it, where and how large it is, and what it is."""
    layers = Layers(channels=3, size=SIZE)

    def block(name: str, x: Tensor, channels: int, filters: int, stride: int = 1) -> Variable:
        y = layers.op("Relu", layers.normalized(f"{name}.1", x, channels, filters, stride=stride))
        y = layers.normalized(f"{name}.2", y, filters, filters)
        is_same = stride == 1 and channels == filters
        past = x if is_same else layers.normalized(f"{name}.past", x, channels, filters, kernel=1, stride=stride)
        return layers.op("Relu", layers.op("Add", y, past))

    x = layers.op("Relu", layers.normalized("stem", layers.image, 3, width, stride=2))
    x = block("layer1", x, width, 2 * width, stride=2)
    x = block("layer2", x, 2 * width, 3 * width, stride=2)
    x = block("layer3", x, 3 * width, 3 * width)
    filters = {"is_object": 1, "place": 4, "shape": len(SHAPES)}
    heads = {name: layers.convolution(f"head.{name}", x, 3 * width, count, kernel=1) for name, count in filters.items()}
    return layers.finished({name: (head, ["N", filters[name], CELLS, CELLS]) for name, head in heads.items()})


def with_detections(network: Model) -> Model:
    """The same with what its three outputs mean: `boxes` [N, 36, 4], left, top, right and bottom in pixels, and
    `scores` [N, 36, 3], of which NonMaxSuppression leaves those of detections. Both have a row for each cell, so that
    they can be told by image in any batch."""
    result = network.copy()
    graph = result.graph
    layers = Builder(graph, prefix="detections/")
    is_object, place, shape = graph.outputs

    def in_a_row(maps: Tensor, channels: int) -> Tensor:
        return layers.op("Reshape", maps, layers.constant([0, channels, CELLS**2]))

    rows, columns = np.divmod(np.arange(CELLS**2), CELLS)
    middles = layers.constant((np.stack([columns, rows], axis=1) + 0.5).astype(np.float32) * STRIDE, "middles")
    places = layers.op("Transpose", in_a_row(place, 4), perm=[0, 2, 1])
    moved, enlarged = layers.ops("Split", places, count=2, num_outputs=2, axis=2)
    middle = layers.op("Add", layers.op("Mul", moved, layers.constant(float(STRIDE))), middles)
    half = layers.op("Mul", layers.op("Exp", enlarged), layers.constant(TYPICAL / 2))
    boxes = layers.op("Concat", layers.op("Sub", middle, half), layers.op("Add", middle, half), axis=2)

    chances = layers.op("Sigmoid", in_a_row(is_object, 1))
    scores = layers.op("Mul", chances, layers.op("Softmax", in_a_row(shape, len(SHAPES)), axis=1))
    limits = layers.constant([CELLS**2]), layers.constant(MOST_OVERLAP), layers.constant(LEAST_SCORE)
    chosen = layers.op("NonMaxSuppression", boxes, scores, *limits)  # [detections, 3]: image, class, box
    scores.name = "probabilities"
    nothing = layers.op("ConstantOfShape", layers.op("Shape", scores))
    kept = layers.op("ScatterND", nothing, chosen, layers.op("GatherND", scores, chosen))
    kept = layers.op("Transpose", kept, perm=[0, 2, 1])

    for tensor, name, last in ((boxes, "boxes", 4), (kept, "scores", len(SHAPES))):
        tensor.name, tensor.dtype, tensor.shape = name, np.dtype(np.float32), ["N", CELLS**2, last]
    graph.outputs = [boxes, kept]
    verify(result)
    return result


def targets(objects: np.ndarray) -> dict[str, Target]:
    """What the three outputs have to become: cells without an object have no class, and are taught a box of the typical
    size in their middle."""
    is_object = np.zeros((len(objects), 1, CELLS, CELLS))
    place = np.zeros((len(objects), 4, CELLS, CELLS))
    shape = np.full((len(objects), CELLS, CELLS), len(SHAPES))
    image, position = np.nonzero(objects[:, :, 0] != NOTHING)
    kind, *box = objects[image, position].T
    corners = np.stack(box)
    middle, extent = (corners[:2] + corners[2:]) / 2, corners[2:] - corners[:2]
    column, row = (middle // STRIDE).astype(int)
    is_object[image, 0, row, column] = 1
    shape[image, row, column] = kind
    place[image, :2, row, column] = (middle / STRIDE - np.stack([column, row]) - 0.5).T
    place[image, 2:, row, column] = np.log(extent / TYPICAL).T
    return {
        "is_object": Target("bce-with-logits", is_object),
        "place": Target("smooth-l1", place, weight=20),
        "shape": Target("softmax-cross-entropy", shape, ignore=len(SHAPES)),
    }


def full_network(images: np.ndarray, objects: np.ndarray, width: int = 16, steps: int = 2000) -> Model:
    """The network, trained by three losses at once."""
    return with_detections(trained(head_network(width), images, targets(objects), adam(steps)))


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    save(full_network(*data()["train"]), sys.argv[1])
