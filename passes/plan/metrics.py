"""The metrics of networks: a table that is open to packages and users. How the trained ones are measured is
runtime's."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import ClassVar, Literal

Format = Literal["share", "count", "milliseconds", "number"]
"""How values are shown: shares of images in per cent with their standard error, differences of them in points."""


@dataclass(frozen=True)
class Metric:
    """What is measured of a network; `name` is what objectives call it.

    One that `needs_training` is a *quality*: it depends on weights, and one that `needs_labels` on what the data say,
    too. `of_full` is what the full network has of a quality by definition, None where that is measured. Values lie
    between `least` and `most`.
    """

    name: str
    higher_is_better: bool = False
    needs_training: bool = False
    needs_labels: bool = False
    of_full: float | None = None
    format: Format = "number"
    least: float = -math.inf
    most: float = math.inf

    MODEL_SIZE: ClassVar[Metric]
    """Parameters, running statistics not among them."""
    ACCURACY: ClassVar[Metric]
    """The share of images whose largest score is that of their class."""
    FLOPS: ClassVar[Metric]
    """Of one image, two for a multiply-accumulate."""
    LATENCY: ClassVar[Metric]
    """Milliseconds an image."""
    AGREEMENT: ClassVar[Metric]
    """The share of images whose largest score is that of the full network, too."""
    OUTPUT_ERROR: ClassVar[Metric]
    """The mean squared difference from the full network's output over the mean square of that; of several outputs
    their mean."""

    @property
    def sign(self) -> int:
        """1 where higher is better, else -1: `sign * value` grows with what is wanted."""
        return 1 if self.higher_is_better else -1

    @property
    def is_share(self) -> bool:
        """Whether it is a share of images, which is as uncertain as these are few."""
        return self.format == "share"

    def __str__(self) -> str:
        return self.name


Metric.MODEL_SIZE = Metric("ModelSize", format="count", least=0)
Metric.ACCURACY = Metric("Accuracy", True, True, needs_labels=True, format="share", least=0, most=1)
Metric.FLOPS = Metric("FLOPs", format="count", least=0)
Metric.LATENCY = Metric("Latency", format="milliseconds", least=0)
Metric.AGREEMENT = Metric("Agreement", True, True, of_full=1.0, format="share", least=0, most=1)
Metric.OUTPUT_ERROR = Metric("OutputError", needs_training=True, of_full=0.0, least=0)

METRICS: Mapping[str, Metric] = MappingProxyType(
    {
        metric.name: metric
        for metric in (
            Metric.MODEL_SIZE,
            Metric.ACCURACY,
            Metric.FLOPS,
            Metric.LATENCY,
            Metric.AGREEMENT,
            Metric.OUTPUT_ERROR,
        )
    }
)
"""Those that everybody has, by name."""
