"""Decodes the photographs of a listing: small data sets into memory, others once, into the cache."""

from __future__ import annotations

import hashlib
import io
import multiprocessing
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import BrokenExecutor, ProcessPoolExecutor, as_completed
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path
from typing import IO

import numpy as np

from wootz.passes.errors import InputError, WootzError, reading
from wootz.passes.plan.transform import Resize
from wootz.runtime.data.cache import DIGEST_BYTES, Cache, Entry, write_entry
from wootz.runtime.data.dataset import Dataset, Split, with_validation
from wootz.runtime.data.listing import Cell, Listing, Part, Photograph, file_of
from wootz.runtime.data.photographs import A_PHOTOGRAPH, decode, open_photograph, upright_size
from wootz.runtime.data.resizing import Resizing, settled
from wootz.runtime.data.stored_images import Images, part_of
from wootz.runtime.digest import digest
from wootz.runtime.executors.spawning import Spawning, enter

IN_MEMORY = 64 * 2**20
"""Bytes: photographs that take no more, files and pixels alike, are decoded by each process, and kept in memory."""
MOST_BROKEN = 0.01
"""The part of the photographs that may be left out since they can't be read: more is no accident."""
SHOWN = 3
LOOKED_AT = 64
"""Photographs of each split whose size says whether all have that of the network."""
DECODING = 2
"""The version of what `decode` makes of a file: other pixels than before are other entries of the cache."""
CHUNK = 64
"""Photographs that a process decodes at a time, and holds in memory."""


class Listener:
    """Is told of photographs that are decoded into the cache; this one does nothing about it."""

    def begin(self, photographs: int, size: int, folder: Path) -> None:
        """So many are decoded into `folder`, where they take `size` bytes."""

    def advance(self, photographs: int) -> None:
        """So many more are decoded."""

    def end(self) -> None:
        """All are decoded, or none is any more."""


@dataclass(frozen=True)
class Decoded:
    """The images of photographs, by row, and those rows that are `broken`, with the reason."""

    images: Images
    broken: Mapping[int, str]


def decode_listing(
    listing: Listing,
    image_shape: tuple[int, int, int],
    crop_size: int,
    resize: Resize,
    resizes_all: bool,
    seed: int,
    cache: Cache,
    listener: Listener,
) -> Dataset:
    """The data set with its photographs in the network's size, or larger where they are cropped batch by batch; with
    Caffe's `crop_size` all in that of the first one. Unless it `resizes_all`, photographs that have the network's size
    stay as they are where all of those do that are looked at.

    Up to 1 % may be broken: they are left out, and noted. Raises InputError for more.
    """
    channels = image_shape[0]
    if channels not in (1, 3):
        raise InputError(f"the network takes {channels} channels; photographs have 1 or 3", listing.location)
    resizing = _resizing(listing, image_shape, crop_size, resize, resizes_all)
    photographs = listing.photographs()
    decoded = _decode(photographs, channels, resizing, listing.location, cache, listener)
    note = _broken_note(decoded.broken, photographs)
    rows = {photograph: row for row, photograph in enumerate(photographs)}
    train, validation, test = (
        None if part is None else _split(part, rows, decoded)
        for part in (listing.train, listing.validation, listing.test)
    )
    assert train is not None
    dataset = with_validation(listing.classes, train, validation, test, seed, listing.location)
    return replace(dataset, notes=(*listing.notes, *note), resizing=resizing)


def _resizing(
    listing: Listing, image_shape: tuple[int, int, int], crop_size: int, resize: Resize, resizes_all: bool
) -> Resizing:
    """Raises InputError where none of the photographs that are looked at can be opened."""
    looked_at = [photograph for part in listing.parts for photograph in _some(part.photographs)]
    sizes, refusals = [], []
    for photograph, source in zip(looked_at, _sources(looked_at), strict=True):
        try:
            with reading(str(photograph), A_PHOTOGRAPH), open_photograph(source) as image:
                sizes.append(upright_size(image))
        except InputError as error:
            refusals.append(error)
    if not sizes:
        raise refusals[0]
    if crop_size and resize == "squash":
        return Resizing("squash", sizes[0][1], sizes[0][0])
    return settled(resize, image_shape, () if resizes_all else sizes)


