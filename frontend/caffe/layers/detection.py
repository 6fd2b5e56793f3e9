"""Layers of detectors: PriorBox, DetectionOutput, ROIPooling, PSROIPooling."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

import numpy as np

from wootz.frontend.caffe.lowering import Site, Value
from wootz.frontend.caffe.schema import NoEffect, Unsigned
from wootz.frontend.caffe.shape import Dim, Shape, Symbol, count, static, static_shape, text
from wootz.passes.ir.model import Constant, Tensor

LOWEST = -3.4e38
MOST_PRIORS = 2**22
LARGEST_GROUP, LARGEST_MAP = 2**10, 2**16
"""Bins and positions along an axis, for which constants are made."""
FIELDS_OF_A_DETECTION = 7
"""image, label, score, xmin, ymin, xmax, ymax"""


@dataclass(frozen=True)
class PriorBoxParameter:
    """PriorBoxParameter of the SSD fork."""

    min_size: tuple[float, ...]
    max_size: tuple[float, ...] = ()
    aspect_ratio: tuple[float, ...] = ()
    flip: bool = True
    clip: bool = False
    variance: tuple[float, ...] = (0.1,)
    img_size: Unsigned = 0
    img_h: Unsigned = 0
    img_w: Unsigned = 0
    step: float = 0.0
    step_h: float = 0.0
    step_w: float = 0.0
    offset: float = 0.5


@dataclass(frozen=True)
class PriorBoxClusteredParameter:
    """The fields of PriorBoxParameter that Intel's PriorBoxClustered reads: the sizes are given in pairs."""

    width: tuple[float, ...]
    height: tuple[float, ...]
    clip: bool = False
    flip: NoEffect | None = None
    variance: tuple[float, ...] = (0.1,)
    img_size: Unsigned = 0
    img_h: Unsigned = 0
    img_w: Unsigned = 0
    step: float = 0.0
    step_h: float = 0.0
    step_w: float = 0.0
    offset: float = 0.5


class CodeType(Enum):
    CORNER = 1
    CENTER_SIZE = 2
    CORNER_SIZE = 3


@dataclass(frozen=True)
class NonMaximumSuppressionParameter:
    nms_threshold: float = 0.3
    top_k: int = -1
    eta: float = 1.0


NO_SUPPRESSION = NonMaximumSuppressionParameter()


@dataclass(frozen=True)
class DetectionOutputParameter:
    """DetectionOutputParameter of the SSD fork; `nms_threshold` and `top_k` outside `nms_param` are of its heirs."""

    num_classes: Unsigned
    share_location: bool = True
    background_label_id: int = 0
    nms_param: NonMaximumSuppressionParameter = NO_SUPPRESSION
    nms_threshold: float | None = None
    top_k: int | None = None
    code_type: CodeType = CodeType.CORNER
    variance_encoded_in_target: bool = False
    keep_top_k: int = -1
    confidence_threshold: float = -float(np.finfo(np.float32).max)
    visualize: NoEffect | None = None
    visualize_threshold: NoEffect | None = None
    save_file: NoEffect | None = None
    save_output_param: NoEffect | None = None


@dataclass(frozen=True)
class ROIPoolingParameter:
    """ROIPoolingParameter of Fast R-CNN."""

    pooled_h: Unsigned
    pooled_w: Unsigned
    spatial_scale: float = 1.0


@dataclass(frozen=True)
class PSROIPoolingParameter:
    """PSROIPoolingParameter of R-FCN."""

    spatial_scale: float
    output_dim: Unsigned
    group_size: Unsigned


def prior_box(site: Site, p: PriorBoxParameter) -> Value:
    """A constant [1, 2, boxes · 4]: the boxes, normalised to the image, and the variances."""
    feature, image = _feature_and_image(site)
    return _priors(site, _boxes(site, p, feature, image, _prior_sizes(site, p)), p.variance)


def _feature_and_image(site: Site) -> tuple[tuple[int, int], tuple[int, int]]:
    """Height and width of the map that boxes are laid over, and of the image."""
    site.expect_inputs(2)
    for value in site.inputs:
        if len(value.shape) != 4:
            raise site.error(f"a bottom of shape {text(value.shape)}: a map and the image have 4 dimensions")
    feature, image = (static_shape(v.shape[2:]) for v in site.inputs)
    return (feature[0], feature[1]), (image[0], image[1])


