"""Which runs of segments are modules: the rules of docs/modules.md."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from wootz.passes.analysis.segments import Segment
from wootz.passes.ir.model import Node

POOLING = {"MaxPool", "AveragePool", "LpPool"}
ENDS_CHAIN = {
    *("Gemm", "MatMul", "Flatten", "Reshape"),
    *("GlobalAveragePool", "GlobalMaxPool", "ReduceMean", "Softmax"),
}
"""Behind these there are no more feature maps."""
ENDS_MODULE = {*ENDS_CHAIN, *POOLING, *("Resize", "Concat", "Split", "Slice", "Transpose", "Dropout")}
"""A module goes on behind its last join through normalizations and activations; it ends before these."""


@dataclass(frozen=True)
class Span:
    """The segments `first` to `last` of a module; `core`, a part of them, is what it is called after."""

    first: int
    last: int
    core: tuple[int, int]
    is_separable: bool = False
    """Whether it is made of depthwise convolutions, each followed by a pointwise one."""


def module_spans(segments: Sequence[Segment]) -> list[Span]:
    """The modules of a network that these segments are, in order."""
    return closed_spans(segments) or chain_spans(segments)


def closed_spans(segments: Sequence[Segment]) -> list[Span]:
    """The modules of a network that is no chain of layers; none if it is."""
    spans = _block_spans(segments)
    if not spans:
        return []
    spans = _with_top_layers(segments, spans)
    spans = [replace(span, last=_end(segments, spans, i)) for i, span in enumerate(spans)]
    spans = _with_gaps(segments, spans)
    return spans + _tail_spans(segments, spans[-1].last + 1)


def groups_of_layers(segments: Sequence[Segment], span: Span) -> Iterable[Sequence[Node]]:
    """All layers of a module; those from its core on; those of its core."""
    for first, last in ((span.first, span.last), (span.core[0], span.last), span.core):
        yield [node for segment in segments[first : last + 1] for node in segment.convolutions]


# Modules with more than one layer


def _block_spans(segments: Sequence[Segment]) -> list[Span]:
    """Bundles, and if there are any, inverted bottlenecks: in order, none overlapping another."""
    bundles = [Span(i, i, (i, i)) for i, segment in enumerate(segments) if segment.kind == "block"]
    if not bundles:
        return []
    spans = bundles + _inverted_bottlenecks(segments)
    claimed = {i for span in spans for i in range(span.first, span.last + 1)}
    spans += _fused_bottlenecks(segments, claimed)
    return sorted(spans, key=lambda span: span.first)


def _inverted_bottlenecks(segments: Sequence[Segment]) -> list[Span]:
    """Depthwise convolutions with the layers around them, where no path leads past them (MobileNetV2, EfficientNet).

    The layer before belongs to it when it is pointwise and doesn't narrow, with a depthwise one before that. The next
    layer does, with a gate in between; where no layer before belongs to it, when it doesn't widen.
    """
    spans: list[Span] = []
    for i, segment in enumerate(segments):
        free = spans[-1].last + 1 if spans else 0
        if segment.kind != "depthwise" or i < free:
            continue
        projection = next_segment(segments, i, {"layer"}, through={"gate"})
        if projection is None:
            continue
        expansion = _expansion(segments, i, free)
        if expansion is None:
            following = next_segment(segments, projection, {"depthwise"})
            is_leading = following is not None and _expansion(segments, following, projection) == projection
            if is_leading and next_segment(segments, following or 0, {"layer"}, through={"gate"}) is not None:
                continue
            before = spans[-1] if spans else None
            if before and before.is_separable and next_segment(segments, before.last, {"depthwise"}) == i:
                spans[-1] = replace(before, last=projection, core=(before.first, projection))
                continue
            if segments[projection].widening > 0:
                continue
        leading = None if expansion is None else _previous(segments, expansion, {"depthwise"}, free)
        first = next(place for place in (leading, expansion, i) if place is not None)
        spans.append(Span(first, projection, (first, projection), is_separable=leading is not None))
    return spans


def _expansion(segments: Sequence[Segment], depthwise: int, free: int) -> int | None:
    """The pointwise layer before a depthwise one, from segment `free` on, if it has no fewer filters than inputs."""
    before = _previous(segments, depthwise, {"layer"}, free)
    is_expansion = before is not None and segments[before].is_pointwise and segments[before].widening >= 0
    return before if is_expansion else None


def _fused_bottlenecks(segments: Sequence[Segment], claimed: set[int]) -> list[Span]:
    """Wide convolutions with a pointwise one behind them that narrows again, not the first layer of the network."""
    layers = [i for i, segment in enumerate(segments) if segment.kind == "layer" and i not in claimed]
    spans: list[Span] = []
    for i in layers[1:]:
        projection = next_segment(segments, i, {"layer"})
        if projection is None or projection in claimed or (spans and i <= spans[-1].last):
            continue
        is_wide = not segments[i].is_pointwise and segments[i].widening > 0
        if is_wide and segments[projection].is_pointwise and segments[projection].widening < 0:
            spans.append(Span(i, projection, (i, projection)))
    return spans


def _with_top_layers(segments: Sequence[Segment], spans: Sequence[Span]) -> list[Span]:
    """The spans, each that ends in a Concat with the layer that reads it."""
    claimed = {i for span in spans for i in range(span.first, span.last + 1)}
    extended = []
    for span in spans:
        top = _reader(segments, span.last) if segments[span.last].ends_in_concat else None
        extended.append(span if top is None or top in claimed else replace(span, last=top))
    return extended


def _reader(segments: Sequence[Segment], concat: int) -> int | None:
    """The one layer that reads a Concat, through normalization, activation, pooling."""
    return next_segment(segments, concat, {"layer"}, passing=POOLING | {"Dropout"})


def _with_gaps(segments: Sequence[Segment], spans: Sequence[Span]) -> list[Span]:
    """The spans, each from the first convolution behind the one before it; the first one with those that follow it."""
    first = spans[0].first
    while (before := _previous(segments, first, {"depthwise", "gate"}, 0)) is not None:
        first = before
    moved = [replace(spans[0], first=first)]
    for previous, span in itertools.pairwise(spans):
        gap = (i for i in range(previous.last + 1, span.first) if segments[i].kind != "other")
        moved.append(replace(span, first=next(gap, span.first)))
    return moved


def _tail_spans(segments: Sequence[Segment], start: int) -> list[Span]:
    """The layers from segment `start` on, before any pooling, if there are two or more."""
    layers = []
    for i in range(start, len(segments)):
        if segments[i].kind == "other" and segments[i].has(ENDS_CHAIN | POOLING):
            break
        if segments[i].kind == "layer":
            layers.append(i)
    if len(layers) < 2:
        return []
    last = layers[-1]
    return [Span(layers[0], through(segments, last, len(segments)), (layers[0], last))]


def _end(segments: Sequence[Segment], spans: Sequence[Span], i: int) -> int:
    return through(segments, spans[i].last, spans[i + 1].first if i + 1 < len(spans) else len(segments))


def through(segments: Sequence[Segment], last: int, bound: int) -> int:
    """The last segment, before `bound`, of a module whose last layer or bundle is in segment `last`."""
    while last + 1 < bound:
        following = segments[last + 1]
        is_layer = following.kind in ("block", "layer", "depthwise")
        if is_layer or (following.kind == "other" and following.has(ENDS_MODULE)):
            break
        last += 1
    return last


def next_segment(
    segments: Sequence[Segment],
    start: int,
    kinds: set[str],
    through: set[str] | None = None,
    passing: set[str] | None = None,
) -> int | None:
    """The next segment if it is of one of `kinds`: behind normalizations, activations, the kinds `through` and the
    operators `passing`."""
    for i in range(start + 1, len(segments)):
        if segments[i].kind in kinds:
            return i
        is_passed = segments[i].kind == "other" and not segments[i].has(ENDS_MODULE - (passing or set()))
        if not is_passed and segments[i].kind not in (through or ()):
            return None
    return None


def _previous(segments: Sequence[Segment], start: int, kinds: set[str], free: int) -> int | None:
    """The segment before, not before `free`, if it is of one of `kinds`: through normalizations and activations."""
    for i in range(start - 1, free - 1, -1):
        if segments[i].kind in kinds:
            return i
        if segments[i].kind != "other" or segments[i].has(ENDS_MODULE):
            return None
    return None


# Chains


def chain_spans(segments: Sequence[Segment]) -> list[Span]:
    """Each layer with what follows it up to the next one: all that is tied to its filters, and pooling."""
    starts: list[int] = []
    for i, segment in enumerate(segments):
        if segment.kind == "layer" and not (starts and segment.ties_its_ends):
            starts.append(i)
    spans = []
    for start, bound in itertools.pairwise([*starts, len(segments)]):
        last = start
        while last + 1 < bound and not (segments[last + 1].kind == "other" and segments[last + 1].has(ENDS_CHAIN)):
            last += 1
        layers = [i for i in range(start, last + 1) if segments[i].kind == "layer"]
        spans.append(Span(start, last, (start, layers[-1])))
    return spans