def _some(photographs: Sequence[Photograph]) -> list[Photograph]:
    """Up to `LOOKED_AT` of them, evenly spread."""
    return [photographs[n] for n in np.unique(np.linspace(0, len(photographs) - 1, LOOKED_AT).astype(int))]


@dataclass(frozen=True)
class _Stat:
    """Of a file: bytes, and nanoseconds of its times; -1 each where there is none."""

    size: int
    modified: int
    changed: int

    @staticmethod
    def of(file: str) -> _Stat:
        try:
            found = os.stat(file)
        except OSError:  # counts as broken
            return _Stat(-1, -1, -1)
        return _Stat(found.st_size, found.st_mtime_ns, found.st_ctime_ns)


def _decode(
    photographs: Sequence[Photograph],
    channels: int,
    resizing: Resizing,
    location: Path,
    cache: Cache,
    listener: Listener,
) -> Decoded:
    image_shape = (channels, resizing.height, resizing.width)
    size = len(photographs) * int(np.prod(image_shape))
    stats = {file: _Stat.of(file) for file in dict.fromkeys(map(file_of, photographs))}
    if max(size, sum(stat.size for stat in stats.values())) <= IN_MEMORY:
        images = np.zeros((len(photographs), *image_shape), np.uint8)
        return Decoded(images, _decode_into(images, photographs, resizing))
    key = _key(photographs, stats, location, channels, resizing)
    known = cache.get(key)
    if known is None:
        with cache.lease(key, f"decodes {location}"):
            known = cache.get(key)  # another process was quicker
            if known is None:
                _fill(cache, key, photographs, image_shape, resizing, location, listener)
                known = cache.get(key)
    if known is None:
        raise InputError("what was decoded a moment ago is gone", cache.folder)
    entry, stored = known
    return Decoded(stored, entry.broken)


def _key(
    photographs: Sequence[Photograph],
    stats: Mapping[str, _Stat],
    location: Path,
    channels: int,
    resizing: Resizing,
) -> str:
    """What says that photographs are the same, without reading them: where a time of a file is another, it may be
    another file. The data set may have been moved as a whole."""
    said, inside = [], f"{location}{os.sep}"
    for file, rows in groupby(photographs, file_of):
        stat, cells = stats[file], [(c.group, c.row) for c in rows if isinstance(c, Cell)]
        said.append((file.removeprefix(inside), stat.size, stat.modified, stat.changed, cells))
    return digest(repr((DECODING, channels, resizing)).encode(), *(repr(file).encode() for file in said))


def _fill(
    cache: Cache,
    key: str,
    photographs: Sequence[Photograph],
    image_shape: tuple[int, int, int],
    resizing: Resizing,
    location: Path,
    listener: Listener,
) -> None:
    """Decodes photographs into a new entry of the cache. Raises InputError as soon as too many are broken."""
    begin = time.perf_counter()
    size = len(photographs) * int(np.prod(image_shape))
    digests = np.zeros((len(photographs), DIGEST_BYTES), np.uint8)
    broken: dict[int, str] = {}
    with cache.drafting(key, size) as draft:
        listener.begin(len(photographs), size, cache.folder)
        try:
            for chunk in _decode_chunks(_chunks(photographs), draft.images, image_shape, resizing):
                digests[chunk.first : chunk.first + len(chunk.digests)] = chunk.digests
                if chunk.broken:
                    broken = dict(sorted({**broken, **chunk.broken}.items()))
                    _broken_note(broken, photographs)
                listener.advance(len(chunk.digests))
        finally:
            listener.end()
        seconds = time.perf_counter() - begin
        entry = Entry(str(location), len(photographs), image_shape, resizing.policy, broken, seconds)
        write_entry(draft, entry, digests)


@dataclass(frozen=True)
class _Chunk:
    """Photographs of which `first` is the number of the first."""

    first: int
    photographs: Sequence[Photograph]


@dataclass(frozen=True)
class _DecodedChunk:
    first: int
    digests: np.ndarray
    broken: Mapping[int, str]


def _chunks(photographs: Sequence[Photograph]) -> Iterator[_Chunk]:
    """Files by a number of them; what is in a Parquet file by row groups, which are read as a whole."""
    first = 0
    for cell, members in groupby(photographs, lambda p: (p.file, p.group) if isinstance(p, Cell) else None):
        together = list(members)
        step = len(together) if cell else CHUNK
        for start in range(0, len(together), step):
            yield _Chunk(first + start, together[start : start + step])
        first += len(together)