def _priors(site: Site, boxes: np.ndarray, variance: Sequence[float]) -> Value:
    """`boxes` [n, 4] and their variances as SSD's layers hand them on, [1, 2, 4n]."""
    if len(variance) not in (1, 4):
        raise site.error(f"{len(variance)} variances: there have to be 1 or 4")
    variances = np.broadcast_to(np.asarray(variance, np.float32), boxes.shape)
    values = np.stack([boxes.reshape(-1), variances.reshape(-1)])[None]
    return Value(site.constant(values, "priors"), values.shape)


def prior_box_clustered(site: Site, p: PriorBoxClusteredParameter) -> Value:
    """A constant as PriorBox's, of the given widths and heights (OpenVINO's operation PriorBoxClustered)."""
    feature, image = _feature_and_image(site)
    if len(p.width) != len(p.height):
        raise site.error(f"{len(p.width)} width for {len(p.height)} height")
    if not all(0 < n < math.inf for n in (*p.width, *p.height)):
        raise site.error("width and height have to be positive")
    return _priors(site, _boxes(site, p, feature, image, list(zip(p.width, p.height, strict=True))), p.variance)


def _boxes(
    site: Site,
    p: PriorBoxParameter | PriorBoxClusteredParameter,
    feature: tuple[int, int],
    image: tuple[int, int],
    shapes: list[tuple[float, float]],
) -> np.ndarray:
    """float32 [boxes, 4], corners; the centre moves along rows first, all shapes of one centre together."""
    height = p.img_size or p.img_h or image[0]
    width = p.img_size or p.img_w or image[1]
    step_h, step_w = p.step or p.step_h, p.step or p.step_w
    if not (step_h and step_w):
        step_h, step_w = height / feature[0], width / feature[1]
    sizes = np.array(shapes)
    if feature[0] * feature[1] * len(sizes) > MOST_PRIORS:
        raise site.error(f"{feature[0]}×{feature[1]}×{len(sizes)} boxes: up to {MOST_PRIORS} are computed")
    y, x = np.meshgrid(
        (np.arange(feature[0]) + p.offset) * step_h, (np.arange(feature[1]) + p.offset) * step_w, indexing="ij"
    )
    centres = np.stack([x, y], axis=-1)[:, :, None]
    scale = np.array([width, height])
    boxes = np.concatenate([(centres - sizes / 2) / scale, (centres + sizes / 2) / scale], axis=-1)
    return (boxes.clip(0, 1) if p.clip else boxes).reshape(-1, 4).astype(np.float32)


def _prior_sizes(site: Site, p: PriorBoxParameter) -> list[tuple[float, float]]:
    """Width and height of the boxes at one centre. Caffe holds the sizes as integers here."""
    if not all(0 < n < math.inf for n in (*p.min_size, *p.max_size, *p.aspect_ratio)):
        raise site.error("min_size, max_size and aspect_ratio have to be positive")
    if p.max_size and len(p.max_size) != len(p.min_size):
        raise site.error(f"{len(p.max_size)} max_size for {len(p.min_size)} min_size")
    ratios = [1.0]
    for ratio in p.aspect_ratio:
        if all(abs(ratio - known) >= 1e-6 for known in ratios):
            ratios += [ratio, 1 / ratio] if p.flip else [ratio]
    sizes: list[tuple[float, float]] = []
    for i, smallest in enumerate(int(size) for size in p.min_size):
        sizes.append((smallest, smallest))
        if p.max_size:
            middle = math.sqrt(smallest * int(p.max_size[i]))
            sizes.append((middle, middle))
        sizes += [(smallest * math.sqrt(r), smallest / math.sqrt(r)) for r in ratios[1:]]
    return sizes


