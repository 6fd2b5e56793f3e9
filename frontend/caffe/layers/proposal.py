"""Proposal of Faster R-CNN: the regions that the second stage looks at.

The layer is Python in py-faster-rcnn (`lib/rpn/proposal_layer.py`) and C++ in forks after it.
"""

from __future__ import annotations

import ast
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from wootz.frontend.caffe.lowering import Site, Value
from wootz.frontend.caffe.schema import NoEffect, Unsigned
from wootz.frontend.caffe.shape import Symbol, static, static_shape, text
from wootz.passes.ir.model import Tensor

BOX = 4
MOST_ANCHORS = 2**22
REJECTED = -1.0
"""The score of boxes that are too small; real ones are probabilities."""


@dataclass(frozen=True)
class ProposalParameter:
    """ProposalParameter of the C++ layer; the defaults are py-faster-rcnn's at test time."""

    feat_stride: Unsigned = 16
    base_size: Unsigned = 16
    min_size: Unsigned = 16
    ratio: tuple[float, ...] = (0.5, 1.0, 2.0)
    scale: tuple[float, ...] = (8.0, 16.0, 32.0)
    pre_nms_topn: Unsigned = 6000
    post_nms_topn: Unsigned = 300
    nms_thresh: float = 0.7


@dataclass(frozen=True)
class PythonParameter:
    """PythonParameter of caffe.proto."""

    module: str = ""
    layer: str = ""
    param_str: str = ""
    share_in_parallel: NoEffect | None = None


def python(site: Site, p: PythonParameter) -> list[Value]:
    """py-faster-rcnn's ProposalLayer; other Python code has no ONNX form."""
    if p.layer != "ProposalLayer":
        raise site.error(f"the Python code of {p.layer!r} has no ONNX operators", "python_param")
    fields = _written_fields(site, p.param_str)
    site.note("what its Python code reads from a configuration file has the defaults of py-faster-rcnn")
    known = {"feat_stride": "feat_stride", "scales": "scale", "ratios": "ratio"}
    if unknown := sorted(fields.keys() - known):
        raise site.error(f"its param_str has {unknown[0]!r}, which py-faster-rcnn's layer doesn't read", "python_param")
    return proposal(site, replace(ProposalParameter(), **{known[name]: value for name, value in fields.items()}))


def proposal(site: Site, p: ProposalParameter) -> list[Value]:
    """Anchors moved by their deltas, clipped to the image; the best of them after suppression, [regions, 5].

    A second top has their probabilities, [regions, 1]. There may be no region.

    Bottoms: class probabilities [1, 2·anchors, H, W], deltas [1, 4·anchors, H, W], and [1, 3+]: the image's height,
    width and scale. For one image, as there.
    """
    site.expect_inputs(3)
    scores, deltas, image = site.inputs
    sizes = (p.base_size, p.feat_stride, *p.ratio, *p.scale)
    if not p.ratio or not p.scale or not all(0 < n < math.inf for n in sizes):
        raise site.error("base_size, feat_stride, ratio and scale have to be positive")
    if len(scores.shape) != 4 or len(deltas.shape) != 4 or scores.shape[2:] != deltas.shape[2:]:
        raise site.error(f"scores of shape {text(scores.shape)} and deltas of shape {text(deltas.shape)}")
    anchors = anchor_boxes(p.base_size, p.ratio, p.scale)
    height, width = static_shape(scores.shape[2:])
    if static(scores.shape[0]) != 1 or scores.shape[1] != 2 * len(anchors) or deltas.shape[1] != BOX * len(anchors):
        raise site.error(
            f"scores of shape {text(scores.shape)} and deltas of shape {text(deltas.shape)} for one image and "
            f"{len(anchors)} anchors"
        )
    if height * width * len(anchors) > MOST_ANCHORS:
        raise site.error(f"{height}×{width}×{len(anchors)} anchors: up to {MOST_ANCHORS} are computed")
    rows, columns = np.meshgrid(np.arange(height) * p.feat_stride, np.arange(width) * p.feat_stride, indexing="ij")
    shifts = np.stack([columns, rows, columns, rows], axis=-1)[:, :, None]
    boxes = (shifts + anchors).reshape(-1, BOX).astype(np.float32)
    foreground = site.op(
        "Slice",
        scores.tensor,
        site.constant([len(anchors)], "first"),
        site.constant([2 * len(anchors)], "last"),
        site.constant([1], "axis"),
    )
    ranked = site.op("Reshape", site.op("Transpose", foreground, perm=[0, 2, 3, 1]), site.constant([-1], "shape"))
    moved = _moved(site, boxes, _rows(site, deltas.tensor))
    limits, scale = _limits(site, image.tensor)
    clipped = site.op("Min", site.op("Max", moved, site.constant(0.0, "zero")), limits)
    valid = _large_enough(site, clipped, scale, p.min_size)
    ranked = site.op("Where", valid, ranked, site.constant(REJECTED, "rejected"))
    regions, probabilities = _suppressed(site, p, clipped, ranked, len(boxes))
    return [Value(regions, (Symbol("regions"), 5)), Value(probabilities, (Symbol("regions"), 1))]


