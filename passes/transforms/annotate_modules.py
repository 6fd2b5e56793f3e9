"""annotate-modules: finds the convolution modules and stores their table in the model."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from wootz.passes.analysis.modules import find_modules
from wootz.passes.base import Pass, PassResult, option
from wootz.passes.ir.model import Model, Module
from wootz.passes.metadata import typed


@dataclass(frozen=True)
class AnnotateModules(Pass):
    """Finds the convolution modules and stores their table in the model.

    1. By default a table that is there stays; without one, modules are found by the names of layers, else by the
       structure. `source` asks for one way.
    2. `table` reads them from a file: a JSON list of {"name", "entry", "exit"}, the last two being tensors,
       and lists of further ones in "more_entries" and "more_exits", if there are any.

    Refuses when no module is found, and a table that isn't one.
    """

    name = "annotate-modules"
    preserves_outputs = True
    source: Literal["table", "names", "structure"] | None = option(None, "where modules come from")
    table: Path | None = option(None, "JSON file with the modules")

    def apply(self, model: Model) -> PassResult:
        if self.table is not None:
            modules, source = self._read(self.table), str(self.table)
        else:
            modules, source = find_modules(model, self.source)
        if not modules:
            raise self.refuse(f"no modules were found (by {source})")
        rows = "\n".join(f"{m.name}: {', '.join(m.entries)} -> {', '.join(m.exits)}" for m in modules)
        report = f"{len(modules)} modules, by {source}\n{rows}\n"
        is_new = modules != model.modules
        return PassResult(replace(model.copy(), modules=modules), is_new, {"modules": len(modules)}, report=report)

    def _read(self, file: Path) -> tuple[Module, ...]:
        try:
            modules: tuple[Module, ...] = typed(json.loads(file.read_text()), tuple[Module, ...])
            return modules
        except OSError as error:
            raise self.refuse(f"{file} can't be read: {error.strerror}") from error
        except (ValueError, TypeError, RecursionError) as error:
            raise self.refuse(f'{file} is no list of {{"name", "entry", "exit"}}: {error}') from error