def detection_output(site: Site, p: DetectionOutputParameter) -> Value:
    """Decoded boxes, the `top_k` best of each class, NonMaxSuppression, the `keep_top_k` best of each image.

    As in Caffe there is one row a detection, by image, label and falling score, and where there is none at all one
    row of -1 an image. The number of rows is known when the graph runs.
    """
    site.expect_inputs(3, 4)
    location, confidence, priors = site.inputs[:3]
    if p.nms_param.eta != 1:
        raise site.error("adaptive suppression (eta) has no ONNX operator")
    boxes_count = static(count(priors.shape)) // 8
    images, classes = location.shape[0], int(p.num_classes)
    places = 1 if p.share_location else classes
    if count(confidence.shape) != count((images, boxes_count * classes)):
        raise site.error(
            f"confidences of shape {text(confidence.shape)} for {boxes_count} priors and {classes} classes"
        )
    if count(location.shape) != count((images, boxes_count * places * 4)):
        raise site.error(f"locations of shape {text(location.shape)} for {boxes_count} priors")
    labels = [c for c in range(classes) if c != p.background_label_id]
    boxes = _decoded(site, p, images, boxes_count, places)
    scores = site.reshape(confidence.tensor, confidence.shape, (images, boxes_count, classes))
    scores = site.op("Transpose", scores, perm=[0, 2, 1])
    if len(labels) < classes:
        scores = site.op("Gather", scores, site.constant(labels, "labels"), axis=1)
        if places > 1:
            boxes = site.op("Gather", boxes, site.constant(labels, "labels"), axis=1)
    best = _best_of_each_class(site, p, boxes, scores, boxes_count, len(labels), places > 1)
    rows = _rows(site, p, best, labels)
    padded = _or_empty_rows(site, rows, location.tensor)
    shape: Shape = (1, 1, Symbol("detections"), FIELDS_OF_A_DETECTION)
    return Value(site.op("Reshape", padded, site.constant([1, 1, -1, FIELDS_OF_A_DETECTION], "shape")), shape)


@dataclass(frozen=True)
class _Candidates:
    """The `size` boxes of the highest scores of each image and class, before suppression."""

    boxes: Tensor
    """[images · classes, size, 4]"""
    scores: Tensor
    """[images · classes, 1, size]"""
    size: int


def _decoded(site: Site, p: DetectionOutputParameter, images: Dim, boxes: int, places: int) -> Tensor:
    """Corners of the predicted boxes, [images, boxes, 4], or [images, classes, boxes, 4] without shared locations."""
    location, _, priors = site.inputs[:3]
    if not isinstance(priors.tensor, Constant):
        raise site.error("its prior boxes are not constant: they have to come from PriorBox layers")
    corners, variances = priors.tensor.values.reshape(2, boxes, 4)
    if p.variance_encoded_in_target:
        variances = np.ones_like(variances)
    if places == 1:
        offsets = site.reshape(location.tensor, location.shape, (images, boxes, 4))
    else:
        offsets = site.reshape(location.tensor, location.shape, (images, boxes, places, 4))
        offsets = site.op("Transpose", offsets, perm=[0, 2, 1, 3])
    sizes = corners[:, 2:] - corners[:, :2]
    if p.code_type is not CodeType.CENTER_SIZE:
        factors = variances if p.code_type is CodeType.CORNER else variances * np.tile(sizes, 2)
        shifted = site.op("Mul", offsets, site.constant(factors, "factors"))
        return site.op("Add", shifted, site.constant(corners, "corners"))
    centres = (corners[:, 2:] + corners[:, :2]) / 2
    shift, stretch = site.ops("Split", offsets, site.constant([2, 2], "halves"), count=2, axis=-1)
    shift = site.op("Mul", shift, site.constant(variances[:, :2] * sizes, "shift_factors"))
    centre = site.op("Add", shift, site.constant(centres, "centres"))
    stretch = site.op("Exp", site.op("Mul", stretch, site.constant(variances[:, 2:], "stretch_factors")))
    half = site.op("Mul", stretch, site.constant(sizes / 2, "half_sizes"))
    return site.op("Concat", site.op("Sub", centre, half), site.op("Add", centre, half), axis=-1)


def _best_of_each_class(
    site: Site, p: DetectionOutputParameter, boxes: Tensor, scores: Tensor, count: int, classes: int, own_boxes: bool
) -> _Candidates:
    top_k = p.nms_param.top_k if p.top_k is None else p.top_k
    size = min(top_k, count) if top_k > 0 else count
    best, indices = site.ops("TopK", scores, site.constant([size], "top_k"), count=2, axis=-1)
    if own_boxes:
        index_shape, batch_dims = [0, 0, size, 1], 2
    else:
        index_shape, batch_dims = [0, classes * size, 1], 1
    places = site.op("Reshape", indices, site.constant(index_shape, "shape"))
    found = site.op("GatherND", boxes, places, batch_dims=batch_dims)
    return _Candidates(
        site.op("Reshape", found, site.constant([-1, size, 4], "shape")),
        site.op("Reshape", best, site.constant([-1, 1, size], "shape")),
        size,
    )


