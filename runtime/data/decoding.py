"""Decodes the photographs of a listing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np

from wootz.passes.errors import InputError, reading
from wootz.passes.plan.transform import Resize
from wootz.runtime.data.dataset import Dataset, Split, with_validation
from wootz.runtime.data.listing import Listing, Part
from wootz.runtime.data.photographs import A_PHOTOGRAPH, decode, open_photograph
from wootz.runtime.data.resizing import Resizing, settled

MOST_BROKEN = 0.01
"""The part of the photographs that may be left out since they can't be read: more is no accident."""
SHOWN = 3
LOOKED_AT = 64
"""Photographs whose size says whether all have that of the network."""


def decode_listing(
    listing: Listing, image_shape: tuple[int, int, int], crop_size: int, resize: Resize, seed: int
) -> Dataset:
    """The data set with its photographs in the network's size, or larger where they are cropped batch by batch; with
    Caffe's `crop_size` all in that of the first one.

    Up to 1 % may be broken: they are left out, and noted. Raises InputError for more.
    """
    channels = image_shape[0]
    if channels not in (1, 3):
        raise InputError(f"the network takes {channels} channels; photographs have 1 or 3", listing.location)
    resizing = _resizing(listing, image_shape, crop_size, resize)
    broken: dict[Path, str] = {}
    train = _decoded(listing.train, channels, resizing, broken)
    validation, test = (
        None if part is None else _decoded(part, channels, resizing, broken)
        for part in (listing.validation, listing.test)
    )
    note = broken_note(broken, sum(map(len, listing.parts)))
    dataset = with_validation(listing.classes, train, validation, test, seed, listing.location)
    return replace(dataset, notes=(*listing.notes, *note), resizing=resizing)


def _resizing(listing: Listing, image_shape: tuple[int, int, int], crop_size: int, resize: Resize) -> Resizing:
    """Raises InputError where none of the photographs that are looked at can be opened."""
    photographs = listing.train.photographs
    looked_at = np.unique(np.linspace(0, len(photographs) - 1, LOOKED_AT).astype(int))
    sizes, refusals = [], []
    for number in looked_at:
        try:
            with reading(photographs[number], A_PHOTOGRAPH), open_photograph(photographs[number]) as image:
                sizes.append(image.size)
        except InputError as error:
            refusals.append(error)
    if not sizes:
        raise refusals[0]
    if crop_size and resize == "squash":
        return Resizing("squash", sizes[0][1], sizes[0][0])
    return settled(resize, image_shape, sizes)


def _decoded(part: Part, channels: int, resizing: Resizing, broken: dict[Path, str]) -> Split:
    images = np.empty((len(part), channels, resizing.height, resizing.width), np.uint8)
    whole = np.ones(len(part), bool)
    for row, file in enumerate(part.photographs):
        try:
            images[row] = decode(file, channels, resizing)
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
