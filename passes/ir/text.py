"""The textual form of the IR: ONNX's own syntax. The one place that knows its parser and printer."""

from __future__ import annotations

import onnx
import onnx.parser
import onnx.printer

from wootz.passes.errors import InputError
from wootz.passes.ir.model import Model


def parse_text(text: str, file: str = "<text>") -> Model:
    """The model written in ONNX's textual syntax. Raises InputError with the parser's position."""
    try:
        return Model.from_proto(onnx.parser.parse_model(text))
    except onnx.parser.ParseError as error:
        raise InputError(" ".join(str(error).split()), file) from error


def print_text(model: Model) -> str:
    """The model in ONNX's textual syntax."""
    return onnx.printer.to_text(model.to_proto())
