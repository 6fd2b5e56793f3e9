from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

from wootz.passes.errors import InputError


@pytest.mark.parametrize(
    ("fields", "sizes"),
    [
        ("min_size: 10", [(10, 10)]),
        ("min_size: 10.7", [(10, 10)]),
        ("min_size: 10 max_size: 40", [(10, 10), (20, 20)]),
        ("min_size: 8 aspect_ratio: 4", [(8, 8), (16, 4), (4, 16)]),
        ("min_size: 8 aspect_ratio: 4 aspect_ratio: 1 aspect_ratio: 4 flip: false", [(8, 8), (16, 4)]),
        ("min_size: 8 min_size: 4 max_size: 32 max_size: 9", [(8, 8), (16, 16), (4, 4), (6, 6)]),
    ],
)
@pytest.mark.parametrize(("place", "step", "offset"), [("", None, 0.5), ("step: 7 offset: 0", 7, 0)])
def test_prior_box(run_layer, fields, sizes, place, step, offset) -> None:
    feature, image = np.zeros((2, 3, 2, 4), np.float32), np.zeros((2, 3, 30, 40), np.float32)
    found = run_layer(
        f'type: "PriorBox" prior_box_param {{ {fields} {place} variance: [0.1, 0.1, 0.2, 0.2] }}', [feature, image]
    )
    wanted = []
    for y, x in itertools.product(range(2), range(4)):
        cx, cy = (x + offset) * (step or 40 / 4), (y + offset) * (step or 30 / 2)
        for w, h in sizes:
            wanted += [(cx - w / 2) / 40, (cy - h / 2) / 30, (cx + w / 2) / 40, (cy + h / 2) / 30]
    np.testing.assert_allclose(found[0, 0], wanted, atol=1e-6)
    np.testing.assert_allclose(found[0, 1], [0.1, 0.1, 0.2, 0.2] * (len(wanted) // 4), atol=1e-6)


def overlap(a: np.ndarray, b: np.ndarray) -> float:
    width, height = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    if width <= 0 or height <= 0:
        return 0.0
    areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (a, b)]
    return width * height / (sum(areas) - width * height)


def decode(code: str, prior: np.ndarray, variance: np.ndarray, offset: np.ndarray) -> np.ndarray:
    width, height = prior[2] - prior[0], prior[3] - prior[1]
    if code == "CORNER":
        return prior + variance * offset
    if code == "CORNER_SIZE":
        return prior + variance * offset * [width, height, width, height]
    cx = (prior[0] + prior[2]) / 2 + variance[0] * offset[0] * width
    cy = (prior[1] + prior[3]) / 2 + variance[1] * offset[1] * height
    w, h = math.exp(variance[2] * offset[2]) * width, math.exp(variance[3] * offset[3]) * height
    return np.array([cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2])


def detect(
    location: np.ndarray, scores: np.ndarray, priors: np.ndarray, code: str, top_k: int, keep: int
) -> np.ndarray:
    """`DetectionOutputLayer::Forward_cpu`: location [images, boxes, places, 4], scores [images, boxes, classes]."""
    rows = []
    for image in range(len(location)):
        kept = []
        for label in range(1, scores.shape[2]):
            place = label if location.shape[2] > 1 else 0
            boxes = [
                decode(code, *priors[:, b], location[image, b, place])  # type: ignore[call-arg]
                for b in range(location.shape[1])
            ]
            order = [b for b in np.argsort(-scores[image, :, label], kind="stable") if scores[image, b, label] > 0.2]
            chosen: list[int] = []
            for b in order[:top_k]:
                if all(overlap(boxes[b], boxes[c]) <= 0.45 for c in chosen):
                    chosen.append(b)
            kept += [(label, scores[image, b, label], *boxes[b]) for b in chosen]
        best = sorted(kept, key=lambda row: -row[1])[:keep]
        rows += [(image, *row) for row in kept if row in best]
    if not rows:
        rows = [(image, *[-1.0] * 6) for image in range(len(location))]
    return np.array(rows, np.float32)[None, None]


NETWORK = """input: "loc" input_shape {{ dim: 1 dim: {locations} }} input: "conf" input_shape {{ dim: 1 dim: {scores} }}
    input: "map" input_shape {{ dim: [1, 1, 4, 4] }} input: "image" input_shape {{ dim: [1, 1, 20, 20] }}
    layer {{ name: "prior" type: "PriorBox" bottom: "map" bottom: "image" top: "prior"
             prior_box_param {{ min_size: 8 variance: [0.1, 0.1, 0.2, 0.2] }} }}
    layer {{ name: "out" type: "DetectionOutput" bottom: "loc" bottom: "conf" bottom: "prior" top: "out"
             detection_output_param {{ num_classes: 3 {fields} confidence_threshold: 0.2
                                       nms_param {{ nms_threshold: 0.45 top_k: {top_k} }} }} }}"""


@pytest.mark.parametrize("code", ["CENTER_SIZE", "CORNER", "CORNER_SIZE"])
@pytest.mark.parametrize(("top_k", "keep"), [(400, 100), (5, 100), (10, 6)])
@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize("images", [1, 2])
def test_detection_output(load, run, random, code, top_k, keep, shared, images) -> None:
    places = 1 if shared else 3
    fields = f"code_type: {code} keep_top_k: {keep} share_location: {str(shared).lower()}"
    result = load(NETWORK.format(locations=16 * 4 * places, scores=16 * 3, fields=fields, top_k=top_k))
    location = random.normal(size=(images, 16, places, 4)).astype(np.float32)
    scores = random.uniform(size=(images, 16, 3)).astype(np.float32)
    centres = (np.arange(4) + 0.5) * 5
    corners = [[x - 4, y - 4, x + 4, y + 4] for y, x in itertools.product(centres, centres)]
    boxes = np.array([np.array(corners) / 20, np.tile([0.1, 0.1, 0.2, 0.2], (16, 1))])
    found = run(result, {"loc": location.reshape(images, -1), "conf": scores.reshape(images, -1)})["out"]
    np.testing.assert_allclose(found, detect(location, scores, boxes, code, top_k, keep), rtol=1e-4, atol=1e-5)


def test_without_detections_there_is_a_row_an_image(load, run) -> None:
    result = load(NETWORK.format(locations=64, scores=48, fields="", top_k=10))
    zeros = np.zeros((3, 64), np.float32)
    found = run(result, {"loc": zeros, "conf": zeros[:, :48]})["out"]
    np.testing.assert_array_equal(found[0, 0], [[i, -1, -1, -1, -1, -1, -1] for i in range(3)])


def test_roi_pooling(run_layer, random) -> None:
    x = random.normal(size=(2, 3, 8, 9)).astype(np.float32)
    regions = np.array([[0, 0, 0, 15, 15], [1, 2, 4, 12, 9], [1, 5, 5, 5, 5]], np.float32)
    found = run_layer(
        'type: "ROIPooling" roi_pooling_param { pooled_h: 2 pooled_w: 3 spatial_scale: 0.5 }', [x, regions]
    )
    for r, (image, *corners) in enumerate(regions):
        x1, y1, x2, y2 = (math.floor(c * 0.5 + 0.5) for c in corners)
        height, width = max(y2 - y1 + 1, 1), max(x2 - x1 + 1, 1)
        for i, j in itertools.product(range(2), range(3)):
            rows = slice(min(max(math.floor(i * height / 2) + y1, 0), 8), min(math.ceil((i + 1) * height / 2) + y1, 8))
            columns = slice(min(max(math.floor(j * width / 3) + x1, 0), 9), min(math.ceil((j + 1) * width / 3) + x1, 9))
            part = x[int(image), :, rows, columns]
            np.testing.assert_allclose(found[r, :, i, j], part.max((1, 2)) if part.size else 0, atol=1e-6)


def test_psroi_pooling(run_layer, random) -> None:
    group, outputs = 3, 2
    x = random.normal(size=(1, outputs * group**2, 8, 9)).astype(np.float32)
    regions = np.array([[0, 0, 0, 15, 15], [0, 2, 4, 12, 9], [0, 30, 30, 40, 40]], np.float32)
    found = run_layer(
        f'type: "PSROIPooling" psroi_pooling_param {{ spatial_scale: 0.5 output_dim: {outputs} group_size: {group} }}',
        [x, regions],
    )
    for r, (_, *corners) in enumerate(regions):
        x1, y1 = corners[0] * 0.5, corners[1] * 0.5
        x2, y2 = (corners[2] + 1) * 0.5, (corners[3] + 1) * 0.5
        bin_w, bin_h = max(x2 - x1, 0.1) / group, max(y2 - y1, 0.1) / group
        for d, i, j in itertools.product(range(outputs), range(group), range(group)):
            rows = slice(*(min(max(f(k * bin_h + y1), 0), 8) for f, k in ((math.floor, i), (math.ceil, i + 1))))
            columns = slice(*(min(max(f(k * bin_w + x1), 0), 9) for f, k in ((math.floor, j), (math.ceil, j + 1))))
            part = x[0, (d * group + i) * group + j, rows, columns]
            np.testing.assert_allclose(found[r, d, i, j], part.mean() if part.size else 0, atol=1e-5)


@pytest.mark.parametrize(
    ("fields", "message"),
    [("code_type: CENTRE", "takes one of CORNER, CENTER_SIZE, CORNER_SIZE"), ("num_classes: 4", "is given twice")],
)
def test_contradictions_are_refused(load, fields, message) -> None:
    with pytest.raises(InputError, match=message):
        load(NETWORK.format(locations=64, scores=48, fields=fields, top_k=10))


def test_locations_that_do_not_fit_are_refused(load) -> None:
    with pytest.raises(InputError, match="locations of shape 1×60 for 16 priors"):
        load(NETWORK.format(locations=60, scores=48, fields="", top_k=10))


@pytest.mark.parametrize(
    ("fields", "steps", "offset", "clip"),
    [
        ("step: 8 offset: 0.5", (8, 8), 0.5, False),
        ("", (64 / 3, 16), 0.5, False),
        ("step_h: 4 step_w: 6 clip: true", (4, 6), 0.5, True),
    ],
)
def test_clustered_priors(load, run, fields, steps, offset, clip) -> None:
    """OpenVINO's definition, box by box."""
    network = load(
        f"""input: "map" input_shape {{ dim: [1, 2, 3, 4] }} input: "image" input_shape {{ dim: [1, 3, 64, 64] }}
        layer {{ name: "s" type: "ReLU" bottom: "map" top: "s" }}
        layer {{ name: "p" type: "PriorBoxClustered" bottom: "map" bottom: "image" top: "priors" prior_box_param {{
          width: [9.4, 25.1] height: [15, 39.6] variance: [0.1, 0.1, 0.2, 0.2] {fields} }} }}"""
    )
    wanted = []
    for y in range(3):
        for x in range(4):
            for w, h in ((9.4, 15), (25.1, 39.6)):
                cx, cy = (x + offset) * steps[1], (y + offset) * steps[0]
                wanted += [(cx - w / 2) / 64, (cy - h / 2) / 64, (cx + w / 2) / 64, (cy + h / 2) / 64]
    boxes, variances = run(network, {"map": np.zeros((1, 2, 3, 4), np.float32)})["priors"][0]
    np.testing.assert_allclose(boxes, np.clip(wanted, 0, 1) if clip else wanted, rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(variances, np.tile([0.1, 0.1, 0.2, 0.2], 24), rtol=1e-6)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ("min_size: 1e309", "have to be positive"),
        ("min_size: -2", "have to be positive"),
        ("min_size: 2 aspect_ratio: -1", "have to be positive"),
        ("min_size: 2 max_size: 0", "have to be positive"),
        ("min_size: 2 variance: [1, 2, 3]", "3 variances: there have to be 1 or 4"),
    ],
)
def test_priors_of_senseless_sizes_are_refused(load, fields, message) -> None:
    with pytest.raises(InputError) as error:
        load(f"""input: "a" input_shape {{ dim: [1, 2, 3, 4] }} input: "b" input_shape {{ dim: [1, 3, 64, 64] }}
            layer {{ name: "p" type: "PriorBox" bottom: "a" bottom: "b" top: "p" prior_box_param {{ {fields} }} }}""")
    assert message in str(error.value)


def test_pooling_of_no_regions(load, run) -> None:
    network = load("""input: "x" input_shape { dim: [1, 8, 6, 6] } input: "rois" input_shape { dim: [3, 5] }
        layer { name: "a" type: "ROIPooling" bottom: "x" bottom: "rois" top: "a"
          roi_pooling_param { pooled_h: 2 pooled_w: 2 } }
        layer { name: "b" type: "PSROIPooling" bottom: "x" bottom: "rois" top: "b"
          psroi_pooling_param { spatial_scale: 0.5 output_dim: 2 group_size: 2 } }""")
    found = run(network, {"x": np.ones((1, 8, 6, 6), np.float32), "rois": np.zeros((0, 5), np.float32)})
    assert (found["a"].shape, found["b"].shape) == ((0, 8, 2, 2), (0, 2, 2, 2))
