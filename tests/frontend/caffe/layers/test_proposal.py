from __future__ import annotations

import numpy as np
import pytest

from wootz.frontend.caffe.layers.proposal import anchor_boxes
from wootz.passes.errors import InputError

NINE_ANCHORS = [
    [-84, -40, 99, 55],
    [-176, -88, 191, 103],
    [-360, -184, 375, 199],
    [-56, -56, 71, 71],
    [-120, -120, 135, 135],
    [-248, -248, 263, 263],
    [-36, -80, 51, 95],
    [-80, -168, 95, 183],
    [-168, -344, 183, 359],
]
"""As py-faster-rcnn prints them."""


def test_the_nine_anchors() -> None:
    np.testing.assert_array_equal(anchor_boxes(16, (0.5, 1, 2), (8, 16, 32)), NINE_ANCHORS)


def overlap(a: np.ndarray, b: np.ndarray) -> float:
    width, height = min(a[2], b[2]) - max(a[0], b[0]) + 1, min(a[3], b[3]) - max(a[1], b[1]) + 1
    inner = max(width, 0) * max(height, 0)
    areas = [(box[2] - box[0] + 1) * (box[3] - box[1] + 1) for box in (a, b)]
    return inner / (sum(areas) - inner)


def propose(
    scores: np.ndarray, deltas: np.ndarray, image: np.ndarray, before: int, after: int
) -> tuple[np.ndarray, np.ndarray]:
    boxes = []
    for y in range(scores.shape[2]):
        for x in range(scores.shape[3]):
            for a, anchor in enumerate(NINE_ANCHORS):
                x1, y1, x2, y2 = np.add(anchor, [x * 16, y * 16, x * 16, y * 16])
                width, height = x2 - x1 + 1, y2 - y1 + 1
                dx, dy, dw, dh = deltas[0, a * 4 : a * 4 + 4, y, x]
                cx, cy = x1 + width / 2 + dx * width, y1 + height / 2 + dy * height
                w, h = np.exp(dw) * width, np.exp(dh) * height
                box = np.clip([cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2], 0, [image[1] - 1, image[0] - 1] * 2)
                if min(box[2] - box[0] + 1, box[3] - box[1] + 1) >= 16 * image[2]:
                    boxes.append((scores[0, 9 + a, y, x], box))
    boxes.sort(key=lambda b: -b[0])
    kept: list[tuple[float, np.ndarray]] = []
    for score, box in boxes[:before]:
        if all(overlap(box, other) <= 0.7 for _, other in kept):
            kept.append((score, box))
    return (
        np.array([[0, *box] for _, box in kept[:after]], np.float32).reshape(-1, 5),
        np.array([[score] for score, _ in kept[:after]], np.float32).reshape(-1, 1),
    )


PYTHON = """type: "Python"
    python_param { module: "rpn.proposal_layer" layer: "ProposalLayer" param_str: "'feat_stride': 16" }"""


@pytest.mark.parametrize(
    ("layer", "before", "after"),
    [
        (PYTHON, 6000, 300),
        ('type: "Proposal" proposal_param { pre_nms_topn: 60 post_nms_topn: 10 }', 60, 10),
    ],
)
def test_proposal(run_layer, random, layer, before, after) -> None:
    scores = random.uniform(size=(1, 18, 5, 6)).astype(np.float32)
    deltas = random.normal(0, 0.3, size=(1, 36, 5, 6)).astype(np.float32)
    image = np.array([[80, 96, 1.5]], np.float32)
    regions, probabilities = run_layer(layer, [scores, deltas, image], tops=2)
    wanted = propose(scores, deltas, image[0], before, after)
    np.testing.assert_allclose(regions, wanted[0], rtol=1e-4, atol=1e-3)
    np.testing.assert_array_equal(probabilities, wanted[1])


def test_an_image_without_proposals(load, run, random) -> None:
    """All boxes are too small: what follows sees no regions."""
    network = load("""input: "s" input_shape { dim: [1, 18, 5, 6] } input: "d" input_shape { dim: [1, 36, 5, 6] }
        input: "i" input_shape { dim: [1, 3] } input: "x" input_shape { dim: [1, 4, 5, 6] }
        layer { name: "p" type: "Proposal" bottom: "s" bottom: "d" bottom: "i" top: "rois" top: "scores"
          proposal_param { min_size: 10000 } }
        layer { name: "r" type: "ROIPooling" bottom: "x" bottom: "rois" top: "r"
          roi_pooling_param { pooled_h: 2 pooled_w: 2 spatial_scale: 0.0625 } }
        layer { name: "q" type: "PSROIPooling" bottom: "x" bottom: "rois" top: "q"
          psroi_pooling_param { spatial_scale: 0.0625 output_dim: 1 group_size: 2 } }
        layer { name: "f" type: "InnerProduct" bottom: "r" top: "f" inner_product_param { num_output: 3 } }""")
    shapes = {"s": (1, 18, 5, 6), "d": (1, 36, 5, 6), "x": (1, 4, 5, 6)}
    feeds = {name: random.uniform(size=shape).astype(np.float32) for name, shape in shapes.items()}
    found = run(network, {**feeds, "i": np.array([[80, 96, 1]], np.float32)})
    assert {n: v.shape for n, v in found.items()} == {"scores": (0, 1), "q": (0, 1, 2, 2), "f": (0, 3)}


@pytest.mark.parametrize(
    ("written", "anchors"),
    [
        ("'feat_stride': 16", 9),
        ("feat_stride: 16", 9),
        ("{'feat_stride': 16}", 9),
        ("'feat_stride': 16 \\n'scales': [4, 8, 16, 32]", 12),
        ("{feat_stride: 8, 'scales': (4, 8), 'ratios': [0.5, 1.0]}", 4),
        ("'scales': !!python/tuple [4, 8, 16, 32]", 12),
        ("", 9),
    ],
)
def test_what_param_str_says(load, written, anchors) -> None:
    load(f"""input: "s" input_shape {{ dim: [1, {2 * anchors}, 5, 6] }}
        input: "d" input_shape {{ dim: [1, {4 * anchors}, 5, 6] }}
        input: "i" input_shape {{ dim: [1, 3] }}
        layer {{ name: "p" type: "Python" bottom: "s" bottom: "d" bottom: "i" top: "rois"
          python_param {{ module: "rpn.proposal_layer" layer: "ProposalLayer" param_str: "{written}" }} }}""")


@pytest.mark.parametrize(
    ("written", "message"),
    [
        ("'stride': 16", "has 'stride', which py-faster-rcnn's layer doesn't read"),
        ("'scales': 3", "scales in its param_str has to be a list"),
        ("'feat_stride': [16]", "feat_stride in its param_str has to be a whole number"),
        ("'feat_stride': __import__('os')", "is not of the form 'feat_stride': 16"),
        ("'feat_stride': 0", "have to be positive"),
        ("'scales': []", "have to be positive"),
    ],
)
def test_what_param_str_may_not_say(load, written, message) -> None:
    with pytest.raises(InputError) as error:
        test_what_param_str_says(load, written, 9)
    assert message in str(error.value)


def test_other_python_code_is_refused(load) -> None:
    with pytest.raises(InputError, match="the Python code of 'Layer' has no ONNX operators"):
        load("""input: "x" input_shape { dim: 1 } layer { name: "p" type: "Python" bottom: "x" top: "y"
            python_param { module: "my" layer: "Layer" } }""")
