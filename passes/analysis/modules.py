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

Where paths of different modules cross, as in a DenseNet's block, they lie between the same two cuts and are one module:
none of them has an entry and an exit of its own. Where a network goes down and up again, or has several inputs or
outputs, hardly any tensor is a cut, and modules may have several entries and exits (`regions`).
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Literal

from wootz.passes.analysis.module_boundaries import check_modules
from wootz.passes.analysis.module_names import prefix, titles
from wootz.passes.analysis.regions import find_regions
from wootz.passes.analysis.segments import Segment, find_segments, reads_of_extents
from wootz.passes.analysis.spans import Span, groups_of_layers, module_spans, next_segment, through
from wootz.passes.errors import WootzError
from wootz.passes.ir.model import Model, Module

Source = Literal["table", "names", "structure"]

Reads = Sequence[tuple[int, int]]
"""As in `reads_of_extents`."""


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
    found: Source = "structure"
    regions = find_regions(model, segments) if source != "names" else ()
    modules = _modules_by_name(segments, reads) if source != "structure" and not regions else ()
    if modules:
        found = "names"
    elif source != "names":
        modules = regions or _modules_by_structure(segments, reads)
    if modules:
        try:
            check_modules(model, modules)
        except WootzError as error:
            raise AssertionError(f"modules were found that are none: {error}") from error
    return modules, found


def _modules_by_structure(segments: Sequence[Segment], reads: Reads) -> tuple[Module, ...]:
    return _named_modules(segments, _closed(module_spans(segments), reads))


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
    names = titles([groups_of_layers(segments, span) for span in spans])
    return tuple(
        Module(name, segments[span.first].entry, segments[span.last].exit)
        for name, span in zip(names, spans, strict=True)
    )


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
    spans = [(places[0], through(segments, places[-1], len(segments))) for places in groups.values()]
    if len(groups) < 2 or any(before[1] >= after[0] for before, after in itertools.pairwise(spans)):
        return ()
    if any(next_segment(segments, last, {"depthwise"}) is not None for _, last in spans):
        return ()
    if not all(_is_closed(first, last, reads) for first, last in spans):
        return ()
    if not all(_is_closed(before[0], after[1], reads) for before, after in itertools.pairwise(spans)):
        return ()
    return tuple(
        Module(name, segments[first].entry, segments[last].exit)
        for name, (first, last) in zip(groups, spans, strict=True)
    )
