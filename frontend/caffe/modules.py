"""The module table from `module: "…"` marks on layers."""

from __future__ import annotations

from collections.abc import Mapping

from wootz.frontend.caffe.wiring import Wiring
from wootz.passes.ir.model import Module


def marked_modules(wiring: Wiring, names: Mapping[int, str]) -> tuple[Module, ...]:
    """The modules, in order of data flow. `names` gives the tensor of each wire.

    The entry is the one tensor from outside that the marked layers read, the exit the one of theirs that is read
    outside or by nobody. Raises InputError where there are several, or none.
    """
    marks = dict.fromkeys(w.layer.module for w in wiring.layers if w.layer.module)
    return tuple(_module(mark, wiring, names) for mark in marks)


def _module(mark: str, wiring: Wiring, names: Mapping[int, str]) -> Module:
    inside = {i for i, w in enumerate(wiring.layers) if w.layer.module == mark}
    first = wiring.layers[min(inside)].layer
    made = {t for i in inside for t in wiring.layers[i].tops}
    read = {b for i in inside for b in wiring.layers[i].bottoms}
    entries = _tensors(read - made, names)
    exits = _tensors({t for t in made if not wiring.readers[t] or set(wiring.readers[t]) - inside}, names)
    for side, found in (("entry", entries), ("exit", exits)):
        if len(found) != 1:
            raise first.error(
                f"module {mark!r} has {len(found)} {side} tensors ({', '.join(found) or 'none'}) where it has to have "
                f"one: mark the layers between two single tensors",
                "module",
            )
    return Module(mark, entries[0], exits[0])


def _tensors(wires: set[int], names: Mapping[int, str]) -> list[str]:
    return list(dict.fromkeys(names[w] for w in sorted(wires)))
