"""What is pruned: the keep-set of every layer, what is tied to what, what is locked and why, and modules left out."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

import numpy as np

from wootz.passes.errors import WootzError
from wootz.passes.metadata import read_metadata

KEEP_SETS_KEY = "wootz.keep-sets"
"""Metadata of a pruned model: JSON, layer -> the filters it kept, as indices among those of the unpruned layer."""

KeepSets = Mapping[str, tuple[int, ...]]
"""Layer -> sorted indices of the filters kept; a layer that isn't there kept all."""


def stored_keep_sets(metadata: Mapping[str, str]) -> KeepSets:
    """The keep-sets in the metadata of a model; empty when it isn't pruned."""
    keep_sets: KeepSets = read_metadata(metadata, KEEP_SETS_KEY, dict[str, tuple[int, ...]], "{}")
    return keep_sets


def with_keep_sets(metadata: Mapping[str, str], keep_sets: KeepSets) -> dict[str, str]:
    """The metadata with these keep-sets in place of those that it has."""
    others = {key: value for key, value in metadata.items() if key != KEEP_SETS_KEY}
    return {**others, KEEP_SETS_KEY: json.dumps(keep_sets)} if keep_sets else others


@dataclass(frozen=True)
class LayerPlan:
    """The filters that stay in a layer: `keep` are sorted indices from 0 of its `filters` filters.

    `tied` names the layers with filters in the same channels; `locked` says why none of its filters can be removed.
    `outcome` says in words what was done, or why nothing was.
    """

    layer: str
    weight: str
    filters: int
    keep: tuple[int, ...]
    tied: tuple[str, ...] = ()
    locked: str | None = None
    outcome: str = ""

    @property
    def is_pruned(self) -> bool:
        return len(self.keep) < self.filters

    @cached_property
    def indices(self) -> np.ndarray:
        """`keep` as int64[kept]. Raises WootzError when it is no sorted choice of the layer's filters."""
        keep = np.asarray(self.keep, np.int64)
        if not keep.size or (np.diff(keep) <= 0).any() or keep[0] < 0 or keep[-1] >= self.filters:
            raise WootzError(
                f"the keep-set of {self.layer!r} is not a sorted choice of one or more of its {self.filters} filters"
            )
        return keep


@dataclass(frozen=True)
class SkippedModule:
    """A module that is left out: what reads the tensor `exit` gets the tensor `entry`, of the same shape."""

    name: str
    entry: str
    exit: str


@dataclass(frozen=True)
class PruningPlan:
    """One entry a layer (convolutions and fully connected layers), in the order of the graph, and the modules that are
    left out. Of these, too, there are the layers, which keep all of their filters.
    """

    layers: tuple[LayerPlan, ...]
    skipped: tuple[SkippedModule, ...] = ()

    def keep(self, layer: str) -> tuple[int, ...]:
        """The keep-set of a layer. Raises WootzError for a layer that the plan doesn't have."""
        for entry in self.layers:
            if entry.layer == layer:
                return entry.keep
        raise WootzError(f"the pruning plan has no layer {layer!r}")

    @property
    def is_pruned(self) -> bool:
        return bool(self.skipped) or any(entry.is_pruned for entry in self.layers)

    def keep_sets(self, before: KeepSets) -> KeepSets:
        """The keep-sets after this plan, for a network that was pruned to those `before` already."""
        pruned = {entry.layer: entry.keep for entry in self.layers if entry.is_pruned}
        composed = {layer: tuple(before[layer][i] for i in keep) for layer, keep in pruned.items() if layer in before}
        return {**before, **pruned, **composed}

    def statistics(self) -> dict[str, int]:
        pruned = [entry for entry in self.layers if entry.is_pruned]
        left_out = {"modules left out": len(self.skipped)} if self.skipped else {}
        return {
            **left_out,
            "layers pruned": len(pruned),
            "layers locked": sum(entry.locked is not None for entry in self.layers),
            "filters removed": sum(entry.filters - len(entry.keep) for entry in pruned),
        }

    def to_json(self) -> str:
        """One line a layer, and one with the modules that are left out, if there are any."""
        rows = ",\n  ".join(json.dumps(asdict(entry)) for entry in self.layers)
        skipped = f',\n"skipped": {json.dumps(list(map(asdict, self.skipped)))}' if self.skipped else ""
        return f'{{"layers": [\n  {rows}\n]{skipped}}}\n'

    @staticmethod
    def from_json(text: str) -> PruningPlan:
        """Raises WootzError for text that is no plan."""
        try:
            plan = json.loads(text)
            skipped = tuple(_skipped_module(row) for row in plan.get("skipped", ()))
            return PruningPlan(tuple(_layer_plan(row) for row in plan["layers"]), skipped)
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise WootzError(f"not a pruning plan: {error}") from error


def _layer_plan(row: Mapping[str, Any]) -> LayerPlan:
    """The entry written as a JSON object. Raises ValueError, KeyError or TypeError for what is none."""
    keep = row["keep"]
    if not isinstance(keep, list) or any(type(index) is not int for index in [*keep, row["filters"]]):
        raise ValueError(f"the filters of layer {row['layer']!r} aren't whole numbers")
    return LayerPlan(**{**row, "keep": tuple(keep), "tied": tuple(row.get("tied", ()))})


def _skipped_module(row: Mapping[str, Any]) -> SkippedModule:
    """The entry written as a JSON object. Raises ValueError, KeyError or TypeError for what is none."""
    module = SkippedModule(**row)
    if not all(isinstance(text, str) for text in (module.name, module.entry, module.exit)):
        raise ValueError("a module that is left out is three texts: name, entry and exit")
    return module