def _decode_chunks(
    chunks: Iterator[_Chunk], file: Path, image_shape: tuple[int, int, int], resizing: Resizing
) -> Iterator[_DecodedChunk]:
    """In as many processes as this one may use cores; in this one where it may have no others."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if cores == 1 or multiprocessing.current_process().daemon:
        yield from (_decode_chunk(chunk, file, image_shape, resizing) for chunk in chunks)
        return
    context = Spawning()
    with ProcessPoolExecutor(cores, context, enter, (1, "")) as pool:
        try:
            futures = [pool.submit(_decode_chunk, chunk, file, image_shape, resizing) for chunk in chunks]
            yield from (future.result() for future in as_completed(futures))
        except BaseException as error:
            pool.shutdown(wait=False, cancel_futures=True)
            for process in context.spawned:
                process.kill()
            if isinstance(error, BrokenExecutor):
                raise WootzError("a process that decoded photographs died, perhaps since memory ran out") from error
            raise


def _decode_chunk(chunk: _Chunk, file: Path, image_shape: tuple[int, int, int], resizing: Resizing) -> _DecodedChunk:
    """Decodes photographs into their places in `file`."""
    digests, broken = [], {}
    with file.open("r+b") as stream:
        for start in range(0, len(chunk.photographs), CHUNK):
            some = chunk.photographs[start : start + CHUNK]
            images = np.zeros((len(some), *image_shape), np.uint8)
            for row, reason in _decode_into(images, some, resizing).items():
                broken[chunk.first + start + row] = reason
            stream.seek((chunk.first + start) * images[0].nbytes)
            stream.write(images.data)
            digests += [hashlib.sha256(image.data).digest() for image in images]
    return _DecodedChunk(chunk.first, np.frombuffer(b"".join(digests), np.uint8).reshape(-1, DIGEST_BYTES), broken)


def _decode_into(images: np.ndarray, photographs: Sequence[Photograph], resizing: Resizing) -> dict[int, str]:
    """Decodes photographs into rows; gives those that are broken, and the reason."""
    broken = {}
    for row, (photograph, source) in enumerate(zip(photographs, _sources(photographs), strict=True)):
        try:
            images[row] = decode(source, str(photograph), images.shape[1], resizing)
        except InputError as error:
            broken[row] = str(error)
    return broken


def _sources(photographs: Sequence[Photograph]) -> Iterator[str | IO[bytes]]:
    """What Pillow can open; a row group is read once for all photographs of it that follow each other."""
    for group, members in groupby(photographs, lambda p: (p.file, p.group) if isinstance(p, Cell) else None):
        if group is None:
            yield from (member for member in members if isinstance(member, str))
            continue
        from wootz.runtime.data.parquet import read_contents  # here: pyarrow is an extra, and takes a while

        contents = read_contents(*group)
        yield from (io.BytesIO(contents[member.row]) for member in members if isinstance(member, Cell))


def _broken_note(broken: Mapping[int, str], photographs: Sequence[Photograph]) -> tuple[str, ...]:
    """What is said of photographs that can't be read. Raises InputError for too many."""
    if not broken:
        return ()
    if len(broken) > MOST_BROKEN * len(photographs):
        row, reason = next(iter(broken.items()))
        name = str(photographs[row])
        said = reason.removeprefix(f"{name}: ")
        raise InputError(f"{said}; {len(broken):,} of {len(photographs):,} photographs are broken, more than 1 %", name)
    named = ", ".join(str(photographs[row]) for row in list(broken)[:SHOWN]) + (", …" if len(broken) > SHOWN else "")
    return (f"{len(broken):,} of {len(photographs):,} photographs can't be read and are left out: {named}.",)


def _split(part: Part, rows: Mapping[Photograph, int], decoded: Decoded) -> Split:
    found = np.array([rows[photograph] for photograph in part.photographs], np.int64)
    whole = ~np.isin(found, list(decoded.broken))
    return Split(part_of(decoded.images, found[whole]), None if part.labels is None else part.labels[whole])
