"""Measures the quality of a network on a split."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property

from wootz.passes.ir.model import Model
from wootz.passes.plan.transform import InputTransform
from wootz.runtime.batches import ordered_batches
from wootz.runtime.data.dataset import Split
from wootz.runtime.evaluation import EVALUATION_BATCH
from wootz.runtime.inputs import Data
from wootz.runtime.quality.quality import Outputs, Quality
from wootz.runtime.session import Device, InferenceSession

MOST_KEPT = 256 * 2**20
"""Bytes of outputs that a reference keeps."""

Predict = Callable[[Data], Outputs]
"""From samples, as the network takes them, to its outputs."""


@dataclass
class Reference:
    """The full network, fed by `transform`, whose outputs others are compared with. Those of a split are kept as far as
    there is room."""

    model: Model
    transform: InputTransform
    device: Device
    _kept: dict[tuple[str, int], Outputs] = field(default_factory=dict, repr=False)
    _bytes: int = 0

    @cached_property
    def _session(self) -> InferenceSession:
        return InferenceSession(self.model, self.device)

    def outputs(self, split: Split, start: int, count: int) -> Outputs:
        """For `count` examples of a split, from number `start` on."""
        key = repr(split.digests), start
        kept = self._kept.get(key, {})
        if kept and all(len(values) >= count for values in kept.values()):
            return {name: values[:count] for name, values in kept.items()}
        (batch,) = ordered_batches(split.part(slice(start, start + count)), self.transform, count)
        found = self._session.outputs(batch.data)
        size = sum(values.nbytes for values in found.values())
        if self._bytes + size <= MOST_KEPT:
            self._kept[key] = found
            self._bytes += size
        return found


def measured(
    quality: Quality,
    predict: Predict,
    split: Split,
    transform: InputTransform,
    reference: Reference | None = None,
    limit: int = 0,
) -> float:
    """The quality of a network on all examples of a split, or on the first `limit`.

    `reference` is the full network, for a quality that compares; outputs are matched with its by their order, since a
    file may call them otherwise. Raises WootzError where the quality can't be measured.
    """
    (value,) = measured_each(quality, lambda data: [predict(data)], 1, split, transform, reference, limit)
    return value


def measured_each(
    quality: Quality,
    predict: Callable[[Data], Sequence[Outputs]],
    count: int,
    split: Split,
    transform: InputTransform,
    reference: Reference | None = None,
    limit: int = 0,
) -> list[float]:
    """The same of `count` networks, of which `predict` gives the outputs one after the other."""
    tallies, start = [quality.begin() for _ in range(count)], 0
    for batch in ordered_batches(split.part(slice(limit)) if limit else split, transform, EVALUATION_BATCH):
        full: Outputs = {}
        if quality.compares:
            assert reference is not None, "there is no full network to compare with"
            full = reference.outputs(split, start, len(batch.data))
        for tally, outputs in zip(tallies, predict(batch.data), strict=True):
            named = dict(zip(full, outputs.values(), strict=True)) if quality.compares else outputs
            tally.add(named, full, batch.labels)
        start += len(batch.data)
    return [tally.value for tally in tallies]
