"""Carves consecutive modules out of a model, as a model of their own."""

from __future__ import annotations

from dataclasses import dataclass

from wootz.passes.analysis.channels import analyse_channels
from wootz.passes.base import Pass, PassResult, option
from wootz.passes.errors import WootzError
from wootz.passes.ir.model import Model
from wootz.passes.plan.pruning import stored_keep_sets
from wootz.passes.pruning.student import carve


@dataclass(frozen=True)
class ExtractBlocks(Pass):
    """Carves consecutive modules out of a model, as a model of their own with what lies between them.

    The inputs are the data that they read from outside, the entry tensor of `first` before others; the outputs what is
    read outside, the exit tensor of `last` before others. All names stay. `last` defaults to `first`. Of the metadata's
    keep-sets, those of layers inside stay, and of those that the inputs come from.

    Refuses modules in the wrong order, modules that read other tensors from outside than their entries, and modules of
    which other tensors than their exits are read outside.
    """

    name = "extract-blocks"
    requires = "the name of a module: extract-blocks{first=MODULE}"
    first: str = option("", "name of the first module")
    last: str = option("", "name of the last module (default: the first)")

    def apply(self, model: Model) -> PassResult:
        if not self.first:
            raise self.refuse("option first is missing: the name of a module")
        try:
            first, last = model.module(self.first), model.module(self.last or self.first)
        except WootzError as error:
            raise self.refuse(str(error)) from error
        start, end = model.modules.index(first), model.modules.index(last)
        if end < start:
            raise self.refuse(f"{last.name} comes before {first.name}")
        modules = model.modules[start : end + 1]
        analysis = analyse_channels(model) if stored_keep_sets(model.metadata) else None
        try:
            return PassResult(carve(model, modules, analysis), modified=True)
        except WootzError as error:
            raise self.refuse(str(error)) from error