def anchor_boxes(base: int, ratios: Sequence[float], scales: Sequence[float]) -> np.ndarray:
    """[anchors, 4]: the base box in each ratio, and each of these in each scale (`generate_anchors.py`)."""
    centre = (base - 1) / 2
    widths = np.round(np.sqrt(base * base / np.asarray(ratios)))
    sizes = np.stack([widths, np.round(widths * np.asarray(ratios))], axis=1)
    halves = (np.asarray(scales)[None, :, None] * sizes[:, None] - 1).reshape(-1, 2) / 2
    return np.concatenate([centre - halves, centre + halves], axis=1)


def _moved(site: Site, boxes: np.ndarray, deltas: Tensor) -> Tensor:
    """The boxes with their centres moved and their sizes stretched, [boxes, 4] (`bbox_transform_inv`)."""
    sizes = boxes[:, 2:] - boxes[:, :2] + 1
    centres = boxes[:, :2] + sizes / 2
    shift, stretch = site.ops("Split", deltas, site.constant([2, 2], "halves"), count=2, axis=1)
    centre = site.op("Add", site.op("Mul", shift, site.constant(sizes, "sizes")), site.constant(centres, "centres"))
    half = site.op("Mul", site.op("Exp", stretch), site.constant(sizes / 2, "half_sizes"))
    return site.op("Concat", site.op("Sub", centre, half), site.op("Add", centre, half), axis=1)


def _limits(site: Site, image: Tensor) -> tuple[Tensor, Tensor]:
    """The largest coordinates, [4], and the factor by which the image was resized, [1]."""
    flat = site.op("Reshape", image, site.constant([-1], "shape"))
    corner = site.op("Gather", flat, site.constant([1, 0, 1, 0], "width_height"))
    scale = site.op("Gather", flat, site.constant([2], "scale"))
    return site.op("Sub", corner, site.constant(1.0, "one")), scale


def _large_enough(site: Site, boxes: Tensor, scale: Tensor, smallest: int) -> Tensor:
    """bool [boxes]: whether both sides have at least the smallest size, in pixels of the resized image."""
    begin, end = site.ops("Split", boxes, site.constant([2, 2], "halves"), count=2, axis=1)
    sides = site.op("Add", site.op("Sub", end, begin), site.constant(1.0, "one"))
    least = site.op("ReduceMin", sides, site.constant([1], "axis"), keepdims=0)
    return site.op("GreaterOrEqual", least, site.op("Mul", scale, site.constant(float(smallest), "smallest")))


def _suppressed(site: Site, p: ProposalParameter, boxes: Tensor, scores: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The kept boxes by falling score, each behind the number of its image, 0; and their scores, [regions, 1]."""
    best, order = site.ops("TopK", scores, site.constant([min(p.pre_nms_topn, count)], "pre_nms_topn"), count=2)
    candidates = site.op("Gather", boxes, order)
    # Sides are one pixel longer than their corners are apart: NonMaxSuppression gets the corner behind.
    grown = site.op("Add", candidates, site.constant([0.0, 0.0, 1.0, 1.0], "one_behind"))
    batch = site.constant([0], "batch")
    chosen = site.op(
        "NonMaxSuppression",
        site.op("Unsqueeze", grown, batch),
        site.op("Unsqueeze", best, site.constant([0, 1], "batch_and_class")),
        site.constant(p.post_nms_topn, "post_nms_topn"),
        site.constant(p.nms_thresh, "nms_thresh"),
        site.constant(REJECTED / 2, "threshold"),
    )
    places = site.op("Gather", chosen, site.constant(2, "column"), axis=1)
    kept = site.op("Pad", site.op("Gather", candidates, places), site.constant([0, 1, 0, 0], "pads"))
    return kept, site.op("Unsqueeze", site.op("Gather", best, places), site.constant([1], "column"))


def _rows(site: Site, deltas: Tensor) -> Tensor:
    moved = site.op("Transpose", deltas, perm=[0, 2, 3, 1])
    return site.op("Reshape", moved, site.constant([-1, BOX], "shape"))


def _written_fields(site: Site, written: str) -> dict[str, Any]:
    """What a `param_str` says: YAML of one level, such as "'feat_stride': 16", an entry a line or in braces."""
    fields = {}
    body = written.strip().removeprefix("{").removesuffix("}")
    for entry in re.split(r"\n|,(?![^\[(]*[\])])", body):
        if not entry.strip():
            continue
        name, _, value = entry.partition(":")
        try:
            parsed = ast.literal_eval(value.replace("!!python/tuple", "").strip())
        except (SyntaxError, ValueError, MemoryError, RecursionError):
            parsed = None
        values = parsed if isinstance(parsed, (list, tuple)) else [parsed]
        if not all(type(v) in (int, float) for v in values):
            raise site.error(f"its param_str {written!r} is not of the form 'feat_stride': 16", "python_param")
        name = name.strip().strip("'\"")
        fields[name] = tuple(map(float, values)) if isinstance(parsed, (list, tuple)) else parsed
    if not isinstance(fields.get("feat_stride", 0), int):
        raise site.error("feat_stride in its param_str has to be a whole number", "python_param")
    for name in fields.keys() & {"scales", "ratios"}:
        if not isinstance(fields[name], tuple):
            raise site.error(f"{name} in its param_str has to be a list", "python_param")
    return fields
