"""The module table from `module: "…"` marks on layers."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence

from wootz.frontend.caffe.wiring import Wiring
from wootz.passes.ir.model import Module


def marked_modules(wiring: Wiring, names: Mapping[int, str]) -> tuple[Module, ...]:
    """The modules, in order of data flow. `names` gives the tensor of each wire.

    The entry is the one tensor from outside that the marked layers read, the exit the one of theirs that is read
    outside or by nobody. Raises InputError where there are several, or none.
    """
    marked: dict[str, list[int]] = defaultdict(list)
    for position, wired in enumerate(wiring.layers):
        if wired.layer.module:
            marked[wired.layer.module].append(position)
    return tuple(_module(mark, positions, wiring, names) for mark, positions in marked.items())


def _module(mark: str, positions: Sequence[int], wiring: Wiring, names: Mapping[int, str]) -> Module:
    inside = set(positions)
    made = {t for i in positions for t in wiring.layers[i].tops}
    read = {b for i in positions for b in wiring.layers[i].bottoms}
    entries = _tensors(read - made, names)
    exits = _tensors({t for t in made if not wiring.readers[t] or set(wiring.readers[t]) - inside}, names)
    for side, found in (("entry", entries), ("exit", exits)):
        if len(found) != 1:
            raise wiring.layers[positions[0]].layer.error(
                f"module {mark!r} has {len(found)} {side} tensors ({', '.join(found) or 'none'}) where it has to have "
                f"one: mark the layers between two single tensors",
                "module",
            )
    return Module(mark, entries[0], exits[0])


def _tensors(wires: set[int], names: Mapping[int, str]) -> list[str]:
    return list(dict.fromkeys(names[w] for w in sorted(wires)))
