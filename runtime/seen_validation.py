"""Whether a network that came with its weights has been trained on the validation images.

It then scores as well on these as on its training images, and better than on new ones; bounds relative to its accuracy
are too high for networks that are trained on the rest.
"""

from __future__ import annotations

from wootz.runtime.uncertainty import CLEARLY, PERHAPS, Share

COMPARED_IMAGES = 2000
"""Training images that are looked at, at most."""
LEARNED_BY_HEART = 0.95
"""From this accuracy on, one that is equal on training and on validation images is telling without a test split."""


def seen_validation_note(training: Share, validation: Share, test: Share | None, splits_training: bool) -> str:
    """A warning, or nothing. `splits_training` says that the validation images were taken out of the training images.

    It is given where validation is clearly better than test; and where it was taken out of the training images and is
    about as good as these, while test is clearly worse, or not there.
    """
    as_good_as_training = splits_training and training.above(validation) < PERHAPS
    if test is None:
        seen = as_good_as_training and training.accuracy >= LEARNED_BY_HEART
    else:
        seen = validation.above(test) > CLEARLY or (as_good_as_training and training.above(test) > CLEARLY)
    if not seen:
        return ""
    on_test = "" if test is None else f", {test.accuracy:.4f} on the test images"
    origin = " (a fifth of the training images)" if splits_training else ""
    return (
        f"The full network scores {validation.accuracy:.4f} on the validation images{origin}, {training.accuracy:.4f} "
        f"on the training images{on_test}: it seems to have been trained on the validation images, so that a bound "
        f"such as 'full - 0.01' is out of reach for networks that are not. Give a validation split that it has not "
        f"seen (val/ beside train/, x_val and y_val, val_lmdb), or an absolute bound."
    )
