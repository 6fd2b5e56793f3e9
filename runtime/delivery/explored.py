"""What an exploration comes to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from wootz.passes.plan.blocks import TuningBlock
from wootz.runtime.tasks.task import Finished, Order, Start


@dataclass(frozen=True)
class Explored:
    """What an exploration found: how the training of each block ended, and of each network that the choice rests on.

    `orders` are those of the networks, by their position in the subspace; `best` is such a position.
    """

    start: Start
    blocks: Mapping[TuningBlock, Finished]
    networks: Mapping[int, Finished]
    orders: Mapping[int, Order]
    best: int | None
