"""Networks as their files are, side by side: `wootz latency` of several models."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import click
import numpy as np
from rich.console import Console
from rich.table import Table

from wootz.passes.errors import InputError, WootzError
from wootz.passes.ir.files import read, read_proto
from wootz.runtime.latency_table.measure import summary, take_turns
from wootz.runtime.latency_table.measuring import clock_of
from wootz.runtime.session import Device, FileInput, FileSession
from wootz.tools.models import open_network

NUMBERS = {
    "tensor(float)": np.float32, "tensor(float16)": np.float16, "tensor(double)": np.float64, "tensor(bool)": np.bool_,
    "tensor(uint8)": np.uint8, "tensor(int8)": np.int8, "tensor(uint16)": np.uint16, "tensor(int16)": np.int16,
    "tensor(uint32)": np.uint32, "tensor(int32)": np.int32, "tensor(uint64)": np.uint64, "tensor(int64)": np.int64,
}  # fmt: skip
"""ONNX Runtime's names of what a network may be fed."""
MOST_CHANNELS = 4
"""Of an image: a last axis that is longer is its width."""


@dataclass(frozen=True)
class Fed:
    """A network that runs, and the zeros that it gets; its first input takes the images."""

    model: str
    session: FileSession
    feeds: dict[str, np.ndarray]

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the first input."""
        return next(iter(self.feeds.values())).shape

    @property
    def images(self) -> int:
        """At once; 1 where the input has no axes."""
        return self.shape[0] if self.shape else 1


def compare(
    models: Sequence[str], device: Device, batch: int | None, size: tuple[int, int] | None, seconds: float
) -> None:
    """Prints the latency of each network as it is, and what it is of the first one's in the same round.

    Open extents are `batch`, 1 if none is given, and `size`. Raises WootzError, with the file's name, for a network
    that takes others, or that can't be run.
    """
    opened = [_opened(model, device, batch, size) for model in models]
    if len({tuple(sorted(fed.shape)) for fed in opened}) > 1:
        click.echo("warning: these networks take inputs of different sizes", err=True)
    runs = [partial(fed.session.run_on, fed.feeds) for fed in opened]
    times = np.array(take_turns(runs, seconds, clock_of(device)))
    rows = Table()
    for column in ("network", "input", "ms an image", "of the first", "outliers"):
        rows.add_column(column, justify="left" if column in ("network", "input") else "right")
    for fed, of_model in zip(opened, times, strict=True):
        found = summary(of_model.tolist(), fed.images)
        low, median, high = np.percentile(of_model / fed.images / (times[0] / opened[0].images), (25, 50, 75))
        rows.add_row(
            Path(fed.model).name,
            _extents(fed.shape),
            f"{found['median_ms']:.3g} ({found['low_ms']:.3g} to {found['high_ms']:.3g})",
            f"{median:.3f} ({low:.3f} to {high:.3f})",
            f"{found['outliers']} of {found['runs']}",
        )
    Console().print(rows)


def _opened(model: str, device: Device, batch: int | None, size: tuple[int, int] | None) -> Fed:
    """The network in the file, after its first run."""
    program = _program(model)
    try:
        session = FileSession(program, device)
        if not session.inputs:
            raise WootzError("it has no input, and always gives the same")
        _check_batch(session.inputs[0], batch)
        fed = Fed(model, session, {given.name: _zeros(given, batch or 1, size) for given in session.inputs})
        session.run_on(fed.feeds)
    except WootzError as error:
        raise InputError(str(error), model) from error
    return fed


def _program(model: str) -> str | bytes:
    """A binary file is run as it is; what is no model is refused in better words than ONNX Runtime's."""
    if not model.endswith(".onnx"):
        return open_network(model).model.to_proto().SerializeToString()
    read_proto(*read(model))
    return model


def _check_batch(images: FileInput, batch: int | None) -> None:
    fixed = images.shape[0] if images.shape else None
    if batch and isinstance(fixed, int) and fixed != batch:
        raise WootzError(f"it takes batches of {fixed}, not {batch}: leave --batch out")


def _zeros(given: FileInput, batch: int, size: tuple[int, int] | None) -> np.ndarray:
    """What an input takes: its first axis, if open, is the batch; an image's height and width, if open, the size."""
    if given.type not in NUMBERS:
        raise WootzError(f"input {given.name} takes {given.type}: only numbers are fed")
    shape = list(given.shape)
    if shape and not isinstance(shape[0], int):
        shape[0] = batch
    if len(shape) == 4:
        for axis, extent in zip(_spatial_axes(shape), size or (), strict=False):
            if isinstance(shape[axis], int) and shape[axis] != extent:
                raise WootzError(f"it takes images of {_extents(given.shape)}, not {_extents(size or ())}: "
                                 f"leave --size out, or this network")  # fmt: skip
            shape[axis] = extent
    extents = [extent for extent in shape if isinstance(extent, int)]
    if len(extents) < len(shape):
        rest = "give --size" if len(shape) == 4 and not size else f"input {given.name} is {_extents(given.shape)}"
        raise WootzError(f"leaves the size of {'images' if len(shape) == 4 else 'its input'} open: {rest}")
    return np.zeros(extents, NUMBERS[given.type])


def _spatial_axes(shape: Sequence[int | str | None]) -> tuple[int, int]:
    """Height and width of [batch, channels, height, width], or of images with channels last."""
    channels, last = shape[1], shape[3]
    has_channels_last = isinstance(last, int) and (not isinstance(channels, int) or last <= MOST_CHANNELS < channels)
    return (1, 2) if has_channels_last else (2, 3)


def _extents(shape: Sequence[int | str | None]) -> str:
    return "x".join("?" if extent is None else str(extent) for extent in shape)
