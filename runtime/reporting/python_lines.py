"""How to run the network that a run has found, as lines of Python that work as they are."""

from __future__ import annotations

from pathlib import Path

from wootz.runtime.result import ImageInput


def python_lines(image: ImageInput, file: Path) -> tuple[str, str, str]:
    """Lines that run the network in `file` on an image of zeros, with ONNX Runtime and numpy alone."""
    return (
        f"import numpy, onnxruntime  # {_in_words(image)}",
        f"network = onnxruntime.InferenceSession({str(file)!r})",
        f"scores = network.run(None, {{{image.name!r}: numpy.zeros({image.shape_of_one}, {image.type!r})}})[0]",
    )


def _in_words(image: ImageInput) -> str:
    """`224x224 RGB, (pixel - mean) * scale: best.json`: comments of code are in ASCII."""
    given = "pixels from 0 to 255" if image.units == "0-255" else "numbers as the arrays have them"
    numbers = "(pixel - mean) * scale: best.json" if image.is_normalised else given
    return f"{image.height}x{image.width} {image.channel_order}, {numbers}"