def _rows(site: Site, p: DetectionOutputParameter, best: _Candidates, labels: Sequence[int]) -> Tensor:
    """One row of 7 values a detection that is kept."""
    places = len(labels) * best.size
    threshold = p.nms_param.nms_threshold if p.nms_threshold is None else p.nms_threshold
    chosen = site.op(
        "NonMaxSuppression",
        best.boxes,
        best.scores,
        site.constant(best.size, "most"),
        site.constant(float(threshold), "overlap"),
        site.constant(float(p.confidence_threshold), "confidence"),
    )
    lists, _, members = site.ops("Split", chosen, site.constant([1, 1, 1], "columns"), count=3, axis=1)
    flat = site.op("Add", site.op("Mul", lists, site.constant(best.size, "size")), members)
    scores = site.op("Reshape", best.scores, site.constant([-1], "shape"))
    lowest = site.constant(LOWEST, "lowest")
    nothing = site.op("Expand", lowest, site.op("Shape", scores))
    kept_scores = site.op("ScatterND", nothing, flat, site.op("GatherND", scores, flat))
    by_image = site.op("Reshape", kept_scores, site.constant([-1, places], "shape"))
    if 0 <= p.keep_top_k < places:
        keep = site.constant([p.keep_top_k], "keep_top_k")
        _, best_places = site.ops("TopK", by_image, keep, count=2, axis=1)
        in_order, _ = site.ops("TopK", best_places, keep, count=2, axis=1, largest=0)
        candidates = site.op("GatherElements", by_image, in_order, axis=1)
        present = site.op("Transpose", site.op("NonZero", site.op("Greater", candidates, lowest)), perm=[1, 0])
        place = site.op("Unsqueeze", site.op("GatherND", in_order, present), site.constant([1], "axis"))
        image, _ = site.ops("Split", present, site.constant([1, 1], "columns"), count=2, axis=1)
    else:
        present = site.op("Transpose", site.op("NonZero", site.op("Greater", by_image, lowest)), perm=[1, 0])
        image, place = site.ops("Split", present, site.constant([1, 1], "columns"), count=2, axis=1)
    position = site.op("Add", site.op("Mul", image, site.constant(places, "places")), place)
    label = site.op(
        "Gather",
        site.constant([float(c) for c in labels], "labels"),
        site.op("Div", place, site.constant(best.size, "size")),
    )
    all_boxes = site.op("Reshape", best.boxes, site.constant([-1, 4], "shape"))
    score = site.op("Unsqueeze", site.op("GatherND", scores, position), site.constant([1], "axis"))
    box = site.op("GatherND", all_boxes, position)
    return site.op("Concat", site.op("Cast", image, to=np.float32), label, score, box, axis=1)


def _or_empty_rows(site: Site, rows: Tensor, location: Tensor) -> Tensor:
    """`rows`, or, where there is none, for each image its number and -1s."""
    images = site.op("Slice", site.op("Shape", location), site.constant([0], "start"), site.constant([1], "end"))
    numbers = site.op(
        "Range",
        site.constant(0, "first"),
        site.op("Squeeze", images),
        site.constant(1, "step"),
    )
    column = site.op("Unsqueeze", site.op("Cast", numbers, to=np.float32), site.constant([1], "axis"))
    pads = site.constant([0, 0, 0, FIELDS_OF_A_DETECTION - 1], "pads")
    empty = site.op("Pad", column, pads, site.constant(-1.0, "nothing"))
    found = site.op("Slice", site.op("Shape", rows), site.constant([0], "start"), site.constant([1], "end"))
    none = site.op("Equal", found, site.constant([0], "zero"))
    end = site.op("Where", none, images, found)
    return site.op("Slice", site.op("Concat", rows, empty, axis=0), site.constant([0], "start"), end)


def roi_pooling(site: Site, p: ROIPoolingParameter) -> Value:
    """MaxRoiPool, which is defined after this layer."""
    site.expect_inputs(2)
    x, regions = site.inputs
    y = site.op(
        "MaxRoiPool",
        x.tensor,
        _region_rows(site, regions),
        pooled_shape=[int(p.pooled_h), int(p.pooled_w)],
        spatial_scale=p.spatial_scale,
    )
    return Value(y, (regions.shape[0], x.shape[1], int(p.pooled_h), int(p.pooled_w)))


