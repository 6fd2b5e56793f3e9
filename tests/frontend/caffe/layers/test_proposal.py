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


def propose(scores: np.ndarray, deltas: np.ndarray, image: np.ndarray, before: int, after: int) -> np.ndarray:
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
    kept: list[np.ndarray] = []
    for _, box in boxes[:before]:
        if all(overlap(box, other) <= 0.7 for other in kept):
            kept.append(box)
    return np.array([[0, *box] for box in kept[:after]], np.float32)


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
    found = run_layer(layer, [scores, deltas, image])
    np.testing.assert_allclose(found, propose(scores, deltas, image[0], before, after), rtol=1e-4, atol=1e-3)


def test_other_python_code_is_refused(load) -> None:
    with pytest.raises(InputError, match="the Python code of 'Layer' has no ONNX operators"):
        load("""input: "x" input_shape { dim: 1 } layer { name: "p" type: "Python" bottom: "x" top: "y"
            python_param { module: "my" layer: "Layer" } }""")
