"""How to run the network that a run has found, as lines of Python that work as they are."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from wootz.runtime.result import GivenInput, ImageInput, QualityResult


def python_lines(
    image: ImageInput | None, inputs: Sequence[GivenInput], file: Path, quality: QualityResult
) -> tuple[str, str, str]:
    """Lines that run the network in `file` on an image of zeros, or zeros for all inputs, with ONNX Runtime and numpy
    alone.

    What counts shares of images, as `quality` may, is of a classifier, which has one output; others may have several.
    """
    result, which = ("scores", "[0]") if quality.format == "share" else ("outputs", "")
    comment = "" if image is None else f"  # {_in_words(image)}"
    fed: Sequence[ImageInput | GivenInput] = inputs if image is None or len(inputs) > 1 else (image,)
    zeros = ", ".join(f"{each.name!r}: numpy.zeros({each.shape_of_one}, {each.type!r})" for each in fed)
    return (
        f"import numpy, onnxruntime{comment}",
        f"network = onnxruntime.InferenceSession({str(file)!r})",
        f"{result} = network.run(None, {{{zeros}}}){which}",
    )


def _in_words(image: ImageInput) -> str:
    """`224x224 RGB, (pixel - mean) * scale: best.json`: comments of code are in ASCII."""
    given = "pixels from 0 to 255" if image.units == "0-255" else "numbers as the arrays have them"
    numbers = "(pixel - mean) * scale: best.json" if image.is_normalised else given
    return f"{image.height}x{image.width} {image.channel_order}, {numbers}"