def psroi_pooling(site: Site, p: PSROIPoolingParameter) -> Value:
    """Averages of position-sensitive bins, as products with 0-1 masks of the rows and columns of each bin.

    For one image: the graph would otherwise hold a copy of the maps for each region.
    """
    site.expect_inputs(2)
    x, regions = site.inputs
    group, outputs = int(p.group_size), int(p.output_dim)
    images, channels, height, width = x.shape
    if static(images) != 1 or channels != outputs * group * group:
        raise site.error(f"maps of shape {text(x.shape)}: there have to be 1 image and {outputs}·{group}² channels")
    if not 1 <= group <= LARGEST_GROUP or max(static(height), static(width)) > LARGEST_MAP:
        raise site.error(f"{group}×{group} bins of maps of {text(x.shape[2:])}: too many, or none")
    columns = site.ops("Split", _region_rows(site, regions), site.constant([1] * 5, "columns"), count=5, axis=1)
    vertical = _bin_masks(site, columns[2], columns[4], group, static(height), p.spatial_scale)
    horizontal = _bin_masks(site, columns[1], columns[3], group, static(width), p.spatial_scale)
    maps = site.reshape(x.tensor, x.shape, (outputs, group, group, height, width))
    # Products and sums rather than Einsum: ONNX Runtime's divides by zero where there are no regions.
    by_column = site.op("Transpose", maps, perm=[2, 4, 0, 1, 3])
    by_column = site.op("Reshape", by_column, site.constant([0, 0, -1], "shape"))
    across = site.op("MatMul", site.op("Transpose", horizontal, perm=[1, 0, 2]), by_column)
    split = site.op("Reshape", across, site.constant([0, 0, outputs, group, static(height)], "shape"))
    inside = site.op("Mul", split, site.op("Unsqueeze", vertical, site.constant([0, 2], "axes")))
    sums = site.op("ReduceSum", inside, site.constant([4], "axes"), keepdims=0)
    axes = site.constant([2], "axes")
    rows = site.op("Unsqueeze", site.op("ReduceSum", vertical, axes, keepdims=0), axes)
    columns_inside = site.op("ReduceSum", horizontal, axes, keepdims=0)
    areas = site.op("Mul", rows, site.op("Unsqueeze", columns_inside, site.constant([1], "axis")))
    areas = site.op("Max", areas, site.constant(1.0, "one"))
    ordered = site.op("Transpose", sums, perm=[1, 2, 3, 0])
    y = site.op("Div", ordered, site.op("Unsqueeze", areas, site.constant([1], "axis")))
    return Value(y, (regions.shape[0], outputs, group, group))


def _bin_masks(site: Site, start: Tensor, end: Tensor, group: int, size: int, scale: float) -> Tensor:
    """float32 [regions, bins, positions]: 1 where a position lies in a bin. `start`, `end`: [regions, 1], in pixels."""
    half, factor = site.constant(0.5, "half"), site.constant(scale, "scale")

    def rounded(x: Tensor) -> Tensor:
        return site.op("Floor", site.op("Add", x, half))

    first = site.op("Mul", rounded(start), factor)
    last = site.op("Mul", site.op("Add", rounded(end), site.constant(1.0, "one")), factor)
    extent = site.op("Max", site.op("Sub", last, first), site.constant(0.1, "smallest"))
    step = site.op("Div", extent, site.constant(float(group), "bins"))
    numbers = site.constant(np.arange(group, dtype=np.float32)[None], "numbers")
    begins = site.op("Floor", site.op("Add", site.op("Mul", step, numbers), first))
    following = site.constant(np.arange(1, group + 1, dtype=np.float32)[None], "numbers")
    ends = site.op("Ceil", site.op("Add", site.op("Mul", step, following), first))
    positions = site.constant(np.arange(size, dtype=np.float32), "positions")
    axis = site.constant([2], "axis")
    inside = site.op(
        "And",
        site.op("GreaterOrEqual", positions, site.op("Unsqueeze", begins, axis)),
        site.op("Less", positions, site.op("Unsqueeze", ends, axis)),
    )
    return site.op("Cast", inside, to=np.float32)


def _region_rows(site: Site, regions: Value) -> Tensor:
    """Regions as [regions, 5]: image, x1, y1, x2, y2."""
    return site.reshape(regions.tensor, regions.shape, (regions.shape[0], 5))
