"""How far a share of so many images may be from that of others of their kind."""

from __future__ import annotations

import math
from dataclasses import dataclass

PERHAPS = 2.0
"""Standard deviations by which two accuracies may differ by chance."""
CLEARLY = 3.0
"""Standard deviations by which two accuracies differ hardly by chance."""


@dataclass(frozen=True)
class Share:
    """A share of images, such as the accuracy, and the number of images that it was measured on."""

    accuracy: float
    images: int

    @property
    def standard_error(self) -> float:
        """Of the share, with two right and two wrong images more (Agresti and Coull 1998): 0 and 1 have one too."""
        images = self.images + 4
        share = (self.accuracy * self.images + 2) / images
        return math.sqrt(share * (1 - share) / images)

    def above(self, other: Share) -> float:
        """By how many standard deviations of the difference this is higher: the two-proportion z-test."""
        pooled = (self.accuracy * self.images + other.accuracy * other.images) / (self.images + other.images)
        variance = pooled * (1 - pooled) * (1 / self.images + 1 / other.images)
        return (self.accuracy - other.accuracy) / math.sqrt(variance) if variance else 0.0


def margin_note(name: str, best: Share, bound: float) -> str:
    """A warning where the metric `name` meets its lower `bound` by less than its standard error; or nothing."""
    if best.accuracy - bound >= best.standard_error:
        return ""
    return (
        f"The best network's {name}, {best.accuracy:.4f}, meets the bound {bound:.4f} by less than its standard "
        f"error on {best.images} images ({best.standard_error:.4f}): on others like them it may miss it."
    )
