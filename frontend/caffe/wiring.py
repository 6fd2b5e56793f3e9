"""Which layer reads what: blobs in single assignment.

Caffe's layers refer to blobs by name, in order, and may overwrite them (in-place layers). Here each value that a
blob takes is a `Wire` of its own.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from wootz.frontend.caffe.network import Layer

NOTHING: Mapping[str, str] = MappingProxyType({})


@dataclass(frozen=True)
class Wire:
    """One value of a blob. `producer` is the position of a layer, None for an input declared outside layers."""

    blob: str
    producer: int | None


@dataclass(frozen=True)
class WiredLayer:
    """A layer with the positions, in `Wiring.wires`, of what it reads and makes."""

    layer: Layer
    bottoms: tuple[int, ...]
    tops: tuple[int, ...]


@dataclass(frozen=True)
class Wiring:
    wires: tuple[Wire, ...]
    layers: tuple[WiredLayer, ...]
    readers: tuple[tuple[int, ...], ...]
    """For each wire the positions of the layers that read it."""
    last: frozenset[int]
    """The wires that hold the final value of their blob."""
    inputs: frozenset[str]
    """The blobs that come from outside."""

    def outputs(self) -> list[int]:
        """The wires that no layer reads: Caffe's network outputs."""
        return [i for i, readers in enumerate(self.readers) if not readers]


def wire(inputs: Iterable[str], layers: Sequence[Layer], absent: Mapping[str, str] = NOTHING) -> Wiring:
    """Connects the layers. Raises InputError for a blob that nothing before the layer makes, or that two make.

    `absent` says of blobs that layers left out would make what would bring those in.
    """
    wires = [Wire(blob, None) for blob in inputs]
    current = {w.blob: i for i, w in enumerate(wires)}
    readers: dict[int, list[int]] = defaultdict(list)
    wired: list[WiredLayer] = []
    for position, layer in enumerate(layers):
        for blob in layer.bottoms:
            if blob not in current:
                raise layer.error(_unknown_blob(blob, position, layers, absent), "bottom")
        bottoms = tuple(current[blob] for blob in layer.bottoms)
        for bottom in bottoms:
            readers[bottom].append(position)
        tops: list[int] = []
        for i, blob in enumerate(layer.tops):
            in_place = i < len(layer.bottoms) and layer.bottoms[i] == blob
            if blob in current and not in_place:
                raise layer.error(f"the blob {blob!r} is made by a layer before it too: rename the top", "top")
            current[blob] = len(wires)
            tops.append(len(wires))
            wires.append(Wire(blob, position))
        wired.append(WiredLayer(layer, bottoms, tuple(tops)))
    return Wiring(
        tuple(wires),
        tuple(wired),
        tuple(tuple(readers[i]) for i in range(len(wires))),
        frozenset(current.values()),
        frozenset(w.blob for w in wires if w.producer is None),
    )


def _unknown_blob(blob: str, position: int, layers: Sequence[Layer], absent: Mapping[str, str]) -> str:
    makers = [later.name for later in layers[position:] if blob in later.tops]
    if not makers and blob in absent:
        return f"its bottom {blob!r} is made by a layer that the network's rules leave out here: give {absent[blob]}"
    if not makers:
        return f"no layer and no input makes its bottom {blob!r}"
    return f"its bottom {blob!r} is made by the later layer {makers[0]!r}: layers have to stand in order of data flow"
