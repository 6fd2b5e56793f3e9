"""What becomes of a photograph's proportions when it gets the size that a network takes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from PIL import Image, ImageOps

from wootz.passes.plan.transform import InputTransform, Resize

MARGIN = 256 / 224
"""By how much photographs are larger than what is cropped of them for a test, as networks for ImageNet are tested."""
LEAST_AREA = 0.08
"""The smallest part of a photograph that training crops, as networks for ImageNet are trained."""
PADDING = (114, 114, 114)
"""The grey beside photographs that were fitted in."""
SHRUNK = 2
"""JPEG files are decoded in an eighth, a quarter or half of their size where that is so much larger than wanted."""


@dataclass(frozen=True)
class Resizing:
    """How photographs become images of `height` and `width`; `shorter` is what `InputTransform.resize_to` says."""

    policy: Resize
    height: int
    width: int
    shorter: int = 0

    @staticmethod
    def to(policy: Resize, height: int, width: int) -> Resizing:
        """For a network that takes images of `height` and `width`; with a margin to crop from where they are square."""
        if policy == "crop" and height == width:
            side = round(MARGIN * height)
            return Resizing(policy, side, side, side)
        return Resizing(policy, height, width)

    def apply(self, image: Image.Image) -> Image.Image:
        """A decoded image in grey or RGB."""
        size = (self.width, self.height)
        if self.policy == "crop":
            return ImageOps.fit(image, size, Image.Resampling.BILINEAR)
        if self.policy == "pad":
            grey = PADDING if image.mode == "RGB" else PADDING[:1]
            return ImageOps.pad(image, size, Image.Resampling.BILINEAR, color=grey)
        return image if image.size == size else image.resize(size, Image.Resampling.BILINEAR)

    def draft(self, image: Image.Image, on_its_side: bool = False) -> None:
        """Has a large JPEG file decoded in less than its full size, where the result is the same to the eye."""
        if self.policy != "squash":
            width, height = (self.height, self.width) if on_its_side else (self.width, self.height)
            image.draft(None, (SHRUNK * width, SHRUNK * height))


def settled(policy: Resize, image_shape: tuple[int, int, int], sizes: Sequence[tuple[int, int]]) -> Resizing:
    """The resizing of photographs of which some have these `sizes` (width, height): those that have the network's stay
    as they are, and nothing is cropped from them."""
    _, height, width = image_shape
    same = bool(sizes) and all(size == (width, height) for size in sizes)
    return Resizing.to("squash" if same else policy, height, width)


def resized_transforms(
    transforms: tuple[InputTransform, InputTransform], resizing: Resizing, image_shape: tuple[int, int, int]
) -> tuple[InputTransform, InputTransform]:
    """How images of that resizing are input for training, and for testing."""
    train, test = transforms
    if resizing.policy == "squash":
        return _as_they_are(train), _as_they_are(test)
    train, test = (
        replace(
            transform,
            resize=resizing.policy,
            resize_to=resizing.shorter,
            crop_size=image_shape[1] if resizing.shorter else 0,
        )
        for transform in transforms
    )
    return replace(train, least_area=LEAST_AREA if resizing.policy == "crop" else 1.0), test


def _as_they_are(transform: InputTransform) -> InputTransform:
    """Without what another resizing would have cropped; what Caffe crops stays."""
    if transform.resize == "squash":
        return transform
    return replace(transform, resize="squash", resize_to=0, crop_size=0, least_area=1.0)
