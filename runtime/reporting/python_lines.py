"""How to run the network that a run has found, as lines of Python that work as they are."""

from __future__ import annotations

from pathlib import Path

from wootz.runtime.result import ImageInput, QualityResult


def python_lines(image: ImageInput, file: Path, quality: QualityResult) -> tuple[str, str, str]:
    """Lines that run the network in `file` on an image of zeros, with ONNX Runtime and numpy alone.

    What counts shares of images, as `quality` may, is of a classifier, which has one output; others may have several.
    """
    result, which = ("scores", "[0]") if quality.format == "share" else ("outputs", "")
    return (
        f"import numpy, onnxruntime  # {_in_words(image)}",
        f"network = onnxruntime.InferenceSession({str(file)!r})",
        f"{result} = network.run(None, {{{image.name!r}: numpy.zeros({image.shape_of_one}, {image.type!r})}}){which}",
    )


def _in_words(image: ImageInput) -> str:
    """`224x224 RGB, (pixel - mean) * scale: best.json`: comments of code are in ASCII."""
    given = "pixels from 0 to 255" if image.units == "0-255" else "numbers as the arrays have them"
    numbers = "(pixel - mean) * scale: best.json" if image.is_normalised else given
    return f"{image.height}x{image.width} {image.channel_order}, {numbers}"
