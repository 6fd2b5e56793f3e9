"""Decodes the photographs of a listing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np

from wootz.passes.errors import InputError, reading
from wootz.runtime.data.dataset import Dataset, Split, with_validation
from wootz.runtime.data.listing import Listing, Part
from wootz.runtime.data.photographs import A_PHOTOGRAPH, decode, open_photograph

MOST_BROKEN = 0.01
"""The part of the photographs that may be left out since they can't be read: more is no accident."""
SHOWN = 3


def decode_listing(listing: Listing, image_shape: tuple[int, int, int], crop_size: int, seed: int) -> Dataset:
    """The data set with its photographs in the network's size; with `crop_size` in that of the first one.

    Up to 1 % may be broken: they are left out, and noted. Raises InputError for more.
    """
    channels = image_shape[0]
    if channels not in (1, 3):
        raise InputError(f"the network takes {channels} channels; photographs have 1 or 3", listing.location)
    shape = _first_shape(listing, channels) if crop_size else image_shape
    broken: dict[Path, str] = {}
    splits = [
        None if p is None else _decoded(p, shape, broken) for p in (listing.train, listing.validation, listing.test)
    ]
    note = broken_note(broken, sum(map(len, listing.parts)))
    train, validation, test = splits
    assert train is not None
    dataset = with_validation(listing.classes, train, validation, test, seed, listing.location)
    return replace(dataset, notes=(*listing.notes, *note))


def _decoded(part: Part, shape: tuple[int, int, int], broken: dict[Path, str]) -> Split:
    images = np.empty((len(part), *shape), np.uint8)
    whole = np.ones(len(part), bool)
    for row, file in enumerate(part.photographs):
        try:
            images[row] = decode(file, shape)
        except InputError as error:
            broken[file], whole[row] = str(error), False
    return Split(images, part.labels) if whole.all() else Split(images[whole], part.labels[whole])


def broken_note(broken: Mapping[Path, str], photographs: int) -> tuple[str, ...]:
    """What is said of photographs that can't be read, by file the reason. Raises InputError for too many."""
    if not broken:
        return ()
    file, reason = next(iter(broken.items()))
    if len(broken) > MOST_BROKEN * photographs:
        said = reason.removeprefix(f"{file}: ")
        raise InputError(f"{said}; {len(broken):,} of {photographs:,} photographs are broken, more than 1 %", file)
    named = ", ".join(map(str, list(broken)[:SHOWN])) + (", …" if len(broken) > SHOWN else "")
    return (f"{len(broken):,} of {photographs:,} photographs can't be read and are left out: {named}.",)


def _first_shape(listing: Listing, channels: int) -> tuple[int, int, int]:
    """That of the first photograph that can be opened. Raises InputError for the first one where none can."""
    refusal = None
    for file in listing.train.photographs:
        try:
            with reading(file, A_PHOTOGRAPH), open_photograph(file) as image:
                return channels, image.height, image.width
        except InputError as error:
            refusal = refusal or error
    raise refusal or InputError("no images in train/", listing.location)
