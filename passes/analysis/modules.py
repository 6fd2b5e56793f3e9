"""Finds a network's convolution modules: in its table, by the names of its layers, or by its structure.

The structure is what lies between the tensors through which everything flows (`segments`). docs/modules.md shows the
rules with a picture each. In the order in which they are applied:

1. A bundle of parallel paths with convolutions is a module, unless it is a gate (squeeze and excitation), or as good as
   one convolution (re-parameterisable branches, mixed convolutions).
2. So is an inverted bottleneck that no path leads past: a pointwise layer that widens, a depthwise one, a projection,
   with a depthwise one before them if there is one (MobileNet's strided blocks; the exit flow of Xception), and a wide
   convolution with a projection behind it.
3. A module that ends in a Concat has the convolution behind it as its top layer, if one reads the Concat.
4. A module goes on through the normalizations, activations and gates behind it.
5. Convolutions between two modules belong to the later one, and depthwise ones right before the first module to that.
   What comes before stays outside (the stem).
6. Two or more convolutions behind the last module, before any pooling, are a module.

A network without modules of the kinds 1 and 2 is a chain: each layer is a module, with the gates and depthwise
convolutions behind it, and with re-parameterisable blocks whose identity ties their filters to its own.

Where paths of different modules cross (the skips of a U-Net, a DenseNet's block, the neck of a detector), they lie
between the same two cuts and are one module: none of them has an entry and an exit of its own.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from wootz.passes.analysis.module_boundaries import check_modules
from wootz.passes.analysis.module_names import prefix, titles
from wootz.passes.analysis.segments import Segment, find_segments, reads_of_extents
from wootz.passes.errors import WootzError
from wootz.passes.ir.model import Model, Module, Node

Source = Literal["table", "names", "structure"]

POOLING = {"MaxPool", "AveragePool", "LpPool"}
ENDS_CHAIN = {
    *("Gemm", "MatMul", "Flatten", "Reshape"),
    *("GlobalAveragePool", "GlobalMaxPool", "ReduceMean", "Softmax"),
}
"""Behind these there are no more feature maps."""
ENDS_MODULE = {*ENDS_CHAIN, *POOLING, *("Resize", "Concat", "Split", "Slice", "Transpose", "Dropout")}
"""A module goes on behind its last join through normalizations and activations; it ends before these."""


Reads = Sequence[tuple[int, int]]
"""As in `reads_of_extents`."""


@dataclass(frozen=True)
class Span:
    """The segments `first` to `last` of a module; `core`, a part of them, is what it is called after."""

    first: int
    last: int
    core: tuple[int, int]
    is_separable: bool = False
    """Whether it is made of depthwise convolutions, each followed by a pointwise one."""


def find_modules(model: Model, source: Source | None = None) -> tuple[tuple[Module, ...], Source]:
    """The modules in order of data flow, and where they come from.

    The model's table comes first; then groups of layers whose names share a prefix (`inception_3a/…`,
    `res2a_branch2b`), if they lie between cuts; then the structure. `source` asks for one of these. Modules that are
    found have names of their own, and pass `check_modules`.
    """
    if source == "table" or (source is None and model.modules):
        return model.modules, "table"
    segments = find_segments(model.graph)
    reads = reads_of_extents(model.graph, segments)
    found: Source = "names"
    modules = _modules_by_name(segments, reads) if source != "structure" else ()
    if not modules and source != "names":
        modules, found = _modules_by_structure(segments, reads), "structure"
    if modules:
        try:
            check_modules(model, modules)
        except WootzError as error:
            raise AssertionError(f"modules were found that are none: {error}") from error
    return modules, found


def _modules_by_structure(segments: Sequence[Segment], reads: Reads) -> tuple[Module, ...]:
    spans = _blocks(segments)
    if spans:
        spans = _with_top_layers(segments, spans)
        spans = [replace(span, last=_end(segments, spans, i)) for i, span in enumerate(spans)]
        spans = _with_gaps(segments, spans)
        spans += _tail(segments, spans[-1].last + 1)
    else:
        spans = _chain(segments)
    return _named_modules(segments, _closed(spans, reads))


def _closed(spans: Sequence[Span], reads: Reads) -> list[Span]:
    """The spans without those that share an extent with what lies outside; so has what lies between two spans."""
    kept: list[Span] = []
    for span in spans:
        if _is_closed(span.first, span.last, reads) and (not kept or _is_closed(kept[-1].first, span.last, reads)):
            kept.append(span)
    return kept


def _is_closed(first: int, last: int, reads: Reads) -> bool:
    """Whether no shape is read outside of the segments `first` to `last` for what is inside, or the other way round."""
    return not any(a + 1 < first <= b <= last or first <= a < last < b for a, b in reads)


def _named_modules(segments: Sequence[Segment], spans: Sequence[Span]) -> tuple[Module, ...]:
    names = titles([_groups_of_layers(segments, span) for span in spans])
    return tuple(
        Module(name, segments[span.first].entry, segments[span.last].exit)
        for name, span in zip(names, spans, strict=True)
    )


def _groups_of_layers(segments: Sequence[Segment], span: Span) -> Iterable[Sequence[Node]]:
    """All layers of a module; those from its core on; those of its core."""
    for first, last in ((span.first, span.last), (span.core[0], span.last), span.core):
        yield [node for segment in segments[first : last + 1] for node in segment.convolutions]


# Modules with more than one layer


def _blocks(segments: Sequence[Segment]) -> list[Span]:
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
        projection = _next(segments, i, {"layer"}, through={"gate"})
        if projection is None:
            continue
        expansion = _expansion(segments, i, free)
        if expansion is None:
            following = _next(segments, projection, {"depthwise"})
            is_leading = following is not None and _expansion(segments, following, projection) == projection
            if is_leading and _next(segments, following or 0, {"layer"}, through={"gate"}) is not None:
                continue
            before = spans[-1] if spans else None
            if before and before.is_separable and _next(segments, before.last, {"depthwise"}) == i:
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
        projection = _next(segments, i, {"layer"})
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
    return _next(segments, concat, {"layer"}, passing=POOLING | {"Dropout"})


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


def _tail(segments: Sequence[Segment], start: int) -> list[Span]:
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
    return [Span(layers[0], _through(segments, last, len(segments)), (layers[0], last))]


def _end(segments: Sequence[Segment], spans: Sequence[Span], i: int) -> int:
    return _through(segments, spans[i].last, spans[i + 1].first if i + 1 < len(spans) else len(segments))


def _through(segments: Sequence[Segment], last: int, bound: int) -> int:
    """The last segment, before `bound`, of a module whose last layer or bundle is in segment `last`."""
    while last + 1 < bound:
        following = segments[last + 1]
        is_layer = following.kind in ("block", "layer", "depthwise")
        if is_layer or (following.kind == "other" and following.has(ENDS_MODULE)):
            break
        last += 1
    return last


def _next(
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


def _chain(segments: Sequence[Segment]) -> list[Span]:
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


# Modules by name


def _modules_by_name(segments: Sequence[Segment], reads: Reads) -> tuple[Module, ...]:
    """Modules by the prefixes of layer names; none if a group of layers is torn apart or meets another.

    Nor if a depthwise layer follows one, which is tied to it: nothing could be removed from the pairs of MobileNetV1.
    """
    groups: dict[str, list[int]] = {}
    for i, segment in enumerate(segments):
        for node in segment.convolutions:
            if name := prefix(node):
                groups.setdefault(name, []).append(i)
    groups = {name: places for name, places in groups.items() if len(places) > 1}
    spans = [(places[0], _through(segments, places[-1], len(segments))) for places in groups.values()]
    if len(groups) < 2 or any(before[1] >= after[0] for before, after in itertools.pairwise(spans)):
        return ()
    if any(_next(segments, last, {"depthwise"}) is not None for _, last in spans):
        return ()
    if not all(_is_closed(first, last, reads) for first, last in spans):
        return ()
    if not all(_is_closed(before[0], after[1], reads) for before, after in itertools.pairwise(spans)):
        return ()
    return tuple(
        Module(name, segments[first].entry, segments[last].exit)
        for name, (first, last) in zip(groups, spans, strict=True)
    )
