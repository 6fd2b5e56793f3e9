"""What can fail by structure fails here: graphs are built, and trainings take a step, before anything is trained."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from wootz.passes.errors import WootzError
from wootz.passes.ir.model import Model
from wootz.passes.plan.subspace import SKIP, Configuration, Rate
from wootz.passes.plan.transform import InputTransform
from wootz.runtime.batches import ordered_batches
from wootz.runtime.data.dataset import Split
from wootz.runtime.session import Device, InferenceSession

MOST_REHEARSED = 12
"""Architectures that are built before the run. More differ from these in the sizes of their modules alone."""
IMAGES_AT_ONCE = 3
SAME_SCORES = 1e-3
"""Relative to the largest score: rounding differs between batches, other images don't."""


def representatives(configurations: Sequence[Configuration], most: int = MOST_REHEARSED) -> list[int]:
    """Positions of few configurations in which each module has each of its rates, the first ones where that is equal.

    Greedily, the one with the most rates of modules not seen so far is next; with `most`, the rarest may be left out.
    """
    numbers: dict[tuple[int, Rate], int] = {}
    networks = np.array([[numbers.setdefault(rate, len(numbers)) for rate in enumerate(c)] for c in configurations])
    unseen = np.ones(len(numbers), bool)
    chosen: list[int] = []
    while len(chosen) < most and unseen.any():
        best = int(np.argmax(unseen[networks].sum(axis=1)))
        unseen[networks[best]] = False
        chosen.append(best)
    return chosen


def structure(configuration: Configuration) -> Configuration:
    """The same for configurations whose networks differ in the sizes of their layers alone."""
    return tuple(tuple(map(_kind, rate)) if isinstance(rate, tuple) else _kind(rate) for rate in configuration)


def _kind(rate: float) -> float:
    return rate if rate in (0.0, SKIP) else 0.5


def check_batches(model: Model, split: Split, transform: InputTransform, device: Device) -> None:
    """Raises WootzError for a network that doesn't score each image for itself, whatever is beside it.

    An exporter can fix the batch in many ways, some of which nobody sees: shapes, slices, expanded constants.
    """
    session = InferenceSession(model, device)
    few = split.part(slice(IMAGES_AT_ONCE))
    try:
        (together,) = (session.outputs(batch.data) for batch in ordered_batches(few, transform, IMAGES_AT_ONCE))
        alone = [session.outputs(batch.data) for batch in ordered_batches(few, transform, 1)]
    except WootzError as error:
        raise WootzError(f"the network can't be run on {len(few)} images at once and one by one: {error}") from error
    for name, both in together.items():
        if not _are_alike(both, [outputs[name] for outputs in alone]):
            raise WootzError(
                f"the network gives other scores for {len(few)} images at once than one by one ({name}): its export is "
                f"for a fixed batch; export it again with a dynamic one (torch.onnx.export: dynamic_axes, or with "
                f"dynamo dynamic_shapes)"
            )


def _are_alike(together: np.ndarray, alone: Sequence[np.ndarray]) -> bool:
    apart = np.stack([values.ravel() for values in alone])
    both = together.reshape(len(together), -1)
    tolerance = SAME_SCORES * np.abs(np.nan_to_num(apart)).max(initial=0)
    return apart.shape == both.shape and np.allclose(apart, both, rtol=0, atol=tolerance, equal_nan=True)
