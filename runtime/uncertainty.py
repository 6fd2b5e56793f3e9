"""How far an accuracy that was measured on so many images may be from that on others of their kind."""

from __future__ import annotations

import math
from dataclasses import dataclass

PERHAPS = 2.0
"""Standard deviations by which two accuracies may differ by chance."""
CLEARLY = 3.0
"""Standard deviations by which two accuracies differ hardly by chance."""


@dataclass(frozen=True)
class Share:
    """An accuracy, and the number of images that it was measured on."""

    accuracy: float
    images: int

    @property
    def standard_error(self) -> float:
        """Of the accuracy, with two right and two wrong images more (Agresti and Coull 1998): 0 and 1 have one too."""
        images = self.images + 4
        share = (self.accuracy * self.images + 2) / images
        return math.sqrt(share * (1 - share) / images)

    def above(self, other: Share) -> float:
        """By how many standard deviations of the difference this is higher: the two-proportion z-test."""
        pooled = (self.accuracy * self.images + other.accuracy * other.images) / (self.images + other.images)
        variance = pooled * (1 - pooled) * (1 / self.images + 1 / other.images)
        return (self.accuracy - other.accuracy) / math.sqrt(variance) if variance else 0.0


def margin_note(best: Share, bound: float) -> str:
    """A warning where an accuracy meets its lower `bound` by less than its standard error; or nothing."""
    if best.accuracy - bound >= best.standard_error:
        return ""
    return (
        f"The best network's accuracy, {best.accuracy:.4f}, meets the bound {bound:.4f} by less than its standard "
        f"error on {best.images} images ({best.standard_error:.4f}): on others like them it may miss it."
    )


def format_accuracy(accuracy: float | None, images: int | None) -> str:
    """In per cent, with the standard error of so many images where their number is known: `98.4 ± 0.8 %`."""
    if accuracy is None:
        return "–"
    if not images:
        return f"{100 * accuracy:.2f} %"
    error = 100 * Share(accuracy, images).standard_error
    digits = 1 if error >= 0.1 else 2
    return f"{100 * accuracy:.{digits}f} ± {error:.{digits}f} %"
